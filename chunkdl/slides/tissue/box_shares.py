"""The share of tissue in boxes of a mask, looked up in a table that is as small as the boxes allow.

The table counts, for each corner of the mask's cells, the tissue above it and left of it (Crow,
"Summed-area tables for texture mapping", SIGGRAPH 1984). What lies between corners is a difference
of its entries, so the counts may be kept modulo 256 or 65,536 as long as no box has more cells.

A box that cuts cells is a sum of nine boxes that do not, with weights. Their counts are whole
numbers, so a box has a share of the same bits whether it is asked for alone or among millions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
Counts = npt.NDArray[Any]

BLOCK = 2**16
"""Boxes that are worked at together, about; a few numbers are kept for each."""


class BoxShares:
    """Answers for boxes up to a size.

    Args:
        cells: shape (rows, columns), bool, True is tissue; not copied.
        width0, height0: level-0 pixels that the cells cover.
        box_width0, box_height0: of the largest box, level-0 pixels.
    """

    def __init__(
        self,
        cells: npt.NDArray[np.bool_],
        width0: int,
        height0: int,
        box_width0: float,
        box_height0: float,
    ) -> None:
        rows, columns = cells.shape
        self._cells = cells
        self._across, self._down = columns / width0, rows / height0
        most = _most_cells(box_width0 * self._across) * _most_cells(box_height0 * self._down)
        dtype = np.min_scalar_type(min(most, cells.size))
        self._table = np.zeros((rows + 1, columns + 1), dtype)
        inside = self._table[1:, 1:]
        np.cumsum(cells, axis=0, dtype=dtype, out=inside)
        np.cumsum(inside, axis=1, dtype=dtype, out=inside)

    @property
    def nbytes(self) -> int:
        """Memory of the table, bytes."""
        return self._table.nbytes

    def at(self, x0: Floats, y0: Floats, x1: Floats, y1: Floats) -> npt.NDArray[np.float32]:
        """The exact share of tissue, by area, in every box [x0, x1) x [y0, y1).

        Boxes are clipped to the slide first; one that is empty then has 0. Shares below 1e-7 are
        indistinguishable from rounding and given as 0.

        Args:
            x0, y0, x1, y1: ends, shape (n,), level-0 pixels.

        Returns:
            Shape (n,), float32, 0 to 1.
        """
        across = _Ends.of(x0, x1, self._across, self._cells.shape[1])
        down = _Ends.of(y0, y1, self._down, self._cells.shape[0])
        corners = [_steps([self._table[y, x] for y in down.places]) for x in across.places]
        return _shares([_steps(strip) for strip in zip(*corners, strict=True)], down, across)

    def outer(self, x0: Floats, y0: Floats, x1: Floats, y1: Floats) -> npt.NDArray[np.float32]:
        """`at` for all pairs of intervals.

        Args:
            x0, x1: left and right ends, shape (m,), level-0 pixels.
            y0, y1: upper and lower ends, shape (n,), level-0 pixels.

        Returns:
            Shape (n, m), float32; entry (j, i) is of the box of y0[j], y1[j], x0[i], x1[i].
        """
        across = _Ends.of(x0, x1, self._across, self._cells.shape[1])
        down = _Ends.of(y0, y1, self._down, self._cells.shape[0])
        share = np.zeros((len(down), len(across)), np.float32)
        if not share.size:
            return share
        # The boxes of a window lie over a small part of the table.
        begin, end = int(across.places[0].min()), int(across.places[3].max())
        table, cells = self._table[:, begin : end + 1], self._cells[:, begin:end]
        across = across.moved(-begin)
        step = max(1, BLOCK // (table.shape[1] + len(across)))
        for top in range(0, len(share), step):
            rows = down.some(slice(top, top + step))
            near = _near(cells[rows.places[0].min() : rows.places[3].max()], across)
            columns = across.some(near)
            strips = _steps([table[y] for y in rows.places])
            counts = [_steps([strip[:, x] for x in columns.places]) for strip in strips]
            share[top : top + step, near] = _shares(counts, rows, columns, outer=True)
        return share


def _near(strip: npt.NDArray[np.bool_], across: _Ends) -> Places:
    """The columns of boxes that may hold tissue of a strip; in the others all shares are 0."""
    tissue = np.concatenate(([0], np.cumsum(strip.any(axis=0))))
    return np.flatnonzero(tissue[across.places[3]] > tissue[across.places[0]])


@dataclass(frozen=True, slots=True, eq=False)
class _Ends:
    """Intervals along one axis, cut at the corners of cells.

    Attributes:
        places: four corners of each: before and behind the cell that it begins in, before and
            behind the cell that it ends in.
        first: the part of the first cell that lies before the interval, in cells.
        last: the part of the last cell that belongs to the interval, in cells.
        length: of the interval, in cells.
    """

    places: tuple[Places, Places, Places, Places]
    first: Floats
    last: Floats
    length: Floats

    @classmethod
    def of(cls, begin: Floats, end: Floats, cells_per_px: float, cells: int) -> _Ends:
        begin = np.clip(begin * cells_per_px, 0, cells)
        end = np.maximum(begin, np.clip(end * cells_per_px, 0, cells))
        low, high = (np.minimum(ends.astype(np.intp), cells - 1) for ends in (begin, end))
        return cls((low, low + 1, high, high + 1), begin - low, end - high, end - begin)

    def __len__(self) -> int:
        return len(self.length)

    def some(self, chosen: slice | Places) -> _Ends:
        """Those intervals."""
        low, low_end, high, high_end = (place[chosen] for place in self.places)
        places = low, low_end, high, high_end
        return _Ends(places, self.first[chosen], self.last[chosen], self.length[chosen])

    def moved(self, cells: int) -> _Ends:
        """The same intervals, counted from another cell on."""
        low, low_end, high, high_end = (place + cells for place in self.places)
        return _Ends((low, low_end, high, high_end), self.first, self.last, self.length)


def _most_cells(side: float) -> int:
    """Corners of cells within an interval of that length in cells, at most."""
    return int(side + 1e-6) + 1


def _steps(corners: Sequence[Counts]) -> tuple[Counts, Counts, Counts]:
    """From entries at the four corners of intervals: the first cell, all from it to the last cell
    without that, the last cell."""
    low, low_end, high, high_end = corners
    return low_end - low, high - low, high_end - high


def _weighed(steps: Sequence[Counts], first: Floats, last: Floats) -> Floats:
    """The tissue of intervals that exclude the share `first` and include the share `last`."""
    return np.asarray(steps[1] + last * steps[2] - first * steps[0])


def _shares(
    counts: Sequence[Sequence[Counts]], down: _Ends, across: _Ends, *, outer: bool = False
) -> npt.NDArray[np.float32]:
    """Shares from the counts of the nine boxes, by the steps down and across."""
    first, last, height = down.first, down.last, down.length
    if outer:
        first, last, height = first[:, None], last[:, None], height[:, None]
    rows = [_weighed(steps, across.first, across.last) for steps in counts]
    tissue = _weighed(rows, first, last)
    area = height * across.length
    share = np.divide(tissue, area, out=np.zeros_like(tissue), where=area > 0)
    share[share < 1e-7] = 0
    return np.minimum(share, 1).astype(np.float32)
