"""Which process of a distributed training this is.

Where several say so, the innermost is right: who was started by torchrun inside of a Slurm step has
torchrun's rank. So the first of these that is there decides:

1. the arguments,
2. torch.distributed, where its process group is there,
3. torchrun, and what sets the same variables: RANK, WORLD_SIZE,
4. Open MPI: OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE,
5. MVAPICH: MV2_COMM_WORLD_RANK, MV2_COMM_WORLD_SIZE,
6. MPICH, Intel MPI, Cray: PMI_RANK, PMI_SIZE,
7. Slurm: SLURM_PROCID, SLURM_STEP_NUM_TASKS or SLURM_NTASKS, in what srun has started,
8. none of them: one process.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chunkdl.engine.settings.checks import checked_int
from chunkdl.errors import ConfigError
from chunkdl.system.steady_log import steady_logger

ALONE = "one process"
ORDER = (
    "the arguments, torch.distributed, torchrun, Open MPI, MVAPICH, MPICH (Intel MPI, Cray), Slurm"
)
WHERE = (
    "call it after torch.distributed.init_process_group: under mp.spawn in the spawned function, "
    "in Lightning in train_dataloader() or val_dataloader()"
)
"""Where the ranks are known."""

log = steady_logger("chunkdl")
_told: set[Ranks] = set()
_warned = False
_inherited: list[Any] = []
"""The process group that a parent had when it forked this process."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank runs.

    Attributes:
        local_rank, local_world_size: which rank of how many on its machine.
        node, nodes: which machine of how many.
    """

    local_rank: int
    local_world_size: int
    node: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which process of a training this is.

    Attributes:
        rank, world_size: which of how many.
        source: who says so.
        place: where it runs, as the environment says; None where it does not.
    """

    rank: int
    world_size: int
    source: str
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class _Launcher:
    """The variables that a launcher sets; of several names the first that is there counts."""

    name: str
    rank: str
    size: str
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...]
    node: tuple[str, ...] = ()

    def ranks(self, environment: Mapping[str, str]) -> Ranks | None:
        """What it says; None: it has not started this process."""
        given = self.rank in environment, self.size in environment
        if not any(given):
            return None
        if not all(given):
            there, absent = (self.rank, self.size) if given[0] else (self.size, self.rank)
            raise _half(there, absent, environment)
        rank, size = number(environment, self.rank), number(environment, self.size)
        _check(rank, size, f"{self.rank}={rank}", f"{self.size}={size}")
        return Ranks(rank, size, self.name, self._place(environment, size))

    def _place(self, environment: Mapping[str, str], world_size: int) -> Place | None:
        local = _first(environment, self.local_rank)
        size = _first(environment, self.local_size)
        if local is None or size is None:
            return None
        local_rank, local_size = number(environment, local), number(environment, size)
        _check(local_rank, local_size, f"{local}={local_rank}", f"{size}={local_size}")
        if local_size > world_size:
            raise ConfigError(
                f"{size}={local_size} is more than {self.size}={world_size}; "
                f"start the training with {self.name}, or unset them"
            )
        nodes, rest = divmod(world_size, local_size)
        name = _first(environment, self.node)
        if rest or (name is None and nodes > 1):
            return None
        return Place(
            local_rank, local_size, 0 if name is None else number(environment, name), nodes
        )


_TORCHRUN = _Launcher(
    name="torchrun",
    rank="RANK",
    size="WORLD_SIZE",
    local_rank=("LOCAL_RANK",),
    local_size=("LOCAL_WORLD_SIZE",),
    node=("GROUP_RANK", "NODE_RANK"),
)
_MPI = (
    _Launcher(
        name="Open MPI",
        rank="OMPI_COMM_WORLD_RANK",
        size="OMPI_COMM_WORLD_SIZE",
        local_rank=("OMPI_COMM_WORLD_LOCAL_RANK",),
        local_size=("OMPI_COMM_WORLD_LOCAL_SIZE",),
    ),
    _Launcher(
        name="MVAPICH",
        rank="MV2_COMM_WORLD_RANK",
        size="MV2_COMM_WORLD_SIZE",
        local_rank=("MV2_COMM_WORLD_LOCAL_RANK",),
        local_size=("MV2_COMM_WORLD_LOCAL_SIZE",),
    ),
    _Launcher(
        name="MPICH",
        rank="PMI_RANK",
        size="PMI_SIZE",
        local_rank=("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID"),
        local_size=("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE", "PALS_LOCAL_SIZE"),
        node=("PALS_NODEID",),
    ),
)


def find(
    rank: int | None = None,
    world_size: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Ranks:
    """Which process this is; the order is that of this module. It is logged once.

    Args:
        rank, world_size: which of how many, where the program says so; both or neither.
        environment: variables by name.

    Raises:
        ConfigError: what there is contradicts itself; the message says what to do.
    """
    found = _find(rank, world_size, environment)
    if found not in _told:
        _told.add(found)
        log.info(
            "rank %d of %d, by %s (the first that says so of: %s)",
            *(found.rank, found.world_size, found.source, ORDER),
        )
    return found


def _find(rank: int | None, world_size: int | None, environment: Mapping[str, str]) -> Ranks:
    if (rank is None) != (world_size is None):
        raise ConfigError("give both rank and world_size, or neither")
    if rank is not None and world_size is not None:
        checked_int("rank", rank, 0)
        checked_int("world_size", world_size, 1)
        _check(rank, world_size, f"rank={rank}", f"world_size={world_size}")
        return Ranks(rank, world_size, "the arguments")
    group = _process_group()
    if group is None:
        return _of_environment(environment)
    place = None
    try:
        outside = _of_environment(environment)
        if (outside.rank, outside.world_size) == group:
            place = outside.place
    except ConfigError:
        # The process group knows better; where this rank runs has to be found out.
        place = None
    return Ranks(*group, "torch.distributed", place)


def _process_group() -> tuple[int, int] | None:
    """Rank and world size of torch's process group; never imports torch."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _of_environment(environment: Mapping[str, str]) -> Ranks:
    halves = [name for name in ("RANK", "WORLD_SIZE") if name in environment]
    found = _TORCHRUN.ranks(environment) if len(halves) == 2 else None
    for launcher in _MPI:
        found = found or launcher.ranks(environment)
    found = found or _slurm(environment)
    if len(halves) == 1:
        # Scripts of a job set one of them for all ranks; it must agree with whoever started them.
        (there,) = halves
        value = number(environment, there)
        if found is not None and value != (found.rank if there == "RANK" else found.world_size):
            raise ConfigError(
                f"{there}={value} contradicts {found.source}, by which this is rank {found.rank} "
                f"of {found.world_size}; unset {there}, or give both rank and world_size"
            )
        if found is None and (there, value) != ("WORLD_SIZE", 1):
            raise _half(there, "WORLD_SIZE" if there == "RANK" else "RANK", environment)
    return found or Ranks(0, 1, ALONE, Place(0, 1, 0, 1))


def _half(there: str, absent: str, environment: Mapping[str, str]) -> ConfigError:
    said = f"{there}={environment[there]} is set and {absent} is not"
    if there == "WORLD_SIZE" and "LOCAL_RANK" in environment:
        return ConfigError(
            f"{said}: Lightning has started this process (LOCAL_RANK={environment['LOCAL_RANK']}) "
            f"and its ranks are not there yet; {WHERE}"
        )
    return ConfigError(
        f"{said}, so nobody knows which rank this is; start the training with torchrun, call "
        f"torch.distributed.init_process_group first, or unset {there}"
    )


# ----------------------------------------------------------------------- Slurm

_SHELLS = ("bash", "interactive")
"""What Slurm calls the jobs of shells that people type in."""
_FIRST_OF_SLURMS_OWN = 2**32 - 16
"""Steps from here on are shells, batch scripts and the like; srun counts from 0."""


def _slurm(environment: Mapping[str, str]) -> Ranks | None:
    if "SLURM_PROCID" not in environment or not _started_by_srun(environment):
        return None
    size_name = _first(environment, ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"))
    if size_name is None:
        raise _half("SLURM_PROCID", "SLURM_NTASKS", environment)
    rank, size = number(environment, "SLURM_PROCID"), number(environment, size_name)
    _check(rank, size, f"SLURM_PROCID={rank}", f"{size_name}={size}")
    return Ranks(rank, size, "Slurm", _place_in_slurm(environment, size))


def _started_by_srun(environment: Mapping[str, str]) -> bool:
    """Whether this is a task of srun, and not the batch script or a shell of the job.

    Slurm counts the tasks that a job may have in the environment of its script and its shells too,
    each of which is a single process of number 0.
    """
    if number(environment, "SLURM_PROCID") > 0:
        return True
    job = environment.get("SLURM_JOB_NAME")
    step = _first(environment, ("SLURM_STEP_ID", "SLURM_STEPID"))
    if step is None:
        # In a container perhaps only the numbers were handed on.
        return "SLURM_JOB_ID" not in environment and job not in _SHELLS
    in_terminal = job == "bash" and "SLURM_PTY_PORT" in environment
    return number(environment, step) < _FIRST_OF_SLURMS_OWN and not in_terminal


def _place_in_slurm(environment: Mapping[str, str], world_size: int) -> Place | None:
    names = ("SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES")
    nodes_name = _first(environment, names)
    if nodes_name is None or not {"SLURM_LOCALID", "SLURM_NODEID"} <= environment.keys():
        return None
    local, node = number(environment, "SLURM_LOCALID"), number(environment, "SLURM_NODEID")
    nodes = number(environment, nodes_name)
    # As in "2(x3)"; where they differ it is "2,1".
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    equal = re.fullmatch(r"(\d+)(\(x\d+\))?", tasks)
    if not nodes or world_size % nodes or (tasks and equal is None):
        return None
    local_size = world_size // nodes
    if local >= local_size or node >= nodes:
        return None
    return Place(local, local_size, node, nodes)


# --------------------------------------------------------------------- numbers


def number(environment: Mapping[str, str], name: str) -> int:
    """The number that a variable holds.

    Raises:
        ConfigError: it holds none.
    """
    text = environment[name]
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(
            f"{name}={text!r} is not a number; unset it, or start the training with what sets it"
        )
    return int(text)


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in environment), None)


def _check(rank: int, size: int, rank_text: str, size_text: str) -> None:
    if not 0 <= rank < size:
        raise ConfigError(
            f"{rank_text} does not lie between 0 and {size_text}; ranks count from 0. Give each "
            "process its own, or unset both"
        )


# --------------------------------------------------- processes that are no rank


def _remember_process_group() -> None:
    """In a child that was just forked: what it has of torch.distributed is its parent's."""
    if _process_group() is not None:
        _inherited[:] = [sys.modules["torch.distributed"].group.WORLD]


os.register_at_fork(after_in_child=_remember_process_group)


def refuse_children(what: str) -> None:
    """Refuse what only a rank of the training itself may do.

    Args:
        what: that is to be done, for the message.

    Raises:
        ConfigError: this is a worker of a torch DataLoader, or was forked from a rank.
    """
    data = sys.modules.get("torch.utils.data")
    if data is not None and data.get_worker_info() is not None:
        raise ConfigError(
            f"{what} was called in a worker of a torch DataLoader; call it in the training process "
            "and give the DataLoader its dataset_view() with num_workers=0"
        )
    if _inherited and _process_group() is not None:
        distributed = sys.modules["torch.distributed"]
        if distributed.group.WORLD is _inherited[0]:
            raise ConfigError(
                f"{what} was called in a process that was forked from a rank of the training and "
                "is none itself; call it in the rank, or start the process with spawn"
            )


def warn_of_equal_rows() -> None:
    """Say, once in a process, that each of several ranks gets the same rows.

    To be called where a loader that shares with nobody begins to be used; says nothing where there
    is one process.
    """
    global _warned
    if _warned:
        return
    try:
        found = find()
    except ConfigError as error:
        _warned = True
        log.warning(
            "it is not known whether other ranks get the same rows as this loader: %s", error
        )
        return
    if found.world_size > 1:
        _warned = True
        log.warning(
            "this is rank %d of %d (by %s), and this LightDL shares with nobody: every rank that "
            "has one like it gets the same rows. To share them use LightDL.for_ddp, or a service "
            "and chunkdl.connect. Where only one rank uses it, or each has its own seed or "
            "dataset, all is well",
            *(found.rank, found.world_size, found.source),
        )
