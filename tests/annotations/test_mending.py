"""Polygons that are not sound are mended and told, or left out and told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.annotations import mending
from chunkdl.annotations.shapes import UNITS, Annotations
from chunkdl.errors import AnnotationError
from tests.annotations.drawings import Ring, drawn, feature, square, whole

TUMOR = feature(square(2, 2, 20), name="tumor")


def raw(*rings: Any) -> dict[str, Any]:
    """A polygon whose rings are not closed first."""
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [list(ring) for ring in rings]},
    }


def test_a_ring_that_is_not_closed_is_closed_and_told() -> None:
    """Programs forget the last place."""
    found = drawn(raw(square(0, 0, 5)[:-1]))
    assert found.areas.tolist() == [25]
    assert found.notes == ("feature 0: a ring did not end where it began; closed",)


def test_an_outline_that_crosses_itself_is_inside_wherever_it_goes_around() -> None:
    """A figure of eight has two lobes; where a hand went around twice is no hole."""
    eight = feature([(0, 0), (10, 10), (10, 0), (0, 10)])
    twice = feature([(0, 0), (30, 0), (30, 30), (10, 30), (10, -10), (20, -10), (20, 20), (0, 20)])
    found = drawn(eight, twice)
    assert found.areas[0] == 50
    assert (
        found.areas[1]
        == shapely.make_valid(
            shapely.Polygon(twice["geometry"]["coordinates"][0]), method="structure"
        ).area
    )
    assert found.notes == (
        "features 0 ('an id'), 1 ('an id'): its outline crosses or touches itself; mended",
    )


def test_what_cannot_be_mended_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the feature; the geometry library may give up."""

    def give_up(*_: Any) -> Any:
        raise shapely.errors.GEOSException("TopologyException")

    monkeypatch.setattr(mending, "_mend", give_up)
    with pytest.raises(AnnotationError, match="cannot be mended: TopologyException") as caught:
        drawn(TUMOR, feature([(0, 0), (10, 10), (10, 0), (0, 10)]))
    assert caught.value.feature == "1 ('an id')"


def test_parts_that_overlap_are_one_area() -> None:
    """Of a MultiPolygon; even-odd alone would make a hole of what is in both."""
    geometry = {"type": "MultiPolygon", "coordinates": [[square(0, 0, 20)], [square(10, 10, 20)]]}
    found = drawn({"type": "Feature", "geometry": geometry})
    assert found.areas.tolist() == [700]
    assert (whole(found) != 0).sum() == 700
    assert found.notes == ("feature 0: its parts overlap, or share an edge; united",)


def test_a_hole_outside_its_outline_takes_nothing_and_adds_nothing() -> None:
    """Neither where it lies apart nor where it reaches out."""
    found = drawn(
        feature(square(0, 0, 20), square(30, 30, 5)), feature(square(0, 0, 20), square(10, 10, 20))
    )
    assert found.areas.tolist() == [400, 300]


def test_rings_without_an_inside_are_left_out_and_told() -> None:
    """A hole of two places, an outline on a line or of one place, and what is left of them."""
    found = drawn(
        feature(square(0, 0, 20), [(5, 5), (6, 6)]),
        feature([(0, 0), (10, 10), (5, 5)]),
        feature([(3, 3), (3, 3), (3, 3)]),
        feature([(3, 3), (3.001, 3), (3, 3.001)], square(0, 0, 9)),
        TUMOR,
    )
    assert found.numbers.tolist() == [0, 4]
    assert found.areas.tolist() == [400, 400]
    assert len(found.rings) - 1 == 2
    told = " ".join(found.notes)
    assert "features 0 ('an id'), 2 ('an id'), 3 ('an id'): a ring has fewer than three" in told
    assert "nothing of it has an inside; left out" in told


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), None])
def test_a_feature_with_a_place_that_is_no_number_is_left_out_and_told(bad: Any) -> None:
    """Whole: without that place it would have another shape."""
    found = drawn(
        raw([[0, 0], [5, bad], [5, 5], [0, 0]]),
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [bad, 3]}},
        TUMOR,
    )
    assert found.numbers.tolist() == [2]
    assert len(found.points) == 0
    assert found.notes == ("features 0, 1: a coordinate is not a finite number; left out",)


def test_places_beyond_every_slide_are_refused() -> None:
    """They are in other units, or nonsense."""
    with pytest.raises(AnnotationError, match=r"feature 1 .*\]") as caught:
        drawn(TUMOR, feature(square(1e9, 0, 5)))
    assert "coordinates must be level-0 pixels" in str(caught.value)
    with pytest.raises(AnnotationError):
        drawn(feature(square(2**24 - 5, 0, 6)))
    at_the_end = drawn(feature(square(2**24 - 5, -(2**24), 5)))
    assert at_the_end.areas.tolist() == [25]


def test_repeated_places_are_passed_over() -> None:
    """Also over the end of the ring."""
    found = drawn(raw([(0, 0), (0, 0), (5, 0), (5, 5), (5, 5), (0, 5), (0, 0), (0, 0)]))
    assert found.vertices.tolist() == [[0, 0], [320, 0], [320, 320], [0, 320]]
    assert found.notes == ()


PLACES = st.integers(0, 12).map(float)
RINGS = st.lists(st.tuples(PLACES, PLACES), min_size=1, max_size=9)


@given(st.lists(st.lists(RINGS, min_size=1, max_size=3), min_size=1, max_size=3))
def test_whatever_is_drawn_what_is_left_is_sound(polygons: list[list[Ring]]) -> None:
    """Offsets and boxes fit, and the area is that of the shapes, up to a step along them."""
    coordinates = [[[list(at) for at in ring] for ring in rings] for rings in polygons]
    found = drawn(
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": coordinates}}
    )
    assert_sound(found)
    if len(found):
        expected = shapely.union_all([filled(rings) for rings in polygons]).area
        # A crossing is moved by half a step at most.
        length = sum(shapely.LinearRing([*r, r[0]]).length for r in polygons[0] if len(r) > 2)
        assert abs(found.areas[0] - expected) <= (length + 200) / UNITS


def filled(rings: list[Ring]) -> Any:
    """The area of one polygon, by shapely alone."""
    outer, *holes = rings
    if len(set(outer)) < 3:
        return shapely.Polygon()
    area = shapely.make_valid(shapely.Polygon(outer), method="structure")
    for hole in holes:
        if len(set(hole)) > 2:
            area -= shapely.make_valid(shapely.Polygon(hole), method="structure")
    return area


def assert_sound(found: Annotations) -> None:
    """Offsets fit, rings have three places, areas are above 0, boxes hold what they are of."""
    assert found.rings[0] == found.features[0] == 0
    assert found.rings[-1] == len(found.vertices)
    assert found.features[-1] == len(found.rings) - 1
    assert (np.diff(found.rings) >= 3).all()
    for index in range(len(found)):
        rings = found.rings_of(index)
        low = np.min([ring.min(axis=0) for ring in rings], axis=0)
        high = np.max([ring.max(axis=0) for ring in rings], axis=0)
        assert (found.boxes[index] / UNITS).tolist() == [*low, *high]


def test_chunks_say_how_much_is_done_together_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same annotations, however many features are looked at in one call."""
    rng = np.random.default_rng(1)
    features = [feature(rng.integers(0, 40, (5, 2)).tolist(), name="abc"[i % 3]) for i in range(50)]
    expected = drawn(*features)
    monkeypatch.setattr(mending, "CHUNK_FEATURES", 3)
    assert drawn(*features).digest() == expected.digest()
    monkeypatch.setattr(mending, "CHUNK_VERTICES", 7)
    assert drawn(*features).digest() == expected.digest()
    assert len(expected.notes) >= 1


def test_without_shapely_polygons_are_refused_and_points_are_read(tmp_path: Path) -> None:
    """With the extra to install; the same polygons on another machine are never others."""
    (tmp_path / "shapely.py").write_text("raise ImportError('not here')")
    program = (
        "from chunkdl.annotations.reading import annotations_of_geojson as read\n"
        "from chunkdl.errors import ConfigError\n"
        "print(len(read({'type': 'Point', 'coordinates': [1, 2]}, 'a')))\n"
        "try:\n"
        "    read({'type': 'Polygon', 'coordinates': [[[0, 0], [1, 0], [1, 1], [0, 0]]]}, 'a')\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{program}"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    count, said = done.stdout.splitlines()
    assert count == "1"
    assert "pip install 'chunkdl[annotations]'" in said
