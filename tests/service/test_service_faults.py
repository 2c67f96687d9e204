"""The engine of a service dies, freezes, or cannot read: its consumers notice nothing.

There are two ranks in most tests, one on this machine and one that comes by tcp, whose batches
together are a step of the undisturbed stream.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl.consumers.connect import connect
from chunkdl.consumers.lightdl import LightDL
from chunkdl.consumers.shared import SharedDL
from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.errors import GetTimeout
from chunkdl.service.client.control import operate
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import ServiceSettings
from tests.conftest import ragged_mask
from tests.service.conftest import GROUPS, Start, arguments, row_digests
from tests.service.two_ranks import addresses, joined, rest_of, steps_of, were_sent

Processes = Callable[..., list[psutil.Process]]
Eventually = Callable[..., bool]
Hit = Callable[[str, int], None]

KILL, STOP = signal.SIGKILL, signal.SIGSTOP
STALL: dict[str, Any] = {"stall_timeout": 1.0}


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


@pytest.fixture
def hit(processes_of_this_run: Processes, eventually: Eventually) -> Iterator[Hit]:
    """Sends a signal to all processes of a kind; what stands still goes on after the test."""
    stopped: list[psutil.Process] = []

    def send(program: str, number: int) -> None:
        # An engine that begins has not started all of its workers yet.
        assert eventually(lambda: processes_of_this_run(program))
        victims = processes_of_this_run(program)
        for victim in victims:
            victim.send_signal(number)
        stopped.extend(victims if number == STOP else [])

    yield send
    for victim in stopped:
        if victim.is_running():
            victim.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def whole_pass(coordinate_dataset: Dataset, small_stream: dict[str, Any]) -> list[str]:
    """Digests of the rows of a grid pass, in their order, as `LightDL` gives them."""
    with LightDL(coordinate_dataset, **small_stream, grid=True) as loader:
        return [row for batch in loader for row in row_digests(batch)]


@pytest.mark.parametrize(
    ("program", "number", "when"),
    [
        ("loader", KILL, "at the start"),
        # A worker that has not begun is given ten seconds.
        pytest.param("collector", STOP, "at the start", marks=pytest.mark.slow),
        ("coordinator", KILL, "at the start"),
        ("loader", KILL, "over work"),
        ("collector", KILL, "over work"),
        ("collector", KILL, "on the way"),
        ("loader", STOP, "on the way"),
        ("coordinator", KILL, "on the way"),
        ("coordinator", STOP, "on the way"),
        ("loader", KILL, "while nobody reads"),
        ("collector", STOP, "while nobody reads"),
        ("coordinator", KILL, "while nobody reads"),
        ("coordinator", STOP, "while nobody reads"),
    ],
)
def test_a_worker_or_the_engine_dies_or_freezes(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    hit: Hit,
    eventually: Eventually,
    program: str,
    number: int,
    when: str,
) -> None:
    """Before the first batch, between two, and when all credit is spent: each row comes once."""
    both = addresses(socket_folder)
    # With little memory for batches there is always something to make for those that come next.
    little = {"max_consumers": 2, "credit_batches": 1} if when == "over work" else {"stream": STALL}
    start(binds=both, **little)
    with joined(both) as ranks:
        before = 0 if when == "at the start" else 5
        rows = steps_of(ranks, before)
        if when == "while nobody reads":
            assert eventually(lambda: were_sent(both[0], before + 4))
        if when == "over work":
            rows += pile_up(ranks, lambda: hit(program, STOP))
            before = len(rows) // 16
        hit(program, number)
        assert rows + steps_of(ranks, 40 - before) == list(row_reference[: 40 * 16])


def pile_up(ranks: Sequence[SharedDL], stop: Callable[[], None]) -> list[str]:
    """Have workers stand still and take what is left; what they have in hand is what comes next."""
    stop()
    rows: list[str] = []
    with suppress(GetTimeout):
        for _ in range(30):
            first = row_digests(ranks[0].next_batch(0.5))
            rows += [*first, *steps_of(ranks[1:], 1)]
    return rows


@pytest.mark.parametrize(
    ("program", "number"), [("collector", KILL), ("loader", STOP), ("coordinator", KILL)]
)
def test_a_worker_or_the_engine_dies_or_freezes_before_the_end_of_a_pass(
    start: Start,
    socket_folder: Path,
    whole_pass: list[str],
    hit: Hit,
    program: str,
    number: int,
) -> None:
    """The pass ends for both ranks after the same step, with each of its rows once."""
    both = addresses(socket_folder)
    # With little memory for batches the last ones are not made yet.
    start(stream={**STALL, "grid": True}, binds=both, max_consumers=2, credit_batches=1)
    with joined(both) as ranks:
        rows = steps_of(ranks, len(whole_pass) // 16 - 8)
        hit(program, number)
        rows += rest_of(ranks)
    # Fewer rows than ranks at the end are left out.
    assert rows == whole_pass[: len(rows)]
    assert len(rows) >= len(whole_pass) - 1


@pytest.mark.parametrize(
    ("program", "number"), [("collector", KILL), ("coordinator", KILL), ("coordinator", STOP)]
)
def test_a_worker_or_the_engine_dies_or_freezes_during_a_drain(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    hit: Hit,
    eventually: Eventually,
    program: str,
    number: int,
) -> None:
    """Both ranks still get what was sent to them, and the service ends with status 0."""
    both = addresses(socket_folder)
    service, _ = start(binds=both)
    with joined(both, reconnect_timeout=3.0) as ranks:
        rows = steps_of(ranks, 3)
        assert eventually(lambda: were_sent(both[0], 3 + 4))
        operate(both[1], "drain")
        hit(program, number)
        if (program, number) == ("coordinator", KILL):
            # Its memory is still read when another has been started.
            assert eventually(lambda: operate(both[0], "status")["groups"]["train"]["troubles"])
        rows += rest_of(ranks)
    assert rows == list(row_reference[: len(rows)])
    # What was taken and the credit of each.
    assert len(rows) == 7 * 16
    assert service.process.wait(100) == 0


def test_a_frozen_engine_goes_on_when_it_is_let(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    hit: Hit,
    eventually: Eventually,
) -> None:
    """Its consumers wait for it meanwhile, the service answers, and no other takes its place."""
    both = addresses(socket_folder)
    start(binds=both)
    with joined(both) as ranks:
        rows = steps_of(ranks, 3)
        rows += pile_up(ranks, lambda: hit("coordinator", STOP))
        with pytest.raises(GetTimeout):
            ranks[0].next_batch(3)
        assert len(operate(both[0], "status")["groups"]["train"]["members"]) == 2
        hit("coordinator", signal.SIGCONT)
        rows += steps_of(ranks, 20)
        assert operate(both[0], "status")["groups"]["train"]["engine"] == 1
    assert rows == list(row_reference[: len(rows)])


# ---- Slides and descriptors


@pytest.fixture
def own_slides(coordinate_dataset: Dataset, tmp_path: Path) -> Dataset:
    """The coordinate slides, copied so that they can be harmed."""
    patients = []
    for patient in coordinate_dataset:
        records: dict[str, Any] = {}
        for number, record in enumerate(patient.slides):
            name = Path(record.path).name
            shutil.copy(record.path, tmp_path / name)
            records[f"s{number}"] = Record(
                tmp_path, name, {"tissue_mask": ragged_mask(int(name[6]))}
            )
        patients.append(Patient(patient.int_uniqueid, {**records, **patient.labels}))
    return Dataset("own", patients)


def truncate(slide: Path) -> None:
    """Cut it to a third."""
    os.truncate(slide, slide.stat().st_size // 3)


def forbid(slide: Path) -> None:
    """A folder of that name can be read by nobody, not even by root."""
    slide.unlink()
    slide.mkdir()


@pytest.mark.parametrize("harm", [truncate, Path.unlink, forbid])
def test_a_slide_is_harmed_while_it_is_read(
    own_slides: Dataset,
    small_stream: dict[str, Any],
    socket_folder: Path,
    tmp_path: Path,
    hit: Hit,
    harm: Callable[[Path], None],
) -> None:
    """The stream goes on with substitutes, the same for each that gets all rows of it."""
    both = addresses(socket_folder)
    settings = ServiceSettings(binds=both, groups=GROUPS, max_consumers=4, insecure=True)
    stream = arguments(**small_stream, batch_slots=0)
    service = ServiceProcess(configure_service(own_slides, stream, settings))
    try:
        with ExitStack() as stack:
            readers = [
                stack.enter_context(connect(address, "trials")) for address in (*both, both[0])
            ]
            slides: list[str] = []
            for number in range(200):
                if number == 4:
                    harm(tmp_path / "slide-2.tif")
                    # Who has it open can go on reading it.
                    hit("loader", KILL)
                batches = [reader.next_batch(60) for reader in readers]
                assert [batch["slide"] for batch in batches[1:]] == [batches[0]["slide"]] * 2
                digests = [row_digests(batch) for batch in batches]
                assert digests[1:] == [digests[0]] * 2
                slides += batches[0]["slide"]
            assert readers[0].stats(60).substitutions > 0
        late = {Path(slide).name for slide in slides[-100:]}
        assert late >= {"slide-0.tif", "slide-1.tif"}
        # Of one that is cut the first rows are still there.
        assert harm is truncate or "slide-2.tif" not in late
    finally:
        service.close()


def has_engine(loader: SharedDL) -> bool:
    """Whether the engine of a consumer's group counts; it may just be replaced."""
    before = loader.stats(0).age_s
    return loader.stats(60).age_s < before


def test_few_descriptors_are_enough(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    hit: Hit,
    eventually: Callable[..., bool],
) -> None:
    """A service with 256 of them has eight ranks, an engine that is replaced, and no leak."""
    both = addresses(socket_folder)
    service, _ = start(binds=both, max_consumers=8)
    # It has raised its limit as far as it may; what it starts has the same.
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (256, 256))
    opened = set()
    rows: list[str] = []
    for _ in range(3):
        with joined(both * 4) as ranks:
            rows += steps_of(ranks, 5)
            hit("coordinator", KILL)
            rows += steps_of(ranks, 5)
            assert eventually(partial(has_engine, ranks[0]), 60)
            opened.add(len(os.listdir(f"/proc/{service.process.pid}/fd")))
    assert rows == list(row_reference[: 30 * 16])
    # A closed connection may be a moment late.
    assert max(opened) - min(opened) < 8
