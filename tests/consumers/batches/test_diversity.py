"""The diversity of a batch, beside counting every pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.consumers.batches import diversity
from chunkdl.consumers.batches.batch import Batch
from chunkdl.consumers.batches.diversity import MEASURED_EVERY, Diversity, Footprints, Means
from chunkdl.errors import StateError
from chunkdl.transport.memory.layouts import RECORD

Records = npt.NDArray[Any]
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 25), st.integers(0, 25)),
    min_size=1,
    max_size=24,
)
"""BigChunk, patient, left and top of each row."""


def records_of(rows: list[tuple[int, int, int, int]]) -> Records:
    """The records of these rows."""
    records = np.zeros(len(rows), RECORD)
    for name, values in zip(
        ("bigchunk", "patient", "left", "top"), zip(*rows, strict=True), strict=True
    ):
        records[name] = values
    return records


def counted(records: Records, side_px: int) -> float:
    """The share of the pixels that another row shows too, pixel by pixel."""
    shared = 0
    for ordinal in np.unique(records["bigchunk"]):
        times = np.zeros((64, 64), int)
        for row in records[records["bigchunk"] == ordinal]:
            left, top = int(row["left"]), int(row["top"])
            times[top : top + side_px, left : left + side_px] += 1
        shared += int(times[times > 1].sum())
    return shared / (len(records) * side_px**2)


@given(rows=ROWS, side_px=st.integers(1, 20), boxes=st.sampled_from([1, 40, 2**20]))
def test_the_overlap_is_what_counting_the_pixels_gives(
    rows: list[tuple[int, int, int, int]], side_px: int, boxes: int
) -> None:
    """Pairs, many rows of one BigChunk, the same place twice; in pieces where memory needs it."""
    records = records_of(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diversity, "_MOST_BOXES", boxes)
        found = Footprints.of(records, side_px).diversity
    assert found.rows == len(rows)
    assert found.bigchunks == len({row[0] for row in rows})
    assert found.patients == len({row[1] for row in rows})
    assert found.overlap == pytest.approx(counted(records, side_px), abs=1e-12)


def test_the_extremes() -> None:
    """All rows the same place: everything twice. All from other BigChunks: nothing."""
    same = records_of([(5, 0, 7, 9)] * 6)
    assert Footprints.of(same, 8).diversity == Diversity(6, 1, 1, 1.0)
    apart = records_of([(ordinal, ordinal, 7, 9) for ordinal in range(6)])
    assert Footprints.of(apart, 8).diversity == Diversity(6, 6, 6, 0.0)


def test_where_rows_do_not_say_what_they_show_only_the_overlap_is_unknown() -> None:
    """Classes of the user, whose rows all have the corner 0."""
    found = Footprints.of(records_of([(1, 2, 0, 0)] * 3), 0).diversity
    assert (found.rows, found.bigchunks, found.patients) == (3, 1, 1)
    assert math.isnan(found.overlap)


def test_rows_of_several_services_share_nothing() -> None:
    """BigChunk 1 of one is not BigChunk 1 of the other; pixels are counted over all rows."""
    one = Footprints.of(records_of([(1, 0, 0, 0)] * 2), 8)
    other = Footprints.of(records_of([(1, 0, 0, 0), (2, 1, 0, 0)]), 8)
    batch = Batch({}, [], 0, footprints=(one, other))
    assert batch.diversity == Diversity(4, 3, 3, 0.5)


def test_a_batch_without_rows_has_none_and_changes_no_mean() -> None:
    """A rank gets one where the last rows of a pass are fewer than ranks."""
    nothing = Footprints.of(np.zeros(0, RECORD), 8)
    found = nothing.diversity
    assert (found.rows, found.bigchunks, found.patients) == (0, 0, 0)
    means = Means()
    means.see([nothing])
    assert math.isnan(means.mean.bigchunks)
    means.see([Footprints.of(records_of([(1, 0, 0, 0)] * 2), 8)])
    assert means.mean.bigchunks == 1


def test_the_means_are_those_of_every_32nd_batch() -> None:
    """The first one counts; batch i has i + 1 BigChunks."""
    means = Means()
    assert math.isnan(means.mean.overlap)
    for number in range(3 * MEASURED_EVERY):
        rows = [(ordinal, 0, 0, 0) for ordinal in range(number + 1)]
        means.see([Footprints.of(records_of(rows), 8)])
    seen = [number + 1 for number in range(0, 3 * MEASURED_EVERY, MEASURED_EVERY)]
    assert means.mean.bigchunks == sum(seen) / 3
    assert (means.mean.patients, means.mean.overlap) == (1, 0)


def test_a_batch_of_columns_alone_says_that_it_does_not_know() -> None:
    """Half of the rows of a batch have another diversity than the whole."""
    with pytest.raises(StateError, match="put together from columns"):
        _ = Batch({"x": np.arange(4)}).diversity
