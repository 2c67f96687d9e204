"""The engine behind a broadcast dies, freezes, or cannot be kept alive; a member's network is cut.

There are two members, one on this machine and one that comes by tcp. Each gets all rows of the
undisturbed stream, or is told why there are no more.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl.consumers.connect import connect
from chunkdl.consumers.merged import MergedDL
from chunkdl.consumers.shared import SharedDL
from chunkdl.errors import ChunkdlError, GetTimeout, ServiceDied, WorkerDied
from chunkdl.service.client.control import operate
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec
from tests.conftest import wait_until
from tests.service.conftest import Start, row_digests
from tests.service.tcp_proxy import TcpProxy
from tests.service.two_ranks import addresses, joined, members, rest_of, steps_of, were_sent

Eventually = Callable[..., bool]
Strike = Callable[[ServiceProcess, str, int], None]

KILL, STOP, GO_ON = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
STALL: dict[str, Any] = {"stall_timeout": 1.0}
TRIALS = (GroupSpec(name="trials", mode="broadcast"),)


# ---- Also for the services of several nodes


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


def running(service: ServiceProcess, program: str) -> list[psutil.Process]:
    """The coordinators, loaders or collectors of one service, of all its groups."""
    found = []
    for process in psutil.Process(service.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if f"chunkdl_workers.{program}" in process.cmdline():
                found.append(process)
    return found


@contextmanager
def striking() -> Iterator[Strike]:
    """Sends a signal to all processes of a kind; what stands still goes on at the end."""
    stopped: list[psutil.Process] = []

    def strike(service: ServiceProcess, program: str, number: int) -> None:
        # An engine that begins has not started all of its workers yet.
        assert wait_until(lambda: bool(running(service, program)))
        victims = running(service, program)
        stopped.extend(victims if number == STOP else [])
        for victim in victims:
            victim.send_signal(number)

    yield strike
    for victim in stopped:
        if victim.is_running():
            victim.send_signal(GO_ON)


def kill_all(service: ServiceProcess, program: str) -> None:
    """Kill those that run now, if any do."""
    for victim in running(service, program):
        with suppress(psutil.NoSuchProcess):
            victim.kill()


def read_while_they_die(
    service: ServiceProcess, program: str, loaders: Sequence[SharedDL | MergedDL]
) -> list[tuple[list[str], ChunkdlError]]:
    """Kill them as they come up, and read: digests of all rows that come, and why no more do."""
    rows: list[list[str]] = [[] for _ in loaders]
    errors: dict[int, ChunkdlError] = {}

    def are_told() -> bool:
        kill_all(service, program)
        for number in {*range(len(loaders))} - errors.keys():
            try:
                rows[number] += row_digests(loaders[number].next_batch(60))
            except GetTimeout:
                raise
            except ChunkdlError as error:
                errors[number] = error
        return len(errors) == len(loaders)

    assert wait_until(are_told, 60)
    return [(got, errors[number]) for number, got in enumerate(rows)]


# ---- Broadcasts


@pytest.fixture
def strike() -> Iterator[Strike]:
    """Sends a signal to all processes of a kind of a service."""
    with striking() as send:
        yield send


@contextmanager
def joined_trials(addresses: Sequence[str], **given: Any) -> Iterator[list[SharedDL]]:
    """A member of the broadcast at each address."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(address, "trials", **given)) for address in addresses]


def read_in_turn(readers: Sequence[SharedDL], rows: Sequence[list[str]], batches: int) -> None:
    """One batch of each after the other, so many times; what came is added to the rows."""
    for _ in range(batches):
        for reader, got in zip(readers, rows, strict=True):
            got += steps_of([reader], 1)


@pytest.mark.parametrize(
    ("program", "number", "taken"),
    [
        ("loader", KILL, (7, 4)),
        ("collector", KILL, (4, 7)),
        ("loader", STOP, (7, 4)),
        ("collector", STOP, (4, 7)),
        ("coordinator", KILL, (7, 4)),
        ("coordinator", KILL, (4, 7)),
        # Of the first no batch has been taken, and all that it may have is with it.
        ("coordinator", KILL, (0, 3)),
    ],
)
def test_a_worker_or_the_engine_of_a_broadcast_dies_or_freezes(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    strike: Strike,
    eventually: Eventually,
    program: str,
    number: int,
    taken: tuple[int, int],
) -> None:
    """One member is ahead of the other by then: both get each row once and in order."""
    both = addresses(socket_folder)
    service, _ = start(stream=STALL, binds=both, groups=TRIALS, max_consumers=2)
    with joined_trials(both) as readers:
        rows = [steps_of([reader], batches) for reader, batches in zip(readers, taken, strict=True)]
        assert eventually(lambda: were_sent(both[0], min(taken) + 4, "trials"), 100)
        strike(service, program, number)
        # More than may have been read and cut by then.
        read_in_turn(readers, rows, 45)
        # An engine that is replaced begins to count anew.
        assert program == "coordinator" or readers[0].stats(60).restarts > 0
    assert rows == [list(row_reference[: (batches + 45) * 16]) for batches in taken]


def test_the_frozen_engine_of_a_broadcast_goes_on_when_it_is_let(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], strike: Strike
) -> None:
    """Both members wait for it meanwhile, and nobody is sent away."""
    both = addresses(socket_folder)
    service, _ = start(binds=both, groups=TRIALS)
    with joined_trials(both) as readers:
        rows = [steps_of([reader], 3) for reader in readers]
        strike(service, "coordinator", STOP)
        for reader, got in zip(readers, rows, strict=True):
            with pytest.raises(GetTimeout):
                for _ in range(60):
                    got += row_digests(reader.next_batch(2))
        assert [member["state"] for member in members(both[0], "trials")] == ["open"] * 2
        strike(service, "coordinator", GO_ON)
        read_in_turn(readers, rows, 20)
        # It has made all of them.
        assert operate(both[0], "status")["groups"]["trials"]["engine"] == 1
    for got in rows:
        assert len(got) >= 23 * 16
        assert got == list(row_reference[: len(got)])


@pytest.mark.parametrize(
    ("program", "number"), [("collector", KILL), ("coordinator", KILL), ("coordinator", STOP)]
)
def test_a_worker_or_the_engine_of_a_broadcast_dies_or_freezes_during_a_drain(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    strike: Strike,
    eventually: Eventually,
    program: str,
    number: int,
) -> None:
    """Each member still gets what was sent to it, and the service ends with status 0."""
    both = addresses(socket_folder)
    service, _ = start(binds=both, groups=TRIALS)
    with joined_trials(both, reconnect_timeout=3.0) as readers:
        rows = [steps_of([reader], 3) for reader in readers]
        # What was taken and the credit of each.
        assert eventually(lambda: were_sent(both[0], 3 + 4, "trials"), 100)
        operate(both[1], "drain")
        strike(service, program, number)
        if (program, number) == ("coordinator", KILL):
            # Its memory is still read when another has been started.
            assert eventually(lambda: operate(both[0], "status")["groups"]["trials"]["troubles"])
        # In turn: who has read to the end waits for the others to do so.
        read_in_turn(readers, rows, 4)
        assert rest_of(readers) == []
    assert rows == [list(row_reference[: 7 * 16])] * 2
    assert service.process.wait(100) == 0


def test_the_network_of_a_member_is_cut_again_and_again(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """It gets each row once, and so does the other, which waits for it."""
    local, tcp = addresses(socket_folder)
    start(binds=(local, tcp), groups=TRIALS)
    chance = random.Random(5)
    rows: list[list[str]] = [[], []]
    with TcpProxy(tcp) as proxy, joined_trials((local, proxy.address)) as readers:
        read_in_turn(readers, rows, 2)
        for _ in range(5):
            cuts = proxy.cuts
            # A batch has about 200 KB, and the credit is four of them.
            proxy.cut_after(chance.randrange(800_000))
            while proxy.cuts == cuts:
                read_in_turn(readers, rows, 1)
        read_in_turn(readers, rows, 6)
    assert rows == [list(row_reference[: len(rows[0])])] * 2


# ---- What cannot be made good


@pytest.mark.parametrize(
    ("program", "raised"), [("loader", WorkerDied), ("coordinator", ServiceDied)]
)
def test_what_dies_all_the_time_is_an_error_for_every_consumer(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    eventually: Eventually,
    program: str,
    raised: type[ChunkdlError],
) -> None:
    """The ranks and the members get their rows up to there; then each is told the last death."""
    both = addresses(socket_folder)
    service, _ = start(stream={"max_restarts": 2}, binds=both, max_consumers=5)
    with joined(both) as ranks, joined_trials(both) as readers:
        rows = steps_of(ranks, 3)
        for reader in readers:
            assert steps_of([reader], 3) == rows
        left = read_while_they_die(service, program, (*ranks, *readers))
        with pytest.raises(raised, match="SIGKILL"), connect(both[1], "trials") as late:
            late.next_batch(60)
        for loader in (*ranks, *readers):
            with pytest.raises(raised, match="SIGKILL"):
                loader.next_batch(60)
    # A place that is left without a word is kept for 35 s.
    assert eventually(lambda: not members(both[0]) + members(both[0], "trials"))
    for _, error in left:
        assert type(error) is raised
        assert f"{program} " in str(error)
        assert "SIGKILL" in str(error)
    of_ranks, of_members = [got for got, _ in left[:2]], [got for got, _ in left[2:]]
    for rank, got in enumerate(of_ranks):
        steps = row_reference[3 * 16 :]
        mine = [row for place, row in enumerate(steps) if place // 8 % 2 == rank]
        assert got == mine[: len(got)]
    for got in of_members:
        assert got == list(row_reference[3 * 16 : 3 * 16 + len(got)])
