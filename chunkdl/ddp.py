"""One stream for the ranks of a distributed training: `LightDL.for_ddp`.

The first rank of each machine starts a service; the others learn its address through the store that
torch has for that. Of several machines each serves its own share of the patients.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch.distributed import distributed_c10d

from chunkdl.arguments import whole
from chunkdl.connecting import connect
from chunkdl.errors import ConfigError
from chunkdl.patients import Dataset
from chunkdl.service_process import ServiceProcess
from chunkdl.service_settings import ServiceSettings, configure_service
from chunkdl.service_spec import GroupSpec
from chunkdl.shared import SharedDL

if TYPE_CHECKING:
    from chunkdl.lightdl import LightDL

GROUP = "ddp"
STORE_TIMEOUT_S = 120.0
"""For the first rank of the machine to have its service up."""

_opened = 0


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where this process is in the training, from torchrun's environment.

    Attributes:
        local_rank, local_world_size: on this machine.
        node, nodes: which machine of how many.
    """

    local_rank: int
    local_world_size: int
    node: int
    nodes: int

    @classmethod
    def here(cls) -> Ranks:
        """As the environment says; a single process without.

        Raises:
            ConfigError: it says something impossible.
        """
        world = _of_environment("WORLD_SIZE", 1)
        local_world = _of_environment("LOCAL_WORLD_SIZE", world)
        local = _of_environment("LOCAL_RANK", _of_environment("RANK", 0))
        node = _of_environment("GROUP_RANK", 0)
        if not (1 <= local_world <= world and world % local_world == 0 and local < local_world):
            raise ConfigError(
                f"LOCAL_RANK={local}, LOCAL_WORLD_SIZE={local_world} and WORLD_SIZE={world} do not "
                "fit; every machine must have as many ranks"
            )
        return cls(local, local_world, node, world // local_world)


def _of_environment(name: str, otherwise: int) -> int:
    text = os.environ.get(name, str(otherwise))
    if not text.isdecimal():
        raise ConfigError(f"{name}={text!r} is no number; start the training with torchrun")
    return int(text)


def for_ddp(cls: type[LightDL], dataset: Dataset, arguments: Mapping[str, Any]) -> SharedDL:
    """A loader of one rank; to be called by all ranks, in the same order.

    Args:
        cls: `LightDL`.
        dataset: the patients, the same in every rank. Of several machines each reads its own share
            of them: those with an index of node + i · nodes.
        arguments: of `LightDL`; `batch_size` is that of one rank. What it cannot share is refused:
            classes of one's own, `schedule`, `collate_func`, `tfms_in="consumer"`.

    Raises:
        ConfigError, DatasetError, ResolutionError: an argument is wrong; nothing was started.
        ServiceDied: the first rank of the machine has not started a service.
    """
    global _opened
    ranks = Ranks.here()
    rest = dict(arguments)
    batches, pin_memory = rest.pop("batches", None), rest.pop("pin_memory", None)
    arrays, tensors_only = rest.pop("arrays", "torch"), rest.pop("tensors_only", False)
    if batches is not None:
        whole("batches", batches, 1)
    if ranks.nodes > 1:
        mine = dataset[ranks.node :: ranks.nodes]
        dataset = Dataset(f"{dataset.str_dsname}, machine {ranks.node}", mine)
    _opened += 1
    key = f"chunkdl/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{ranks.node}/{_opened}"
    service = None
    if ranks.local_rank == 0:
        service, address = _started(cls, dataset, rest, ranks)
        if ranks.local_world_size > 1:
            _store().set(key, address)
    else:
        store = _store()
        store.wait([key], timedelta(seconds=STORE_TIMEOUT_S))
        address = store.get(key).decode()
    try:
        shared = connect(
            address,
            GROUP,
            ranks.local_rank,
            ranks.local_world_size,
            pin_memory=pin_memory,
            arrays=arrays,
            tensors_only=tensors_only,
            batches=batches,
            when_closed=(lambda: None) if service is None else service.let_go,
        )
    except BaseException:
        if service is not None:
            service.close()
        raise
    return shared


def _started(
    cls: type[LightDL], dataset: Dataset, rest: dict[str, Any], ranks: Ranks
) -> tuple[ServiceProcess, str]:
    """A service for the ranks of this machine, and its address."""
    address = f"ipc://@chunkdl-{secrets.token_hex(12)}"
    loader = cls(dataset, **{"batch_slots": 2, **rest})
    settings = ServiceSettings(
        binds=(address,),
        groups=(GroupSpec(name=GROUP),),
        max_consumers=ranks.local_world_size,
    )
    given = dataclasses.replace(loader.arguments, batch_slots=rest.get("batch_slots", 0))
    spec = configure_service(dataset, given, settings)
    return ServiceProcess(spec), address


def _store() -> Any:
    """The store of the training: of its process group, or of torchrun's agent."""
    if dist.is_initialized():
        return distributed_c10d._get_default_store()
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if host is None or port is None:
        raise ConfigError(
            "the ranks cannot find each other; start the training with torchrun, or call "
            "torch.distributed.init_process_group first"
        )
    return dist.TCPStore(  # type: ignore[attr-defined]
        host, int(port), is_master=False, timeout=timedelta(seconds=STORE_TIMEOUT_S)
    )
