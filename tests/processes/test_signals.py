"""Signals that are sent to every process of a job are for the training to decide."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl import Dataset, LightDL
from chunkdl.transport.given import FOR_THE_TRAINING
from tests.processes.noisy_classes import Installs, Starts

Processes = Callable[..., list[psutil.Process]]
Orders = {
    "parents first": lambda processes: sorted(processes, key=lambda process: process.pid),
    "children first": lambda processes: sorted(processes, key=lambda process: -process.pid),
}


def send_to_all(processes: list[psutil.Process], number: int, order: str) -> None:
    """Send a signal to each process."""
    for process in Orders[order](processes):
        process.send_signal(number)


@pytest.mark.parametrize("order", Orders)
def test_processes_outlive_what_is_sent_to_the_whole_job(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    reference: tuple[str, ...],
    digest_of: Callable[[Any], str],
    processes_of_this_run: Processes,
    order: str,
) -> None:
    """Every signal that asks for an end or means something to the training; none is replaced."""
    with LightDL(coordinate_dataset, **small_stream) as loader:
        digests = [digest_of(loader.next_batch(60))]
        before = {process.pid for process in processes_of_this_run()}
        for number in (*FOR_THE_TRAINING, signal.SIGPIPE, signal.SIGWINCH, signal.SIGCONT):
            send_to_all(processes_of_this_run(), number, order)
            digests += [digest_of(loader.next_batch(60)) for _ in range(3)]
        for number in (signal.SIGTSTP, signal.SIGCONT):
            send_to_all(processes_of_this_run(), number, order)
        digests += [digest_of(loader.next_batch(60)) for _ in range(20)]
        assert loader.stats(60).restarts == 0
        assert {process.pid for process in processes_of_this_run()} == before
    assert digests == list(reference[: len(digests)])
    assert processes_of_this_run() == []


def test_a_signal_that_comes_while_processes_begin_ends_none(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> None:
    """From the first moment on, before they have run a line of their own."""
    over = threading.Event()
    sent = set()

    def send_all_the_time() -> None:
        while not over.is_set():
            for process in processes_of_this_run():
                # At the end the loader ends them itself.
                with contextlib.suppress(psutil.NoSuchProcess):
                    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
                        process.send_signal(number)
                    sent.add(process.pid)

    sender = threading.Thread(target=send_all_the_time)
    sender.start()
    try:
        with LightDL(coordinate_dataset, **small_stream) as loader:
            loader.get(timeout=100)
            assert loader.stats(60).restarts == 0
            assert len(sent) == 3
    finally:
        over.set()
        sender.join()


def test_signals_that_come_all_at_once_end_none(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> None:
    """As to a process that did not run meanwhile: one interrupts the handler of the other."""
    with LightDL(coordinate_dataset, **small_stream) as loader:
        loader.get(timeout=100)
        for process in processes_of_this_run():
            process.suspend()
            for number in FOR_THE_TRAINING:
                process.send_signal(number)
            process.resume()
        for _ in range(20):
            loader.get(timeout=100)
        assert loader.stats(60).restarts == 0


def test_what_a_hook_starts_has_the_usual_signals(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program ends by SIGTERM, so does a fork; none is blocked or ignored there."""
    monkeypatch.setenv("PYTHONPATH", "/nowhere:/at/all")
    found = tmp_path / "found"
    with LightDL(coordinate_dataset, **small_stream, tfms=Starts(found)) as loader:
        loader.get(timeout=60)
    told = found.read_text()
    masks = {
        name: int(re.findall(rf"{name}:\s*(\w+)", told)[0], 16) for name in ("SigBlk", "SigIgn")
    }
    ours = {number for number in FOR_THE_TRAINING if number != signal.SIGINT}
    for mask in masks.values():
        assert not [number for number in ours if mask >> (number - 1) & 1]
    assert f"ends {-signal.SIGTERM} {-signal.SIGTERM}" in told
    # Nor is the environment another one than the user's.
    assert "/nowhere:/at/all" in told


def test_handlers_of_imported_code_do_not_end_a_worker(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> None:
    """A library that leaves at SIGTERM does not in a worker; its alarm is its own."""
    with LightDL(coordinate_dataset, **small_stream, tfms=Installs()) as loader:
        loader.get(timeout=60)
        send_to_all(processes_of_this_run(), signal.SIGTERM, "parents first")
        for _ in range(20):
            loader.get(timeout=60)
        assert loader.stats(60).restarts == 0


NOHUP = """
import json, signal, sys
sys.modules["torch"] = None  # it takes longer than all of the rest
from chunkdl import Dataset, LightDL
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
paths = json.loads(sys.argv[1])
given = {"tissue": "none", "arrays": "numpy", **json.loads(sys.argv[2])}
with LightDL(Dataset.from_slides(paths), **given) as loader:
    loader.get(timeout=60)
    import psutil
    for process in psutil.Process().children(recursive=True):
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
    for _ in range(20):
        loader.get(timeout=60)
    assert loader.stats(60).restarts == 0
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
assert blocked == {signal.SIGUSR1}, blocked
print("went on")
"""


def test_a_training_that_ignores_or_blocks_signals_keeps_its_own_ways(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """What a thread had blocked before is blocked afterwards, and nothing else."""
    import json

    paths = json.dumps([record.path for patient in coordinate_dataset for record in patient.slides])
    done = subprocess.run(
        [sys.executable, "-c", NOHUP, paths, json.dumps(small_stream)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "went on\n", done.stderr
