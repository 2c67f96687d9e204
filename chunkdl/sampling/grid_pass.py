"""A finite pass, row by row: which slide, window and position each row of it is.

The slides come in a mixed order, which the number of the pass names, or in that of the dataset; the
windows of a slide row by row, and so the positions of a window.
"""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from chunkdl.sampling.seeding import Purpose, generator


def slide_order(seed: int, epoch: int, slides: int) -> npt.NDArray[np.int64]:
    """The order in which a pass visits the slides, int64 of shape (slides,)."""
    return generator(seed, Purpose.GRID, epoch).permutation(slides)


class GridPass:
    """The rows of one pass, growing as the slides are surveyed in the order of the pass.

    BigChunk k is the k-th window of the pass; its calls are its positions in order.
    """

    def __init__(self, order: Sequence[int]) -> None:
        self._order = tuple(int(slide) for slide in order)
        self._first_windows: list[int] = []
        self._starts = array("q", [0])

    @property
    def next_slide(self) -> int | None:
        """The slide to survey next; None when all of them are known."""
        surveyed = len(self._first_windows)
        return self._order[surveyed] if surveyed < len(self._order) else None

    @property
    def upcoming(self) -> tuple[int, ...]:
        """The slides still to survey, in the order in which they are needed."""
        return self._order[len(self._first_windows) :]

    @property
    def windows(self) -> int:
        """BigChunks known so far."""
        return len(self._starts) - 1

    @property
    def rows(self) -> int:
        """Rows known so far."""
        return self._starts[-1]

    def add(self, counts: Sequence[int]) -> None:
        """Record how many positions each window of `next_slide` has; none for a bad slide."""
        self._first_windows.append(self.windows)
        self._starts.extend(itertools.accumulate(counts, initial=self._starts.pop()))

    def source(self, ordinal: int) -> tuple[int, int]:
        """Slide and window index of BigChunk `ordinal`."""
        # Slides without windows begin where the next one does.
        place = bisect.bisect_right(self._first_windows, ordinal) - 1
        return self._order[place], ordinal - self._first_windows[place]

    def span(self, ordinal: int) -> tuple[int, int]:
        """First row of BigChunk `ordinal`, and one past its last."""
        return self._starts[ordinal], self._starts[ordinal + 1]

    def ordinals(
        self, first_row: int, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ordinal and call of `count` rows from `first_row` on, int64 of shape (count,)."""
        row = np.arange(first_row, first_row + count)
        starts = np.frombuffer(self._starts, dtype=np.int64)
        ordinal = np.searchsorted(starts, row, side="right") - 1
        return ordinal, row - starts[ordinal]
