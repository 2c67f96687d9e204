"""From a dataset, the arguments of a stream and those of a service to a checked `ServiceSpec`.

Nothing is started here. What one field allows and what two of them together forbid is told by the
name of the field and what to change.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from chunkdl.dataset.patients import Dataset
from chunkdl.engine.config import EngineConfig, RunConfig
from chunkdl.engine.settings.arguments import MOST_SLOTS, Arguments
from chunkdl.engine.settings.checks import checked_int
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.settings.machine import available_memory
from chunkdl.engine.settings.setting import checked
from chunkdl.engine.settings.users_code import row_source
from chunkdl.errors import ConfigError, MemoryLimitError
from chunkdl.service.labels import facts_that_travel
from chunkdl.service.settings import SPARE_SLOTS, GroupSpec, ServiceSettings
from chunkdl.service.spec import ServiceSpec
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.private_files import check_own_file, check_own_folder

GROUP_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

log = steady_logger("chunkdl")


def configure_service(
    dataset: Dataset, arguments: Arguments, settings: ServiceSettings
) -> ServiceSpec:
    """What a server process is given to serve `dataset`, everything checked.

    Args:
        dataset: the patients.
        arguments: of the stream; `batch_slots=0` stands for as many as the consumers need. Memory,
            loaders and collectors are those of one group; each group has its own.
        settings: of the service.

    Raises:
        ConfigError: an argument is wrong, or two contradict each other.
        MemoryLimitError: the groups together need more memory than there is.
        DatasetError, ResolutionError, SlideError: as `configure` of a stream says.
    """
    _check_stream(arguments)
    _check_names(settings.groups)
    groups = tuple(checked(group, f"groups.{group.name}.") for group in settings.groups)
    settings = dataclasses.replace(checked(settings), groups=groups)
    _check_keys(settings)
    _check_silence(settings)
    _check_journal(settings.journal)
    arguments = _with_slots(arguments, settings)
    config = configure(dataset, arguments)
    _check_credit(settings, config)
    _check_memory(config.run, len(settings.groups))
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    patients, labels = facts_that_travel(dataset, config.slides)
    return ServiceSpec(config=config, patients=patients, slide_labels=labels, **given)


def _check_stream(arguments: Arguments) -> None:
    if row_source(arguments).by_hooks:
        raise ConfigError("classes of your own cannot be shared yet; use LightDL in each process")
    if arguments.schedule is not None:
        raise ConfigError("a schedule cannot be shared yet; use LightDL in each process")
    if arguments.collate_func is not None or arguments.tfms_in == "consumer":
        raise ConfigError(
            "collate_func and tfms_in='consumer' are for a loader of one's own; apply them to the "
            "batch"
        )
    if arguments.order != "strict":
        raise ConfigError(
            f"order={arguments.order!r} cannot be shared: every consumer must find the same "
            'batches; use order="strict"'
        )


def _check_names(groups: tuple[GroupSpec, ...]) -> None:
    if not groups:
        raise ConfigError('groups is empty; give at least one, such as GroupSpec(name="train")')
    names = [group.name for group in groups]
    for group in groups:
        if not GROUP_NAME.fullmatch(group.name):
            raise ConfigError(
                f"groups: {group.name!r} is not a name; use 1 to 64 letters, digits, and _ . -"
            )
        if names.count(group.name) > 1:
            raise ConfigError(f"groups: {group.name!r} comes twice; give each its own name")


def _check_keys(settings: ServiceSettings) -> None:
    keys, insecure = settings.keys, settings.insecure
    if keys is not None and insecure:
        raise ConfigError("insecure and keys contradict each other; leave one out")
    for bind in settings.binds:
        if keys is not None and not keys.allowed and bind.startswith("tcp://"):
            raise ConfigError(
                f"allowed_clients has no public key, so nobody may connect to {bind}; put the "
                '".key" file of each client there ("chunkdl keygen" makes them)'
            )
        if keys is None and not insecure and bind.startswith("tcp://"):
            raise ConfigError(
                f"bind: {bind} has no keys, and every user of a machine that reaches it, this one "
                "first, could read the slides and end the service; bind an ipc address for this "
                'machine, give keys and allowed_clients ("chunkdl keygen" makes keys), or say '
                "insecure=true where all of them may"
            )


def _check_silence(settings: ServiceSettings) -> None:
    if not settings.silent_s < settings.grace_s:
        raise ConfigError(
            f"silent_s={settings.silent_s!r} must be below grace_s={settings.grace_s!r}; lower "
            "silent_s or raise grace_s"
        )


def _check_journal(journal: Path | None) -> None:
    if journal is None:
        return
    if journal.is_dir():
        raise ConfigError(f"journal={str(journal)!r} is a folder; name a file")
    if not journal.absolute().parent.is_dir():
        raise ConfigError(f"journal={str(journal)!r}: its folder is not there; make it")
    check_own_folder(journal.absolute().parent, "the positions of the groups")
    if journal.exists():
        check_own_file(journal, "the positions of the groups")


def _with_slots(arguments: Arguments, settings: ServiceSettings) -> Arguments:
    """The arguments with batch slots for all consumers."""
    held, consumers, credit = settings.held_slots, settings.max_consumers, settings.credit_batches
    if held + SPARE_SLOTS > MOST_SLOTS:
        raise ConfigError(
            f"max_consumers={consumers} with credit_batches={credit} each need "
            f"{held + SPARE_SLOTS} batch slots, at most {MOST_SLOTS} are possible; lower "
            "max_consumers or credit_batches"
        )
    automatic = isinstance(arguments.batch_slots, int) and arguments.batch_slots == 0
    slots = (
        settings.needed_slots if automatic else checked_int("batch_slots", arguments.batch_slots, 2)
    )
    if slots < held + SPARE_SLOTS:
        raise ConfigError(
            f"batch_slots={slots} is too small: {consumers} consumers that hold {credit} batches "
            f"each, and {SPARE_SLOTS} more, need {held + SPARE_SLOTS}; raise batch_slots (0 takes "
            "as many as are needed), or lower max_consumers or credit_batches"
        )
    most = (MOST_SLOTS if automatic else slots) - SPARE_SLOTS
    for group in settings.groups:
        if group.mode == "broadcast" and group.max_lag_batches > most:
            raise ConfigError(
                f"groups.{group.name}.max_lag_batches={group.max_lag_batches} must be at most "
                f"{most}, which is batch_slots - {SPARE_SLOTS}; lower it or raise batch_slots"
            )
    return dataclasses.replace(arguments, batch_slots=slots)


def _check_credit(settings: ServiceSettings, config: EngineConfig) -> None:
    batch = config.run.batch_slot_bytes
    if settings.credit_bytes < batch:
        raise ConfigError(
            f"credit_bytes={settings.credit_bytes} is less than one batch, which may take {batch} "
            "bytes; raise credit_bytes or lower batch_size"
        )


def _check_memory(run: RunConfig, groups: int) -> None:
    """Each group has an engine with both arenas of its own."""
    each, available = sum(run.memory_bytes), available_memory()
    if groups * each > available:
        raise MemoryLimitError(
            f"{groups} groups of {each / 2**20:.0f} MiB each need {groups * each / 2**20:.0f} MiB "
            f"and {available / 2**20:.0f} MiB are available here; have fewer groups, or lower "
            "memory_limit, num_bigchunks, bigchunk_size, batch_size or max_consumers"
        )
