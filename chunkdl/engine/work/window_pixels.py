"""The pixels of one window after the other, block by block, each block when it is first wanted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from chunkdl.sampling.windows import Draws, Lattice, Window
from chunkdl.slides.resampling import read_target_into
from chunkdl.slides.slide import Pixels
from chunkdl.transport.memory.layouts import Strips

if TYPE_CHECKING:
    from chunkdl.engine.work.planned_slide import PlannedSlide

Room = Callable[[int], Strips]
"""Gives the memory for a whole window, by the width of its strips."""


class Region(NamedTuple):
    """Target pixels [x, right) × [y, bottom) of a window."""

    x: int
    y: int
    right: int
    bottom: int

    def place(self, window: Window, strip_px: int) -> tuple[int, slice, slice]:
        """Strip, rows and columns of it, where the window lies in strips of that width."""
        strip, left = divmod(self.x - window.x, strip_px)
        rows = slice(self.y - window.y, self.bottom - window.y)
        return strip, rows, slice(left, left + self.right - self.x)


class NewRegions:
    """What the draws in one window after the other touch for the first time.

    Args:
        planned: the slide.
    """

    def __init__(self, planned: PlannedSlide) -> None:
        self._lattice, self._grid = planned.lattice, planned.grid
        self._window: Window | None = None
        self._there: npt.NDArray[np.bool_]

    def touched(self, window: Window, draws: Draws) -> Iterator[Region]:
        """The regions of the blocks that draws touch and that are not there yet; they are there
        when all were taken.

        Args:
            window: where it is another one than in the call before, nothing is there yet.
            draws: positions in it.
        """
        touched = self._lattice.touched_blocks(draws, window)
        if window != self._window:
            self._window = window
            self._there = np.zeros_like(touched)
        yield from self._regions(window, touched & ~self._there)
        self._there |= touched

    def _regions(self, window: Window, wanted: npt.NDArray[np.bool_]) -> Iterator[Region]:
        """The regions of the blocks inside window and slide, column by column.

        Blocks below each other are one region: fewer calls, and in a strip they are one piece of
        memory.
        """
        lattice, grid = self._lattice, self._grid
        across, down = lattice.across.stride_px, lattice.down.stride_px
        column, row = window.x // across, window.y // down
        for beside, blocks in enumerate(wanted.T.tolist()):
            x = max((column + beside) * across, window.x, 0)
            right = min((column + beside + 1) * across, window.x + window.side_px, grid.width)
            for first, last in _runs(blocks):
                y = max((row + first) * down, window.y, 0)
                bottom = min((row + last) * down, window.y + window.side_px, grid.height)
                if x < right and y < bottom:
                    yield Region(x, y, right, bottom)


class WindowPixels:
    """Reads the blocks of a window that its draws touch.

    Args:
        planned: the slide.
        room: for the window in hand; asked for each anew.
    """

    def __init__(self, planned: PlannedSlide, room: Room) -> None:
        self._planned = planned
        self._room = room
        self._new = NewRegions(planned)
        self._window: Window | None = None
        self._strips: Strips

    def read(self, window: Window, draws: Draws) -> Strips:
        """Decode the blocks of a window that its draws touch and that are not there yet.

        Args:
            window: where it is another one than in the call before, nothing is there yet.
            draws: positions in it.

        Returns:
            The pixels of the window; what no draw has touched is undefined.

        Raises:
            SlideError: the file is damaged there.
        """
        if window != self._window:
            self._window = window
            self._strips = self._room(strip_width(self._planned.lattice, window))
        strips = self._strips.array
        for region in self._new.touched(window, draws):
            out = strips[region.place(window, strips.shape[2])]
            read_target_into(self._planned.slide, self._planned.grid, out, region.x, region.y)
        return self._strips


def crop_of(strips: Strips, planned: PlannedSlide, window: Window, x: int, y: int) -> Pixels:
    """The SmallChunk at a position of a window whose blocks were read; borrowed, only to read."""
    pixels = strips.crop(x - window.x, y - window.y, planned.lattice.across.smallchunk_px).view()
    # They are delivered, and other SmallChunks show them too.
    pixels.flags.writeable = False
    return pixels


def strip_width(lattice: Lattice, window: Window) -> int:
    """Strips as wide as a block where the blocks fill the window, else the window in one."""
    stride = lattice.across.stride_px
    fits = window.side_px % stride == 0 and window.x % stride == 0
    return stride if fits else window.side_px


def _runs(flags: list[bool]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of the true elements."""
    end = 0
    for wanted, group in itertools.groupby(flags):
        start, end = end, end + len(list(group))
        if wanted:
            yield start, end
