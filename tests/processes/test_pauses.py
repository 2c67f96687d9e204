"""Any of the processes of a training stand still for a moment, again and again: the same stream."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl import Dataset

Eventually = Callable[..., bool]

MOMENT_S = 1.0
PROGRAM = """
import pickle, sys, time
from pathlib import Path
from chunkdl import LightDL
from tests.conftest import batch_digest
dataset, stream = pickle.loads(Path(sys.argv[1]).read_bytes())
with LightDL(dataset, **stream) as loader:
    for _ in range(200):
        print(batch_digest(loader.next_batch(100)), loader.stats(60).restarts, flush=True)
        time.sleep(0.02)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


@pytest.mark.parametrize(
    ("stall_s", "of_workers_s"), [(20 * MOMENT_S, MOMENT_S), (3 * MOMENT_S, 4.5 * MOMENT_S)]
)
def test_any_processes_that_stand_still_for_a_moment_change_nothing(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    reference: tuple[str, ...],
    eventually: Eventually,
    tmp_path: Path,
    stall_s: float,
    of_workers_s: float,
) -> None:
    """The training among them: the batches are those of an undisturbed run.

    Nobody is replaced but workers that stood still for longer than they may.
    """
    chance = random.Random(int(stall_s))
    given, file = tmp_path / "given", tmp_path / "lines"
    stream = {**small_stream, "stall_timeout": stall_s, "max_restarts": 50}
    given.write_bytes(pickle.dumps((coordinate_dataset, stream)))

    def lines() -> list[list[str]]:
        return [line.split() for line in file.read_text().splitlines()]

    with (
        file.open("w") as out,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, given],
            stdin=subprocess.PIPE,
            stdout=out,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as training,
    ):
        try:
            assert eventually(lambda: len(lines()) > 0, 60)
            root = psutil.Process(training.pid)
            everybody = [root, *root.children(recursive=True)]
            assert len(everybody) == 5
            workers = everybody[2:]
            for turn in range(6):
                among = everybody if turn % 2 else workers
                some = chance.sample(among, chance.randint(1, len(among)))
                for process in some:
                    process.suspend()
                time.sleep(chance.uniform(0.1, MOMENT_S if turn % 2 else of_workers_s))
                for process in some:
                    process.resume()
                time.sleep(chance.uniform(0.0, 0.1))
            assert eventually(lambda: len(lines()) == len(reference), 100)
            if of_workers_s < stall_s:
                assert everybody == [root, *root.children(recursive=True)]
            assert everybody[:2] == [root, *root.children()]
        finally:
            training.kill()
    assert [digest for digest, _ in lines()] == list(reference)
    assert of_workers_s > stall_s or {restarts for _, restarts in lines()} == {"0"}
