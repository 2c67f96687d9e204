"""What the user's own classes, transform and schedule mean for a stream, checked."""

from __future__ import annotations

import dataclasses
from typing import Any

import cloudpickle

from chunkdl.dataset.patients import Dataset
from chunkdl.engine.config import Program, RowSource, StreamConfig
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.errors import ConfigError
from chunkdl.patches.filters.pixel_filter import PixelFilter
from chunkdl.patches.hooks import BigChunkLoader, SmallChunkCollector
from chunkdl.patches.tissue_hooks import TissueBigChunkLoader, TissueSmallChunkCollector
from chunkdl.patches.user_code import UserCode
from chunkdl.sampling.policies.in_turn import Uniform
from chunkdl.sampling.policies.policy import Policy
from chunkdl.sampling.policies.quota import is_built_in
from chunkdl.slides.tissue.detectors.detector import TissueDetector

SMALLCHUNKS_OF_HOOKS = 100
"""SmallChunks of a BigChunk of the user's classes unless said: as many as PyDmed's queue held."""


def row_source(arguments: Arguments) -> RowSource:
    """Who makes a row."""
    kinds = arguments.bigchunkloader, arguments.smallchunkcollector
    bases = BigChunkLoader, SmallChunkCollector
    for kind, base in zip(kinds, bases, strict=True):
        if kind is not None and not (isinstance(kind, type) and issubclass(kind, base)):
            raise ConfigError(
                f"{kind!r} is not a subclass of chunkdl.{base.__name__}; give the class, not "
                "an object"
            )
    built_in = (None, TissueBigChunkLoader), (None, TissueSmallChunkCollector)
    if any(kind not in own for kind, own in zip(kinds, built_in, strict=True)):
        if arguments.grid:
            raise ConfigError("grid=True works only with the built-in classes; remove your own")
        if not arguments.replacement:
            raise ConfigError(
                "replacement=False works only with the built-in classes; remove your own"
            )
        return RowSource.HOOKS
    return RowSource.TRANSFORM if transforms(arguments) else RowSource.CROP


def transforms(arguments: Arguments) -> bool:
    """Whether the collectors apply the transform; a collate function gets it for itself."""
    here = arguments.tfms_in == "consumer" or arguments.collate_func is not None
    return arguments.tfms is not None and not here


def policies_of(
    arguments: Arguments, dataset: Dataset, rows: RowSource
) -> tuple[Policy | None, Policy | None]:
    """The policy that the coordinator asks itself, and the user's own that a process is for."""
    schedule = arguments.schedule
    if schedule is None:
        return (Uniform() if rows.by_hooks else None), None
    if arguments.grid:
        raise ConfigError(
            "a grid pass takes every slide once, so it has no schedule; remove schedule="
        )
    if not arguments.replacement:
        raise ConfigError(
            "without replacement patients have equal weights, and no schedule yet; remove schedule="
        )
    if not callable(getattr(schedule, "choose", None)):
        raise ConfigError(
            f"schedule={schedule!r} is not a chunkdl.Policy, because it has no choose()"
        )
    bound = schedule.for_patients(list(dataset))
    if is_built_in(bound):
        return bound, None
    return None, bound


def hook_stream(stream: StreamConfig, patients: int) -> StreamConfig:
    """What the user's classes change in a stream of so many patients."""
    places = min(stream.num_bigchunks, patients) if stream.one_load_per_patient else None
    return dataclasses.replace(
        stream,
        num_bigchunks=places or stream.num_bigchunks,
        smallchunks_per_bigchunk=stream.smallchunks_per_bigchunk or SMALLCHUNKS_OF_HOOKS,
    )


def user_code(
    dataset: Dataset, arguments: Arguments, rows: RowSource, policy: Policy | None
) -> dict[Program, bytes]:
    """The user's part of the stream for each kind of worker that runs any, pickled by value.

    Each gets only what it runs: a transform may bring torch along, which loaders need not import.

    Raises:
        ConfigError: something in it cannot be pickled.
    """
    code: dict[Program, UserCode] = {}
    patients = tuple(dataset) if rows.by_hooks else ()
    loader, collector = arguments.bigchunkloader, arguments.smallchunkcollector
    settings = arguments.const_global_info
    if rows.by_hooks:
        code["loader"] = UserCode(patients, loader, None, settings, None, None)
    if not rows.are_crops:
        transform = arguments.tfms if transforms(arguments) else None
        code["collector"] = UserCode(patients, loader, collector, settings, transform, None)
    if policy is not None:
        code["scheduler"] = UserCode((), None, None, None, None, policy)
    try:
        return {program: cloudpickle.dumps(part) for program, part in code.items()}
    except Exception as error:
        raise ConfigError(
            "the classes, transform, schedule, settings or patients of this loader cannot be "
            f"sent to its workers: {type(error).__name__}: {error}; remove what belongs to one "
            "process, such as locks, sockets and open files (with tfms_in='consumer' a transform "
            "stays in this process)"
        ) from error


def check_can_be_sent(name: str, value: PixelFilter | TissueDetector | None) -> None:
    """See that a pixel filter or a tissue detector can be sent to the loaders.

    Raises:
        ConfigError: a function in it cannot be pickled.
    """
    try:
        cloudpickle.dumps(value)
    except Exception as error:
        raise ConfigError(
            f"{name}={value} cannot be sent to the loaders: {type(error).__name__}: {error}; its "
            "function may not hold what belongs to one process, such as locks, sockets and open "
            "files"
        ) from error


def identity_of(arguments: Arguments, policy: Policy | None) -> list[Any]:
    """What of the user's code a saved state belongs to: names, for its content may be anything."""
    kinds = arguments.bigchunkloader, arguments.smallchunkcollector
    return [
        *(None if kind is None else kind.__qualname__ for kind in kinds),
        None if policy is None else type(policy).__qualname__,
    ]
