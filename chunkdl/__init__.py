"""chunkdl streams patches of whole-slide images into GPU training.

The public names are resolved when they are first used, so that a process that only reads slides
never imports torch or zmq.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chunkdl.chunks import Batch, BigChunk, SmallChunk
    from chunkdl.connecting import connect
    from chunkdl.errors import ChunkdlError, EndOfStream
    from chunkdl.hooks import EXHAUSTED, BigChunkLoader, SmallChunkCollector
    from chunkdl.lightdl import LightDL
    from chunkdl.patients import Dataset, Patient, Record
    from chunkdl.plan.policies import (
        HALT,
        LabelBalanced,
        NeverLoadedFirst,
        Policy,
        Quota,
        RoundRobin,
        Uniform,
        Weighted,
    )
    from chunkdl.slides.readers.registry import open_slide
    from chunkdl.tissue.detectors import HsvRange, Otsu
    from chunkdl.tissue_hooks import TissueBigChunkLoader, TissueSmallChunkCollector

__version__ = "0.1.0"

_HOMES = {
    "Batch": "chunks",
    "BigChunk": "chunks",
    "BigChunkLoader": "hooks",
    "ChunkdlError": "errors",
    "Dataset": "patients",
    "EXHAUSTED": "hooks",
    "EndOfStream": "errors",
    "HALT": "plan.policies",
    "HsvRange": "tissue.detectors",
    "LabelBalanced": "plan.policies",
    "LightDL": "lightdl",
    "NeverLoadedFirst": "plan.policies",
    "Otsu": "tissue.detectors",
    "Patient": "patients",
    "Policy": "plan.policies",
    "Quota": "plan.policies",
    "Record": "patients",
    "RoundRobin": "plan.policies",
    "SmallChunk": "chunks",
    "SmallChunkCollector": "hooks",
    "TissueBigChunkLoader": "tissue_hooks",
    "TissueSmallChunkCollector": "tissue_hooks",
    "Uniform": "plan.policies",
    "Weighted": "plan.policies",
    "connect": "connecting",
    "open_slide": "slides.readers.registry",
}

__all__ = [
    "EXHAUSTED",
    "HALT",
    "Batch",
    "BigChunk",
    "BigChunkLoader",
    "ChunkdlError",
    "Dataset",
    "EndOfStream",
    "HsvRange",
    "LabelBalanced",
    "LightDL",
    "NeverLoadedFirst",
    "Otsu",
    "Patient",
    "Policy",
    "Quota",
    "Record",
    "RoundRobin",
    "SmallChunk",
    "SmallChunkCollector",
    "TissueBigChunkLoader",
    "TissueSmallChunkCollector",
    "Uniform",
    "Weighted",
    "connect",
    "open_slide",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
