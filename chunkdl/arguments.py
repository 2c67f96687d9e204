"""The arguments of `LightDL`, and the checks that are the same for many of them."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chunkdl.config import OnError, Order
from chunkdl.errors import ConfigError
from chunkdl.plan.policies import Policy
from chunkdl.slides.resolution import Policy as ResolutionPolicy
from chunkdl.tissue.detectors import TissueDetector


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The arguments of `LightDL` that shape the stream and what runs it; see there."""

    batch_size: int
    smallchunk_size: int
    bigchunk_size: int
    level: int | None
    mpp: float | None
    downsample: float | None
    resolution_policy: ResolutionPolicy | None
    num_bigchunks: int
    reuse: float
    smallchunks_per_bigchunk: int | None
    tissue: str | TissueDetector | None
    tissue_threshold: float
    reader: str
    grid: bool
    drop_last: bool
    seed: int
    order: Order
    on_error: OnError | None
    num_loaders: int | None
    num_collectors: int | None
    memory_limit: int | str
    batch_slots: int
    mask_cache: str | os.PathLike[str] | None
    cpu_affinity: Sequence[int] | None
    stall_timeout: float
    max_restarts: int
    bigchunkloader: type[Any] | None = None
    smallchunkcollector: type[Any] | None = None
    const_global_info: Any = None
    tfms: Callable[[Any], Any] | None = None
    tfms_in: str = "collectors"
    collate_func: Callable[..., Any] | None = None
    schedule: Policy | None = None
    checkpoints: bool = True
    hook_timeout: float | None = None
    channels: Sequence[int] | None = None
    window: Sequence[float] | None = None
    icc: str | None = None
    shuffle: bool = False


def whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """`value` as an int in its bounds."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise ConfigError(f"{name}={value!r} must be an integer of at least {least}")
    if most is not None and number > most:
        raise ConfigError(f"{name}={value!r} must be at most {most}")
    return number


def number(name: str, value: object) -> float:
    """`value` as a finite float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name}={value!r} must be a number")
    return float(value)


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r} must be True or False")
    return value


def folder(name: str, value: str | os.PathLike[str] | None) -> Path | None:
    if value is not None and not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name}={value!r} is no path")
    return None if value is None else Path(value)


def choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise ConfigError(f"{name}={value!r} is unknown; choose one of {known}")
