"""Ranks of a training in processes of their own, which write down what they got.

``python -m tests.service.rank_program FOLDER RUN RANK WORLD_SIZE``: the folder has the dataset, the
arguments of the loader and what to do in ``given``; each rank writes a file beside it.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import torch.distributed as dist

from chunkdl import Dataset, LightDL
from chunkdl.errors import ChunkdlError
from tests.service.digests import row_digests

PATIENCE_S = 400


@dataclass(frozen=True)
class Given:
    """What the ranks do.

    Attributes:
        dataset, stream: of the loaders.
        steps: batches that are taken of each loader.
        loaders: that are made, one after the other; their batches are taken in turn.
        passes: instead of steps: the loader is iterated so often to its end.
        state: that is loaded first.
    """

    dataset: Dataset
    stream: dict[str, Any]
    steps: int = 0
    loaders: int = 1
    passes: int = 0
    state: dict[str, Any] | None = None


@dataclass
class Got:
    """What a rank got.

    Attributes:
        rows: digests of the rows of each batch, of all loaders or passes in turn.
        states: after each batch, and after the end of each pass.
        error: what it raised instead.
    """

    rows: list[list[str]] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


def play(rank: int, world_size: int, folder: Path, run: str) -> None:
    """Be one rank."""
    given: Given = pickle.loads((folder / "given").read_bytes())
    store = f"file://{folder}/{run}-store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    got = Got()
    try:
        take(given, got)
    except ChunkdlError as error:
        got.error = f"{type(error).__name__}: {error}"
    (folder / f"{run}-{rank}").write_text(json.dumps(vars(got)))
    dist.barrier()
    dist.destroy_process_group()


def take(given: Given, got: Got) -> None:
    """Take the batches."""
    with ExitStack() as stack:
        loaders = [
            stack.enter_context(LightDL.for_ddp(given.dataset, **given.stream))
            for _ in range(given.loaders)
        ]
        if given.state is not None:
            for loader in loaders:
                loader.load_state_dict(given.state)
        for _ in range(given.passes):
            for batch in loaders[0]:
                got.rows.append(row_digests(batch))
                got.states.append(loaders[0].state_dict())
            got.states.append(loaders[0].state_dict())
        for _ in range(given.steps):
            for loader in loaders:
                got.rows.append(row_digests(loader.next_batch(60)))
                # As a gradient does: nobody is ahead.
                dist.barrier()
                got.states.append(loader.state_dict())


def run_ranks(
    folder: Path, run: str, given: Given, environments: Sequence[Mapping[str, str]]
) -> list[Got]:
    """What the ranks of a training got, of which each has its own variables."""
    (folder / "given").write_bytes(cloudpickle.dumps(given))
    size = len(environments)
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(folder), run, str(rank), str(size)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "OMP_NUM_THREADS": "1",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, environment in enumerate(environments)
    ]
    try:
        for program in programs:
            output, _ = program.communicate(timeout=PATIENCE_S)
            assert program.returncode == 0, f"{program.returncode}: {output}"
    finally:
        for program in programs:
            program.kill()
            program.wait()
            assert program.stdout is not None
            program.stdout.close()
    return read_got(folder, run, size)


def read_got(folder: Path, run: str, world_size: int) -> list[Got]:
    """What the ranks of a run have written."""
    files = [folder / f"{run}-{rank}" for rank in range(world_size)]
    return [Got(**json.loads(file.read_text())) for file in files]


if __name__ == "__main__":
    # Pickled by the name that the tests import.
    from tests.service import rank_program

    rank_program.play(int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[1]), sys.argv[2])
