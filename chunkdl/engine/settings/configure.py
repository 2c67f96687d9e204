"""From the arguments of a user to a checked configuration; refuses every mistake it can see.

Nothing is started here: the headers of slides are looked at, memory is only counted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from chunkdl.dataset.label_tables import check_labels
from chunkdl.dataset.patients import Dataset
from chunkdl.dataset.slide_table import SlideEntry, grouped, slide_identity, slide_table
from chunkdl.engine.config import EngineConfig, RowSource, RunConfig, StreamConfig
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.checks import checked_detector, checked_window, parse_bytes
from chunkdl.engine.settings.machine import available_memory, cores
from chunkdl.engine.settings.setting import checked, identity
from chunkdl.engine.settings.usable_slides import usable_slides
from chunkdl.engine.settings.users_code import (
    hook_stream,
    identity_of,
    policies_of,
    row_source,
    user_code,
)
from chunkdl.engine.work.open_slides import CACHED_BYTES, MOST_BYTES, SCRATCH_BYTES
from chunkdl.errors import ConfigError, MemoryLimitError
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.positions import cell_side
from chunkdl.sampling.rules import READING_VERSION, SAMPLING_VERSION
from chunkdl.slides.resolution import Resolution, wished_resolution
from chunkdl.slides.slide import PixelRule
from chunkdl.slides.tissue.cache import default_folder
from chunkdl.slides.tissue.given import in_files
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.memory.arena import ALIGNMENT, aligned
from chunkdl.transport.private_files import check_shared_folder

WORKER_BYTES = 150 * 2**20
"""What a process with its libraries takes beside the arenas, at most; code of the user's comes on
top."""
CELL_BYTES = 24
"""What planning takes for each cell of positions in a window, at most, while it lasts."""
SHARE_OF_BATCHES = 0.25
"""Of memory_limit, for batches whose rows the user's code makes."""
MOST_CALLS = 100_000
"""SmallChunks of a BigChunk of the built-in classes."""

ANY_TISSUE = 1e-7
"""Least share above none: shares are 32-bit floats, and with less no tissue at all would do."""
OF_ENDLESS_STREAMS = {"reuse", "num_bigchunks", "smallchunks_per_bigchunk"}
"""Settings that a grid pass does not look at."""

log = steady_logger("chunkdl")


def configure(dataset: Dataset, arguments: Arguments) -> EngineConfig:
    """The configuration of a service for `dataset`, everything checked.

    Raises:
        ConfigError: an argument is wrong; the message says what to change.
        DatasetError: the dataset has no slides, a record says something impossible, or a label
            cannot be a column.
        ResolutionError: slides cannot give the resolution, or none is left.
        SlideError: a given tissue mask does not fit its slide, or no slide can be opened.
    """
    arguments = checked(arguments)
    rows = row_source(arguments)
    slides = slide_table(dataset, needs_slides=not rows.by_hooks)
    policy, own_policy = policies_of(arguments, dataset, rows)
    stream = dataclasses.replace(
        _stream(arguments, rows),
        policy=policy,
        one_load_per_patient=rows.by_hooks and arguments.checkpoints,
    )
    if rows.by_hooks:
        # More open at a time than there are patients would load one of them twice at a time.
        stream = hook_stream(stream, len(dataset))
    memory_limit = parse_bytes(arguments.memory_limit, "memory_limit")
    run = _run(arguments, stream)
    if not rows.by_hooks:
        slides, calls = usable_slides(slides, stream, arguments.on_error, run.mask_cache)
        stream = dataclasses.replace(stream, reserved_calls=calls)
    run = _with_memory(run, stream, memory_limit)
    check_labels(dataset, slides, own_classes=rows.by_hooks)
    meant = _meant(arguments, stream)
    rows_hash = _rows_hash(
        dataset, slides, stream, [identity(meant, "rows"), identity_of(arguments, own_policy)]
    )
    plan_hash = _hash([rows_hash, identity(meant, "batches")])
    cursor = Cursor(plan_hash=plan_hash, seed=stream.seed)
    masks = in_files([entry.tissue_mask for entry in slides], run.mask_cache)
    slides = tuple(
        dataclasses.replace(entry, tissue_mask=mask)
        for entry, mask in zip(slides, masks, strict=True)
    )
    return EngineConfig(
        stream=stream,
        run=run,
        slides=slides,
        slides_of_patient=grouped(slides, len(dataset)),
        patients=tuple(patient.name for patient in dataset),
        user=user_code(dataset, arguments, rows, own_policy),
        has_scheduler=own_policy is not None,
        rows_hash=rows_hash,
        plan_hash=plan_hash,
        cursor=cursor.to_dict(),
        token=secrets.token_bytes(16),
    )


def _stream(arguments: Arguments, rows: RowSource) -> StreamConfig:
    """What the plan depends on; the settings are checked each by itself, and together here."""
    smallchunk, bigchunk = arguments.smallchunk_size, arguments.bigchunk_size
    if bigchunk < smallchunk:
        raise ConfigError(
            f"bigchunk_size={bigchunk} is smaller than smallchunk_size={smallchunk}; a BigChunk "
            "must hold at least one SmallChunk"
        )
    if arguments.shuffle and not arguments.grid:
        raise ConfigError("shuffle=True is for a grid pass; an endless stream is random anyway")
    calls = arguments.smallchunks_per_bigchunk or 0
    if not rows.by_hooks and calls > MOST_CALLS:
        raise ConfigError(f"smallchunks_per_bigchunk={calls} must be at most {MOST_CALLS}")
    channels, window, icc = arguments.channels, arguments.window, arguments.icc
    return StreamConfig(
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        smallchunk_px=smallchunk,
        bigchunk_px=bigchunk,
        resolution=_resolution(arguments),
        num_bigchunks=arguments.num_bigchunks,
        reuse=arguments.reuse,
        smallchunks_per_bigchunk=calls,
        tissue_threshold=arguments.tissue_threshold and max(arguments.tissue_threshold, ANY_TISSUE),
        tissue=checked_detector("tissue", arguments.tissue),
        reader=arguments.reader,
        pixels=PixelRule(
            None if channels is None else tuple(channels),
            None if window is None else checked_window("window", window),
            icc,
        ),
        grid=arguments.grid,
        drop_last=arguments.drop_last,
        shuffle=arguments.shuffle,
        rows=rows,
        # Whatever is made of them here, they may be anything until then.
        objects=rows.by_hooks
        and (
            arguments.collate_func is not None
            or (arguments.tfms is not None and arguments.tfms_in == "consumer")
        ),
    )


def _resolution(arguments: Arguments) -> Resolution:
    return wished_resolution(
        arguments.level, arguments.mpp, arguments.downsample, arguments.resolution_policy
    )


def _meant(arguments: Arguments, stream: StreamConfig) -> Arguments:
    """The same wish always in the same words, so that equal streams are the same stream.

    What is meant by default is said, and what has no meaning here has its default.
    """
    resolution = stream.resolution
    values: dict[str, Any] = dict.fromkeys(("level", "mpp", "downsample"))
    values[resolution.unit] = resolution.value
    values["num_bigchunks"] = stream.num_bigchunks
    values["smallchunks_per_bigchunk"] = stream.smallchunks_per_bigchunk or None
    idle = {"reuse"} if stream.smallchunks_per_bigchunk else set()
    idle |= OF_ENDLESS_STREAMS if stream.grid else {"drop_last"}
    plain = Arguments()
    values.update({name: getattr(plain, name) for name in idle})
    return dataclasses.replace(arguments, resolution_policy=resolution.policy, **values)


def _run(arguments: Arguments, stream: StreamConfig) -> RunConfig:
    """All but the memory, which depends on the slides."""
    have = cores()
    # The user's code may cost as much as reading does.
    collectors = max(1, have // 6 if stream.rows.are_crops else have // 2)
    return RunConfig(
        num_loaders=arguments.num_loaders or have,
        num_collectors=arguments.num_collectors or collectors,
        bigchunk_slots=0,
        batch_slots=arguments.batch_slots,
        bigchunk_slot_bytes=0,
        batch_slot_bytes=0,
        order=arguments.order,
        on_error=arguments.on_error or "substitute",
        on_hook_error=arguments.on_error or "raise",
        mask_cache=_mask_cache(arguments),
        cpu_affinity=tuple(arguments.cpu_affinity or ()),
        stall_timeout_s=arguments.stall_timeout,
        hook_timeout_s=arguments.hook_timeout,
        max_restarts=arguments.max_restarts,
    )


def _mask_cache(arguments: Arguments) -> Path | None:
    given = None if arguments.mask_cache is None else Path(arguments.mask_cache)
    used = default_folder() if given is None else given
    check_shared_folder(used, "tissue masks", by_wish=given is not None)
    return given


def _with_memory(run: RunConfig, stream: StreamConfig, memory_limit: int) -> RunConfig:
    slots, slot_bytes, batch_slot_bytes = _memory(
        stream, run.num_loaders, run.batch_slots, memory_limit
    )
    run = dataclasses.replace(
        run,
        bigchunk_slots=slots,
        bigchunk_slot_bytes=slot_bytes,
        batch_slot_bytes=batch_slot_bytes,
    )
    arenas, beside = sum(run.memory_bytes), beside_arenas(run, stream)
    available = available_memory()
    log.info("memory: at most %.0f MiB in processes beside that", beside / 2**20)
    if arenas + beside > available:
        log.warning(
            "%d loaders and %d collectors may take up to %.0f MiB beside the %.0f MiB of regions "
            "and batches, and %.0f MiB are available here; lower num_loaders or memory_limit if "
            "memory becomes short",
            run.num_loaders,
            run.num_collectors,
            beside / 2**20,
            arenas / 2**20,
            available / 2**20,
        )
    return run


def beside_arenas(run: RunConfig, stream: StreamConfig) -> int:
    """Memory of the processes of a stream beside its arenas, at most, bytes; code of the user's
    comes on top."""
    return run.num_loaders * loader_bytes(stream) + (1 + run.num_collectors) * WORKER_BYTES


def loader_bytes(stream: StreamConfig) -> int:
    """The part of a loader: its libraries, the slides that it has open, what it works with."""
    cells = (stream.bigchunk_px // cell_side(stream.smallchunk_px) + 2) ** 2
    return WORKER_BYTES + MOST_BYTES + CACHED_BYTES + max(SCRATCH_BYTES, CELL_BYTES * cells)


def _memory(
    stream: StreamConfig, num_loaders: int, batch_slots: int, memory_limit: int
) -> tuple[int, int, int]:
    """BigChunk slots (the open ones and as much look-ahead as helps and fits), and slot sizes.

    What the user's code makes has no known size: rows that it makes may take `SHARE_OF_BATCHES` of
    the memory, its BigChunks share the rest equally.

    Raises:
        MemoryLimitError: not even the open ones fit.
    """
    # Two tickets a loader, and two BigChunks that wait to be opened.
    wished = stream.num_bigchunks + 2 * num_loaders + 2
    if (row_format := stream.row_format) is not None:
        batch = aligned(stream.layout_of(row_format).slot_bytes)
    else:
        batch = max(ALIGNMENT, int(memory_limit * SHARE_OF_BATCHES) // batch_slots)
        batch = batch // ALIGNMENT * ALIGNMENT
    batches = batch_slots * batch
    if stream.rows.by_hooks:
        bigchunk = (memory_limit - batches) // wished // ALIGNMENT * ALIGNMENT
        log.info("memory: %d BigChunks of at most %.1f MiB", wished, bigchunk / 2**20)
        return wished, max(ALIGNMENT, bigchunk), batch
    bigchunk = aligned(stream.bigchunk_layout.slot_bytes)
    fitting = (memory_limit - batches) // bigchunk
    least = stream.num_bigchunks + 1
    if fitting < least:
        raise MemoryLimitError(
            f"memory_limit of {memory_limit / 2**20:.0f} MiB is too small: {least} BigChunks of "
            f"{bigchunk / 2**20:.1f} MiB (num_bigchunks={stream.num_bigchunks} and one to come) "
            f"and {batch_slots} batches of {batches / batch_slots / 2**20:.1f} MiB take "
            f"{(least * bigchunk + batches) / 2**20:.0f} MiB; raise memory_limit, or lower "
            "num_bigchunks, bigchunk_size or batch_size"
        )
    slots = min(wished, fitting)
    needed = slots * bigchunk + batches
    available = available_memory()
    if needed > available:
        raise MemoryLimitError(
            f"the stream needs {needed / 2**20:.0f} MiB and {available / 2**20:.0f} MiB are "
            "available here; lower num_bigchunks, bigchunk_size, batch_size or memory_limit"
        )
    log.info(
        "memory: %d BigChunks of %.1f MiB + %d batches of %.1f MiB = %.0f MiB",
        slots,
        bigchunk / 2**20,
        batch_slots,
        batches / batch_slots / 2**20,
        needed / 2**20,
    )
    return slots, bigchunk, batch


def _rows_hash(
    dataset: Dataset, slides: Sequence[SlideEntry], stream: StreamConfig, asked: list[Any]
) -> str:
    """Identifies what the rows of a stream depend on, however they are cut into batches.

    It is the same on every machine that has the same files.
    """
    return _hash(
        [
            asked,
            stream.one_load_per_patient,
            repr(stream.policy),
            [READING_VERSION, SAMPLING_VERSION],
            [patient.int_uniqueid for patient in dataset],
            [slide_identity(entry) for entry in slides],
        ]
    )


def _hash(facts: list[Any]) -> str:
    return hashlib.sha256(msgspec.msgpack.encode(facts)).hexdigest()
