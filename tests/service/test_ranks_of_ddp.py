"""`LightDL.for_ddp` and `connect` under what starts ranks: mp.spawn, srun, mpirun, torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from chunkdl import LightDL
from chunkdl.errors import ConfigError
from chunkdl.patients import Dataset
from tests.service.conftest import Start
from tests.service.rank_program import Given, Got, read_got, run_ranks

RANKS = 2
ROWS = 8
STEPS = 6

SPAWN = """
import os, sys
from pathlib import Path
import torch.multiprocessing as mp
from tests.service.rank_program import play

if __name__ == "__main__":
    mp.spawn(play, (2, Path(sys.argv[1]), "spawn"), 2)
"""

NOT_A_RANK = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture
def given(coordinate_dataset: Dataset, small_stream: dict[str, Any]) -> Callable[..., Given]:
    """Makes what two ranks do, with fields changed."""
    stream = {**small_stream, "batch_size": ROWS, "memory_limit": "512MiB", "num_loaders": 1}

    def make(**fields: Any) -> Given:
        return Given(coordinate_dataset, {**stream, **fields.pop("stream", {})}, **fields)

    return make


def assert_rows(ranks: list[Got], reference: tuple[str, ...], loaders: int = 1) -> None:
    """Step by step the ranks have the rows of the stream, each its part, of every loader."""
    for rank, got in enumerate(ranks):
        assert got.error == ""
        assert len(got.rows) == STEPS * loaders
        for number, rows in enumerate(got.rows):
            first = (number // loaders * RANKS + rank) * ROWS
            assert rows == list(reference[first : first + ROWS])


def srun(rank: int) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_NTASKS": str(RANKS),
        "SLURM_NNODES": "1",
    }


def mpirun(rank: int) -> dict[str, str]:
    return {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(RANKS),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(RANKS),
    }


def mpiexec(rank: int) -> dict[str, str]:
    return {"PMI_RANK": str(rank), "PMI_SIZE": str(RANKS)}


def wrong(rank: int) -> dict[str, str]:
    """Left over from something else: the process group knows better."""
    return {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


@pytest.mark.parametrize("launcher", [srun, mpirun, mpiexec, wrong])
def test_ranks_of_any_launcher_share_the_rows(
    launcher: Callable[[int], dict[str, str]],
    tmp_path: Path,
    given: Callable[..., Given],
    row_reference: tuple[str, ...],
) -> None:
    """Whatever has started them: where the process group is there, each gets its part."""
    environments = [launcher(rank) for rank in range(RANKS)]
    assert_rows(run_ranks(tmp_path, "run", given(steps=STEPS), environments), row_reference)


def test_spawned_processes_share_the_rows_of_every_loader_that_they_make(
    tmp_path: Path, given: Callable[..., Given], row_reference: tuple[str, ...]
) -> None:
    """Under mp.spawn nothing is in the environment. Two loaders beside each other, as for training
    and validation, are two streams.
    """
    import cloudpickle

    (tmp_path / "given").write_bytes(cloudpickle.dumps(given(steps=STEPS, loaders=2)))
    program = tmp_path / "program.py"
    program.write_text(SPAWN)
    environment = {name: value for name, value in os.environ.items() if name not in NOT_A_RANK}
    subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        check=True,
        timeout=150,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert_rows(read_got(tmp_path, "spawn", RANKS), row_reference, loaders=2)
