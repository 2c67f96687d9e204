"""From the arguments of a user to a checked configuration; refuses every mistake it can see.

Nothing is started here: the headers of slides are looked at, memory is only counted.
"""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from typing import Any

from chunkdl.dataset.label_tables import check_labels
from chunkdl.dataset.patients import Dataset
from chunkdl.dataset.slide_table import grouped, slide_table
from chunkdl.engine.config import EngineConfig, RowSource, RunConfig, StreamConfig
from chunkdl.engine.settings.annotated import annotated, check_annotations
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.balanced import check_balance, groups_of
from chunkdl.engine.settings.checks import (
    checked_colour,
    checked_cycles,
    checked_detector,
    checked_filter,
    checked_window,
    parse_bytes,
)
from chunkdl.engine.settings.identity import hash_of, meant, rows_hash
from chunkdl.engine.settings.machine import cores
from chunkdl.engine.settings.memory_plan import with_memory
from chunkdl.engine.settings.mixing import warn_of_neighbours
from chunkdl.engine.settings.setting import checked, identity
from chunkdl.engine.settings.usable_slides import usable_slides
from chunkdl.engine.settings.users_code import (
    check_can_be_sent,
    hook_stream,
    identity_of,
    policies_of,
    row_source,
    user_code,
)
from chunkdl.errors import ConfigError
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.resolutions import (
    Continuous,
    DrawnResolution,
    FixedResolution,
    Values,
    mpp_of_power,
)
from chunkdl.slides.resolution import Unit, wished_resolution
from chunkdl.slides.slide import PixelRule
from chunkdl.slides.tissue.cache import default_folder
from chunkdl.slides.tissue.given import in_files
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.private_files import check_shared_folder

MOST_CALLS = 100_000
"""SmallChunks of a BigChunk of the built-in classes."""

ANY_TISSUE = 1e-7
"""Least share above none: shares are 32-bit floats, and with less no tissue at all would do."""

log = steady_logger("chunkdl")


def configure(dataset: Dataset, arguments: Arguments) -> EngineConfig:
    """The configuration of a service for `dataset`, everything checked.

    Raises:
        ConfigError: an argument is wrong; the message says what to change.
        AnnotationError: a file of annotations cannot be used.
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
        stream_config(arguments, rows),
        policy=policy,
        one_load_per_patient=rows.by_hooks and arguments.checkpoints,
    )
    check_can_be_sent("pixel_filter", stream.pixel_filter)
    check_can_be_sent("tissue", stream.tissue)
    if rows.by_hooks:
        # More open at a time than there are patients would load one of them twice at a time.
        stream = hook_stream(stream, len(dataset))
    memory_limit = parse_bytes(arguments.memory_limit, "memory_limit")
    run = _run(arguments, stream)
    if not rows.by_hooks:
        slides = usable_slides(slides, stream, arguments.on_error, run.mask_cache)
    drawn_on = annotated(slides, arguments, stream, run.mask_cache)
    check_annotations(arguments, drawn_on, stream)
    check_balance(arguments, stream)
    slides, stream = drawn_on.slides, dataclasses.replace(stream, annotations=drawn_on.use)
    run = with_memory(run, stream, memory_limit)
    warn_of_neighbours(stream, run, len(dataset))
    check_labels(dataset, slides, own_classes=rows.by_hooks)
    groups = groups_of(dataset, slides, arguments, drawn_on)
    wish = meant(arguments, stream)
    of_rows = rows_hash(
        dataset,
        slides,
        stream,
        [
            identity(wish, "rows"),
            identity_of(arguments, own_policy),
            list(drawn_on.digests),
            [[one.region, one.weight, list(one.shares.items())] for one in groups],
        ],
    )
    plan_hash = hash_of([of_rows, identity(wish, "batches")])
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
        rows_hash=of_rows,
        plan_hash=plan_hash,
        cursor=cursor.to_dict(),
        token=secrets.token_bytes(16),
        groups=groups,
    )


def stream_config(arguments: Arguments, rows: RowSource) -> StreamConfig:
    """What the plan depends on; the settings are checked each by itself, and together here."""
    smallchunk, bigchunk = arguments.smallchunk_size, arguments.bigchunk_size
    if bigchunk < smallchunk:
        raise ConfigError(
            f"bigchunk_size={bigchunk} is smaller than smallchunk_size={smallchunk}; a BigChunk "
            "must hold at least one SmallChunk"
        )
    _check_grid(arguments, own_classes=rows.by_hooks)
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
        pixel_filter=None
        if arguments.pixel_filter is None
        else checked_filter("pixel_filter", arguments.pixel_filter),
        grid=arguments.grid,
        drop_last=arguments.drop_last,
        shuffle=arguments.shuffle,
        stride_px=arguments.stride or smallchunk,
        edge=arguments.edge,
        edge_fill=checked_colour("edge_fill", arguments.edge_fill),
        grid_order=arguments.grid_order,
        replacement=arguments.replacement,
        cycles=checked_cycles("cycles", arguments.cycles),
        rows=rows,
        # Whatever is made of them here, they may be anything until then.
        objects=rows.by_hooks
        and (
            arguments.collate_func is not None
            or (arguments.tfms is not None and arguments.tfms_in == "consumer")
        ),
    )


def _check_grid(arguments: Arguments, *, own_classes: bool) -> None:
    """What belongs to a grid, and what of it contradicts itself."""
    _check_purpose(arguments)
    if not arguments.grid and arguments.replacement:
        return
    if arguments.grid and not arguments.replacement:
        raise ConfigError(
            "grid=True takes each position once, slide after slide, and replacement=False in mixed "
            "order; give one of them"
        )
    if arguments.pixel_filter is not None:
        kind = "grid=True" if arguments.grid else "replacement=False"
        raise ConfigError(
            f"{kind} gives every position of the grid and has no pixel_filter; leave one of them "
            "out, or filter the batches yourself"
        )
    plain = Arguments()
    if arguments.shuffle and arguments.grid_order != "mixed":
        raise ConfigError(
            f"shuffle=True and grid_order={arguments.grid_order!r} contradict each other; leave "
            "one out"
        )
    if arguments.edge != "pad" and arguments.edge_fill != plain.edge_fill:
        raise ConfigError('edge_fill is only for edge="pad"; give both or none')
    stride = arguments.stride or arguments.smallchunk_size
    along = (arguments.bigchunk_size - arguments.smallchunk_size) // stride + 1
    if not own_classes and along**2 > MOST_CALLS:
        raise ConfigError(
            f"stride={stride} makes {along**2:,} SmallChunks of a BigChunk of "
            f"{arguments.bigchunk_size} px, and at most {MOST_CALLS:,} are possible; raise stride "
            "or lower bigchunk_size"
        )


def _check_purpose(arguments: Arguments) -> None:
    """Refuse what would do nothing."""
    plain = Arguments()
    grid, cycles = arguments.grid, not arguments.replacement
    kinds: list[tuple[bool, str, tuple[str, ...]]] = [
        (grid, "grid=True", ("shuffle", "grid_order")),
        (cycles, "replacement=False", ("cycles",)),
        (grid or cycles, "grid=True and replacement=False", ("stride", "edge", "edge_fill")),
    ]
    for has_meaning, purpose, names in kinds:
        for name in names:
            value = getattr(arguments, name)
            if not has_meaning and value != getattr(plain, name):
                raise ConfigError(
                    f"{name}={value!r} is only for {purpose}, and would do nothing here; leave it "
                    "out"
                )


def _resolution(arguments: Arguments) -> FixedResolution | DrawnResolution:
    wishes = {
        name: value
        for name in ("level", "mpp", "downsample", "magnification")
        if (value := getattr(arguments, name)) is not None
    }
    if len(wishes) > 1:
        raise ConfigError(
            f"give one of level, mpp, downsample and magnification, not {', '.join(wishes)}"
        )
    policy, deviation = arguments.resolution_policy, arguments.max_relative_deviation
    if by_objective := "magnification" in wishes:
        wishes = {"mpp": mpp_of_power(wishes["magnification"])}
    wish = next(iter(wishes.values()), None)
    if not isinstance(wish, Values):
        three: dict[str, Any] = {"level": None, "mpp": None, "downsample": None, **wishes}
        fixed = wished_resolution(**three, policy=policy, most_deviation=deviation)
        return FixedResolution(dataclasses.replace(fixed, by_objective=by_objective))
    unit: Unit = "mpp" if "mpp" in wishes else "downsample"
    drawn = DrawnResolution(unit, wish, policy or "resample", deviation, by_objective)
    return _drawn(drawn, arguments)


def _drawn(drawn: DrawnResolution, arguments: Arguments) -> FixedResolution | DrawnResolution:
    unit, values, policy = drawn.unit, drawn.values, arguments.resolution_policy
    if isinstance(values, Continuous) and policy not in (None, "resample"):
        raise ConfigError(
            f"resolution_policy={policy!r}: values of a range are resampled; leave it out, or give "
            "a few values with weights"
        )
    if len(values.examples) == 1:
        return FixedResolution(drawn.examples[0])
    if arguments.grid or not arguments.replacement:
        kind = "a grid pass" if arguments.grid else "a stream without replacement"
        raise ConfigError(
            f"{kind} has one resolution: give {unit} as a number, and have a loader for each"
        )
    return drawn


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
        mask_cache=mask_cache_of(arguments),
        cpu_affinity=tuple(arguments.cpu_affinity or ()),
        stall_timeout_s=arguments.stall_timeout,
        hook_timeout_s=arguments.hook_timeout,
        max_restarts=arguments.max_restarts,
    )


def mask_cache_of(arguments: Arguments) -> Path | None:
    """The folder of tissue masks that was given; None: the user's.

    Raises:
        ConfigError: others could change what is in it.
    """
    given = None if arguments.mask_cache is None else Path(arguments.mask_cache)
    used = default_folder() if given is None else given
    check_shared_folder(used, "tissue masks", by_wish=given is not None)
    return given
