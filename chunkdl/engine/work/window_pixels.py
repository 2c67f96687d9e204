"""The pixels of one window after the other, block by block, each block when it is first wanted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from chunkdl.engine.work.open_slides import PlannedSlide
from chunkdl.sampling.windows import Draws, Lattice, Window
from chunkdl.slides.resampling import read_target_into
from chunkdl.slides.slide import Pixels
from chunkdl.transport.memory.layouts import Strips

Room = Callable[[int], Strips]
"""Gives the memory for a whole window, by the width of its strips."""


class WindowPixels:
    """Reads the blocks of a window that its draws touch.

    Args:
        planned: the slide.
        room: for the window in hand; asked for each anew.
    """

    def __init__(self, planned: PlannedSlide, room: Room) -> None:
        self._planned = planned
        self._room = room
        self._window: Window | None = None
        self._strips: Strips
        self._there: npt.NDArray[np.bool_]

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
        touched = self._planned.lattice.touched_blocks(draws, window)
        if window != self._window:
            self._window = window
            self._strips = self._room(strip_width(self._planned.lattice, window))
            self._there = np.zeros_like(touched)
        width = self._strips.array.shape[2]
        for x, y, right, bottom in self._regions(window, touched & ~self._there):
            strip, within = divmod(x - window.x, width)
            rows = slice(y - window.y, bottom - window.y)
            out = self._strips.array[strip, rows, within : within + right - x]
            read_target_into(self._planned.slide, self._planned.grid, out, x, y)
        self._there |= touched
        return self._strips

    def at(self, window: Window, x: int, y: int) -> Pixels:
        """The SmallChunk at a position of the window in hand whose blocks were read; borrowed."""
        side_px = self._planned.lattice.across.smallchunk_px
        return self._strips.crop(x - window.x, y - window.y, side_px)

    def _regions(
        self, window: Window, wanted: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[int, int, int, int]]:
        """The target regions [x, right) × [y, bottom) of the blocks, column by column.

        They are the blocks inside window and slide; blocks below each other are one region: fewer
        calls, and in a strip they are one piece of memory.
        """
        lattice, grid = self._planned.lattice, self._planned.grid
        across, down = lattice.across.stride_px, lattice.down.stride_px
        column, row = window.x // across, window.y // down
        for beside, blocks in enumerate(wanted.T.tolist()):
            x = max((column + beside) * across, window.x, 0)
            right = min((column + beside + 1) * across, window.x + window.side_px, grid.width)
            for first, last in _runs(blocks):
                y = max((row + first) * down, window.y, 0)
                bottom = min((row + last) * down, window.y + window.side_px, grid.height)
                if x < right and y < bottom:
                    yield x, y, right, bottom


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
