"""What makes two streams the same one: the hashes of their rows, and of their batches."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from chunkdl.dataset.patients import Dataset
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.dataset.slide_table import slide_identity
from chunkdl.engine.config import StreamConfig
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.sampling.resolutions import DrawnResolution, FixedResolution
from chunkdl.sampling.rules import READING_VERSION, SAMPLING_VERSION
from chunkdl.slides.resolution import MOST_DEVIATION, Resolution

OF_DRAWS = {"reuse", "smallchunks_per_bigchunk"}
"""Settings that only a stream of random positions looks at."""


def meant(arguments: Arguments, stream: StreamConfig) -> Arguments:
    """The same wish always in the same words, so that equal streams are the same stream.

    What is meant by default is said, and what has no meaning here has its default.
    """
    values: dict[str, Any] = dict.fromkeys(("level", "mpp", "downsample", "magnification"))
    match stream.resolution:
        case FixedResolution(Resolution(unit, wish, policy, by_objective=by_objective)):
            values["magnification" if by_objective else unit] = wish
        case DrawnResolution(unit, drawn, policy, by_objective=by_objective):
            values["magnification" if by_objective else unit] = drawn
    near = stream.resolution.examples[0].near_is_level
    if unit == "level" or policy not in ("nearest", "resample") or not near:
        values["max_relative_deviation"] = MOST_DEVIATION
    values["num_bigchunks"] = stream.num_bigchunks
    values["stride"] = stream.stride_px
    values["smallchunks_per_bigchunk"] = stream.smallchunks_per_bigchunk or None
    idle = {"reuse"} if stream.smallchunks_per_bigchunk else set()
    idle |= OF_DRAWS if stream.on_grid else {"stride"}
    idle |= {"num_bigchunks"} if stream.grid else set()
    idle |= set() if stream.finite else {"drop_last"}
    plain = Arguments()
    values.update({name: getattr(plain, name) for name in idle})
    return dataclasses.replace(arguments, resolution_policy=policy, **values)


def rows_hash(
    dataset: Dataset, slides: Sequence[SlideEntry], stream: StreamConfig, asked: list[Any]
) -> str:
    """Identifies what the rows of a stream depend on, however they are cut into batches.

    It is the same on every machine that has the same files.
    """
    return hash_of(
        [
            asked,
            stream.one_load_per_patient,
            repr(stream.policy),
            [READING_VERSION, SAMPLING_VERSION],
            [patient.int_uniqueid for patient in dataset],
            [slide_identity(entry) for entry in slides],
        ]
    )


def hash_of(facts: list[Any]) -> str:
    """SHA-256 of plain data, in hex."""
    return hashlib.sha256(msgspec.msgpack.encode(facts)).hexdigest()
