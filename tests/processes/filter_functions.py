"""Functions of a user that look at pixels of coordinate slides. Imports no torch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl import BigChunk, BigChunkLoader, SmallChunk, TissueSmallChunkCollector

Pixels = npt.NDArray[np.uint8]


def number_of(rgb: Pixels) -> int:
    """Of the first pixel: where the SmallChunk lies in the slides, row by row."""
    red, green, blue = map(int, rgb[0, 0])
    return red << 16 | green << 8 | blue


def some_pass(rgb: Pixels) -> bool:
    """A tenth to nearly all of the SmallChunks, as if at random, by their place."""
    number = number_of(rgb)
    share = 10 + 80 * ((number >> 7) % 8) // 7
    return (number * 2_654_435_761 >> 9) % 100 < share


def few_pass(rgb: Pixels) -> bool:
    """One in fifty."""
    return (number_of(rgb) * 2_654_435_761 >> 9) % 50 == 0


def none_of_the_second_slide(rgb: Pixels) -> bool:
    """Slides of 1,500 x 1,248 px with levels 1, 2 and 4 have this many pixels."""
    return number_of(rgb) // (1_500 * 1_248 + 750 * 624 + 375 * 312) != 1


def raises(rgb: Pixels) -> bool:
    """An error of the user's code."""
    raise KeyError("no such stain")


class Counting:
    """Says yes and no in turn, whatever it sees."""

    def __init__(self) -> None:
        self._count = itertools.count()

    def __call__(self, rgb: Pixels) -> bool:
        """Yes at every second call."""
        return next(self._count) % 2 == 0


class NoPlanLoader(BigChunkLoader):
    """Reads where it likes."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """A corner of the slide."""
        return BigChunk(self.read_region(0, 0, 64, 64, level=0), {}, self.patient)


class PositionsLoader(BigChunkLoader):
    """Reads its SmallChunks one by one at the positions of the plan."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """All of them, with their places."""
        draws = self.positions
        size = 64
        crops = [
            self.read_region(int(x), int(y), size, size, level=0)
            for x, y in zip(draws.x, draws.y, strict=True)
        ]
        return {"crops": crops, "x": draws.x.copy(), "y": draws.y.copy()}


class HandsOut(TissueSmallChunkCollector):
    """Gives the crops of a `PositionsLoader` in their order, and asks for no place."""

    def extract_smallchunk(
        self, call_count: int, bigchunk: Any, last_message_fromroot: Any
    ) -> SmallChunk:
        """The next one."""
        info = {name: int(bigchunk[name][call_count]) for name in ("x", "y")}
        return SmallChunk(bigchunk["crops"][call_count], info, {}, self.patient)


class CropsAnywhere(TissueSmallChunkCollector):
    """Crops where it likes, and not at the place of the plan."""

    def extract_smallchunk(
        self, call_count: int, bigchunk: Any, last_message_fromroot: Any
    ) -> SmallChunk:
        """The corner of the window."""
        return SmallChunk(bigchunk.data.crop(0, 0, 64), {}, {}, self.patient)
