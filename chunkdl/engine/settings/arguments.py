"""The arguments of `LightDL`, and the checks that are the same for many of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chunkdl.engine.config import OnError, Order
from chunkdl.sampling.policies.policy import Policy
from chunkdl.slides.resolution import Policy as ResolutionPolicy
from chunkdl.slides.tissue.detectors import TissueDetector


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
