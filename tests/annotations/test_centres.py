"""Objects as points, and how many of them one square can hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.annotations import centres
from chunkdl.annotations.centres import centres_of, most_together
from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.reading import annotations_of_geojson
from chunkdl.annotations.shapes import Objects
from tests.annotations.boxes import box

PLACES = st.lists(st.tuples(st.floats(0, 300), st.floats(0, 300)), min_size=1, max_size=30)


@given(PLACES, st.floats(0.5, 400))
def test_no_square_holds_more_than_the_bound(
    found: list[tuple[float, float]], side0: float
) -> None:
    """Wherever it lies; and some larger square holds so many."""
    places = np.array(found)
    bound = most_together(places, side0)
    # Of all squares one that holds the most begins at the x of a place and at the y of one.
    inside = [
        ((places >= (x, y)) & (places < (x + side0, y + side0))).all(axis=1).sum()
        for x in places[:, 0]
        for y in places[:, 1]
    ]
    larger = side0 * (1 + 2 / centres.PARTS)
    around = [
        ((places >= (x, y)) & (places <= (x + larger, y + larger))).all(axis=1).sum()
        for x in places[:, 0]
        for y in places[:, 1]
    ]
    assert max(inside) <= bound <= max(around)


def test_of_a_slide_with_many_parts_the_bound_is_coarser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than that memory runs out; it stays a bound."""
    places = np.random.default_rng(1).uniform(0, 1000, (500, 2))
    exact = most_together(places, 20.0)
    monkeypatch.setattr(centres, "MOST_PARTS", 100)
    assert exact <= most_together(places, 20.0) <= len(places)


def test_shapes_and_points_come_in_the_order_of_their_file() -> None:
    """A MultiPoint is several objects; what a program detected is asked for by itself."""
    points = {
        "type": "Feature",
        "geometry": {"type": "MultiPoint", "coordinates": [[5, 6], [7, 8.5]]},
        "properties": {"classification": {"name": "b"}},
    }
    cell = box(40, 40, 10, 10, "a")
    cell["properties"]["objectType"] = "detection"
    read = annotations_of_geojson(
        [box(10, 20, 10, 20, "a"), points, cell], "shapes", ReadingOptions()
    )
    expected: dict[Objects, list[tuple[float, float, str]]] = {
        "annotations": [(15, 30, "a"), (5, 6, "b"), (7, 8.5, "b")],
        "detections": [(45, 45, "a")],
        "all": [(15, 30, "a"), (5, 6, "b"), (7, 8.5, "b"), (45, 45, "a")],
    }
    for objects, listed in expected.items():
        found = centres_of(read, objects)
        names = [read.classes[index] for index in found.class_of]
        places = map(tuple, found.places.tolist())
        assert [(*place, name) for place, name in zip(places, names, strict=True)] == listed
