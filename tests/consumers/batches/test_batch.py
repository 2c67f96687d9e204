"""How bytes lie in slots, and how batches and SmallChunks look to the user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkdl.consumers.batches.batch import Batch, SmallChunks
from chunkdl.dataset.patients import Patient
from chunkdl.patches.chunks import SmallChunk
from chunkdl.transport.memory.layouts import COLUMNS, RECORD, Array, BatchLayout, BigChunkLayout
from chunkdl.transport.row_format import ColumnFormat, RowFormat

LINE = 64


def address(part: Array) -> int:
    """Where an array begins."""
    return int(part.__array_interface__["data"][0])


def slot_of(size: int) -> Array:
    """Bytes that begin on a cache line, as a slot does."""
    whole = np.zeros(size + LINE, np.uint8)
    shift = -address(whole) % LINE
    return whole[shift : shift + size]


def assert_apart(slot: Array, parts: list[Array]) -> None:
    """The parts lie in the slot, each at a multiple of its number's size, none in another."""
    at = address(slot)
    ends = at
    for part in sorted(parts, key=address):
        assert address(part) >= ends
        assert np.shares_memory(part, slot)
        ends = address(part) + part.nbytes
    assert ends <= at + slot.nbytes


@given(st.integers(1, 300), st.integers(1, 200))
@settings(deadline=None)
def test_the_parts_of_a_bigchunk_slot_do_not_overlap(side: int, calls: int) -> None:
    """Strip width, one record per call, and room for all pixels."""
    layout = BigChunkLayout(side, calls)
    slot = slot_of(layout.slot_bytes)
    view = layout.view(slot)
    assert_apart(slot, [view.strip_px, view.records, view.pixels])
    assert (view.strip_px.shape, view.records.shape) == ((1,), (calls,))
    assert view.pixels.shape == (side * side * 3,)
    assert address(view.records) % LINE == 0


@given(st.integers(1, 100), st.integers(1, 60))
@settings(deadline=None)
def test_the_parts_of_a_batch_slot_do_not_overlap(rows: int, side: int) -> None:
    """One record per row, and each column on a cache line, whatever lies before it."""
    columns = (
        ColumnFormat("image", "<f4", (side, 3)),
        ColumnFormat("context", "|u1", (side, 1)),
        ColumnFormat("score", "<f8", ()),
    )
    layout = BatchLayout(rows, RowFormat(columns), info_bytes=side)
    slot = slot_of(layout.slot_bytes)
    view = layout.view(slot)
    assert_apart(slot, [view.records, view.infos, *view.columns.values()])
    assert (view.records.shape, view.infos.shape) == ((rows,), (rows, side))
    for column in columns:
        data = view.columns[column.name]
        assert (data.dtype, data.shape) == (np.dtype(column.dtype), (rows, *column.shape))
        assert address(data) % LINE == 0
    part = layout.parts(slot, rows // 2, 1)
    views = view.records, *view.columns.values()
    assert [address(piece) for piece in part] == [address(one[rows // 2 :]) for one in views]
    assert [piece.nbytes for piece in part] == [one[:1].nbytes for one in views]


def test_every_column_of_a_record_can_be_read_as_it_lies() -> None:
    """No field of a record overlaps another, and 8-byte numbers lie on 8 bytes."""
    fields = sorted((offset, kind.itemsize) for kind, offset in _fields().values())
    assert all(low + size <= high for (low, size), (high, _) in pairwise(fields))
    assert all(offset % size == 0 for offset, size in fields)
    assert RECORD.itemsize % 8 == 0
    assert set(_fields()) == {*dict(COLUMNS), "left", "top"}


def _fields() -> dict[str, tuple[np.dtype[Any], int]]:
    assert RECORD.fields is not None
    return {name: (field[0], field[1]) for name, field in RECORD.fields.items()}


def test_strips_lie_side_by_side() -> None:
    """A region of width 6 in strips of 2: column c is column c mod 2 of strip c div 2."""
    layout = BigChunkLayout(6, 1)
    view = layout.view(slot_of(layout.slot_bytes))
    view.strip_px[0] = 2
    strips = view.strips().array
    assert strips.shape == (3, 6, 2, 3)
    assert np.shares_memory(strips, view.pixels)
    strips[2, 5, 1] = 9
    assert (view.pixels[-3:] == 9).all()


class Column:
    """A column that says which rows were looked at."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.looked: list[int] = []

    def __getitem__(self, row: int) -> np.float64:
        self.looked.append(row)
        return np.float64(self.values[row])


@pytest.fixture
def batch() -> Batch:
    """Three rows of two patients."""
    names = ("x", "y", "level", "mpp", "tissue_fraction", "call", "bigchunk")
    columns: dict[str, Any] = {name: Column([1.5, 2.5, 3.5]) for name in names}
    columns["slide"] = ["a.svs", "b.svs", "a.svs"]
    one, two = Patient(1, {}), Patient(2, {})
    return Batch(columns, [one, two, one], number=7)


def test_a_batch_is_a_mapping_of_its_columns(batch: Batch) -> None:
    """In their order, with rows and number beside them; printed without its pixels."""
    assert isinstance(batch, Mapping)
    assert list(batch)[:2] == ["x", "y"]
    assert len(batch) == 8
    assert batch["slide"][1] == "b.svs"
    assert "image" not in batch
    assert repr(batch).startswith("Batch(number=7, rows=3, columns=['x', 'y'")
    with pytest.raises(KeyError):
        batch["image"]


def test_smallchunks_are_made_when_they_are_looked_at(batch: Batch) -> None:
    """A training loop that only takes the pixels pays nothing for them."""
    chunks = SmallChunks(batch)
    assert len(chunks) == 3
    assert batch["x"].looked == []
    chunk = chunks[1]
    assert batch["x"].looked == [1]
    assert isinstance(chunk, SmallChunk)
    assert chunk.data is None
    assert chunk.patient.int_uniqueid == 2
    assert chunk.dict_info_of_bigchunk == {"slide": "b.svs", "bigchunk": 2.5}
    assert chunk.dict_info_of_smallchunk == dict.fromkeys(
        ("x", "y", "level", "mpp", "tissue_fraction", "call"), 2.5
    )
    assert all(type(value) is float for value in chunk.dict_info_of_smallchunk.values())


def test_smallchunks_are_a_sequence(batch: Batch) -> None:
    """From the end, in slices, in loops; and nothing beyond the last."""
    chunks = SmallChunks(batch)
    assert chunks[-1].dict_info_of_smallchunk["x"] == 3.5
    assert [chunk.dict_info_of_smallchunk["y"] for chunk in chunks[::-1]] == [3.5, 2.5, 1.5]
    walked: Iterator[SmallChunk] = iter(chunks)
    assert len(list(walked)) == 3
    for row in (3, -4):
        with pytest.raises(IndexError, match=f"row {row} of a batch of 3"):
            chunks[row]
