"""What pixel filters that count pixels say of a window.

Each pixel is looked at once, in however many SmallChunks it is shown. Where a filter looks at a
sample only, which pixels these are hangs on the SmallChunk: those of many are looked at together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chunkdl.engine.work.window_pixels import NewRegions, crop_of
from chunkdl.patches.filters.pixel_filter import (
    Flags,
    Look,
    PixelFilter,
    PixelShare,
    share_in,
)
from chunkdl.sampling.windows import Draws, Window
from chunkdl.slides.slide import Pixels
from chunkdl.transport.memory.layouts import Strips

if TYPE_CHECKING:
    from chunkdl.engine.work.planned_slide import PlannedSlide

PIECE_PX = 2**16
"""Marked at once: few calls, and bytes of them fit into the cache of a core."""


class MarkedPixels:
    """The marks of one window after the other, block by block.

    Args:
        planned: the slide.
        pixel_filter: of the stream.
    """

    def __init__(self, planned: PlannedSlide, pixel_filter: PixelFilter) -> None:
        self._planned = planned
        self._counted = [one for one in pixel_filter.counted if one.step == 1]
        self._sampled = [one for one in pixel_filter.counted if one.step > 1]
        self._new = NewRegions(planned)
        self._window: Window | None = None
        self._marks: dict[PixelShare, Flags]

    def looks(self, window: Window, draws: Draws, strips: Strips) -> list[Look]:
        """One for each of the draws.

        Args:
            window: where it is another one than in the call before, nothing is marked yet.
            draws: positions in it whose pixels were read.
            strips: the pixels of the window; only read.
        """
        if window != self._window:
            self._window = window
            shape = strips.array.shape[:3]
            self._marks = {one: np.empty(shape, np.bool_) for one in self._counted}
        for region in self._new.touched(window, draws):
            place = region.place(window, strips.array.shape[2])
            self._mark(strips.array[place], place)
        sampled = {one: self._sampled_shares(one, window, draws, strips) for one in self._sampled}
        corners = zip(draws.x.tolist(), draws.y.tolist(), strict=True)
        return [
            LookAtWindow(
                self._planned,
                window,
                strips,
                self._marks,
                {one: shares[index] for one, shares in sampled.items()},
                x,
                y,
            )
            for index, (x, y) in enumerate(corners)
        ]

    def _sampled_shares(
        self, of: PixelShare, window: Window, draws: Draws, strips: Strips
    ) -> list[float]:
        """The share of each of the draws, of the pixels that the filter looks at."""
        side_px = self._planned.lattice.across.smallchunk_px
        along = len(range(0, side_px, of.step))
        together = max(1, PIECE_PX // along**2)
        corners = list(zip(draws.x.tolist(), draws.y.tolist(), strict=True))
        found: list[float] = []
        for first in range(0, len(corners), together):
            some = corners[first : first + together]
            planes = np.empty((3, len(some), along, along), np.uint8)
            for index, (x, y) in enumerate(some):
                strips.sample_into(planes[:, index], x - window.x, y - window.y, of.step)
            pixels = np.moveaxis(planes.reshape(3, -1, along), 0, -1)
            marks = of.marked(pixels).reshape(len(some), -1)
            found += (np.count_nonzero(marks, axis=1) / along**2).tolist()
        return found

    def _mark(self, rgb: Pixels, place: tuple[int, slice, slice]) -> None:
        """Mark a region, in pieces: of large ones the memory of every step is mapped anew."""
        rows = max(1, PIECE_PX // rgb.shape[1])
        for one, marks in self._marks.items():
            there = marks[place]
            for top in range(0, len(rgb), rows):
                there[top : top + rows] = one.marked(rgb[top : top + rows])


@dataclass(frozen=True, slots=True, eq=False)
class LookAtWindow(Look):
    """A look at a SmallChunk of a window whose pixels were read and marked.

    Attributes:
        planned: the slide.
        window: of it.
        strips: the pixels of the window.
        marks: by filter, bool of shape (strips, height, strip width).
        shares: of filters that look at a sample.
        x, y: corner of the SmallChunk, target pixels.
    """

    planned: PlannedSlide
    window: Window
    strips: Strips
    marks: dict[PixelShare, Flags]
    shares: dict[PixelShare, float]
    x: int
    y: int

    @property
    def rgb(self) -> Pixels:
        """See `Look.rgb`."""
        return crop_of(self.strips, self.planned, self.window, self.x, self.y)

    def share(self, of: PixelShare) -> float:
        """See `Look.share`."""
        if of in self.shares:
            return self.shares[of]
        if of not in self.marks:
            return share_in(self.rgb, of)
        marks, side_px = self.marks[of], self.planned.lattice.across.smallchunk_px
        top, width = self.y - self.window.y, marks.shape[2]
        strip, left = divmod(self.x - self.window.x, width)
        count, to_do = 0, side_px
        # It may lie in several strips.
        while to_do > 0:
            part = marks[strip, top : top + side_px, left : left + to_do]
            count += int(np.count_nonzero(part))
            strip, left, to_do = strip + 1, 0, to_do - part.shape[1]
        return count / side_px**2
