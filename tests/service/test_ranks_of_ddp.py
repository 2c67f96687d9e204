"""`LightDL.for_ddp` and `connect` under what starts ranks: mp.spawn, srun, mpirun, torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from torch.utils.data import DataLoader

from chunkdl import LightDL
from chunkdl.dataset.patients import Dataset
from chunkdl.errors import ConfigError
from tests.service.conftest import Start
from tests.service.rank_program import PATIENCE_S, Given, Got, read_got, run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

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
    (tmp_path / "given").write_bytes(cloudpickle.dumps(given(steps=STEPS, loaders=2)))
    program = tmp_path / "program.py"
    program.write_text(SPAWN)
    environment = {name: value for name, value in os.environ.items() if name not in NOT_A_RANK}
    subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        check=True,
        timeout=PATIENCE_S,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert_rows(read_got(tmp_path, "spawn", RANKS), row_reference, loaders=2)


CONNECT = """
import os, sys
import torch.distributed as dist
import torch.multiprocessing as mp
from chunkdl import connect
from tests.service.digests import row_digests

def train(rank, address, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    with connect(address, batch_size=8) as loader:
        lines = [" ".join(row_digests(loader.next_batch(60))) for _ in range(6)]
    open(f"{folder}/{rank}", "w").write("\\n".join(lines))
    dist.destroy_process_group()

if __name__ == "__main__":
    mp.spawn(train, sys.argv[1:], 2)
"""


def test_connect_finds_the_rank_of_a_spawned_process(
    start: Start, tmp_path: Path, row_reference: tuple[str, ...]
) -> None:
    """Without arguments each of two gets its part of a service's rows, and not all of them."""
    _, address = start()
    program = tmp_path / "program.py"
    program.write_text(CONNECT)
    environment = {name: value for name, value in os.environ.items() if name not in NOT_A_RANK}
    subprocess.run(
        [sys.executable, str(program), address, str(tmp_path)],
        check=True,
        timeout=PATIENCE_S,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    lines = [(tmp_path / str(rank)).read_text().splitlines() for rank in range(RANKS)]
    assert_rows([Got([line.split() for line in of]) for of in lines], row_reference)


RESTARTED = """
import os, pickle, sys
from pathlib import Path
from chunkdl import LightDL
from tests.service.digests import row_digests

folder, rank = Path(sys.argv[1]), os.environ["RANK"]
dataset, stream = pickle.loads((folder / "given").read_bytes())
with LightDL.for_ddp(dataset, **stream) as loader:
    first = " ".join(row_digests(loader.next_batch(60)))
    if rank == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(1)
    lines = [first, *(" ".join(row_digests(loader.next_batch(60))) for _ in range(5))]
(folder / rank).write_text("\\n".join(lines))
"""


def test_ranks_that_torchrun_starts_again_meet_anew(
    tmp_path: Path, given: Callable[..., Given], row_reference: tuple[str, ...]
) -> None:
    """What the dead have left in the store of torchrun's agent misleads nobody. No process group
    is made: under torchrun the agent's store is enough.
    """
    it = given()
    (tmp_path / "given").write_bytes(cloudpickle.dumps((it.dataset, it.stream)))
    program = tmp_path / "program.py"
    program.write_text(RESTARTED)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=1"]
    subprocess.run(
        [*launcher, f"--nproc-per-node={RANKS}", str(program), str(tmp_path)],
        check=True,
        timeout=PATIENCE_S,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    lines = [(tmp_path / str(rank)).read_text().splitlines() for rank in range(RANKS)]
    assert_rows([Got([line.split() for line in of]) for of in lines], row_reference)


def test_ranks_that_make_their_loaders_in_another_order_are_told(
    tmp_path: Path, given: Callable[..., Given]
) -> None:
    """Else one would validate on the rows that the other trains on."""
    (tmp_path / "given").write_bytes(cloudpickle.dumps(given(steps=1)))
    program = tmp_path / "program.py"
    program.write_text(ANOTHER_ORDER)
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        timeout=PATIENCE_S,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.count("rank 1 makes another loader here than rank 0") == RANKS, done.stderr


ANOTHER_ORDER = """
import dataclasses, pickle, sys
from pathlib import Path
import torch.multiprocessing as mp
from tests.service import rank_program

def train(rank, folder):
    given = pickle.loads((folder / "given").read_bytes())
    mine = folder / str(rank)
    mine.mkdir()
    stream = {**given.stream, "seed": rank}
    (mine / "given").write_bytes(pickle.dumps(dataclasses.replace(given, stream=stream)))
    (mine / "x-store").symlink_to(folder / "x-store")
    rank_program.play(rank, 2, mine, "x")
    print(rank_program.Got(**__import__("json").loads((mine / f"x-{rank}").read_text())).error)

if __name__ == "__main__":
    mp.spawn(train, (Path(sys.argv[1]),), 2)
"""


def test_a_loader_that_was_made_before_the_ranks_is_refused_in_a_rank(
    given: Callable[..., Given], monkeypatch: pytest.MonkeyPatch, row_reference: tuple[str, ...]
) -> None:
    """As a single process it is right; as one of two ranks it would give all rows to each."""
    it = given()
    with LightDL.for_ddp(it.dataset, **it.stream) as loader:
        assert len(loader.next_batch(60)["x"]) == ROWS
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ConfigError, match=r"one process, and now .* rank 0 of 2.*init_process"):
            loader.next_batch(60)
        with pytest.raises(ConfigError, match="one process"):
            next(iter(loader))


class Making:
    """A dataset that makes a loader in the worker of a DataLoader."""

    def __init__(self, given: Given) -> None:
        self.given = given

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> str:
        try:
            LightDL.for_ddp(self.given.dataset, **self.given.stream)
        except ConfigError as error:
            return str(error)
        return ""


def test_a_loader_cannot_be_made_in_the_worker_of_a_dataloader(given: Callable[..., Given]) -> None:
    """The worker would take part in the place of its rank."""
    (told,) = DataLoader(Making(given()), batch_size=None, num_workers=1)  # type: ignore[arg-type]
    assert "in a worker of a torch DataLoader" in told
