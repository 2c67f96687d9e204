"""What a slide is to the rest of chunkdl: frozen facts, and pixels read into given memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""RGB pixels, shape (height, width, 3), uint8."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of the pyramid.

    Attributes:
        width, height: pixels of this level that show the slide, without the padding that some
            writers add to fill the last tiles.
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
        path: the file, as given; with "#image=K" where one of several images was chosen.
        reader: name of the reader that opened it.
        levels: finest first; level 0 is the level-0 frame that all locations refer to.
        mpp: microns per pixel of level 0 as (x, y); None where the file does not say, or says
            something impossible.
        background: RGB of what lies outside the scanned area.
        mpp_source: where in the file `mpp` was found, for people; empty where it is None.
        magnification: power of the objective that the file states, None where it states none.
        notes: what a user has to know about this slide, each a whole sentence: sources that
            contradict each other, pixels that are not square, tiles that are missing.
        icc: what became of a colour profile.
        scanned_from: where the scanned part of level 0 begins, (x, y), if the file states it;
            QuPath counts from there.
    """

    path: str
    reader: str
    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    background: tuple[int, int, int] = (255, 255, 255)
    mpp_source: str = ""
    magnification: float | None = None
    notes: tuple[str, ...] = ()
    icc: Literal["", "in the file, not used", "converted to sRGB"] = ""
    scanned_from: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class PixelRule:
    """How stored samples become RGB of 8 bits; part of the identity of a stream.

    8-bit RGB needs no rule, and a window does not change it.

    Attributes:
        channels: which samples (of all planes of the image, counted from 0) become red, green and
            blue; one number makes a grey image of that sample. None: the three of an RGB image,
            or the only one. Readers that give red, green and blue as they are refuse others.
        window: (low, high) of samples with more than 8 bits: low becomes 0, high becomes 255,
            linearly, what lies outside is clipped. None: such samples are refused.
        icc: "srgb" converts from the colour profile in the file to sRGB; None leaves the
            numbers as they are stored.
    """

    channels: tuple[int, ...] | None = None
    window: tuple[float, float] | None = None
    icc: Literal["srgb"] | None = None


AS_STORED = PixelRule()


@dataclass(frozen=True, slots=True, eq=False)
class Scanned:
    """Which parts of level 0 have pixels in the file.

    Attributes:
        cells: shape (rows, columns), bool; False is a part that was never scanned or stored.
        cell_width, cell_height: of one cell, level-0 pixels; the last cells may reach beyond the
            level.
    """

    cells: npt.NDArray[np.bool_]
    cell_width: float
    cell_height: float


@dataclass(slots=True)
class Gaps:
    """What a reader has met and mended; only grows, owned by the thread that reads the slide.

    Attributes:
        counts: by a sentence that says what was met and what was done about it, how often.
    """

    counts: dict[str, int] = field(default_factory=dict)

    def met(self, what: str) -> None:
        """Count one more of these."""
        self.counts[what] = self.counts.get(what, 0) + 1


@runtime_checkable
class Slide(Protocol):
    """An open slide; used by one thread of one process, closed by who opened it."""

    @property
    def info(self) -> SlideInfo:
        """The facts of the slide."""

    @property
    def decoded_px(self) -> int:
        """Pixels decoded since opening, including those read for a border and thrown away."""

    @property
    def gaps(self) -> Gaps:
        """What was absent or damaged and was mended since opening."""

    @property
    def icc_profile(self) -> bytes | None:
        """The colour profile in the file, None where there is none."""

    @property
    def state(self) -> str:
        """Sizes and times of change of the files as they were when the slide was opened.

        What is kept of its pixels is kept under it; empty where the one file at `info.path` is all.
        """

    @property
    def nbytes(self) -> int:
        """Memory that it takes while it is open, bytes: where its tiles lie, and scratch. Tiles of
        all slides that are held together do not count."""

    def scanned(self) -> Scanned | None:
        """Which parts of level 0 have pixels; None: all.

        Raises:
            SlideError: the file is damaged.
        """

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
        """Give the file back; closing twice is not an error."""
