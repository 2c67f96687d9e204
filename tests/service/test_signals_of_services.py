"""Signals to every process of a service, a service that is stopped as a whole, and its starter."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

from chunkdl.consumers.connect import connect
from chunkdl.errors import ServiceDied
from chunkdl.service.client.control import operate
from chunkdl.service.process import ServiceProcess
from chunkdl.service.spec import ServiceSpec
from chunkdl.transport.given import FOR_THE_TRAINING
from tests.service.both_modes import each_row_once, in_turn, readers_of
from tests.service.conftest import Start
from tests.service.consumer_program import lines_of
from tests.service.stand_alone import stand_alone
from tests.service.two_ranks import addresses, joined, members, steps_of, were_sent

Processes = Callable[..., list[psutil.Process]]
Eventually = Callable[..., bool]
MakeSpec = Callable[..., ServiceSpec]

SILENT_S, GRACE_S = 1.5, 2.5
LIMIT_S = SILENT_S + GRACE_S
STOP_S = 2 * LIMIT_S
MOST_STEPS = 90


def send_to_all(processes: list[psutil.Process], number: int, *, reverse: bool) -> None:
    """Send a signal to each process."""
    for process in sorted(processes, key=lambda one: one.pid, reverse=reverse):
        process.send_signal(number)


def engine_of(address: str, group: str = "train") -> int:
    """Number of the engine that makes the batches of a group, of the ranks first."""
    number: int = operate(address, "status")["groups"][group]["engine"]
    return number


@pytest.mark.parametrize(
    ("group", "reverse"), [("train", False), ("train", True), ("trials", False)]
)
def test_a_service_that_belongs_to_a_training_outlives_what_is_sent_to_the_whole_job(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    processes_of_this_run: Processes,
    group: str,
    reverse: bool,
) -> None:
    """It does not even drain; nothing is replaced."""
    both = addresses(socket_folder)
    start(binds=both)
    with ExitStack() as stack:
        readers = readers_of(stack, group, both)
        parts = [steps_of([reader], 2) for reader in readers]
        for number in FOR_THE_TRAINING:
            send_to_all(processes_of_this_run(), number, reverse=reverse)
            in_turn(readers, parts, 1)
        in_turn(readers, parts, 10)
        assert not operate(both[0], "status")["draining"]
        assert engine_of(both[0], group) == 1
        assert readers[0].stats(60).restarts == 0
    assert each_row_once(parts, group, row_reference)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_daemon_drains_though_its_engine_is_told_to_end_as_well(
    service_spec: MakeSpec,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    processes_of_this_run: Processes,
    eventually: Eventually,
    number: int,
    reverse: bool,
) -> None:
    """As systemd does with KillMode=control-group, and Slurm: what was sent is still there."""
    both = addresses(socket_folder)
    with (
        stand_alone(service_spec(binds=both)) as daemon,
        joined(both, reconnect_timeout=3.0) as ranks,
    ):
        rows = steps_of(ranks, 3)
        assert eventually(lambda: were_sent(both[0], 3 + 4))
        send_to_all(processes_of_this_run(), number, reverse=reverse)
        rows += steps_of(ranks, 4)
        assert daemon.wait(100) == 0
    assert rows == list(row_reference[: len(rows)])


def test_a_daemon_goes_on_at_signals_that_mean_no_end(
    service_spec: MakeSpec,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    processes_of_this_run: Processes,
) -> None:
    """SIGUSR1 and the like; a batch system sends them to every step of a job."""
    both = addresses(socket_folder)
    ends = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    with stand_alone(service_spec(binds=both)), joined(both) as ranks:
        rows = steps_of(ranks, 1)
        for number in set(FOR_THE_TRAINING) - set(ends):
            send_to_all(processes_of_this_run(), number, reverse=False)
        rows += steps_of(ranks, 10)
        assert not operate(both[0], "status")["draining"]
        assert engine_of(both[0]) == 1
    assert rows == list(row_reference[: len(rows)])


@pytest.fixture
def consumers(
    tmp_path: Path,
) -> Iterator[Callable[[tuple[str, str], str], list[tuple[psutil.Process, Path]]]]:
    """Starts two ranks, or two members of a broadcast, as programs of their own, which write what
    they get to files.
    """
    with ExitStack() as stack:

        def begin(both: tuple[str, str], group: str) -> list[tuple[psutil.Process, Path]]:
            begun = []
            for rank, address in enumerate(both):
                file = tmp_path / str(rank)
                which: tuple[str, ...] = f"--rank={rank}", "--world-size=2", "--batch-size=8"
                if group != "train":
                    which = (f"--group={group}",)
                patience = f"--reconnect-timeout={LIMIT_S}"
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "tests.service.consumer_program",
                        address,
                        file,
                        *which,
                        patience,
                    ],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                )
                stack.callback(process.wait)
                stack.callback(process.kill)
                begun.append((psutil.Process(process.pid), file))
            return begun

        yield begin


def rows_of(files: list[Path], group: str) -> list[list[str]]:
    """What each has had, for `each_row_once`: of ranks as many steps of one as of the other.

    No more than is known of the undisturbed stream.
    """
    parts = [lines_of(file) for file in files]
    steps = min(MOST_STEPS, *map(len, parts)) if group == "train" else MOST_STEPS
    return [[row for line in part[:steps] for row in line.rows] for part in parts]


@pytest.mark.parametrize(
    ("first", "group"), [("service", "train"), ("consumers", "train"), ("service", "trials")]
)
def test_a_service_and_consumers_that_were_all_stopped_go_on(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    processes_of_this_run: Processes,
    eventually: Eventually,
    consumers: Callable[..., list[tuple[psutil.Process, Path]]],
    first: str,
    group: str,
) -> None:
    """For longer than anybody may be silent, woken in any order: they are who they were."""
    both = addresses(socket_folder)
    start(stream={"stall_timeout": LIMIT_S}, binds=both, silent_s=SILENT_S, grace_s=GRACE_S)
    ranks = consumers(both, group)
    files = [file for _, file in ranks]
    assert eventually(lambda: all(len(lines_of(file)) > 3 for file in files), 60)
    service, training = processes_of_this_run(), [process for process, _ in ranks]
    for process in service + training:
        process.suspend()
    time.sleep(STOP_S)
    before = [len(lines_of(file)) for file in files]
    for part in (service, training) if first == "service" else (training, service):
        for process in part:
            process.resume()
        # Long enough to be missed, and no longer than anybody may be.
        time.sleep(LIMIT_S / 3)
    assert eventually(
        lambda: all(len(lines_of(f)) > n + 10 for f, n in zip(files, before, strict=True)), 60
    )
    assert len(members(both[0], group)) == 2
    assert engine_of(both[0], group) == 1
    assert operate(both[0], "status")["joined"] == 2
    assert each_row_once(rows_of(files, group), group, row_reference)


@pytest.mark.parametrize("group", ["train", "trials"])
def test_any_processes_of_a_service_and_its_consumers_may_stand_still_for_a_moment(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    processes_of_this_run: Processes,
    eventually: Eventually,
    consumers: Callable[..., list[tuple[psutil.Process, Path]]],
    group: str,
) -> None:
    """Server, engine, workers and consumers, by chance: no row is lost, nobody is replaced."""
    chance = random.Random(7)
    both = addresses(socket_folder)
    start(stream={"stall_timeout": 20.0}, binds=both, silent_s=5.0, grace_s=10.0)
    ranks = consumers(both, group)
    files = [file for _, file in ranks]
    assert eventually(lambda: all(len(lines_of(file)) > 3 for file in files), 60)
    everybody = processes_of_this_run() + [process for process, _ in ranks]
    for _ in range(8):
        some = chance.sample(everybody, chance.randint(1, len(everybody)))
        for process in some:
            process.suspend()
        time.sleep(chance.uniform(0.1, 1.0))
        for process in some:
            process.resume()
        time.sleep(chance.uniform(0.0, 0.1))
    before = [len(lines_of(file)) for file in files]
    assert eventually(
        lambda: all(len(lines_of(f)) > n + 10 for f, n in zip(files, before, strict=True)), 60
    )
    assert all(process.is_running() for process in everybody)
    assert engine_of(both[0], group) == 1
    assert each_row_once(rows_of(files, group), group, row_reference)


STARTER = """
import os, pickle, signal, sys
from pathlib import Path
from chunkdl.consumers.connect import connect
from chunkdl.service.process import ServiceProcess
spec = pickle.loads(Path(sys.argv[1]).read_bytes())
service = ServiceProcess(spec)
fork = os.fork()
if fork:
    print(fork, flush=True)
signal.pause()
"""


def test_a_service_ends_after_its_starter_though_a_fork_of_that_lives_on(
    service_spec: MakeSpec,
    tmp_path: Path,
    processes_of_this_run: Processes,
    eventually: Eventually,
) -> None:
    """A worker of a DataLoader that was not ended has all of its descriptors."""
    given = tmp_path / "spec"
    given.write_bytes(cloudpickle.dumps(service_spec()))
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, given],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        try:
            assert processes_of_this_run("server")
            starter.kill()
            assert eventually(lambda: not processes_of_this_run(), 60)
            assert psutil.pid_exists(pid)
        finally:
            starter.kill()
            os.kill(pid, signal.SIGKILL)


def test_a_service_that_does_not_come_up_leaves_its_last_words(
    service_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one that has not come to its first line."""
    spec = service_spec()
    monkeypatch.setattr("chunkdl.transport.programs.START", "import a_module_that_is_not_there")
    with pytest.raises(ServiceDied, match="No module named 'a_module_that_is_not_there'"):
        ServiceProcess(spec)


def test_what_the_workers_of_a_service_say_is_in_its_error(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    """The consumers are told, wherever they are; and all of it is in the log of the service."""

    def says_and_ends(pixels: Any) -> Any:
        import os

        os.write(2, b"the last thing that was seen\n")
        os._exit(9)

    _, address = start(stream={"tfms": says_and_ends})
    with (
        connect(address, "trials") as loader,
        pytest.raises(Exception, match="the last thing that was seen"),
    ):
        loader.next_batch(100)
    assert "the last thing that was seen" in capfd.readouterr().err
