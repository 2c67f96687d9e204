"""How a row that was made one at a time gets into its slot."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from chunkdl.consumers.lightdl import LightDL
from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.engine.config import EngineConfig
from chunkdl.engine.work.row_writer import RowWriter
from chunkdl.errors import PackingError
from chunkdl.patches.as_array import array_of
from chunkdl.patches.hooks import BigChunkLoader
from chunkdl.transport.memory.arena import Arena, create_memory
from chunkdl.transport.memory.layouts import RECORD
from chunkdl.transport.memory.packing import load, unpack
from chunkdl.transport.row_format import ColumnFormat, RowFormat

PATIENTS = Dataset("d", [Patient(1, {}), Patient(2, {})])
RECORD_3 = np.zeros((), dtype=RECORD)
RECORD_3["x"] = 3

Made = tuple[RowWriter, EngineConfig, Arena, list[RowFormat]]
Writer = Callable[..., Made]


class Loader(BigChunkLoader):
    """So that rows are those of a class of the user."""


@pytest.fixture
def writer() -> Iterator[Writer]:
    """Makes a writer whose proposals all hold, with its configuration, arena and proposals."""
    arenas: list[Arena] = []

    def make(*, transforms: bool = False, **more: Any) -> Made:
        loader = LightDL(PATIENTS, Loader, batch_size=4, memory_limit="8MiB", **more)
        config = loader._config
        descriptor = create_memory("chunkdl-test", config.run.memory_bytes[1], sparse=True)
        arena = Arena(descriptor, config.run.batch_slots, config.run.batch_slot_bytes, sparse=True)
        os.close(descriptor)
        arenas.append(arena)
        proposals: list[RowFormat] = []

        def settle(proposal: RowFormat) -> RowFormat:
            proposals.append(proposal)
            return proposal

        shared = {id(patient): index for index, patient in enumerate(PATIENTS)}
        writer = RowWriter(config, arena, settle, shared, transforms=transforms)
        return writer, config, arena, proposals

    yield make
    for arena in arenas:
        arena.close()


def test_the_first_row_says_how_all_rows_lie(writer: Writer) -> None:
    """It is proposed once; records, infos and data of every row are found at their places."""
    write, config, arena, proposals = writer()
    rows = [np.full((2, 3), value, np.float32) for value in range(4)]
    for row, data in enumerate(rows):
        write.write(5, row, RECORD_3, data, ({"row": row}, {}))

    assert proposals == [RowFormat((ColumnFormat("image", "<f4", (2, 3)),))]
    layout = config.stream.layout_of(proposals[0])
    view = layout.view(arena.slot(5))
    assert np.array_equal(view.columns["image"], np.stack(rows))
    assert view.records["x"].tolist() == [3] * 4
    assert [load(info) for info in view.infos] == [({"row": row}, {}) for row in range(4)]


def test_what_was_settled_by_another_holds(writer: Writer) -> None:
    """Nothing is proposed then, and a row that is not like it is refused with both shapes."""
    write, _, _, proposals = writer()
    write.settled(RowFormat((ColumnFormat("image", "|u1", (2,)),)))
    write.write(0, 0, RECORD_3, np.zeros(2, np.uint8))
    for other in (np.zeros(3, np.uint8), np.zeros(2, np.int8), np.zeros((1, 2), np.uint8)):
        with pytest.raises(PackingError, match=r"those before it were uint8 \(2,\)") as caught:
            write.write(0, 1, RECORD_3, other)
        assert f"{other.dtype} {other.shape}" in str(caught.value)
    assert proposals == []


def test_objects_lie_in_places_of_equal_size(writer: Writer) -> None:
    """With their arrays and with patients that do not travel."""
    write, config, arena, proposals = writer()
    for row in range(4):
        data = {"patient": PATIENTS[1], "array": np.arange(row)}
        write.write(2, row, RECORD_3, data, ({}, {}))

    (row_format,) = proposals
    assert row_format.packed
    view = config.stream.layout_of(row_format).view(arena.slot(2))
    for row in range(4):
        back = unpack(view.columns["data"][row], shared=list(PATIENTS))
        assert back["patient"] is PATIENTS[1]
        assert back["array"].tolist() == list(range(row))


def test_with_a_collate_function_arrays_may_differ(writer: Writer) -> None:
    """Whatever the first one was."""
    write, config, arena, proposals = writer(collate_func=list)
    for row in range(3):
        write.write(0, row, RECORD_3, np.zeros(row), ({}, {}))
    (row_format,) = proposals
    view = config.stream.layout_of(row_format).view(arena.slot(0))
    assert [unpack(view.columns["data"][row]).shape for row in range(3)] == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (np.zeros(2**20), r"4 SmallChunks of float64 \(1048576,\) take 32\.\d MiB, a batch may"),
        ([np.zeros(2**20)], "row's share of memory_limit"),
        (threading.Lock(), "cannot be pickled"),
        (torch.zeros(2, dtype=torch.bfloat16), "(?i)bfloat16"),
    ],
)
def test_a_row_that_cannot_be_written_is_refused(writer: Writer, data: Any, told: str) -> None:
    """With the reason."""
    write, *_ = writer()
    with pytest.raises(PackingError, match=told):
        write.write(0, 0, RECORD_3, data, ({}, {}))


def test_large_infos_are_refused(writer: Writer) -> None:
    """They have a fixed place, so that they cost nothing."""
    write, *_ = writer()
    with pytest.raises(PackingError, match="info dicts of a SmallChunk have to be small"):
        write.write(0, 0, RECORD_3, np.zeros(2), ({"x": "x" * 5000}, {}))


def test_what_is_an_array_is_taken_as_one() -> None:
    """Arrays, tensors, images, numbers; in the byte order of this machine."""
    for data, dtype, shape in (
        (np.zeros((2, 3), ">u2"), "<u2", (2, 3)),
        (np.zeros((2, 3), ">f4")[:, ::2], "<f4", (2, 2)),
        (torch.zeros(2, 3, requires_grad=True), "<f4", (2, 3)),
        (torch.zeros(2, 3).T, "<f4", (3, 2)),
        (Image.new("RGB", (5, 4)), "|u1", (4, 5, 3)),
        (Image.new("L", (5, 4)), "|u1", (4, 5)),
        (3, "<i8", ()),
        (2.5, "<f8", ()),
        (True, "|b1", ()),
        (np.float32(1), "<f4", ()),
    ):
        array = array_of(data)
        assert array is not None
        assert (array.dtype.str, array.shape) == (dtype, shape)
        torch.from_numpy(array.copy())


@pytest.mark.parametrize(
    "data",
    [
        "text",
        b"bytes",
        None,
        [1, 2],
        {"a": 1},
        np.array(["text"]),
        np.array([None]),
        np.array(["2020-01-01"], "M8[D]"),
        10**30,
        io.TextIOWrapper(io.BytesIO()),
    ],
)
def test_what_is_no_array_stays_an_object(data: Any) -> None:
    """Also what only has a method of a tensor."""
    assert array_of(data) is None
