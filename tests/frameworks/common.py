"""What the tests of frameworks and the programs that they start share: a small stream, its rows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chunkdl import Dataset, LightDL

Rows = tuple[tuple[str, int, int], ...]
"""What is in a batch: slide and level-0 corner of each row."""

STREAM: dict[str, Any] = {
    "batch_size": 8,
    "smallchunk_size": 32,
    "bigchunk_size": 256,
    "num_bigchunks": 4,
    "smallchunks_per_bigchunk": 16,
    "memory_limit": "128MiB",
    "num_loaders": 1,
    "num_collectors": 1,
    "tissue": "none",
    "seed": 5,
}
GRID = {**STREAM, "grid": True, "smallchunk_size": 128}
PATIENCE_S = 200.0


def rows_of(batch: Any) -> Rows:
    """Its rows, whatever kind of batch a framework has made of it."""
    return tuple(
        (Path(slide).name, int(x), int(y))
        for slide, x, y in zip(batch["slide"], batch["x"], batch["y"], strict=True)
    )


def corners_of(batch: Any) -> tuple[tuple[int, int], ...]:
    """The same of a batch that has tensors only."""
    return tuple(zip(batch["x"].tolist(), batch["y"].tolist(), strict=True))


def first_batches(dataset: Dataset, count: int, **more: Any) -> list[Rows]:
    """The rows of the first batches of the stream, undisturbed."""
    with LightDL(dataset, **{**STREAM, **more}) as loader:
        return [rows_of(loader.next_batch(60)) for _ in range(count)]


def run_program(name: str, *arguments: str, launcher: Sequence[str] = (), **more: str) -> str:
    """What a program beside this file prints; it has to end well.

    Args:
        name: of the file.
        arguments: of the program.
        launcher: arguments of Python before the file.
        more: of the environment.
    """
    done = subprocess.run(
        [sys.executable, *launcher, str(Path(__file__).with_name(name)), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=environment(more),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Of a program that finds what these tests find."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **more}


def torchrun(ranks: int) -> tuple[str, ...]:
    """The launcher of so many ranks."""
    return "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"
