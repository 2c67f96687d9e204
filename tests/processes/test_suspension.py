"""A job that is stopped for longer than its limits goes on; nobody is declared dead for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl import Dataset, LightDL
from chunkdl.system.awake_clock import AwakeClock
from tests.processes.noisy_classes import Slowly

Eventually = Callable[..., bool]

LIMIT_S = 6.0
STOP_S = 1.5 * LIMIT_S
CALL_S = 0.4 * LIMIT_S
PROGRAM = """
import json, sys
sys.modules["torch"] = None  # it takes longer than all of the rest
from chunkdl import Dataset, LightDL
from tests.processes.noisy_classes import Slowly
paths, arguments = json.loads(sys.argv[1]), json.loads(sys.argv[2])
slowly = Slowly(float(sys.argv[3]), sys.argv[4])
given = {"tissue": "none", "arrays": "numpy", "tfms": slowly}
with LightDL(Dataset.from_slides(paths), **given, **arguments) as loader:
    for number in range(10**6):
        loader.get()
        print(number, loader.stats(60).restarts, flush=True)
"""
LIMITS = [{}, {"hook_timeout": LIMIT_S}]


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


@contextmanager
def running(dataset: Dataset, stream: dict[str, Any], file: Path) -> Iterator[psutil.Process]:
    """A training that writes a line after each batch, and beside it when its last call began."""
    paths = json.dumps([record.path for patient in dataset for record in patient.slides])
    with (
        file.open("w") as out,
        subprocess.Popen(
            [
                *(sys.executable, "-c", PROGRAM, paths, json.dumps(stream)),
                *(str(CALL_S), f"{file}.call"),
            ],
            stdout=out,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process,
    ):
        try:
            yield psutil.Process(process.pid)
        finally:
            process.kill()


@pytest.mark.parametrize("order", ["parents first", "children first"])
@pytest.mark.parametrize("limits", LIMITS, ids=["stall_timeout", "hook_timeout"])
def test_a_job_that_was_stopped_goes_on(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    tmp_path: Path,
    eventually: Eventually,
    limits: dict[str, float],
    order: str,
) -> None:
    """In the middle of a call that says nothing, woken in any order with pauses in between: no
    worker is replaced.
    """
    file = tmp_path / "lines"
    stream = {**small_stream, "batch_size": 1, "stall_timeout": LIMIT_S, **limits}

    def batches() -> int:
        return len(file.read_text().splitlines())

    with running(coordinate_dataset, stream, file) as training:
        assert eventually(lambda: batches() > 0, 60)
        processes = [training, *training.children(recursive=True)]
        assert len(processes) == 5
        call = Path(f"{file}.call")
        last = call.read_text()
        assert eventually(lambda: call.read_text() not in (last, ""), 60)
        time.sleep(CALL_S / 2)
        for process in processes:
            process.suspend()
        time.sleep(STOP_S)
        before = batches()
        for process in processes if order == "parents first" else processes[::-1]:
            process.resume()
            time.sleep(LIMIT_S / 100)
        assert eventually(lambda: batches() > before + 2, 60)
        assert processes == [training, *training.children(recursive=True)]
    assert all(line.endswith(" 0") for line in file.read_text().splitlines())


@pytest.mark.parametrize("program", ["coordinator", "collector"])
def test_one_that_was_stopped_for_less_than_its_limit_goes_on(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    processes_of_this_run: Callable[..., list[psutil.Process]],
    program: str,
) -> None:
    """It is neither asked too early nor replaced."""
    stream = {**small_stream, "stall_timeout": LIMIT_S}
    with LightDL(coordinate_dataset, **stream, tfms=Slowly(0.02)) as loader:
        loader.get(timeout=60)
        (stopped,) = processes_of_this_run(program)
        stopped.suspend()
        time.sleep(LIMIT_S / 3)
        stopped.resume()
        for _ in range(5):
            loader.get(timeout=60)
        assert loader.stats(60).restarts == 0


def test_the_clock_counts_little_of_what_passes_between_two_looks() -> None:
    """As much as was said, however long it was; and all of it for who looks often enough."""
    clock, sparse = AwakeClock(1000.0), AwakeClock(0.01)
    begun, often, seldom = time.monotonic(), clock.now(), sparse.now()
    time.sleep(0.05)
    assert clock.now() - often >= 0.05
    assert clock.now() - often <= time.monotonic() - begun
    assert 0 < sparse.now() - seldom <= 0.01 + 1e-9
