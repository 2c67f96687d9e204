"""Loads and SmallChunks that can be counted: each load has a number that no other has.

Imports no torch, so that the workers need none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.patches.chunks import BigChunk, SmallChunk
from chunkdl.patches.hooks import BigChunkLoader, SmallChunkCollector
from chunkdl.pydmed.lightdl import LightDL, get_default_constglobinf


class NumberedLoader(BigChunkLoader):
    """A BigChunk without pixels, with `load`, and the message and checkpoint of the load."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> BigChunk:
        info = {
            "load": int(self.rng.integers(2**62)),
            "message": last_message_fromroot,
            "checkpoint": self.get_checkpoint(),
        }
        return BigChunk(None, info, self.patient)


class NumberedCollector(SmallChunkCollector):
    """SmallChunks without pixels that say which call made them."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> SmallChunk:
        info = {"call": call_count}
        return SmallChunk(np.zeros(1), info, bigchunk.dict_info_of_bigchunk, self.patient)


def numbered_patients(count: int) -> Dataset:
    return Dataset("numbered", [Patient(number, {}) for number in range(count)])


@contextmanager
def running(
    patients: Dataset,
    *,
    kind: Any = LightDL,
    places: int = 2,
    given: int = 4,
    first: tuple[Any, ...] = (),
    **more: Any,
) -> Iterator[Any]:
    """A loader that runs, and is ended.

    Args:
        patients: of the dataset.
        kind: its class.
        places: patients that are loaded at a time.
        given: SmallChunks of each BigChunk.
        first: arguments of its class before those of `LightDL`.
        more: other arguments of `LightDL`.
    """
    settings = {
        **get_default_constglobinf(),
        "num_bigchunkloaders": places,
        "maxlength_queue_smallchunk": given,
    }
    arguments = {
        "type_bigchunkloader": NumberedLoader,
        "type_smallchunkcollector": NumberedCollector,
        "batch_size": places,
        "tfms": None,
        "num_loaders": 1,
        "num_collectors": 1,
        "memory_limit": "256MiB",
        **more,
    }
    loader = kind(*first, dataset=patients, const_global_info=settings, **arguments)
    loader.start()
    try:
        yield loader
    finally:
        loader.pause_loading()
