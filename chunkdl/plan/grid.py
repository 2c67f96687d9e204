"""A finite pass: every position of a non-overlapping grid that has tissue, exactly once an epoch.

Grid positions lie at multiples of the SmallChunk's side. They are grouped into windows of as many
whole SmallChunks as a BigChunk holds, so that each BigChunk is read once and used up at once. The
slides come in a mixed order, which the number of the pass names; the windows of a slide row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chunkdl.plan.windows import Draws, Window
from chunkdl.seeding import Purpose, generator
from chunkdl.slides.resolution import TargetGrid
from chunkdl.tissue.mask import TissueMask


@dataclass(frozen=True, slots=True, eq=False)
class GridWindow:
    """One BigChunk of the pass and its positions."""

    window: Window
    draws: Draws


def grid_windows(
    grid: TargetGrid,
    mask: TissueMask,
    smallchunk_px: int,
    window_px: int,
    tissue_threshold: float,
) -> tuple[GridWindow, ...]:
    """The windows of a slide that hold at least one grid position with enough tissue.

    Args:
        grid: the target frame of the slide.
        mask: tissue of the slide in the level-0 frame.
        smallchunk_px, window_px: sides in target pixels; `window_px` is at least `smallchunk_px`.
        tissue_threshold: least share of tissue in a footprint, 0 to 1.
    """
    x = np.arange(grid.width // smallchunk_px, dtype=np.int64) * smallchunk_px
    y = np.arange(grid.height // smallchunk_px, dtype=np.int64) * smallchunk_px
    side = smallchunk_px * grid.downsample
    left, top = x * grid.downsample, y * grid.downsample
    fraction = mask.fraction(left, top, left + side, top + side)
    rows, columns = np.nonzero(fraction >= tissue_threshold)
    per_window = window_px // smallchunk_px
    windows_across = -(-len(x) // per_window)
    group = rows // per_window * windows_across + columns // per_window
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    found = []
    for members in np.split(order, starts[1:]) if len(order) else []:
        row, column = divmod(int(group[members[0]]), windows_across)
        step = per_window * smallchunk_px
        draws = Draws(
            x[columns[members]].astype(np.int32),
            y[rows[members]].astype(np.int32),
            fraction[rows[members], columns[members]],
        )
        found.append(GridWindow(Window(column * step, row * step, window_px), draws))
    return tuple(found)


def slide_order(seed: int, epoch: int, slides: int) -> npt.NDArray[np.int64]:
    """The order in which a pass visits the slides, int64 of shape (slides,)."""
    return generator(seed, Purpose.GRID, epoch).permutation(slides)


class GridPass:
    """The rows of one pass, growing as the slides are surveyed in the order of the pass.

    BigChunk k is the k-th window of the pass; its calls are its positions in order.
    """

    def __init__(self, order: Sequence[int]) -> None:
        self._order = tuple(int(slide) for slide in order)
        self._surveyed = 0
        self._slide: list[int] = []
        self._window: list[int] = []
        self._starts: list[int] = [0]

    @property
    def next_slide(self) -> int | None:
        """The slide to survey next; None when all of them are known."""
        return self._order[self._surveyed] if self._surveyed < len(self._order) else None

    @property
    def upcoming(self) -> tuple[int, ...]:
        """The slides still to survey, in the order in which they are needed."""
        return self._order[self._surveyed :]

    @property
    def windows(self) -> int:
        """BigChunks known so far."""
        return len(self._slide)

    @property
    def rows(self) -> int:
        """Rows known so far."""
        return self._starts[-1]

    def add(self, counts: Sequence[int]) -> None:
        """Record how many positions each window of `next_slide` has; none for a bad slide."""
        slide = self._order[self._surveyed]
        self._surveyed += 1
        for window, count in enumerate(counts):
            self._slide.append(slide)
            self._window.append(window)
            self._starts.append(self._starts[-1] + count)

    def source(self, ordinal: int) -> tuple[int, int]:
        """Slide and window index of BigChunk `ordinal`."""
        return self._slide[ordinal], self._window[ordinal]

    def span(self, ordinal: int) -> tuple[int, int]:
        """First row of BigChunk `ordinal`, and one past its last."""
        return self._starts[ordinal], self._starts[ordinal + 1]

    def ordinals(
        self, first_row: int, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ordinal and call of `count` rows from `first_row` on, int64 of shape (count,)."""
        row = np.arange(first_row, first_row + count)
        starts = np.asarray(self._starts)
        ordinal = np.searchsorted(starts, row, side="right") - 1
        return ordinal, row - starts[ordinal]
