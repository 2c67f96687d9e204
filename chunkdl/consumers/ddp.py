"""One stream for the ranks of a distributed training: `LightDL.for_ddp`.

The first rank of each machine starts a service; the others learn its address where they meet. Of
several machines each serves its own share of the patients.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.sources import OwnAnnotations
from chunkdl.consumers.batches.array_kinds import array_kind
from chunkdl.consumers.loader import check_batches
from chunkdl.consumers.meeting import Meeting, Served
from chunkdl.consumers.rank_loader import Machines, RankDL
from chunkdl.consumers.ranks import Place, find, refuse_children
from chunkdl.consumers.several_services import check_classes
from chunkdl.dataset.patients import Dataset
from chunkdl.engine.settings.arguments import has_passes
from chunkdl.engine.settings.checks import flag
from chunkdl.errors import ConfigError, Failure
from chunkdl.service.client.session_thread import JoinRequest
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.system.steady_log import steady_logger

if TYPE_CHECKING:
    from chunkdl.consumers.lightdl import LightDL

GROUP = "ddp"
NAME = "LightDL.for_ddp"
OF_A_RANK = frozenset(
    {
        "num_loaders",
        "num_collectors",
        "memory_limit",
        "mask_cache",
        "cpu_affinity",
        "pin_memory",
        "arrays",
        "tensors_only",
    }
)
"""Arguments that change no row; each rank may have its own, and those of the first count."""

log = steady_logger("chunkdl")
_met = 0
"""How often this process has gone to meet the others, refused or not."""


def for_ddp(cls: type[LightDL], dataset: Dataset, arguments: Mapping[str, Any]) -> RankDL:
    """A loader of one rank; to be called by all ranks, in the same order.

    Args:
        cls: `LightDL`.
        dataset: the patients, the same in every rank. Of several machines each reads its own share
            of them: those with an index of node + i · nodes.
        arguments: of `LightDL`; `batch_size` is that of one rank. What it cannot share is refused:
            classes of one's own, `schedule`, `collate_func`, `tfms_in="consumer"`.

    Raises:
        ConfigError: it was called before the ranks are there, in a process that is none, or not by
            all of them; the message says where to call it.
        ConfigError, DatasetError, ResolutionError: an argument is wrong; nothing was started.
        ServiceDied: the first rank of the machine has not started a service.
    """
    global _met
    refuse_children(NAME)
    for name in ("log_func", "const_global_info", "flag_enable_setgetcheckpoint"):
        if arguments.get(name) is not None:
            raise ConfigError(
                f"{name} is for classes of your own, which several ranks cannot share; leave it out"
            )
    ranks = find()
    rest = dict(arguments)
    batches, pin_memory = rest.pop("batches", None), rest.pop("pin_memory", None)
    arrays, tensors_only = rest.pop("arrays", "torch"), rest.pop("tensors_only", False)
    check_batches(batches, finite=has_passes(arguments))
    if pin_memory is not None:
        flag("pin_memory", pin_memory)
    kind = array_kind(arrays, pin=pin_memory)
    meeting, place = None, Place(0, 1, 0, 1)
    if ranks.world_size > 1:
        # After a restart torchrun's agent still has what was said before.
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        _met += 1
        meeting = Meeting(ranks, f"{restart}/{_met}")
        place = meeting.places(_described(dataset, arguments), ranks.place)[ranks.rank]
    service, served = None, Served()
    try:
        if place.local_rank == 0:
            service, served = _started(cls, _share(dataset, place), rest, place, meeting)
        machines = None
        if meeting is not None and place.nodes > 1:
            all_served = meeting.services(range(place.nodes))
            check_classes({f"machine {n}": one.regions for n, one in enumerate(all_served)})
            served = all_served[place.node]
            machines = Machines(meeting, place, tuple(one.rows_hash for one in all_served))
            _warn_of_uneven_passes(rest, place)
        elif meeting is not None:
            (served,) = meeting.services((place.node,))
        wish = JoinRequest(
            address=served.address,
            group=GROUP,
            rank=place.local_rank,
            world_size=place.local_world_size,
            batch_rows=0,
            credit_batches=4,
            credit_bytes=2**30,
            keys=None,
            reconnect_s=60.0,
            connect_s=30.0,
        )
        return RankDL(
            wish,
            kind,
            ranks=ranks,
            machines=machines,
            tensors_only=tensors_only,
            batches=batches,
            when_closed=(lambda: None) if service is None else service.detach,
        )
    except BaseException:
        if service is not None:
            service.close()
        raise


def _described(dataset: Dataset, arguments: Mapping[str, Any]) -> str:
    """What is wanted, in a few words that differ where the rows would."""
    given = [
        f"{name}={told}"
        for name, value in sorted(arguments.items())
        if name not in OF_A_RANK and (told := _told(value))
        # A folder may have another path on another machine.
        if name != "annotations" or isinstance(value, OwnAnnotations)
    ]
    # Folders may differ from machine to machine.
    names = [
        (patient.int_uniqueid, patient.name, [os.path.basename(one.path) for one in patient.slides])
        for patient in dataset
    ]
    digest = hashlib.sha256(repr(names).encode(errors="surrogateescape")).hexdigest()[:8]
    return ", ".join([f"{len(dataset)} patients of {dataset.str_dsname!r} ({digest})", *given])


def _told(value: object) -> str:
    """A setting, equal for equal ones; empty for code of the user's."""
    if isinstance(value, int | float | str | None):
        return repr(value)
    if isinstance(value, Mapping):
        return repr(sorted((str(key), _told(one)) for key, one in value.items()))
    if isinstance(value, list | tuple):
        return repr([_told(one) for one in value])
    if isinstance(value, ReadingOptions):
        return repr(value.key())
    key = None if isinstance(value, type) else getattr(value, "key", None)
    return "" if key is None or callable(key) else repr(key)


def _share(dataset: Dataset, place: Place) -> Dataset:
    """The patients of a machine."""
    if place.nodes == 1:
        return dataset
    if len(dataset) < place.nodes:
        raise ConfigError(
            f"the {len(dataset)} patients are too few for {place.nodes} machines, each of which "
            "has some of its own; use fewer machines, or a service (chunkdl serve) for all"
        )
    return Dataset(
        f"{dataset.str_dsname}, machine {place.node}", dataset[place.node :: place.nodes]
    )


def _started(
    cls: type[LightDL],
    dataset: Dataset,
    rest: dict[str, Any],
    place: Place,
    meeting: Meeting | None,
) -> tuple[ServiceProcess, Served]:
    """A service for the ranks of this machine, of which the others are told."""
    address = f"ipc://@chunkdl-{secrets.token_hex(12)}"
    try:
        loader = cls(dataset, **{"batch_slots": 2, **rest})
        settings = ServiceSettings(
            binds=(address,),
            groups=(GroupSpec(name=GROUP),),
            max_consumers=place.local_world_size,
        )
        given = dataclasses.replace(loader.arguments, batch_slots=rest.get("batch_slots", 0))
        spec = configure_service(dataset, given, settings)
        service = ServiceProcess(spec)
    except BaseException as error:
        if meeting is not None:
            # Else they would wait for it.
            meeting.serve(place.node, Served(failure=Failure.of(error)))
        raise
    use = spec.config.stream.annotations
    served = Served(address, spec.config.rows_hash, () if use is None else use.names)
    if meeting is not None:
        try:
            meeting.serve(place.node, served)
        except BaseException:
            service.close()
            raise
    return service, served


def _warn_of_uneven_passes(rest: Mapping[str, Any], place: Place) -> None:
    if has_passes(rest) and place.local_rank == 0:
        log.warning(
            "each of the %d machines makes a pass of its own over its patients, and "
            "their numbers of batches differ; what all ranks do together (a backward pass of "
            "DistributedDataParallel) would wait for ever at the end of the shorter one. Do it "
            "behind the loop, or let all ranks connect to one service (chunkdl serve)",
            place.nodes,
        )
