"""chunkdl streams patches of whole-slide images into GPU training.

The public names are resolved when they are first used, so that a process that only reads slides
never imports torch or zmq.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chunkdl.annotations.options import ReadingOptions
    from chunkdl.annotations.sources import OwnAnnotations
    from chunkdl.annotations.use import Regions, Roi
    from chunkdl.consumers.batches.batch import Batch
    from chunkdl.consumers.connect import connect
    from chunkdl.consumers.lightdl import LightDL
    from chunkdl.dataset.patients import Dataset, Patient, Record
    from chunkdl.errors import ChunkdlError, EndOfStream
    from chunkdl.patches.chunks import BigChunk, SmallChunk
    from chunkdl.patches.filters.colours import GreyShare, HsvShare, PenMarks, WhiteShare
    from chunkdl.patches.filters.combined import AllOf, AnyOf, Not
    from chunkdl.patches.filters.own_filter import OwnFilter
    from chunkdl.patches.filters.pixel_filter import PixelFilter
    from chunkdl.patches.filters.structure import Contrast, Sharpness
    from chunkdl.patches.hooks import EXHAUSTED, BigChunkLoader, SmallChunkCollector
    from chunkdl.patches.tissue_hooks import TissueBigChunkLoader, TissueSmallChunkCollector
    from chunkdl.sampling.policies.balanced import LabelBalanced
    from chunkdl.sampling.policies.in_turn import NeverLoadedFirst, RoundRobin, Uniform
    from chunkdl.sampling.policies.policy import HALT, Policy
    from chunkdl.sampling.policies.quota import Quota
    from chunkdl.sampling.policies.weighted import Weighted
    from chunkdl.sampling.resolutions import Continuous, Mixture
    from chunkdl.service.client.control import operate
    from chunkdl.service.keys import ClientKeys, load_client_keys, load_public_key
    from chunkdl.slides.readers.registry import open_slide
    from chunkdl.slides.synthetic.writing import write_tissue_slide
    from chunkdl.slides.tissue.detectors import HsvRange, Otsu

__version__ = "0.1.0"

_HOMES = {
    "AllOf": "patches.filters.combined",
    "AnyOf": "patches.filters.combined",
    "Batch": "consumers.batches.batch",
    "BigChunk": "patches.chunks",
    "BigChunkLoader": "patches.hooks",
    "ChunkdlError": "errors",
    "ClientKeys": "service.keys",
    "Continuous": "sampling.resolutions",
    "Contrast": "patches.filters.structure",
    "Dataset": "dataset.patients",
    "EXHAUSTED": "patches.hooks",
    "EndOfStream": "errors",
    "GreyShare": "patches.filters.colours",
    "HALT": "sampling.policies.policy",
    "HsvRange": "slides.tissue.detectors",
    "HsvShare": "patches.filters.colours",
    "LabelBalanced": "sampling.policies.balanced",
    "LightDL": "consumers.lightdl",
    "Mixture": "sampling.resolutions",
    "NeverLoadedFirst": "sampling.policies.in_turn",
    "Not": "patches.filters.combined",
    "Otsu": "slides.tissue.detectors",
    "OwnAnnotations": "annotations.sources",
    "OwnFilter": "patches.filters.own_filter",
    "Patient": "dataset.patients",
    "PenMarks": "patches.filters.colours",
    "PixelFilter": "patches.filters.pixel_filter",
    "Policy": "sampling.policies.policy",
    "Quota": "sampling.policies.quota",
    "ReadingOptions": "annotations.options",
    "Record": "dataset.patients",
    "Regions": "annotations.use",
    "Roi": "annotations.use",
    "RoundRobin": "sampling.policies.in_turn",
    "Sharpness": "patches.filters.structure",
    "SmallChunk": "patches.chunks",
    "SmallChunkCollector": "patches.hooks",
    "TissueBigChunkLoader": "patches.tissue_hooks",
    "TissueSmallChunkCollector": "patches.tissue_hooks",
    "Uniform": "sampling.policies.in_turn",
    "Weighted": "sampling.policies.weighted",
    "WhiteShare": "patches.filters.colours",
    "connect": "consumers.connect",
    "load_client_keys": "service.keys",
    "load_public_key": "service.keys",
    "open_slide": "slides.readers.registry",
    "operate": "service.client.control",
    "write_tissue_slide": "slides.synthetic.writing",
}

__all__ = [
    "EXHAUSTED",
    "HALT",
    "AllOf",
    "AnyOf",
    "Batch",
    "BigChunk",
    "BigChunkLoader",
    "ChunkdlError",
    "ClientKeys",
    "Continuous",
    "Contrast",
    "Dataset",
    "EndOfStream",
    "GreyShare",
    "HsvRange",
    "HsvShare",
    "LabelBalanced",
    "LightDL",
    "Mixture",
    "NeverLoadedFirst",
    "Not",
    "Otsu",
    "OwnAnnotations",
    "OwnFilter",
    "Patient",
    "PenMarks",
    "PixelFilter",
    "Policy",
    "Quota",
    "ReadingOptions",
    "Record",
    "Regions",
    "Roi",
    "RoundRobin",
    "Sharpness",
    "SmallChunk",
    "SmallChunkCollector",
    "TissueBigChunkLoader",
    "TissueSmallChunkCollector",
    "Uniform",
    "Weighted",
    "WhiteShare",
    "connect",
    "load_client_keys",
    "load_public_key",
    "open_slide",
    "operate",
    "write_tissue_slide",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
