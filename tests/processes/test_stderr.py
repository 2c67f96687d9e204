"""What a process wrote last is in the error about its death, and all of it on the user's stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl import Dataset, LightDL
from chunkdl.errors import ServiceDied, WorkerDied
from chunkdl.transport.programs import ChildProgram
from chunkdl.transport.stderr_tail import KEPT_BYTES, MOST_CHARACTERS, MOST_LINES, StderrTail
from tests.processes.noisy_classes import WORDS, Flood, say_and_crash


def test_the_last_words_of_a_worker_are_in_the_error(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Written by whatever code to the descriptor; and live on the stderr of the training."""
    with (
        LightDL(coordinate_dataset, **small_stream, tfms=say_and_crash) as loader,
        pytest.raises(WorkerDied, match=f"ended with 7.*last lines of its stderr:\n.*{WORDS[:-1]}"),
    ):
        for _ in range(10):
            loader.get(timeout=60)
    assert WORDS in capfd.readouterr().err


def test_the_last_words_of_a_coordinator_are_in_the_error(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even of one that has not come to its first line."""
    monkeypatch.setattr("chunkdl.transport.programs.START", "import a_module_that_is_not_there")
    with (
        pytest.raises(ServiceDied, match="No module named 'a_module_that_is_not_there'"),
        LightDL(coordinate_dataset, **small_stream),
    ):
        pass


def test_a_flood_goes_through_and_is_not_kept(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
    processes_of_this_run: Callable[..., list[psutil.Process]],
) -> None:
    """Nobody waits for it, and nobody's memory grows by it."""
    size = 32 * 2**20
    with LightDL(coordinate_dataset, **small_stream, tfms=Flood(size)) as loader:
        loader.get(timeout=100)
        (coordinator,) = processes_of_this_run("coordinator")
        private = coordinator.memory_full_info().uss
        assert loader.stats(60).restarts == 0
    assert private < 200 * 2**20
    assert capfd.readouterr().err.count("x" * 1023 + "\n") == size // 1024


class Piped:
    """A child with a pipe for its stderr, which is heard."""

    def __init__(self, program: str, copy_to: int) -> None:
        heard, written = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stderr=written, stdin=subprocess.DEVNULL
        )
        os.close(written)
        self.tail = StderrTail(heard, self.process.pid, copy_to)

    def last_lines(self) -> str:
        """Of the child, once it has ended."""
        self.process.wait(100)
        return self.tail.last_lines()


def test_little_is_kept_and_the_last_of_it(tmp_path: Path) -> None:
    """So many lines, so many characters, without what is not text."""
    with (tmp_path / "copy").open("wb") as copy:
        program = "import os\nfor n in range(9999): os.write(2, b'line \\xff%d\\n' % n)"
        child = Piped(program, os.dup(copy.fileno()))
    lines = child.last_lines().splitlines()
    assert len(lines) == MOST_LINES
    assert lines[-1] == "line \N{REPLACEMENT CHARACTER}9998"
    assert (tmp_path / "copy").read_bytes().count(b"\n") == 9999
    with (tmp_path / "copy").open("wb") as copy:
        child = Piped("import os; os.write(2, b'y' * 99_999)", os.dup(copy.fileno()))
    assert child.last_lines() == "y" * MOST_CHARACTERS
    assert MOST_CHARACTERS < KEPT_BYTES


@pytest.mark.parametrize("copy", ["full", "closed pipe"])
def test_a_log_that_takes_nothing_stops_nobody(copy: str) -> None:
    """A full disk, or a reader that is gone; the last lines are there all the same."""
    if copy == "full":
        copy_to = os.open("/dev/full", os.O_WRONLY)
    else:
        gone, copy_to = os.pipe()
        os.close(gone)
    child = Piped("import os; os.write(2, b'z' * 999_999 + b'\\nthe end')", copy_to)
    assert child.last_lines().endswith("the end")


def test_what_a_child_has_started_does_not_hold_its_end_up() -> None:
    """A program of the user's code may live on and keep the pipe."""
    program = (
        "import os, subprocess; p = subprocess.Popen(['sleep', '60']); os.write(2, b'%d' % p.pid)"
    )
    child = Piped(program, os.open(os.devnull, os.O_WRONLY))
    pid = int(child.last_lines())
    try:
        assert psutil.pid_exists(pid)
        assert child.tail.is_over
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_fork_of_the_training_ends_none_of_its_programs() -> None:
    """The number of a process means nothing to somebody whose child it is not."""
    program = ChildProgram("tests.processes.waiting_program", [], [], leads=True)
    try:
        pid = os.fork()
        if pid == 0:
            program.kill()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.2)
    finally:
        program.end()


TRAINING = """
import json, sys
from pathlib import Path
sys.modules["torch"] = None  # it takes longer than all of the rest
from chunkdl import Dataset, LightDL
from tests.processes.noisy_classes import Flood
paths, arguments, now = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
flood = Flood(2**20, now)
given = {"tissue": "none", "arrays": "numpy", "tfms": flood}
with LightDL(Dataset.from_slides(paths), **given, **arguments) as loader:
    print("running", flush=True)
    loader.get(timeout=100)
"""


def test_what_workers_write_does_not_wait_for_a_stopped_training(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    tmp_path: Path,
    processes_of_this_run: Callable[..., list[psutil.Process]],
    eventually: Callable[..., bool],
) -> None:
    """It does not go through it."""
    paths = json.dumps([record.path for patient in coordinate_dataset for record in patient.slides])
    now, written = tmp_path / "now", tmp_path / "stderr"
    with (
        written.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, paths, json.dumps(small_stream), str(now)],
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as training,
    ):
        try:
            assert eventually(lambda: len(processes_of_this_run("collector")) == 1, 60)
            training.send_signal(signal.SIGSTOP)
            now.touch()
            assert eventually(lambda: written.stat().st_size >= 2**20, 60)
            training.send_signal(signal.SIGCONT)
            assert training.wait(60) == 0
        finally:
            training.kill()
