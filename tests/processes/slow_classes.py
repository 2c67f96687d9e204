"""A detector and classes of a user that take long, or end the loader that they run in.

Imports no torch and no pytest, so that the workers need neither.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl import BigChunk, BigChunkLoader, SmallChunk, SmallChunkCollector

WIDE = 1_300
"""Pixels across the slide that is taken for the bad one; the others are wider."""


class Marked:
    """All is tissue; every call leaves a mark in a file, and may do something over one slide.

    Args:
        file: for the marks.
        what: "", "hang", or the name of a signal for its own process.
    """

    name = "marked"

    def __init__(self, file: Path, what: str = "") -> None:
        self._file = file
        self._what = what
        self.key = f"marked {what}"

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """The mask of a thumbnail."""
        with self._file.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if self._what and abs(rgb.shape[1] / rgb.shape[0] - WIDE / 1248) < 0.02:
            if self._what != "hang":
                os.kill(os.getpid(), signal.Signals[self._what])
            while True:
                time.sleep(1)
        return np.ones(rgb.shape[:2], np.bool_)


class ReadingLoader(BigChunkLoader):
    """Reads its slide again and again, for as long as the settings say."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """A BigChunk of what it read last."""
        out = np.empty((2048, 2048, 3), np.uint8)
        until = time.monotonic() + self.const_global_info["seconds"]
        while time.monotonic() < until:
            self.slide.read_into(out, 0, 0, 0)
        return BigChunk(out[:64, :64].copy(), {}, self.patient)


class CornerCollector(SmallChunkCollector):
    """A corner of it."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, last_message_fromroot: Any) -> Any:
        """The same corner every time."""
        return SmallChunk(bigchunk.data[:16, :16], {}, {}, self.patient)
