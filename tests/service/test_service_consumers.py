"""A consumer dies, freezes, or does not read; and how consumers, and services, are stopped."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from chunkdl.consumers.connect import connect
from chunkdl.consumers.loader import Loader
from chunkdl.errors import Closed, GetTimeout, ProtocolError, ServiceDied, ServiceRefused
from chunkdl.service.client.control import operate
from chunkdl.service.client.session_thread import GOODBYE_S
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec
from chunkdl.service.spec import ServiceSpec
from chunkdl.transport.protocol.service_messages import Drain
from tests.service.conftest import Start, row_digests
from tests.service.consumer_program import lines_of, rows_in
from tests.service.stand_alone import stand_alone
from tests.service.two_ranks import addresses, joined, members, steps_of, were_sent

Processes = Callable[..., list[psutil.Process]]
Eventually = Callable[..., bool]
Program = subprocess.Popen[bytes]
Begin = Callable[..., Program]

DETACHING = GroupSpec(name="trials", mode="broadcast", laggard="detach")
BLOCKING = GroupSpec(name="trials", mode="broadcast")
BATCH = "--batch-size", "8"


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts consumers of their own; all are killed after the test."""
    running: list[Program] = []

    def start_one(address: str, file: Path, *options: str) -> Program:
        program = [sys.executable, "-m", "tests.service.consumer_program", address, str(file)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        running.append(subprocess.Popen([*program, *options], env=environment))
        return running[-1]

    yield start_one
    for process in running:
        process.kill()
        process.wait()


def is_stretch(rows: list[str], reference: tuple[str, ...]) -> bool:
    """Whether these are rows of the stream, from anywhere on, each once and in order.

    Who comes to a broadcast begins where the others are.
    """
    first = reference.index(rows[0])
    return rows == list(reference[first : first + len(rows)])


# ---- Death


@pytest.mark.parametrize("which", [0, 1], ids=["local", "tcp"])
def test_another_takes_the_rank_of_one_that_was_killed(
    start: Start,
    socket_folder: Path,
    tmp_path: Path,
    row_reference: tuple[str, ...],
    begin: Begin,
    eventually: Eventually,
    which: int,
) -> None:
    """What it had not given back comes again, nothing else twice, and nothing is lost."""
    both = addresses(socket_folder)
    start(binds=both, silent_s=1.0, grace_s=2.0)
    options = ("--rank", "1", "--world-size", "2", *BATCH)
    first = begin(both[which], tmp_path / "first", *options)
    with connect(both[0], rank=0, world_size=2, batch_size=8) as loader:
        rows = [row_digests(loader.next_batch(60)) for _ in range(5)]
        assert eventually(lambda: len(lines_of(tmp_path / "first")) >= 5, 60)
        first.kill()
        first.wait()
        rows += [row_digests(loader.next_batch(60)) for _ in range(15)]
        # The kernel tells of a local one at once, the silence of another later.
        assert eventually(lambda: len(members(both[0])) == 1, 100)
        before = lines_of(tmp_path / "first")
        # Up to step 20, which the other has had: it may be further ahead only by what fits.
        more = max(1, 24 - len(before))
        begin(both[which], tmp_path / "second", *options, "--batches", str(more)).wait(60)
    after = lines_of(tmp_path / "second")
    of_step = {line.step: line.rows for line in [*before, *after]}
    assert all(of_step[line.step] == line.rows for line in before)
    assert [line.step for line in before] == list(range(len(before)))
    # Its credit is what may have been with it.
    assert len(before) - 4 <= after[0].step <= len(before)
    assert [line.step for line in after] == list(range(after[0].step, after[0].step + more))
    mine = [row for step in range(20) for row in (*rows[step], *of_step[step])]
    assert mine == list(row_reference[: 20 * 16])


# ---- Silence


def test_a_frozen_rank_stops_nobody_and_goes_on(
    start: Start,
    socket_folder: Path,
    tmp_path: Path,
    row_reference: tuple[str, ...],
    begin: Begin,
    eventually: Eventually,
) -> None:
    """The other gets what the memory is good for, and then both go on exactly."""
    both = addresses(socket_folder)
    start(binds=both, silent_s=0.5)
    file = tmp_path / "frozen"
    frozen = begin(both[1], file, "--rank", "1", "--world-size", "2", *BATCH, "--batches", "30")
    with connect(both[0], rank=0, world_size=2, batch_size=8) as loader:
        rows = [row_digests(loader.next_batch(60)) for _ in range(5)]
        assert eventually(lambda: len(lines_of(file)) >= 5, 60)
        frozen.send_signal(signal.SIGSTOP)
        assert eventually(lambda: {m["state"] for m in members(both[0])} == {"open", "suspect"})
        with pytest.raises(GetTimeout):
            for _ in range(60):
                rows += [row_digests(loader.next_batch(2))]
        frozen.send_signal(signal.SIGCONT)
        while len(rows) < 30:
            rows.append(row_digests(loader.next_batch(60)))
        assert frozen.wait(60) == 0
    theirs = [line.rows for line in lines_of(file)]
    steps = zip(rows[:30], theirs, strict=True)
    assert [r for step in steps for part in step for r in part] == list(row_reference[: 30 * 16])


KEEPER = """
import sys
from tests.no_torch import have_no_torch

have_no_torch()
from chunkdl import connect
from tests.service.digests import row_digests

loader = connect(sys.argv[1], rank=0, world_size=1, arrays="numpy")
kept = [loader.next_batch(60, copy=False) for _ in range(3)]
print("has", flush=True)
sys.stdin.readline()
print(*(row for batch in kept for row in row_digests(batch)), flush=True)
"""


def test_a_frozen_rank_finds_its_batches_as_they_were(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], eventually: Eventually
) -> None:
    """It has lost its rank, another has had the same rows and many more; its memory is its own."""
    both = addresses(socket_folder)
    start(binds=both, silent_s=2.0, grace_s=3.0)
    program = [sys.executable, "-c", KEEPER, both[0]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as keeper:
        try:
            assert keeper.stdin is not None
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == "has\n"
            keeper.send_signal(signal.SIGSTOP)
            assert eventually(lambda: [m["state"] for m in members(both[0])] == ["expired"])
            with connect(both[1], rank=0, world_size=1) as successor:
                # More than there are slots.
                assert steps_of([successor], 60) == list(row_reference[: 60 * 16])
            keeper.send_signal(signal.SIGCONT)
            keeper.stdin.write("now\n")
            keeper.stdin.flush()
            assert keeper.stdout.readline().split() == list(row_reference[: 3 * 16])
        finally:
            keeper.kill()


@pytest.mark.parametrize("group", [DETACHING, BLOCKING], ids=lambda group: group.laggard)
def test_a_frozen_reader_of_a_broadcast(
    start: Start,
    socket_folder: Path,
    tmp_path: Path,
    row_reference: tuple[str, ...],
    begin: Begin,
    eventually: Eventually,
    group: GroupSpec,
) -> None:
    """The others go on without it, or with it when it wakes, as the group says; it is told."""
    both = addresses(socket_folder)
    # Whom the others do not wait for is not sent away because its time is over.
    grace_s = 30.0 if group is BLOCKING else 1000.0
    start(binds=both, groups=(group,), silent_s=0.5, grace_s=grace_s)
    file = tmp_path / "frozen"
    frozen = begin(both[0], file, "--group", "trials", "--batches", "40")
    with ExitStack() as stack:
        readers = [stack.enter_context(connect(address, "trials")) for address in both]
        assert eventually(lambda: len(lines_of(file)) >= 1, 60)
        rows = [steps_of([reader], 1) for reader in readers]
        frozen.send_signal(signal.SIGSTOP)
        if group is BLOCKING:
            with pytest.raises(GetTimeout):
                for _ in range(20):
                    rows[0] += row_digests(readers[0].next_batch(2))
            frozen.send_signal(signal.SIGCONT)
        for _ in range(30):
            # The one that is behind first: the other may be waiting for it.
            for got, reader in reversed(list(zip(rows, readers, strict=True))):
                got += row_digests(reader.next_batch(60))
        frozen.send_signal(signal.SIGCONT)
        # It has what is left of its batches when the others have left.
    status = frozen.wait(60)
    assert (status == 0) == (group is BLOCKING)
    for got in (*rows, rows_in(file)):
        assert is_stretch(got, row_reference)


# ---- Greed


def test_a_consumer_that_keeps_its_batches_is_told(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """With all of its credit in use it gets an error, the others get their batches."""
    both = addresses(socket_folder)
    start(binds=both)
    with joined((both[0], both[0])) as (greedy, other):
        kept = [greedy.next_batch(60, copy=False) for _ in range(4)]
        for _ in range(2):
            with pytest.raises(ProtocolError, match="all 4 batches of the credit are in use"):
                greedy.next_batch(60, copy=False)
        theirs = steps_of([other], 12)
        mine = [row for batch in kept for row in row_digests(batch)]
        kept.clear()
        mine += steps_of([greedy], 8)
    steps = [(*mine[at : at + 8], *theirs[at : at + 8]) for at in range(0, 96, 8)]
    assert [row for step in steps for row in step] == list(row_reference[: 12 * 16])


def test_bytes_of_credit_are_as_many_batches_as_they_hold(
    start: Start,
    service_spec: Callable[..., ServiceSpec],
    row_reference: tuple[str, ...],
) -> None:
    """Who has used up the bytes is told, and does not wait for ever."""
    slot = service_spec().config.run.batch_slot_bytes
    _, address = start()
    with connect(address, "trials", credit_bytes=2 * slot + slot // 2) as greedy:
        kept = [greedy.next_batch(60, copy=False) for _ in range(2)]
        with pytest.raises(ProtocolError, match="all 2 batches of the credit are in use"):
            greedy.next_batch(60, copy=False)
        rows = [row for batch in kept for row in row_digests(batch)]
        kept.clear()
        rows += steps_of([greedy], 4)
    assert is_stretch(rows, row_reference)


@pytest.mark.parametrize("how", ["closed", "collected"])
def test_a_batch_that_is_kept_outlives_its_loader(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], how: str
) -> None:
    """It stays what it was, however much is made after it, and the others get their batches."""
    both = addresses(socket_folder)
    start(binds=both)
    loader = connect(both[0], "train")
    kept = [loader.next_batch(60, copy=False) for _ in range(2)]
    if how == "closed":
        loader.close()
    else:
        del loader
        gc.collect()
    with connect(both[0], "train") as another:
        rows = steps_of([another], 40)
    assert is_stretch(rows, row_reference)
    assert [row for batch in kept for row in row_digests(batch)] == list(row_reference[:32])
    kept.clear()


def memfd_bytes(processes: list[psutil.Process]) -> int:
    """Size of all anonymous memory that the processes have open, each once."""
    sizes = {}
    for process in processes:
        folder = Path(f"/proc/{process.pid}/fd")
        for link in folder.iterdir():
            try:
                if os.readlink(link).startswith("/memfd:chunkdl"):
                    found = link.stat()
                    sizes[found.st_ino] = found.st_size
            except FileNotFoundError:
                continue
    return sum(sizes.values())


def own_bytes(processes: list[psutil.Process]) -> int:
    """Memory of the processes that they share with nobody."""
    return sum(process.memory_full_info().uss for process in processes)


def test_sixteen_readers_that_stall_cost_no_more_than_was_promised(
    service_spec: Callable[..., ServiceSpec],
    socket_folder: Path,
    row_reference: tuple[str, ...],
    processes_of_this_run: Processes,
    eventually: Eventually,
) -> None:
    """The arenas have the size that was said before, nothing else grows, and no 17th gets in."""
    both = addresses(socket_folder)
    spec = service_spec(binds=both, max_consumers=16, credit_batches=2)
    service = ServiceProcess(spec)
    try:
        with ExitStack() as stack:
            readers = [stack.enter_context(connect(both[0], "trials"))]
            assert eventually(lambda: were_sent(both[0], 2, "trials"), 100)
            alone = own_bytes(processes_of_this_run())
            readers += [
                stack.enter_context(connect(both[number % 2], "trials")) for number in range(1, 16)
            ]
            assert eventually(lambda: were_sent(both[0], 2, "trials"), 100)
            with pytest.raises(ServiceRefused, match="has its 16 consumers; raise max_consumers"):
                connect(both[1], "trials")
            arenas = spec.config.run.memory_bytes
            # The records of the workers' doings are the rest.
            assert memfd_bytes(processes_of_this_run()) < sum(arenas) + 2**20
            assert own_bytes(processes_of_this_run()) - alone < 16 * 2**20
            for reader in readers:
                assert is_stretch(steps_of([reader], 2), row_reference)
    finally:
        service.close()


# ---- Pause, drain, end


def test_a_pause_by_the_operator(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """Nothing more is sent until it is over, and nothing is missing then."""
    both = local, tcp = addresses(socket_folder)
    start(binds=both)
    with joined(both) as ranks:
        rows = steps_of(ranks, 3)
        operate(local, "pause", "train")
        got: list[str] = []
        with pytest.raises(GetTimeout):
            for _ in range(10):
                got += row_digests(ranks[1].next_batch(1))
        operate(tcp, "resume")
        other = steps_of([ranks[0]], len(got) // 8)
        for at in range(0, len(got), 8):
            rows += other[at : at + 8] + got[at : at + 8]
        rows += steps_of(ranks, 5)
    assert rows == list(row_reference[: len(rows)])


def test_a_pause_by_a_consumer_ends_with_the_next_batch_that_it_asks_for(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """Meanwhile the other goes on as far as it can without its rows; nothing is missing then."""
    both = addresses(socket_folder)
    start(binds=both)
    with joined(both) as ranks:
        rows = steps_of(ranks, 3)
        ranks[0].pause()
        got: list[str] = []
        with pytest.raises(GetTimeout):
            for _ in range(100):
                got += row_digests(ranks[1].next_batch(2))
        assert len(got) < 100 * 8
        other = steps_of([ranks[0]], len(got) // 8)
        for at in range(0, len(got), 8):
            rows += other[at : at + 8] + got[at : at + 8]
        rows += steps_of(ranks, 5)
    assert rows == list(row_reference[: len(rows)])


def test_a_drain_of_one_rank_leaves_its_place_to_another(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], eventually: Eventually
) -> None:
    """What was sent is still there, then it is told; who comes next goes on behind it."""
    both = addresses(socket_folder)
    start(binds=both)
    with connect(both[1], rank=0, world_size=1) as loader:
        rows = steps_of([loader], 3)
        loader._running().send(Drain())
        with pytest.raises(ServiceRefused, match="drain"):
            while True:
                rows += row_digests(loader.next_batch(60))
    assert eventually(lambda: not members(both[0]))
    with connect(both[0], rank=0, world_size=1) as loader:
        rows += steps_of([loader], 5)
    assert rows == list(row_reference[: len(rows)])


def test_sigterm_lets_consumers_finish(
    service_spec: Callable[..., ServiceSpec],
    socket_folder: Path,
    row_reference: tuple[str, ...],
    eventually: Eventually,
) -> None:
    """No more consumers and no more batches; it ends with status 0 when all is given back."""
    both = addresses(socket_folder)
    with (
        stand_alone(service_spec(binds=both)) as service,
        joined(both, reconnect_timeout=3.0) as ranks,
    ):
        rows = steps_of(ranks, 3)
        assert eventually(lambda: were_sent(both[0], 3 + 4))
        service.terminate()
        with pytest.raises(ServiceRefused, match="about to end"):
            connect(both[0], "trials")
        assert service.poll() is None
        # What was sent before.
        rows += steps_of(ranks, 4)
        assert service.wait(100) == 0
        for loader in ranks:
            with pytest.raises(ServiceDied, match="nobody answers"):
                loader.next_batch(60)
    assert rows == list(row_reference[: 7 * 16])


def test_a_second_sigterm_ends_at_once(
    service_spec: Callable[..., ServiceSpec],
    socket_folder: Path,
    row_reference: tuple[str, ...],
    eventually: Eventually,
) -> None:
    """Without waiting for what is out, which stays readable for those who have it."""
    both = addresses(socket_folder)
    with (
        stand_alone(service_spec(binds=both, drain_s=1000.0)) as service,
        connect(both[0], rank=0, world_size=1, reconnect_timeout=3.0) as loader,
    ):
        batch = loader.next_batch(60, copy=False)
        service.terminate()
        assert eventually(lambda: operate(both[0], "status")["draining"])
        assert service.poll() is None
        service.terminate()
        assert service.wait(100) == 0
        assert row_digests(batch) == list(row_reference[:16])


def test_a_service_ends_with_its_last_consumer(start: Start, socket_folder: Path) -> None:
    """Where it was told to; with status 0, and not before the last has left."""
    both = addresses(socket_folder)
    service, _ = start(binds=both, exit_when_idle=True)
    with connect(both[0], "trials") as first:
        with connect(both[1], "trials") as second:
            steps_of([first, second], 2)
        steps_of([first], 2)
        assert service.process.poll() is None
    assert service.process.wait(100) == 0


def test_who_leaves_with_batches_on_their_way_waits_for_no_deadline(start: Start) -> None:
    """Also where the service has sent batches that nobody has read."""
    _, address = start(stream={"num_loaders": 1})
    taken = []
    for number in range(80):
        loader = connect(address, group="train", rank=0, world_size=1)

        def take(loader: Loader = loader) -> None:
            with contextlib.suppress(Closed):
                while True:
                    loader.next_batch(60)

        thread = threading.Thread(target=take)
        thread.start()
        # For another moment in the life of the batches each time.
        thread.join(0.003 * (number % 7))
        began = time.monotonic()
        loader.close()
        taken.append(time.monotonic() - began)
        thread.join()
    # A busy machine may keep one of them waiting.
    assert sum(seconds > 0.9 * GOODBYE_S for seconds in taken) <= 1, taken
