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
    from chunkdl.consumers.batches.row_keys import row_keys
    from chunkdl.consumers.connect import connect
    from chunkdl.consumers.lightdl import LightDL
    from chunkdl.dataset.namings.camelyon import Camelyon16, Camelyon17
    from chunkdl.dataset.namings.cptac import Cptac
    from chunkdl.dataset.namings.gtex import Gtex
    from chunkdl.dataset.namings.idc import Idc
    from chunkdl.dataset.namings.name_table import NameTable
    from chunkdl.dataset.namings.naming import NamedSlide
    from chunkdl.dataset.namings.panda import Panda
    from chunkdl.dataset.namings.pattern import NamePattern
    from chunkdl.dataset.namings.tcga import Tcga
    from chunkdl.dataset.patients import Dataset, Patient, Record
    from chunkdl.dataset.splits.leakage import check_disjoint
    from chunkdl.dataset.splits.split import Split
    from chunkdl.errors import ChunkdlError, EndOfStream
    from chunkdl.patches.augmentation.augment import Augment
    from chunkdl.patches.augmentation.colours import ColourJitter, Grey, Solarise
    from chunkdl.patches.augmentation.crops import Cutout, ResizedCrop
    from chunkdl.patches.augmentation.jpeg import Jpeg
    from chunkdl.patches.augmentation.quality import Blur, Noise
    from chunkdl.patches.augmentation.stains import HedJitter, HedShift, StainJitter
    from chunkdl.patches.augmentation.standard import Standard
    from chunkdl.patches.augmentation.symmetries import Flip, QuarterTurn, Symmetry
    from chunkdl.patches.chunks import BigChunk, SmallChunk
    from chunkdl.patches.filters.colours import GreyShare, HsvShare, PenMarks, WhiteShare
    from chunkdl.patches.filters.combined import AllOf, AnyOf, Not
    from chunkdl.patches.filters.own_filter import OwnFilter
    from chunkdl.patches.filters.pixel_filter import PixelFilter
    from chunkdl.patches.filters.structure import Contrast, Sharpness
    from chunkdl.patches.hooks import EXHAUSTED, BigChunkLoader, SmallChunkCollector
    from chunkdl.patches.stain.macenko import Macenko
    from chunkdl.patches.stain.reinhard import Reinhard
    from chunkdl.patches.tissue_hooks import TissueBigChunkLoader, TissueSmallChunkCollector
    from chunkdl.sampling.balance import Balance
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
    from chunkdl.slides.tissue.detectors.blurred_areas import BlurredAreas
    from chunkdl.slides.tissue.detectors.clam import Clam
    from chunkdl.slides.tissue.detectors.combined import TissueAll, TissueAny, TissueWithout
    from chunkdl.slides.tissue.detectors.grey_otsu import GreyOtsu
    from chunkdl.slides.tissue.detectors.hsv_range import HsvRange
    from chunkdl.slides.tissue.detectors.onnx_tissue import OnnxTissue
    from chunkdl.slides.tissue.detectors.otsu import Otsu
    from chunkdl.slides.tissue.detectors.own_tissue import OwnTissue
    from chunkdl.slides.tissue.detectors.pen_areas import PenAreas
    from chunkdl.survey.survey import Survey
    from chunkdl.survey.surveyed_slide import SurveyedSlide

__version__ = "0.1.0"

_HOMES = {
    "AllOf": "patches.filters.combined",
    "AnyOf": "patches.filters.combined",
    "Augment": "patches.augmentation.augment",
    "Balance": "sampling.balance",
    "Batch": "consumers.batches.batch",
    "BigChunk": "patches.chunks",
    "BigChunkLoader": "patches.hooks",
    "Blur": "patches.augmentation.quality",
    "BlurredAreas": "slides.tissue.detectors.blurred_areas",
    "Camelyon16": "dataset.namings.camelyon",
    "Camelyon17": "dataset.namings.camelyon",
    "ChunkdlError": "errors",
    "Clam": "slides.tissue.detectors.clam",
    "ClientKeys": "service.keys",
    "ColourJitter": "patches.augmentation.colours",
    "Continuous": "sampling.resolutions",
    "Contrast": "patches.filters.structure",
    "Cptac": "dataset.namings.cptac",
    "Cutout": "patches.augmentation.crops",
    "Dataset": "dataset.patients",
    "EXHAUSTED": "patches.hooks",
    "EndOfStream": "errors",
    "Flip": "patches.augmentation.symmetries",
    "Grey": "patches.augmentation.colours",
    "GreyOtsu": "slides.tissue.detectors.grey_otsu",
    "GreyShare": "patches.filters.colours",
    "Gtex": "dataset.namings.gtex",
    "HALT": "sampling.policies.policy",
    "HedJitter": "patches.augmentation.stains",
    "HedShift": "patches.augmentation.stains",
    "HsvRange": "slides.tissue.detectors.hsv_range",
    "HsvShare": "patches.filters.colours",
    "Idc": "dataset.namings.idc",
    "Jpeg": "patches.augmentation.jpeg",
    "LabelBalanced": "sampling.policies.balanced",
    "LightDL": "consumers.lightdl",
    "Macenko": "patches.stain.macenko",
    "Mixture": "sampling.resolutions",
    "NamePattern": "dataset.namings.pattern",
    "NameTable": "dataset.namings.name_table",
    "NamedSlide": "dataset.namings.naming",
    "NeverLoadedFirst": "sampling.policies.in_turn",
    "Noise": "patches.augmentation.quality",
    "Not": "patches.filters.combined",
    "OnnxTissue": "slides.tissue.detectors.onnx_tissue",
    "Otsu": "slides.tissue.detectors.otsu",
    "OwnAnnotations": "annotations.sources",
    "OwnFilter": "patches.filters.own_filter",
    "OwnTissue": "slides.tissue.detectors.own_tissue",
    "Panda": "dataset.namings.panda",
    "Patient": "dataset.patients",
    "PenAreas": "slides.tissue.detectors.pen_areas",
    "PenMarks": "patches.filters.colours",
    "PixelFilter": "patches.filters.pixel_filter",
    "Policy": "sampling.policies.policy",
    "QuarterTurn": "patches.augmentation.symmetries",
    "Quota": "sampling.policies.quota",
    "ReadingOptions": "annotations.options",
    "Record": "dataset.patients",
    "Regions": "annotations.use",
    "Reinhard": "patches.stain.reinhard",
    "ResizedCrop": "patches.augmentation.crops",
    "Roi": "annotations.use",
    "RoundRobin": "sampling.policies.in_turn",
    "Sharpness": "patches.filters.structure",
    "SmallChunk": "patches.chunks",
    "SmallChunkCollector": "patches.hooks",
    "Solarise": "patches.augmentation.colours",
    "Split": "dataset.splits.split",
    "StainJitter": "patches.augmentation.stains",
    "Standard": "patches.augmentation.standard",
    "Survey": "survey.survey",
    "SurveyedSlide": "survey.surveyed_slide",
    "Symmetry": "patches.augmentation.symmetries",
    "Tcga": "dataset.namings.tcga",
    "TissueAll": "slides.tissue.detectors.combined",
    "TissueAny": "slides.tissue.detectors.combined",
    "TissueBigChunkLoader": "patches.tissue_hooks",
    "TissueSmallChunkCollector": "patches.tissue_hooks",
    "TissueWithout": "slides.tissue.detectors.combined",
    "Uniform": "sampling.policies.in_turn",
    "Weighted": "sampling.policies.weighted",
    "WhiteShare": "patches.filters.colours",
    "check_disjoint": "dataset.splits.leakage",
    "connect": "consumers.connect",
    "load_client_keys": "service.keys",
    "load_public_key": "service.keys",
    "open_slide": "slides.readers.registry",
    "operate": "service.client.control",
    "row_keys": "consumers.batches.row_keys",
    "write_tissue_slide": "slides.synthetic.writing",
}

__all__ = [
    "EXHAUSTED",
    "HALT",
    "AllOf",
    "AnyOf",
    "Augment",
    "Balance",
    "Batch",
    "BigChunk",
    "BigChunkLoader",
    "Blur",
    "BlurredAreas",
    "Camelyon16",
    "Camelyon17",
    "ChunkdlError",
    "Clam",
    "ClientKeys",
    "ColourJitter",
    "Continuous",
    "Contrast",
    "Cptac",
    "Cutout",
    "Dataset",
    "EndOfStream",
    "Flip",
    "Grey",
    "GreyOtsu",
    "GreyShare",
    "Gtex",
    "HedJitter",
    "HedShift",
    "HsvRange",
    "HsvShare",
    "Idc",
    "Jpeg",
    "LabelBalanced",
    "LightDL",
    "Macenko",
    "Mixture",
    "NamePattern",
    "NameTable",
    "NamedSlide",
    "NeverLoadedFirst",
    "Noise",
    "Not",
    "OnnxTissue",
    "Otsu",
    "OwnAnnotations",
    "OwnFilter",
    "OwnTissue",
    "Panda",
    "Patient",
    "PenAreas",
    "PenMarks",
    "PixelFilter",
    "Policy",
    "QuarterTurn",
    "Quota",
    "ReadingOptions",
    "Record",
    "Regions",
    "Reinhard",
    "ResizedCrop",
    "Roi",
    "RoundRobin",
    "Sharpness",
    "SmallChunk",
    "SmallChunkCollector",
    "Solarise",
    "Split",
    "StainJitter",
    "Standard",
    "Survey",
    "SurveyedSlide",
    "Symmetry",
    "Tcga",
    "TissueAll",
    "TissueAny",
    "TissueBigChunkLoader",
    "TissueSmallChunkCollector",
    "TissueWithout",
    "Uniform",
    "Weighted",
    "WhiteShare",
    "check_disjoint",
    "connect",
    "load_client_keys",
    "load_public_key",
    "open_slide",
    "operate",
    "row_keys",
    "write_tissue_slide",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
