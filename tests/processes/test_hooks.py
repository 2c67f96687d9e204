"""Classes of the user for BigChunks and SmallChunks, through real processes."""

from __future__ import annotations

import json
import random
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl import Dataset, EndOfStream, LightDL, Patient, Uniform
from chunkdl.errors import ConfigError, PackingError
from tests.processes.hook_classes import (
    GivenCollector,
    LoggingLoader,
    NumberCollector,
    NumberLoader,
    SameCollector,
    SameLoader,
    random_transform,
)

Digest = Callable[[Any], str]

SIX = Dataset("numbers", [Patient(10 + n, {"label": n % 2}) for n in range(6)])
SMALL: dict[str, Any] = {
    "batch_size": 4,
    "num_bigchunks": 2,
    "smallchunks_per_bigchunk": 8,
    "num_loaders": 1,
    "num_collectors": 1,
    "memory_limit": "64MiB",
    "seed": 4,
}
NUMBERS: dict[str, Any] = {
    **SMALL,
    "batch_size": 8,
    "num_bigchunks": 3,
    "smallchunks_per_bigchunk": 20,
    "num_loaders": 2,
    "num_collectors": 2,
}


def numbers(settings: dict[str, Any] | None = None, **more: Any) -> LightDL:
    """A loader of the two classes."""
    return LightDL(SIX, NumberLoader, NumberCollector, settings or {}, **{**NUMBERS, **more})


def rows_of(loader: LightDL, batches: int) -> list[tuple[int, ...]]:
    """The rows of the next batches."""
    return [tuple(row) for _ in range(batches) for row in loader.next_batch(60)["image"].tolist()]


EXHAUSTING = {"most": 13}


@pytest.fixture(scope="module")
def number_rows() -> list[tuple[int, ...]]:
    """The rows of 60 batches, undisturbed: BigChunks that end early, None in between."""
    with numbers(EXHAUSTING, num_loaders=1, num_collectors=1) as loader:
        return rows_of(loader, 60)


# ------------------------------------------------------------------ the built-in stream


@pytest.fixture(scope="module")
def transformed_stream(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], digest_of: Digest
) -> list[str]:
    """The built-in classes with a transform that draws; as many BigChunks open as patients."""
    arguments = {**small_stream, "num_bigchunks": 2, "tfms": random_transform}
    with LightDL(coordinate_dataset, schedule=Uniform(), **arguments) as loader:
        return [digest_of(loader.next_batch(60)) for _ in range(30)]


@pytest.mark.parametrize("collectors", [1, 2])
@pytest.mark.parametrize("loaders", [1, 2, 3])
def test_subclasses_of_the_built_in_classes_give_the_same_stream(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    digest_of: Digest,
    transformed_stream: list[str],
    loaders: int,
    collectors: int,
) -> None:
    """Bit for bit, with a random transform, whatever runs them."""
    arguments = {**small_stream, "num_bigchunks": 2, "tfms": random_transform}
    arguments |= {"num_loaders": loaders, "num_collectors": collectors}
    with LightDL(coordinate_dataset, SameLoader, SameCollector, **arguments) as loader:
        assert [digest_of(loader.next_batch(60)) for _ in range(30)] == transformed_stream


@pytest.mark.parametrize("classes", [(SameLoader, SameCollector), (SameLoader,)])
def test_pixels_are_the_same_without_a_transform(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    digest_of: Digest,
    classes: tuple[Any, ...],
) -> None:
    """So they are with one class of the user and one built-in one."""
    arguments = {**small_stream, "num_bigchunks": 2}
    streams = []
    with LightDL(coordinate_dataset, schedule=Uniform(), **arguments) as loader:
        streams.append([digest_of(loader.next_batch(60)) for _ in range(40)])
    with LightDL(coordinate_dataset, *classes, **arguments) as loader:
        streams.append([digest_of(loader.next_batch(60)) for _ in range(40)])
        x, _, smallchunks = loader.get(60)

    assert streams[0] == streams[1]
    assert x.shape == (16, 3, 64, 64)
    assert set(smallchunks[0].dict_info_of_smallchunk) >= {"x", "y", "level", "tissue_fraction"}


@pytest.mark.slides
def test_real_slides_give_the_same_stream(slides_folder: Path, digest_of: Digest) -> None:
    """Of a small slide, with its own tissue, with and without classes of the user."""
    dataset = Dataset.from_slides(slides_folder / "CMU-1-Small-Region.svs")
    arguments: dict[str, Any] = {**SMALL, "smallchunk_size": 64, "bigchunk_size": 512}
    arguments["num_bigchunks"] = 1
    streams = []
    for classes in ((), (SameLoader, SameCollector)):
        with LightDL(dataset, *classes, schedule=Uniform(), **arguments) as loader:
            streams.append([digest_of(loader.next_batch(60)) for _ in range(6)])

    assert streams[0] == streams[1]


# ------------------------------------------------------------------ the same numbers


def test_user_classes_give_the_same_rows_for_any_processes(
    number_rows: list[tuple[int, ...]],
) -> None:
    """With None in between, BigChunks that end early, state in self and checkpoints."""
    with numbers(EXHAUSTING, num_loaders=3, num_collectors=2) as loader:
        assert rows_of(loader, 60) == number_rows

    assert {row[0] for row in number_rows} == set(range(10, 16))


def test_no_two_calls_draw_the_same_numbers(number_rows: list[tuple[int, ...]]) -> None:
    """Not loader and collector, not two calls, not two BigChunks, not two generators."""
    drawn = [number for load in {row[:4] for row in number_rows} for number in load[2:]]
    drawn += [number for row in number_rows for number in row[4:7]]
    # Among n numbers below 2**31 a chance repetition is rarer than n**2 / 2**32.
    assert len(set(drawn)) >= len(drawn) - 1


def test_a_resumed_stream_goes_on_exactly(number_rows: list[tuple[int, ...]]) -> None:
    """A state of any batch, through JSON: the same rows and checkpoints, in the same order."""
    with numbers(EXHAUSTING) as loader:
        states = []
        for number in range(50):
            if number % 13 == 4:
                states.append((number, json.dumps(loader.state_dict())))
            loader.next_batch(60)
        for number, state in states:
            loader.load_state_dict(json.loads(state))
            assert rows_of(loader, 5) == number_rows[number * 8 : number * 8 + 40]
        assert json.loads(states[-1][1])["deterministic"]


def test_pause_frees_the_processes_and_goes_on_exactly(
    number_rows: list[tuple[int, ...]], processes_of_this_run: Callable[..., list[psutil.Process]]
) -> None:
    """As a resume, without a state in the user's hands."""
    with numbers(EXHAUSTING) as loader:
        got = rows_of(loader, 7)
        loader.pause()
        assert processes_of_this_run() == []
        got += rows_of(loader, 7)

    assert got == number_rows[: 14 * 8]


def test_murdered_workers_leave_no_trace(
    number_rows: list[tuple[int, ...]], processes_of_this_run: Callable[..., list[psutil.Process]]
) -> None:
    """What was in self of a collector is made again by replaying the calls."""
    chance = random.Random(3)
    got = []
    with numbers(EXHAUSTING, max_restarts=50) as loader:
        for number in range(60):
            if number % 6 == 4:
                workers = processes_of_this_run("loader") + processes_of_this_run("collector")
                chance.choice(workers).send_signal(signal.SIGKILL)
            got += rows_of(loader, 1)

    assert got == number_rows


# ------------------------------------------------------------------ notes


def test_checkpoints_pass_from_load_to_load(number_rows: list[tuple[int, ...]]) -> None:
    """Every load of a patient sees one more than the one before."""
    for patient in SIX:
        loads = [row[1] for row in number_rows if row[0] == patient.int_uniqueid]
        assert len(set(loads)) > 1
        assert sorted(set(loads)) == list(range(max(loads) + 1))


def test_a_checkpoint_can_be_read_in_the_training_program() -> None:
    """None before the first; those that were delivered are part of the state, for good."""
    with numbers(EXHAUSTING) as loader:
        assert loader.get_checkpoint(SIX[0]) is None
        rows = rows_of(loader, 40)
        most = {row[0]: row[1] + 1 for row in rows}
        now = {patient: loader.get_checkpoint(patient)["loads"] for patient in SIX}
        state = json.loads(json.dumps(loader.state_dict()))
    assert all(now[patient] >= most[patient.int_uniqueid] for patient in SIX)

    again = numbers(EXHAUSTING)
    again.load_state_dict(state)
    assert all(again.get_checkpoint(patient)["loads"] <= now[patient] for patient in SIX)
    assert all(again.get_checkpoint(patient)["loads"] >= 1 for patient in SIX)


def test_a_message_reaches_exactly_the_next_load_of_its_patient() -> None:
    """Sent before the start and in between; all SmallChunks of one load know it, of no other."""
    with numbers() as loader:
        assert loader.state_dict()["deterministic"]
        loader.send_message(SIX[1], "replaced")
        loader.send_message(SIX[1], {"first": 1})
        seen = []
        for number in range(40):
            batch = loader.next_batch(60)
            seen += list(zip(batch["image"].tolist(), batch["info_smallchunk"], strict=True))
            if number == 10:
                loader.send_message(SIX[2], "second")
        state = loader.state_dict()

    loads_of: dict[str, set[tuple[int, int]]] = {}
    for row, info in seen:
        loads_of.setdefault(str(info["message"]), set()).add((row[0], row[1]))
        assert info["tuple"] == (1, 2)
    told = {name: loads for name, loads in loads_of.items() if name != "None"}
    assert {name: len(loads) for name, loads in told.items()} == {"{'first': 1}": 1, "second": 1}
    assert {patient for patient, _ in told["{'first': 1}"]} == {11}
    assert {patient for patient, _ in told["second"]} == {12}
    assert state["deterministic"] is False
    assert state["messages"] == []


def test_a_message_that_cannot_be_sent_is_refused(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """To a stranger, too large, not to be pickled, or where there are no classes to get it."""
    loader = numbers()
    with pytest.raises(ConfigError, match="not a patient of this loader's dataset"):
        loader.send_message(Patient(99, {}), "hello")
    with pytest.raises(PackingError, match="a message is pickled into at most 31 KiB"):
        loader.send_message(SIX[0], "x" * 40_000)
    with pytest.raises(PackingError, match="leave out what belongs to one process"):
        loader.send_message(SIX[0], threading.Lock())
    assert loader.state_dict()["deterministic"]
    plain = LightDL(coordinate_dataset, **small_stream)
    for ask in (plain.get_checkpoint, partial(plain.send_message, message=1)):
        with pytest.raises(ConfigError, match="for classes of your own"):
            ask(coordinate_dataset[0])


def test_a_patient_that_is_exhausted_is_not_loaded_again() -> None:
    """EXHAUSTED of all loaders: what was loaded is delivered, then the stream ends, for good."""
    with numbers({"ends": 2}) as loader:
        rows = [tuple(row) for batch in loader for row in batch["image"].tolist()]
        with pytest.raises(EndOfStream):
            loader.next_batch(60)
        assert list(loader) == []

    assert {row[:2] for row in rows} == {(10 + n, load) for n in range(6) for load in (0, 1)}


def test_what_the_classes_log_arrives(caplog: pytest.LogCaptureFixture) -> None:
    """In the function that was given, each line once."""
    lines: list[str] = []
    with LightDL(
        SIX, LoggingLoader, GivenCollector, {"given": [1.0]}, log_func=lines.append, **SMALL
    ) as loader:
        for _ in range(4):
            loader.next_batch(60)

    assert "patient 10 is loaded" in lines
    assert "x" * 8000 in lines
