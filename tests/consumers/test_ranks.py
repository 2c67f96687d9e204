"""Which process of a training this is, from what launchers and torch say; without a training."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.utils.data import DataLoader

import chunkdl.consumers.ranks
from chunkdl.consumers.ranks import ORDER, Place, Ranks, find, refuse_children, warn_of_equal_rows
from chunkdl.errors import ConfigError


def said(text: str) -> dict[str, str]:
    """Variables of an environment."""
    return dict(pair.split("=") for pair in text.split())


TORCHRUN = said(
    "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 GROUP_RANK=1 MASTER_ADDR=a MASTER_PORT=1"
)
SRUN = said(
    "SLURM_JOB_ID=17 SLURM_JOB_NAME=train.sh SLURM_STEP_ID=0 SLURM_PROCID=3 SLURM_NTASKS=4 "
    "SLURM_LOCALID=1 SLURM_NODEID=1 SLURM_NNODES=2 SLURM_STEP_TASKS_PER_NODE=2(x2)"
)
BATCH_SCRIPT = said(
    "SLURM_JOB_ID=17 SLURM_JOB_NAME=train.sh SLURM_NTASKS=4 SLURM_NNODES=2 SLURM_PROCID=0 "
    "SLURM_LOCALID=0 SLURM_NODEID=0"
)
PTY_BASH = said(
    "SLURM_JOB_ID=17 SLURM_JOB_NAME=bash SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_NTASKS=4 "
    "SLURM_PTY_PORT=1"
)
OPEN_MPI = said(
    "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 "
    "OMPI_COMM_WORLD_LOCAL_SIZE=2"
)
MPICH = said("PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2")
LIGHTNING_CHILD = said("WORLD_SIZE=2 LOCAL_RANK=1 NODE_RANK=0 MASTER_ADDR=one")


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """What is said once in a process is not said yet, and no launcher is around."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunkdl.consumers.ranks, "_told", set())
        patch.setattr(chunkdl.consumers.ranks, "_warned", False)
        for name in tuple(os.environ):
            if name.startswith(("SLURM_", "OMPI_", "PMI_", "MV2_")) or name in TORCHRUN:
                patch.delenv(name)
        yield


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A process group of torch whose only rank this is."""
    store = dist.FileStore(str(tmp_path / "store"), 1)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, Ranks(0, 1, "one process", Place(0, 1, 0, 1)), id="nothing"),
        pytest.param(TORCHRUN, Ranks(3, 4, "torchrun", Place(1, 2, 1, 2)), id="torchrun"),
        pytest.param(
            {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "one"},
            Ranks(1, 2, "torchrun"),
            id="a script that sets only what torch needs",
        ),
        pytest.param(
            {**TORCHRUN, "WORLD_SIZE": "5"},
            Ranks(3, 5, "torchrun"),
            id="machines with other numbers of ranks: where it runs is not known",
        ),
        pytest.param(SRUN, Ranks(3, 4, "Slurm", Place(1, 2, 1, 2)), id="srun"),
        pytest.param(
            {**SRUN, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
            Ranks(0, 4, "Slurm", Place(0, 2, 0, 2)),
            id="the first task of srun",
        ),
        pytest.param(
            {**SRUN, "SLURM_STEP_TASKS_PER_NODE": "3,1"},
            Ranks(3, 4, "Slurm"),
            id="srun with other numbers of tasks on its machines",
        ),
        pytest.param(
            {**SRUN, "SLURM_NTASKS": "64", "SLURM_STEP_NUM_TASKS": "4"},
            Ranks(3, 4, "Slurm", Place(1, 2, 1, 2)),
            id="a step of fewer tasks than the job may have",
        ),
        pytest.param(
            {**SRUN, "SLURM_JOB_NAME": "interactive", "SLURM_PTY_PORT": "1"},
            Ranks(3, 4, "Slurm", Place(1, 2, 1, 2)),
            id="srun typed into a shell of salloc",
        ),
        pytest.param(
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"},
            Ranks(0, 2, "Slurm"),
            id="a container that srun's numbers were handed to",
        ),
        pytest.param(
            BATCH_SCRIPT, Ranks(0, 1, "one process", Place(0, 1, 0, 1)), id="a batch script"
        ),
        pytest.param(
            {**BATCH_SCRIPT, "SLURM_STEP_ID": "4294967291"},
            Ranks(0, 1, "one process", Place(0, 1, 0, 1)),
            id="a batch script that has a number as a step",
        ),
        pytest.param(
            {**BATCH_SCRIPT, "SLURM_JOB_NAME": "interactive", "SLURM_STEP_ID": "4294967290"},
            Ranks(0, 1, "one process", Place(0, 1, 0, 1)),
            id="a shell of salloc",
        ),
        pytest.param(
            PTY_BASH,
            Ranks(0, 1, "one process", Place(0, 1, 0, 1)),
            id="srun --pty bash",
        ),
        pytest.param(
            {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"},
            Ranks(0, 1, "one process", Place(0, 1, 0, 1)),
            id="a shell on the login node of an allocation",
        ),
        pytest.param(OPEN_MPI, Ranks(1, 2, "Open MPI", Place(1, 2, 0, 1)), id="mpirun"),
        pytest.param(
            {**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "4"},
            Ranks(1, 4, "Open MPI"),
            id="mpirun on several machines: which one is not known",
        ),
        pytest.param(MPICH, Ranks(1, 2, "MPICH", Place(1, 2, 0, 1)), id="mpiexec"),
        pytest.param({"PMI_RANK": "1", "PMI_SIZE": "2"}, Ranks(1, 2, "MPICH"), id="mpiexec, bare"),
        pytest.param(
            {"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "2"},
            Ranks(0, 2, "MVAPICH"),
            id="mpirun_rsh",
        ),
        pytest.param({**SRUN, **TORCHRUN}, Ranks(3, 4, "torchrun", Place(1, 2, 1, 2)), id="both"),
        pytest.param(
            {**SRUN, **OPEN_MPI}, Ranks(1, 2, "Open MPI", Place(1, 2, 0, 1)), id="mpirun in Slurm"
        ),
        pytest.param(
            {**BATCH_SCRIPT, **MPICH}, Ranks(1, 2, "MPICH", Place(1, 2, 0, 1)), id="mpiexec there"
        ),
        pytest.param(
            {**SRUN, "WORLD_SIZE": "4"},
            Ranks(3, 4, "Slurm", Place(1, 2, 1, 2)),
            id="a job's script has set the world size for all",
        ),
        pytest.param(
            {"WORLD_SIZE": "1"}, Ranks(0, 1, "one process", Place(0, 1, 0, 1)), id="a world of one"
        ),
        pytest.param(
            {"LOCAL_RANK": "0", "NODE_RANK": "0"},
            Ranks(0, 1, "one process", Place(0, 1, 0, 1)),
            id="what Lightning leaves behind",
        ),
    ],
)
def test_launchers_say_which_rank_a_process_is(
    environment: dict[str, str], expected: Ranks
) -> None:
    """Each launcher's variables are understood, and shells and scripts of a job are one process."""
    assert find(environment=environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "RANK=1 is set and WORLD_SIZE is not.*torchrun"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set and RANK is not.*torchrun"),
        ({"RANK": "two", "WORLD_SIZE": "2"}, "RANK='two' is not a number; unset it"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK='-1' is not a number"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK='' is not a number; unset it"),
        ({"RANK": "\N{SUPERSCRIPT TWO}", "WORLD_SIZE": "4"}, "is not a number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 does not lie between 0 and WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 does not lie between 0 and WORLD_SIZE=0"),
        ({**TORCHRUN, "LOCAL_RANK": "2"}, "LOCAL_RANK=2 does not lie .* LOCAL_WORLD_SIZE=2"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "8"}, "LOCAL_WORLD_SIZE=8 is more than WORLD_SIZE=4"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE is not"),
        ({"PMI_SIZE": "2"}, "PMI_SIZE=2 is set and PMI_RANK is not"),
        ({"SLURM_PROCID": "1"}, "SLURM_PROCID=1 is set and SLURM_NTASKS is not"),
        ({**SRUN, "SLURM_PROCID": "4"}, "SLURM_PROCID=4 does not lie between 0 and SLURM_NTASKS=4"),
        ({**SRUN, "WORLD_SIZE": "8"}, "WORLD_SIZE=8 contradicts Slurm.*unset WORLD_SIZE"),
        ({**SRUN, "RANK": "0"}, "RANK=0 contradicts Slurm"),
        (LIGHTNING_CHILD, r"Lightning has started .*LOCAL_RANK=1.*train_dataloader\(\)"),
    ],
)
def test_what_contradicts_itself_is_refused_with_the_remedy(
    environment: dict[str, str], message: str
) -> None:
    """Nobody trains as a rank that may be another one's."""
    with pytest.raises(ConfigError, match=message):
        find(environment=environment)


def test_the_arguments_come_first() -> None:
    """What the program says counts, whatever is around it; half of it is refused."""
    assert find(1, 3, TORCHRUN) == Ranks(1, 3, "the arguments")
    with pytest.raises(ConfigError, match="both rank and world_size"):
        find(rank=1)
    with pytest.raises(ConfigError, match="rank=3 does not lie between 0 and world_size=3"):
        find(3, 3)
    with pytest.raises(ConfigError, match="rank=-1 must be an integer"):
        find(-1, 3)


@pytest.mark.usefixtures("process_group")
def test_the_process_group_comes_before_the_environment() -> None:
    """Where torch.distributed is up it is right; what contradicts it does not matter any more."""
    assert find(environment=TORCHRUN) == Ranks(0, 1, "torch.distributed")
    assert find(environment={"RANK": "x"}) == Ranks(0, 1, "torch.distributed")
    agrees = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    assert find(environment=agrees) == Ranks(0, 1, "torch.distributed", Place(0, 1, 0, 1))


def test_finding_out_imports_no_torch() -> None:
    """A program without torch does not get it by asking."""
    program = (
        "import sys\n"
        "from chunkdl.consumers.ranks import find, refuse_children, warn_of_equal_rows\n"
        "find(); warn_of_equal_rows(); refuse_children('x'); sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_the_rank_and_the_order_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line says which rank this is, by whom, and who else would have been asked."""
    caplog.set_level(logging.INFO, "chunkdl")
    for _ in range(3):
        find(environment=OPEN_MPI)
    (line,) = caplog.messages
    assert "rank 1 of 2, by Open MPI" in line
    assert ORDER in line


def test_the_docs_have_the_order() -> None:
    """What the log says and what the page says is the same."""
    page = Path(__file__).parents[2] / "docs" / "service.md"
    assert ORDER in " ".join(page.read_text().split())


def test_equal_rows_in_several_ranks_are_warned_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning names rank, world and the remedy; a single process hears nothing."""
    warn_of_equal_rows()
    assert caplog.messages == []
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    warn_of_equal_rows()
    warn_of_equal_rows()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "chunkdl"
    for part in ("rank 3 of 4", "torchrun", "same rows", "LightDL.for_ddp", "chunkdl.connect"):
        assert part in record.getMessage()


def test_an_environment_that_contradicts_itself_does_not_stop_a_loader_that_shares_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs no rank; that the ranks are not known is said once."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    warn_of_equal_rows()
    warn_of_equal_rows()
    (line,) = caplog.messages
    assert "RANK is not" in line


class Asking:
    """A dataset whose one item is what a worker of a DataLoader is told."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> str:
        try:
            refuse_children("LightDL.for_ddp")
        except ConfigError as error:
            return str(error)
        return ""


def test_a_worker_of_a_dataloader_is_no_rank() -> None:
    """It would take the place of the process that it works for."""
    (told,) = DataLoader(Asking(), batch_size=None, num_workers=1)  # type: ignore[arg-type]
    assert "LightDL.for_ddp was called in a worker of a torch DataLoader" in told
    assert "num_workers=0" in told
    refuse_children("LightDL.for_ddp")


FORKED = """
import os, sys
import torch.distributed as dist
from chunkdl.errors import ConfigError
from chunkdl.consumers.ranks import find, refuse_children

def group(path):
    dist.init_process_group("gloo", store=dist.FileStore(path, 1), rank=0, world_size=1)

def child():
    try:
        refuse_children("LightDL.for_ddp")
    except ConfigError as error:
        return str(error)
    return "a rank"

def forked(what):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        print(what(), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)

def rank_of_its_own():
    group(sys.argv[1])
    return child()

forked(rank_of_its_own)
group(sys.argv[2])
forked(child)
print(child())
"""


def test_a_process_that_was_forked_from_a_rank_is_none(tmp_path: Path) -> None:
    """What it has of torch.distributed is its parent's; one that made its own group is a rank."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path / "a"), str(tmp_path / "b")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    own, inherited, rank = done.stdout.splitlines()
    assert (own, rank) == ("a rank", "a rank")
    assert "forked from a rank of the training" in inherited
