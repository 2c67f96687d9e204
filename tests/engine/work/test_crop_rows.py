"""Crops out of a BigChunk against plain slicing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkdl.engine.work.crop_rows import fill_rows
from chunkdl.transport.memory.layouts import (
    RECORD,
    Array,
    BatchLayout,
    BatchView,
    BigChunkLayout,
    BigChunkView,
)
from chunkdl.transport.protocol.engine_messages import RowGroup
from chunkdl.transport.row_format import RowFormat


def bigchunk_of(
    image: Array, strip_px: int, corners: list[tuple[int, int]], rng: np.random.Generator
) -> BigChunkView:
    """A filled slot: the image in strips, a record per corner."""
    side = image.shape[0]
    layout = BigChunkLayout(side, len(corners))
    view = layout.view(np.zeros(layout.slot_bytes, np.uint8))
    view.strip_px[0] = strip_px
    for strip in range(side // strip_px):
        view.strips().array[strip] = image[:, strip * strip_px : (strip + 1) * strip_px]
    noise = rng.integers(0, 256, view.records.nbytes, dtype=np.uint8)
    view.records[:] = noise.view(RECORD)
    view.records["left"], view.records["top"] = np.array(corners, dtype=np.int32).T
    return view


def batch_of(rows: int, side: int, rng: np.random.Generator) -> BatchView:
    """A slot with the noise of an earlier batch in it."""
    layout = BatchLayout(rows, RowFormat.of_crops(side))
    return layout.view(rng.integers(0, 256, layout.slot_bytes, dtype=np.uint8))


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(0, 2**32))
def test_a_crop_is_the_slice_of_the_image_and_nothing_else_is_written(
    data: st.DataObject, seed: int
) -> None:
    """For any width of strips, any corner, any rows and calls; records come along whole."""
    rng = np.random.default_rng(seed)
    strip_px, strips = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 6))
    whole = strip_px * strips
    side = data.draw(st.integers(1, whole))
    place = st.integers(0, whole - side)
    corners = data.draw(st.lists(st.tuples(place, place), min_size=1, max_size=6))
    count = data.draw(st.integers(1, 8))
    rows = data.draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count))
    calls = [data.draw(st.integers(0, len(corners) - 1)) for _ in rows]
    image = rng.integers(0, 256, (whole, whole, 3), dtype=np.uint8)
    bigchunk, batch = bigchunk_of(image, strip_px, corners, rng), batch_of(count, side, rng)
    source = bigchunk.pixels.copy(), bigchunk.records.tobytes()
    expected, records = batch.columns["image"].copy(), batch.records.copy()
    for row, call in zip(rows, calls, strict=True):
        left, top = corners[call]
        expected[row] = image[top : top + side, left : left + side]
        records[row] = bigchunk.records[call]

    group = RowGroup(
        5, 0, np.array(rows, dtype=np.int32).tobytes(), np.array(calls, dtype=np.int32).tobytes()
    )
    fill_rows(group, bigchunk, batch)

    assert (batch.columns["image"] == expected).all()
    assert batch.records.tobytes() == records.tobytes()
    assert (bigchunk.pixels == source[0]).all()
    assert bigchunk.records.tobytes() == source[1]
