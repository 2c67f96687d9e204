"""The positions of one slide: every place where a SmallChunk may be taken.

A *position* is the top-left corner, in target pixels, of a SmallChunk whose footprint lies inside
the slide and holds at least `tissue_threshold` tissue. A slide has up to 10^10 of them, so they are
kept as *cells* of `cell_px` × `cell_px` neighbouring positions that are accepted or refused
together, by the exact tissue fraction of the footprint at the middle of the cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chunkdl.slides.resolution import TargetGrid
from chunkdl.tissue.mask import TissueMask

CELLS_PER_SMALLCHUNK = 8
"""Cells along one side of a SmallChunk: acceptance is decided to 1/16 of its side."""


@dataclass(frozen=True, slots=True, eq=False)
class PositionSet:
    """All positions of one slide.

    Attributes:
        smallchunk_px: side of a SmallChunk, target pixels.
        width, height: extent of the rectangle of corners that keep the footprint inside the
            slide; corners are 0 <= x < width, 0 <= y < height.
        cell_px: side of a cell, target pixels; cells at the right and lower edge are smaller.
        columns: cells per row.
        cells: flat indices (row · columns + column) of the accepted cells, int64, ascending.
        fractions: tissue fraction of each accepted cell, float32, 0 to 1.
        cumulative: positions in the accepted cells up to and including each, int64.
    """

    smallchunk_px: int
    width: int
    height: int
    cell_px: int
    columns: int
    cells: npt.NDArray[np.int64]
    fractions: npt.NDArray[np.float32]
    cumulative: npt.NDArray[np.int64]

    @property
    def count(self) -> int:
        """The number of positions, N in the formulas of `windows`."""
        return int(self.cumulative[-1]) if len(self.cumulative) else 0

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return self.cells.nbytes + self.fractions.nbytes + self.cumulative.nbytes

    def at(self, index: int) -> tuple[int, int]:
        """The position with that number, 0 <= index < count; any fixed order will do."""
        place = int(np.searchsorted(self.cumulative, index, side="right"))
        before = int(self.cumulative[place - 1]) if place else 0
        row, column = divmod(int(self.cells[place]), self.columns)
        cell_width = min(self.cell_px, self.width - column * self.cell_px)
        dy, dx = divmod(index - before, cell_width)
        return column * self.cell_px + dx, row * self.cell_px + dy


def positions_of(
    grid: TargetGrid, mask: TissueMask, smallchunk_px: int, tissue_threshold: float
) -> PositionSet:
    """The positions of a slide; an empty set where the slide is too small or has no tissue.

    Args:
        grid: the target frame of the slide.
        mask: tissue of the slide in the level-0 frame.
        smallchunk_px: side of a SmallChunk, target pixels.
        tissue_threshold: least share of tissue in the footprint, 0 to 1.
    """
    width = max(0, grid.width - smallchunk_px + 1)
    height = max(0, grid.height - smallchunk_px + 1)
    cell_px = max(1, smallchunk_px // CELLS_PER_SMALLCHUNK)
    column_starts, column_widths = _cells_along(width, cell_px)
    row_starts, row_heights = _cells_along(height, cell_px)
    left = (column_starts + (column_widths - 1) / 2) * grid.downsample
    top = (row_starts + (row_heights - 1) / 2) * grid.downsample
    footprint = smallchunk_px * grid.downsample
    fraction = mask.fraction(left, top, left + footprint, top + footprint)
    rows, columns = np.nonzero(fraction >= tissue_threshold)
    counts = row_heights[rows] * column_widths[columns]
    return PositionSet(
        smallchunk_px=smallchunk_px,
        width=width,
        height=height,
        cell_px=cell_px,
        columns=len(column_starts),
        cells=rows.astype(np.int64) * len(column_starts) + columns,
        fractions=fraction[rows, columns],
        cumulative=np.cumsum(counts, dtype=np.int64),
    )


def _cells_along(extent: int, cell_px: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Starts and widths of the cells along one axis."""
    starts = np.arange(0, extent, cell_px, dtype=np.int64)
    return starts, np.minimum(cell_px, extent - starts)
