"""Where each annotation of a class is drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.reading import annotations_of_geojson
from chunkdl.annotations.use import Regions
from chunkdl.engine.work.slide_spots import SlideSpots
from chunkdl.errors import ConfigError, SlideError
from chunkdl.sampling.positions import PositionSet, positions_of
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.spots import Spots
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.tissue.mask import TissueMask
from tests.annotations.boxes import box

SIDE, DOWNSAMPLE = 64, 2.0
WIDTH, HEIGHT = 1000, 800
"""Target pixels; a cell has 8."""
ALL = TissueMask(np.ones((4, 4), np.bool_), int(WIDTH * DOWNSAMPLE), int(HEIGHT * DOWNSAMPLE))


def positions(mask: TissueMask = ALL) -> PositionSet:
    """Of a slide that is tissue wherever the mask says so."""
    return positions_of(TargetGrid(0, 1.0, WIDTH, HEIGHT, DOWNSAMPLE, None), mask, SIDE, 0.5)


def spots_of(
    features: list[dict[str, Any]],
    mask: TissueMask = ALL,
    drawn: str = "tumor",
    **regions: Any,
) -> Spots | None:
    """Of one class of a file; a target pixel is two level-0 pixels."""
    read = annotations_of_geojson(features, "shapes", ReadingOptions())
    every = np.ones(len(read.classes), np.bool_)
    of_class = np.array([name == drawn for name in read.classes])
    how = Regions({drawn: 1}, **{"draw": "annotations", **regions})
    return SlideSpots(read, every, of_class, how, positions(mask), lambda: None).spots()


def centres(spots: Spots | None, count: int = 4000) -> npt.NDArray[np.float64]:
    """Of drawn SmallChunks, level-0 pixels, (count, 2)."""
    assert spots is not None
    drawn = [spots.draw(generator(1, Purpose.WINDOW, ordinal)) for ordinal in range(count)]
    return (np.array(drawn) + SIDE / 2) * DOWNSAMPLE


def within(places: npt.NDArray[np.float64], x: float, y: float, right: float, bottom: float) -> int:
    """How many places lie in a rectangle."""
    inside = (places >= (x, y)) & (places < (right, bottom))
    return int(inside.all(axis=1).sum())


def point(x: float, y: float, name: str = "tumor", kind: str = "annotation") -> dict[str, Any]:
    """A feature of one point."""
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [x, y]},
        "properties": {"objectType": kind, "classification": {"name": name}},
    }


LARGE, SMALL = box(200, 160, 800, 640, "tumor"), box(1400, 400, 160, 128, "tumor")
CELL0 = 8 * DOWNSAMPLE
"""Side of a cell, level-0 pixels; what is drawn may lie as much beside an outline, over two."""


@pytest.mark.parametrize(("power", "share"), [(0, 1 / 2), (0.5, 1 / 6), (1, 1 / 26)])
def test_annotations_come_by_their_area_to_a_power(power: float, share: float) -> None:
    """One has 25 times the area of the other; the centre of a SmallChunk lies in it."""
    places = centres(spots_of([LARGE, SMALL], area_power=power))
    small = within(places, 1400 - CELL0, 400 - CELL0, 1560 + CELL0, 528 + CELL0)
    large = within(places, 200 - CELL0, 160 - CELL0, 1000 + CELL0, 800 + CELL0)
    assert small + large == len(places)
    assert stats.binomtest(small, len(places), share).pvalue > 1e-3


def test_in_an_annotation_every_place_is_equally_likely() -> None:
    """Chi-square over 5 x 4 parts of it, which are whole cells."""
    places = centres(spots_of([LARGE]), 20_000)
    left, top = places.min(axis=0) // CELL0 * CELL0
    columns, rows = ((places - (left, top)) / (160, 160)).astype(int).T
    counts = np.zeros((4, 5))
    np.add.at(counts, (np.minimum(rows, 3), np.minimum(columns, 4)), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_a_smaller_shape_hides_what_is_under_it() -> None:
    """Of its class and of another; nothing is drawn there for the shape under it."""
    hole = box(400, 320, 200, 160, "stroma")
    places = centres(spots_of([LARGE, hole]))
    assert within(places, 400 + CELL0, 320 + CELL0, 600 - CELL0, 480 - CELL0) == 0
    inner = box(400, 320, 200, 160, "tumor")
    places = centres(spots_of([LARGE, inner]))
    inside = within(places, 400 - CELL0, 320 - CELL0, 600 + CELL0, 480 + CELL0)
    # Half of all, and those of the large one that lie less than a cell beside it.
    assert 0.48 < inside / len(places) < 0.58


@pytest.mark.parametrize(
    "shape",
    [
        box(1501, 403, 3, 3, "tumor"),
        box(1204, 403, 300, 2, "tumor"),
        box(1501, 303, 2, 200, "tumor"),
    ],
    ids=["tiny", "flat", "narrow"],
)
def test_shapes_that_hold_no_middle_of_a_cell_come_as_often_as_others(
    shape: dict[str, Any],
) -> None:
    """From a cell that is over them."""
    places = centres(spots_of([LARGE, shape]))
    beside = places[places[:, 0] > 1100]
    assert stats.binomtest(len(beside), len(places), 0.5).pvalue > 1e-3
    assert within(beside, 1204 - CELL0, 303 - CELL0, 1504 + CELL0, 503 + CELL0) == len(beside)


def test_what_is_wholly_hidden_or_has_no_tissue_is_not_drawn() -> None:
    """And the others keep their proportions."""
    over = [box(1400 + x, 400, 80, 128, "stroma") for x in (0, 80)]
    assert len({*map(tuple, centres(spots_of([LARGE, SMALL, *over])))}) > 100
    assert within(centres(spots_of([LARGE, SMALL, *over])), 1300, 0, 2000, 1600) == 0
    left = TissueMask(np.array([[True, False]]), ALL.width0, ALL.height0)
    assert within(centres(spots_of([LARGE, SMALL], left)), 1300, 0, 2000, 1600) == 0
    right = TissueMask(np.array([[False, True]]), ALL.width0, ALL.height0)
    assert spots_of([box(100, 100, 200, 200, "tumor")], right) is None


def test_points_and_centroids_are_the_middle_of_the_smallchunk() -> None:
    """To a target pixel; each point of a MultiPoint is one."""
    several = {
        "type": "Feature",
        "geometry": {"type": "MultiPoint", "coordinates": [[500, 600], [700, 900]]},
        "properties": {"objectType": "annotation", "classification": {"name": "tumor"}},
    }
    found = np.unique(
        centres(spots_of([SMALL, point(300, 400), several], draw="centroids")), axis=0
    )
    assert found.tolist() == [[300, 400], [500, 600], [700, 900], [1480, 464]]
    inside = centres(spots_of([point(300, 400), SMALL]))
    assert within(inside, 300, 400, 301, 401) == pytest.approx(len(inside) / 2, rel=0.1)


def test_every_distance_of_the_jitter_is_equally_likely() -> None:
    """In x and in y, on both sides, ends included; however the cells lie."""
    offsets = (
        centres(spots_of([point(444, 444)], draw="centroids", jitter_px=9), 20_000) - 444
    ) / 2
    for along in offsets.T:
        counts = np.bincount(along.astype(int) + 9)
        assert len(counts) == 19
        assert stats.chisquare(counts).pvalue > 1e-3


def test_points_at_the_edge_keep_the_smallchunk_inside_the_slide() -> None:
    """With as much of the jitter as there is room for, and not at all without any."""
    assert spots_of([point(20, 20)], draw="centroids") is None
    places = centres(spots_of([point(50, 50)], draw="centroids", jitter_px=20))
    assert places.min() == SIDE / 2 * DOWNSAMPLE
    assert places.max() == 50 + 2 * 20


def test_detections_are_drawn_where_they_are_asked_for() -> None:
    """As QuPath exports cells; what is annotated is another thing."""
    cell = box(600, 600, 16, 16, "tumor")
    cell["properties"]["objectType"] = "detection"
    shapes = [SMALL, cell]
    for objects, expected in [
        ("annotations", [[1480, 464]]),
        ("detections", [[608, 608]]),
        ("all", [[608, 608], [1480, 464]]),
    ]:
        found = centres(spots_of(shapes, draw="centroids", objects=objects), 200)
        assert np.unique(found, axis=0).tolist() == expected


def test_many_annotations_take_a_few_spots_each() -> None:
    """20,000 cells, and a region over the whole slide."""
    rng = np.random.default_rng(3)
    corners = rng.uniform(100, 1400, (20_000, 2)).tolist()
    shapes = [box(x, y, 9, 9, "tumor") for x, y in corners]
    spots = spots_of([*shapes, box(0, 0, 2000, 1600, "stroma")])
    assert spots is not None
    assert len(spots.left) < 60_000
    assert spots.nbytes == 40 * len(spots.left)


def test_more_spots_than_memory_is_made_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they are made, with what to do."""
    monkeypatch.setattr("chunkdl.engine.work.slide_spots.MOST_SPOTS", 50)
    points = [point(200 + 10 * number, 500) for number in range(40)]
    with pytest.raises(SlideError, match="lower jitter_px"):
        spots_of(points, draw="centroids", jitter_px=9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"draw": "shapes"}, "draw='shapes' is unknown"),
        ({"draw": "annotations", "area_power": 2}, "area_power=2 must be a number from 0 to 1"),
        ({"draw": "centroids", "jitter_px": -1}, "jitter_px=-1 must be a whole number"),
        ({"jitter_px": 4}, 'need draw="annotations" or "centroids"'),
        ({"draw": "centroids", "share": 0.9}, "the centre of a SmallChunk is what counts"),
        ({"draw": "annotations", "objects": "detections"}, 'needs draw="centroids"'),
        ({"draw": "centroids", "objects": "cells"}, "objects='cells' is unknown"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], message: str) -> None:
    """By name, with the choices."""
    with pytest.raises(ConfigError, match=message):
        Regions({"tumor": 1}, **given)
