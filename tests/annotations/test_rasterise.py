"""Rasters of annotations: exact by pixel centres, and the same bytes from any origin."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.annotations import rasterise as rasterise_module
from chunkdl.annotations.rasterise import rasterise
from chunkdl.annotations.shapes import UNITS, Annotations
from chunkdl.errors import ConfigError
from tests.annotations.drawings import Ring, drawn, feature, square, star, whole


def polygon_of(annotations: Annotations, index: int) -> Any:
    """One feature in shapely."""
    outer, *holes = annotations.rings_of(index)
    return shapely.Polygon(outer, holes)


def random_features(count: int, seed: int) -> list[dict[str, Any]]:
    """Stars with up to three holes, each in a cell of its own of 100 px."""
    rng = np.random.default_rng(seed)
    features = []
    for index in range(count):
        x, y = 50 + 100 * (index % 32), 50 + 100 * (index // 32)
        rings = [star(rng, x, y, rng.uniform(10, 48), int(rng.integers(12, 60)))]
        inner = shapely.Polygon(rings[0])
        for turn in range(int(rng.integers(0, 4))):
            angle = 2 * np.pi * turn / 3
            hole = star(rng, x + 4 * np.cos(angle), y + 4 * np.sin(angle), 3, 8)
            if inner.contains(shapely.Polygon(hole)):
                rings.append(hole)
        features.append(feature(*rings, name="a"))
    return features


def test_the_area_is_within_half_a_pixel_times_the_perimeter() -> None:
    """Of each of 1,000 random polygons with holes, at a random downsample, against shapely."""
    annotations = drawn(*random_features(1000, seed=1))
    assert len(annotations) == 1000
    assert len(annotations.rings) - 1 > 1500
    assert annotations.notes == ()
    rng = np.random.default_rng(2)
    for index in range(1000):
        polygon = polygon_of(annotations, index)
        downsample = float(rng.uniform(0.3, 6))
        left, top = (int(bound // downsample) - 2 for bound in polygon.bounds[:2])
        side = int(104 / downsample) + 5
        raster = rasterise(
            annotations, downsample=downsample, origin=(left, top), size=(side, side)
        )
        # Neighbours lie in cells of their own.
        ys, xs = np.nonzero(raster)
        centres = (xs + left + 0.5) * downsample, (ys + top + 0.5) * downsample
        own = shapely.intersects_xy(shapely.box(*polygon.bounds), *centres)
        area = own.sum() * downsample**2
        assert abs(area - polygon.area) <= 0.5 * downsample * polygon.length


def test_a_pixel_is_inside_exactly_if_its_centre_is() -> None:
    """Against shapely's test of points, at every centre that is on no edge."""
    annotations = drawn(*random_features(60, seed=3))
    for downsample in (1.0, 0.7, 3.1):
        width, height = int(3200 / downsample), int(200 / downsample)
        raster = rasterise(annotations, downsample=downsample, origin=(0, 0), size=(width, height))
        x, y = np.meshgrid(*((np.arange(n) + 0.5) * downsample for n in (width, height)))
        polygons = shapely.union_all([polygon_of(annotations, at) for at in range(60)])
        shapely.prepare(polygons)
        assert (raster != 0).sum() > 50_000 / downsample**2
        differ = (raster != 0) != shapely.intersects_xy(polygons, x, y)
        edges = shapely.distance(polygons.boundary, shapely.points(x[differ], y[differ]))
        assert (edges < 1e-9).all()


def crossings(annotations: Annotations, index: int, x: Fraction, y: Fraction) -> int:
    """How often the ray to the left crosses the feature, in exact numbers."""
    count = 0
    for ring in range(annotations.features[index], annotations.features[index + 1]):
        at = annotations.vertices[annotations.rings[ring] : annotations.rings[ring + 1]].tolist()
        for (x0, y0), (x1, y1) in zip(at, [*at[1:], at[0]], strict=True):
            if (y0 <= y) != (y1 <= y):
                count += x0 + (y - y0) * Fraction(x1 - x0, y1 - y0) <= x
    return count


@pytest.mark.parametrize("downsample", [1.0, 0.5, 2.0, 1.25])
def test_centres_on_edges_and_corners_are_decided_exactly(downsample: float) -> None:
    """On whole and half coordinates most edges go through centres; exact fractions agree."""
    rng = np.random.default_rng(4)
    features = []
    for _ in range(60):
        corners = rng.integers(0, 48, (int(rng.integers(3, 9)), 2)) / 2
        features.append(feature(corners.tolist()))
    for one in features:
        annotations = drawn(one)
        if not len(annotations):
            continue
        side = int(26 / downsample)
        raster = rasterise(annotations, downsample=downsample, origin=(-1, -1), size=(side, side))
        step = Fraction(downsample) * UNITS
        for row, column in np.ndindex(raster.shape):
            x, y = (Fraction(2 * at - 1, 2) * step for at in (column, row))
            assert raster[row, column] == crossings(annotations, 0, x, y) % 2


PLACES = st.floats(-40, 90, allow_nan=False)
RINGS = st.lists(st.tuples(PLACES, PLACES), min_size=3, max_size=12)


@given(
    st.lists(st.tuples(RINGS, st.sampled_from("abc")), min_size=1, max_size=5),
    st.floats(0.2, 9),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(-5, 20),
)
def test_the_bytes_are_the_same_from_any_origin(
    rings: list[tuple[Ring, str]], downsample: float, wide: int, high: int, from_: int
) -> None:
    """A raster that is put together from tiles of any size is the raster."""
    annotations = drawn(*(feature(ring, name=name) for ring, name in rings))
    side = 44
    one = rasterise(annotations, downsample=downsample, origin=(from_, -7), size=(side, side))
    tiles = np.empty_like(one)
    for top in range(0, side, high):
        for left in range(0, side, wide):
            size = (min(wide, side - left), min(high, side - top))
            tile = rasterise(
                annotations, downsample=downsample, origin=(from_ + left, top - 7), size=size
            )
            tiles[top : top + high, left : left + wide] = tile
    assert tiles.tobytes() == one.tobytes()


@given(st.lists(st.tuples(PLACES, PLACES), min_size=1, max_size=8), st.floats(0.2, 3))
def test_neighbours_share_every_pixel_of_their_border(
    border: list[tuple[float, float]], downsample: float
) -> None:
    """Drawn in opposite directions, two polygons along one line have no pixel twice, and no gap."""
    line = [(x, -50.0 + 150 * i / len(border)) for i, (x, _) in enumerate(sorted(border))]
    line.append((20.0, 100.0))
    left = [(-60.0, -50.0), *line, (-60.0, 100.0)]
    right = [*line[::-1], (120.0, -50.0), (120.0, 100.0)]
    where: dict[str, Any] = {"downsample": downsample, "origin": (-9, -8), "size": (60, 60)}
    both = [rasterise(drawn(feature(ring)), **where) for ring in (left, right)]
    inside = rasterise(
        drawn(feature([(-60.0, -50.0), (120.0, -50.0), (120.0, 100.0), (-60.0, 100.0)])), **where
    )
    np.testing.assert_array_equal(both[0] + both[1], inside)


@pytest.mark.parametrize("downsample", [0.1, 0.3, 0.7, 1 / 3])
def test_centres_on_a_diagonal_are_decided_the_same_from_everywhere(downsample: float) -> None:
    """Where rounding could decide: in both neighbours, and in every window."""
    ring = [(-50.0, -50.0), (61.0, 61.0), (61.0, -50.0)]
    upper, lower = drawn(feature(ring)), drawn(feature([(y, x) for x, y in ring[::-1]]))
    side = int(60 / downsample)
    where: dict[str, Any] = {"downsample": downsample, "size": (side, side)}
    for origin in (int(-49 / downsample), -13, 0):
        both = [rasterise(one, origin=(origin, origin), **where) for one in (upper, lower)]
        assert (both[0] + both[1] == 1).all()
        for at in range(0, side, 7):
            place = (origin + at, origin + at)
            pixel = rasterise(upper, downsample=downsample, origin=place, size=(1, 1))
            assert pixel[0, 0] == both[0][at, at]


@pytest.mark.parametrize("downsample", [0.5, 1.0, 2.6])
def test_windows_of_one_row_or_column_leave_nothing_out(
    downsample: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many small features on whole and half pixels, and of large rings, none is passed over."""
    rng = np.random.default_rng(8)
    corners = rng.integers(0, 90, (150, 1, 2)) / 2 + rng.integers(-6, 7, (150, 4, 2)) / 2
    annotations = drawn(
        *(feature(ring.tolist(), name="abc"[i % 3]) for i, ring in enumerate(corners))
    )
    side = int(50 / downsample)
    whole = rasterise(annotations, downsample=downsample, origin=(-2, -2), size=(side, side))
    for large_ring in (10**6, 1):
        monkeypatch.setattr(rasterise_module, "LARGE_RING", large_ring)
        for at in range(side):
            where: dict[str, Any] = {"downsample": downsample}
            row = rasterise(annotations, origin=(-2, at - 2), size=(side, 1), **where)
            column = rasterise(annotations, origin=(at - 2, -2), size=(1, side), **where)
            assert row[0].tobytes() == whole[at].tobytes()
            assert column[:, 0].tobytes() == whole[:, at].tobytes()


def test_overlapping_features_lie_over_each_other_as_stated() -> None:
    """Unclassified ones below, then by area, then the classes of `order`."""
    features = [
        feature(square(20, 20, 38)),
        feature(square(10, 10, 40), name="a"),
        feature(square(0, 0, 41), name="b"),
    ]
    for exported in (features, features[::-1]):
        annotations = drawn(*exported)
        assert annotations.classes == ("a", "b", "unclassified")
        assert [whole(annotations)[y, y] for y in (5, 15, 25, 45, 55)] == [2, 1, 1, 1, 3]
        turned = whole(annotations, order=("a", "b"))
        assert [turned[y, y] for y in (5, 15, 25, 45, 55)] == [2, 2, 2, 1, 3]
        last = whole(annotations, order=("unclassified", "of another slide"))
        assert [last[y, y] for y in (5, 15, 25, 45, 55)] == [2, 1, 3, 3, 3]
    equal = drawn(feature(square(0, 0, 40), name="b"), feature(square(0, 0, 40), name="a"))
    assert whole(equal)[0, 0] == 1


def test_detections_are_drawn_only_where_they_are_asked_for() -> None:
    """Cells inside a tumour do not make holes in its label."""
    annotations = drawn(
        feature(square(0, 0, 40), name="tumor"),
        feature(square(10, 10, 5), name="lymphocyte", kind="cell"),
        feature(square(20, 10, 5), kind="detection"),
    )
    assert (whole(annotations) != 0).sum() == 1600
    assert set(np.unique(whole(annotations))) == {0, 2}
    assert (whole(annotations, objects="detections") != 0).sum() == 50
    assert set(np.unique(whole(annotations, objects="all"))) == {0, 1, 2}


def test_the_numbers_say_how_much_is_done_together_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks of features and bands of rows give the bytes of one block."""
    annotations = drawn(*random_features(96, seed=5), feature(square(90, 3, 150), name="b"))
    size: dict[str, Any] = {"downsample": 1.7, "origin": (3, 2), "size": (1500, 180)}
    expected = rasterise(annotations, **size)
    monkeypatch.setattr(rasterise_module, "MOST_VERTICES", 50)
    monkeypatch.setattr(rasterise_module, "MOST_CROSSINGS", 30)
    assert rasterise(annotations, **size).tobytes() == expected.tobytes()
    monkeypatch.setattr(rasterise_module, "LARGE_RING", 3)
    assert rasterise(annotations, **size).tobytes() == expected.tobytes()


def independent_labels(
    annotations: Annotations, downsample: float, side: int
) -> npt.NDArray[np.uint8]:
    """Feature by feature, the largest first, by shapely's test of points."""
    out = np.zeros((side, side), np.uint8)
    x, y = np.meshgrid(*((np.arange(side) + 0.5) * downsample,) * 2)
    polygons = [polygon_of(annotations, index) for index in range(len(annotations))]
    for index in sorted(range(len(annotations)), key=lambda index: -polygons[index].area):
        inside = shapely.intersects_xy(polygons[index], x, y)
        out[inside] = annotations.class_of[index] + 1
    return out


def test_labels_of_overlapping_classes_are_those_of_another_rasteriser() -> None:
    """Of 200 stars of nine classes on one place, at odd downsamples: no centre lies on an edge."""
    rng = np.random.default_rng(6)
    stars = []
    for _ in range(200):
        x, y = rng.uniform(0, 400, 2)
        ring = star(rng, x, y, rng.uniform(5, 90), 20)
        stars.append(feature(ring, name=f"class {rng.integers(9)}"))
    annotations = drawn(*stars)
    for downsample in (1.037, 4.71):
        side = int(400 / downsample)
        raster = rasterise(annotations, downsample=downsample, origin=(0, 0), size=(side, side))
        expected = independent_labels(annotations, downsample, side)
        assert raster.tobytes() == expected.tobytes()
        assert len(np.unique(raster)) == 10


def test_both_axes_may_have_their_own_downsample() -> None:
    """As of slides whose pixels are not square."""
    annotations = drawn(feature(square(0, 0, 40), name="a"))
    raster = rasterise(annotations, downsample=(2, 5), origin=(0, 0), size=(30, 30))
    assert (raster != 0).sum() == 20 * 8
    assert raster[:8, :20].all()


def test_far_places_are_as_exact_as_near_ones() -> None:
    """At the end of the largest slide a triangle has the pixels that it has at its start."""
    ring = [(3.0, 2.0), (60.5, 31.25), (11.0, 57.0)]
    far = 2**23
    near = whole(drawn(feature(ring)))
    moved = drawn(feature([(x + far, y + far) for x, y in ring]))
    raster = rasterise(moved, downsample=1, origin=(far, far), size=(64, 64))
    assert raster.tobytes() == near.tobytes()
    assert near.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"downsample": 0}, "downsample=0"),
        ({"downsample": float("nan")}, "downsample=nan"),
        ({"downsample": (1, -2)}, "above 0"),
        ({"size": (0, 3)}, r"size=\(0, 3\)"),
        ({"size": (2**20, 2**20)}, "pixels together"),
        ({"origin": (2**50, 0)}, "origin"),
        ({"objects": "cells"}, "objects='cells'"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], said: str) -> None:
    """Before anything is made."""
    arguments: dict[str, Any] = {"downsample": 1, "origin": (0, 0), "size": (4, 4)}
    with pytest.raises(ConfigError, match=said):
        rasterise(drawn(feature(square(0, 0, 9))), **{**arguments, **change})


def test_nothing_is_zero_everywhere() -> None:
    """Without features, beside them, and of points only."""
    assert not whole(drawn()).any()
    assert not whole(drawn(feature(square(900, 900, 9)))).any()
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [5, 5]}}
    assert not whole(drawn(point)).any()
