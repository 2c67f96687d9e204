"""The stream is the plan: the same bytes for any processes, after any resume and any murder."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl import Dataset, LightDL

Digest = Callable[[Any], str]


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


@pytest.mark.parametrize("collectors", [1, 2])
@pytest.mark.parametrize("loaders", [1, 2, 3])
def test_the_number_of_processes_does_not_change_a_bit(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    reference: tuple[str, ...],
    digest_of: Digest,
    loaders: int,
    collectors: int,
) -> None:
    """The first 200 batches have the same SHA-256 for any loaders and collectors."""
    arguments = {**small_stream, "num_loaders": loaders, "num_collectors": collectors}
    with LightDL(coordinate_dataset, **arguments) as loader:
        got = tuple(digest_of(loader.next_batch(60)) for _ in range(200))

    assert got == reference


def test_relaxed_order_gives_the_same_batches(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    reference: tuple[str, ...],
    digest_of: Digest,
) -> None:
    """Relaxed order may swap batches within its window and changes nothing else."""
    arguments = {**small_stream, "order": "relaxed", "num_collectors": 2}
    window = 6
    with LightDL(coordinate_dataset, **arguments) as loader:
        got = [loader.next_batch(60) for _ in range(150)]

    assert all(digest_of(batch) == reference[batch.number] for batch in got)
    numbers = [batch.number for batch in got]
    assert len(set(numbers)) == 150
    assert all(abs(place - number) < window for place, number in enumerate(numbers))


def test_a_resumed_stream_goes_on_exactly(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    reference: tuple[str, ...],
    digest_of: Digest,
) -> None:
    """States of the beginning, the middle and the end of BigChunks, through JSON, bring back
    exactly the batches after them; each restarts all processes.
    """
    states = {}
    with LightDL(coordinate_dataset, **small_stream) as loader:
        for number in range(191):
            if number in (0, 1, 7, 30, 64, 113, 190):
                states[number] = json.dumps(loader.state_dict())
            loader.next_batch(60)
        for number, state in states.items():
            loader.load_state_dict(json.loads(state))
            got = [digest_of(loader.next_batch(60)) for _ in range(3)]

            assert tuple(got) == reference[number : number + 3]


def test_relaxed_order_resumes_without_loss_or_repetition(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Batches that overtook before the state was saved do not come again, and none is missing."""
    arguments = {**small_stream, "order": "relaxed", "num_collectors": 2}
    numbers: list[int] = []
    with LightDL(coordinate_dataset, **arguments) as loader:
        for _ in range(6):
            numbers.extend(loader.next_batch(60).number for _ in range(7))
            loader.load_state_dict(loader.state_dict())
        numbers.extend(loader.next_batch(60).number for _ in range(20))

    assert len(set(numbers)) == len(numbers)
    assert set(range(50)) <= set(numbers)


def test_murdered_workers_leave_no_trace_in_the_stream(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    reference: tuple[str, ...],
    digest_of: Digest,
    processes_of_this_run: Callable[..., list[psutil.Process]],
    eventually: Callable[..., bool],
) -> None:
    """Twenty loaders and collectors are killed at random moments; not one bit changes."""
    chance = random.Random(20)
    moments = set(chance.sample(range(1, 195), 20))
    arguments = {**small_stream, "num_collectors": 2, "max_restarts": 50}
    got = []
    # One that was killed a moment ago may still look alive and be chosen again.
    victims: set[psutil.Process] = set()
    with LightDL(coordinate_dataset, **arguments) as loader:
        for number in range(200):
            if number in moments:
                workers = processes_of_this_run("loader") + processes_of_this_run("collector")
                victim = chance.choice(workers)
                victim.send_signal(signal.SIGKILL)
                victims.add(victim)
            got.append(digest_of(loader.next_batch(60)))

        assert tuple(got) == reference
        assert eventually(lambda: loader.stats(60).restarts == len(victims))
        assert len(victims) >= 10


@pytest.mark.parametrize("program", ["loader", "collector"])
def test_a_frozen_worker_is_replaced(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    reference: tuple[str, ...],
    digest_of: Digest,
    processes_of_this_run: Callable[..., list[psutil.Process]],
    program: str,
) -> None:
    """A worker that is stopped, not dead, is noticed by its silence, and its work done again."""
    with LightDL(coordinate_dataset, **small_stream, stall_timeout=1.0) as loader:
        got = [digest_of(loader.next_batch(60)) for _ in range(20)]
        # All of that kind: one that happened to be idle might never be missed.
        for frozen in processes_of_this_run(program):
            frozen.send_signal(signal.SIGSTOP)
        got += [digest_of(loader.next_batch(60)) for _ in range(180)]
        restarts = loader.stats(60).restarts

    assert tuple(got) == reference
    assert restarts >= 1


PROGRAM = """
import json, sys
import numpy as np
sys.modules["torch"] = None  # it takes longer than all of the rest
from chunkdl import Dataset, LightDL, Patient, Record

class MyDetector:
    # A user class of the main program: it reaches the loaders all the same.
    name = "mine"
    key = "mine 1"
    def __call__(self, rgb):
        return np.ones(rgb.shape[:2], dtype=bool)

paths = json.loads({paths!r})
arguments = json.loads({arguments!r})
dataset = Dataset.from_slides(paths)
import hashlib
given = dict(tissue=MyDetector(), mask_cache={cache!r}, arrays="numpy")
with LightDL(dataset, **given, **arguments) as loader:
    digest = hashlib.sha256()
    for _ in range(40):
        batch = loader.next_batch(60)
        digest.update(batch["image"].tobytes())
        digest.update(batch["x"].tobytes())
print(digest.hexdigest())
"""


def test_script_and_notebook_give_the_same_stream(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], tmp_path: Path
) -> None:
    """A script without a __main__ guard and a program typed in, with a user class: same bytes."""
    paths = json.dumps([record.path for patient in coordinate_dataset for record in patient.slides])
    text = PROGRAM.format(
        paths=paths, arguments=json.dumps(small_stream), cache=str(tmp_path / "masks")
    )
    script = tmp_path / "train.py"
    script.write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    outputs = [
        subprocess.run(
            command,
            input=typed,
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
            env=environment,
            cwd=tmp_path,
        ).stdout.strip()
        for command, typed in (
            ([sys.executable, str(script)], None),
            ([sys.executable, "-"], text),
        )
    ]

    assert len(outputs[0]) == 64
    assert outputs[0] == outputs[1]
