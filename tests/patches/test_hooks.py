"""The hook classes themselves, and one object of each without processes."""

from __future__ import annotations

import copy
import os
import pickle
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from chunkdl.consumers.lightdl import LightDL
from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.engine.work import rows_by_hook as collecting
from chunkdl.engine.work.extracted import Extracted
from chunkdl.engine.work.row_writer import RowWriter
from chunkdl.engine.work.rows_by_hook import HookRows
from chunkdl.errors import ConfigError
from chunkdl.patches.chunks import SmallChunk
from chunkdl.patches.hooks import (
    EMPTY_STATUS,
    EXHAUSTED,
    BigChunkLoader,
    Exhausted,
    SmallChunkCollector,
)
from chunkdl.patches.seeded_code import seed_globals
from chunkdl.patches.user_code import load_user_code
from chunkdl.sampling.seeding import Purpose
from chunkdl.transport.flight_recorder import Recorder, create_recorder
from chunkdl.transport.memory.arena import Arena, create_memory
from chunkdl.transport.memory.layouts import BatchView
from chunkdl.transport.memory.packing import Packer
from chunkdl.transport.protocol.engine_messages import (
    CheckpointSet,
    FillRows,
    Message,
    RowGroup,
    StatusSet,
)
from chunkdl.transport.row_format import ColumnFormat, RowFormat

pytestmark = pytest.mark.usefixtures("generators_stay")

PATIENT = Patient(5, {})


class Loader(BigChunkLoader):
    """Overrides nothing."""


class Collector(SmallChunkCollector):
    """Overrides nothing."""


def test_a_class_that_overrides_nothing_says_what_is_missing() -> None:
    """By its own name."""
    with pytest.raises(NotImplementedError, match="Loader must override extract_bigchunk"):
        Loader(PATIENT).extract_bigchunk(None)
    with pytest.raises(NotImplementedError, match="Collector must override extract_smallchunk"):
        Collector(PATIENT).extract_smallchunk(0, None, None)


@pytest.mark.parametrize(
    "name", ["rng", "slide", "tissue_mask", "window", "positions", "described", "read_window"]
)
def test_a_loader_can_do_little_outside_of_its_process(name: str) -> None:
    """A ConfigError says where it works; a user who tries a class at a prompt sees it."""
    with pytest.raises(ConfigError, match="Loader can do this only in a loader process"):
        value = getattr(Loader(PATIENT), name)
        value()


def test_so_it_is_with_helpers_that_take_arguments() -> None:
    """Of both classes."""
    loader, collector = Loader(PATIENT), Collector(PATIENT)
    for ask in (
        lambda: loader.read_region(0, 0, 5, 5),
        lambda: loader.empty((3,)),
        lambda: loader.log("text"),
    ):
        with pytest.raises(ConfigError, match="only in a loader process"):
            ask()
    asks: tuple[Callable[[], object], ...] = (
        lambda: collector.rng,
        lambda: collector.place,
        lambda: collector.log("text"),
        lambda: collector.set_checkpoint(1),
        lambda: collector.set_status(1),
    )
    for ask_collector in asks:
        with pytest.raises(ConfigError, match="Collector can do this only in a collector process"):
            ask_collector()
    assert collector.get_checkpoint() is None


def test_what_a_class_was_given_is_there() -> None:
    """By PyDmed's names, in PyDmed's order."""
    loader = Loader(PATIENT, None, {"a": 1}, None, "old", "message")
    assert loader.patient is PATIENT
    assert loader.const_global_info == {"a": 1}
    assert loader.get_checkpoint() == "old"
    collector = Collector(PATIENT, None, {"a": 1}, Loader, None, "old", None, "message")
    assert collector.const_global_info == {"a": 1}
    assert collector.get_checkpoint() == "old"
    assert collector.get_status() == EMPTY_STATUS
    assert collector.get_flag_bigchunkloader_terminated()


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_exhausted_is_one_object_everywhere(again: Any) -> None:
    """Also after a copy, and on the other side of a pickle."""
    assert again(EXHAUSTED) is EXHAUSTED is Exhausted.EXHAUSTED


def drawn() -> tuple[float, float, float]:
    """One number of each global generator."""
    return random.random(), float(np.random.random()), float(torch.rand(1))


def test_the_global_generators_are_those_of_the_call() -> None:
    """The same name, the same numbers; another ordinal, attempt, call or purpose, others."""
    names = [
        (Purpose.BIGCHUNK, 0, 0, 0),
        (Purpose.SMALLCHUNK, 0, 0, 0),
        (Purpose.SMALLCHUNK, 1, 0, 0),
        (Purpose.SMALLCHUNK, 0, 1, 0),
        (Purpose.SMALLCHUNK, 0, 0, 1),
    ]
    seen = []
    for name in names:
        for _ in range(2):
            seed_globals(3, *name)
            seen.append(drawn())
    assert seen[::2] == seen[1::2]
    numbers = [number for row in seen[::2] for number in row]
    assert len(set(numbers)) == len(numbers)


# ------------------------------------------------------------------ rows of one BigChunk


class Sometimes(SmallChunkCollector):
    """None so often before each SmallChunk; EXHAUSTED after five; odd numbers in the infos."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.const_global_info.get("broken"):
            raise OSError("no collector")
        self.made = 0
        self.nones = 0

    def extract_smallchunk(self, call_count: int, bigchunk: Any, last_message_fromroot: Any) -> Any:
        """The number of the call, and what was drawn."""
        if self.nones < self.const_global_info["nones"]:
            self.nones += 1
            return None
        self.nones = 0
        if self.made == 5:
            return EXHAUSTED
        self.made += 1
        self.set_checkpoint(self.made)
        self.set_status("busy")
        row = np.array([call_count, self.made, self.rng.random()])
        return SmallChunk(row, self.const_global_info.get("info", {}), {}, self.patient)


class Rows:
    """`HookRows` in this process, with one BigChunk in slot 2."""

    def __init__(self, settings: dict[str, Any]) -> None:
        dataset = Dataset("d", [PATIENT])
        loader = LightDL(dataset, Loader, Sometimes, settings, batch_size=4, memory_limit="8MiB")
        self.config = config = loader._config
        self.user = load_user_code(config.user["collector"])
        self.arenas = []
        run = config.run
        for slots, size in (
            (run.bigchunk_slots, run.bigchunk_slot_bytes),
            (run.batch_slots, run.batch_slot_bytes),
        ):
            descriptor = create_memory("chunkdl-test", slots * size, sparse=True)
            self.arenas.append(Arena(descriptor, slots, size, sparse=True))
            os.close(descriptor)
        shared = self.user.shared()
        Packer(self.arenas[0].slot(2), None, shared).pack(Extracted(0, {}, None, b"", b""))
        self.recorder = create_recorder()
        self.sent: list[Message] = []
        self.fresh()

    def fresh(self) -> None:
        """A new collector, as after the death of the one before."""
        self.writer = RowWriter(
            self.config, self.arenas[1], lambda found: found, {}, transforms=False
        )
        self.rows = HookRows(
            self.config,
            self.user,
            self.arenas[0],
            self.writer,
            Recorder(self.recorder),
            self.sent.append,
            print,
            pytest.fail,
        )

    def fill(self, calls: list[int], attempt: int = 0, ordinal: int = 9) -> Any:
        """Ask for these calls as the first rows of batch slot 1."""
        numbers = [np.array(values, np.int32).tobytes() for values in (range(len(calls)), calls)]
        rows, wanted = numbers
        group = RowGroup(ordinal, 2, rows, wanted, attempt, 0)
        return self.rows.fill(FillRows(0, 1, 1, (group,)), group)

    def view(self) -> BatchView:
        """Batch slot 1."""
        row_format = RowFormat((ColumnFormat("image", "<f8", (3,)),))
        return self.config.stream.layout_of(row_format).view(self.arenas[1].slot(1))

    def values(self, count: int) -> list[list[float]]:
        """The first rows of batch slot 1."""
        values: list[list[float]] = self.view().columns["image"][:count].tolist()
        return values

    def close(self) -> None:
        """Give everything back."""
        os.close(self.recorder)
        for arena in self.arenas:
            arena.close()


@pytest.fixture
def rows() -> Iterator[Any]:
    """Makes them."""
    made: list[Rows] = []

    def make(**settings: Any) -> Rows:
        made.append(Rows({"nones": 0, **settings}))
        return made[-1]

    yield make
    for each in made:
        each.rows = each.writer = None  # type: ignore[assignment]
        each.close()


def test_a_none_is_tried_again_and_counts_as_a_call(rows: Any) -> None:
    """The call numbers go on over it; the SmallChunks are those of the plan all the same."""
    some = rows(nones=2)
    assert some.fill([0, 1, 2]) is None
    assert [row[:2] for row in some.values(3)] == [[2, 1], [5, 2], [8, 3]]
    assert some.fill([3]) is None
    assert some.values(1)[0][:2] == [11, 4]


def test_a_successor_makes_again_what_was_made_before(rows: Any) -> None:
    """State in self and random numbers are those of the first; nothing is delivered twice."""
    some = rows(nones=1)
    assert some.fill([0, 1, 2, 3]) is None
    expected = some.values(4)
    some.fresh()
    assert some.fill([2, 3]) is None
    assert some.values(2) == expected[2:]
    assert [note.checkpoint for note in some.sent if isinstance(note, CheckpointSet)]
    assert {note.attempt for note in some.sent if isinstance(note, StatusSet)} == {0}


def test_exhausted_says_how_many_were_made(rows: Any) -> None:
    """And whose they were."""
    end = rows().fill([3, 4, 5, 6])
    assert (end.done, end.failure, end.ordinal, end.attempt) == (2, None, 9, 0)


@pytest.mark.parametrize("broken", [False, True])
def test_a_bigchunk_that_has_ended_is_not_looked_at_again(rows: Any, broken: bool) -> None:
    """It was reported, and its slot is another's by now; also where nothing was made of it."""
    some = rows(broken=broken)
    end = some.fill([4, 5, 6])
    assert (end.done, end.failure is None) == ((0, False) if broken else (1, True))
    some.arenas[0].slot(2)[:] = 0
    for calls in ([7], [8, 9]):
        again = some.fill(calls)
        assert (again.done, again.failure) == (0, None)


def test_endless_none_is_an_error_without_spinning(
    rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many calls, and most of the time was slept."""
    monkeypatch.setattr(collecting, "MOST_NONES", 100)
    some = rows(nones=10**9)
    began, used = time.monotonic(), time.process_time()
    end = some.fill([0])
    slept = time.monotonic() - began
    worked = time.process_time() - used

    assert end.done == 0
    assert "None 100 times in a row" in end.failure.message
    assert (end.failure.hook, end.failure.patient) == ("Sometimes.extract_smallchunk", PATIENT.name)
    assert slept > 0.5
    assert worked < slept / 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**30, 2**40, "3", None, [1]])
def test_what_is_no_place_is_not_in_the_columns(rows: Any, value: Any) -> None:
    """An info dict may say anything under any name."""
    some = rows(info={"x": value, "level": value, "mpp": 0.5, "y": np.int32(7)})
    assert some.fill([0]) is None
    record = some.view().records[0]
    assert record["level"] == -1
    assert record["x"] == (value if value == 2**40 else -1)
    assert (record["mpp"], record["y"], record["slide"]) == (0.5, 7, -1)
    assert (record["bigchunk"], record["patient"], record["call"]) == (9, 0, 0)
