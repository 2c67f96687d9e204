"""What a slide is to the rest of chunkdl: frozen facts, and pixels read into given memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""RGB pixels, shape (height, width, 3), uint8."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of the pyramid.

    Attributes:
        width, height: pixels of this level.
        downsample: level-0 pixels per pixel of this level, the mean of both axes (as OpenSlide).
        tile_width, tile_height: the file's own block, pixels of this level.
    """

    width: int
    height: int
    downsample: float
    tile_width: int
    tile_height: int


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """The facts of an open slide.

    Attributes:
        path: the file, as given.
        reader: name of the reader that opened it.
        levels: finest first; level 0 is the level-0 frame that all locations refer to.
        mpp: microns per pixel of level 0 as (x, y); None where the file does not say.
        background: RGB of what lies outside the scanned area.
    """

    path: str
    reader: str
    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    background: tuple[int, int, int] = (255, 255, 255)


@runtime_checkable
class Slide(Protocol):
    """An open slide; used by one thread of one process, closed by who opened it."""

    @property
    def info(self) -> SlideInfo:
        """The facts of the slide."""

    @property
    def decoded_px(self) -> int:
        """Pixels decoded since opening, including those read for a border and thrown away."""

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        """Fill `out` with the pixels of `level` whose top-left corner is (x, y).

        Args:
            out: shape (height, width, 3), uint8; any strides with contiguous pixels (a view into
                a larger array); every byte is written or an error is raised.
            level: index into `info.levels`.
            x, y: pixels of that level; the region must lie inside the level.

        Raises:
            SlideError: the file is damaged there, or the region is outside the level.
        """

    def close(self) -> None:
        """Give the file back; closing twice is no error."""
