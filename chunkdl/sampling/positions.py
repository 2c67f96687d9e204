"""The positions of one slide: every place where a SmallChunk may be taken.

A *position* is the top-left corner, in target pixels, of a SmallChunk whose footprint lies inside
the slide and holds at least `tissue_threshold` tissue. A slide has up to 10^10 of them. They are
accepted or refused in *cells* of `cell_px` × `cell_px` neighbours, by the exact tissue fraction of
the footprint at the middle of the cell. Even the cells are never listed for a whole slide: whether
one is accepted is looked up where somebody asks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.tissue.box_shares import BoxShares
from chunkdl.slides.tissue.mask import TissueMask

CELLS_PER_SMALLCHUNK = 8
"""Cells along one side of a SmallChunk: acceptance is decided to 1/16 of its side."""

Ints = npt.NDArray[np.int64]


def cell_side(smallchunk_px: int) -> int:
    """Side of a cell, target pixels."""
    return max(1, smallchunk_px // CELLS_PER_SMALLCHUNK)


@dataclass(frozen=True, slots=True)
class CellAxis:
    """The cells along one axis.

    Attributes:
        extent: corners that keep the footprint inside the slide, target pixels; 0: it has no room.
        cell_px: side of a cell, target pixels; the last one is smaller where it is cut.
        smallchunk_px: side of a SmallChunk, target pixels.
        downsample: level-0 pixels of a target pixel.
    """

    extent: int
    cell_px: int
    smallchunk_px: int
    downsample: float

    @property
    def cells(self) -> int:
        """How many there are."""
        return -(-self.extent // self.cell_px)

    @property
    def length_px(self) -> int:
        """Of the slide, target pixels; less than a SmallChunk where it has no room for one."""
        return self.extent + self.smallchunk_px - 1

    def widths(self, cell: Ints) -> Ints:
        """The corners of each cell."""
        return np.minimum(self.cell_px, self.extent - cell * self.cell_px)

    def ends(self, cell: Ints) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Where the footprint at the middle of each cell begins and ends, level-0 pixels."""
        begin = (cell * self.cell_px + (self.widths(cell) - 1) / 2) * self.downsample
        return begin, begin + self.smallchunk_px * self.downsample

    def around(self, begin: float, end: float) -> range:
        """The cells whose footprint touches [begin, end), level-0 pixels, and perhaps others."""
        first, last = self.ends(np.arange(self.cells, dtype=np.int64))
        touching = np.flatnonzero((last >= begin) & (first <= end))
        return range(touching[0], touching[-1] + 1) if len(touching) else range(0)


@dataclass(frozen=True, slots=True, eq=False)
class PositionSet:
    """All positions of one slide.

    Attributes:
        across, down: the cells along x and y.
        shares: of tissue, in boxes of the size of a footprint.
        tissue_threshold: least share of tissue in the footprint, 0 to 1.
        columns, rows: all accepted cells are among these, around the tissue.
    """

    across: CellAxis
    down: CellAxis
    shares: BoxShares
    tissue_threshold: float
    columns: range
    rows: range

    @property
    def nbytes(self) -> int:
        """Memory of the table of shares, bytes."""
        return self.shares.nbytes

    def fractions(self, row: Ints, column: Ints) -> npt.NDArray[np.float32]:
        """The tissue fraction of cells, shape (n,); `row` and `column` have that shape."""
        left, right = self.across.ends(column)
        top, bottom = self.down.ends(row)
        return self.shares.at(left, top, right, bottom)

    def accepted(self, rows: range, columns: range) -> npt.NDArray[np.bool_]:
        """Which cells of a rectangle are accepted, shape (rows, columns)."""
        left, right = self.across.ends(np.asarray(columns, dtype=np.int64))
        top, bottom = self.down.ends(np.asarray(rows, dtype=np.int64))
        return self.shares.outer(left, top, right, bottom) >= self.tissue_threshold

    def hold(self, x: Ints, y: Ints) -> npt.NDArray[np.bool_]:
        """Whether corners inside the slide are positions, shape (n,) as `x` and `y`."""
        fraction = self.fractions(y // self.down.cell_px, x // self.across.cell_px)
        return fraction >= self.tissue_threshold


def positions_of(
    grid: TargetGrid, mask: TissueMask, smallchunk_px: int, tissue_threshold: float
) -> PositionSet:
    """The positions of a slide; there may be none.

    Args:
        grid: the target frame of the slide.
        mask: tissue of the slide in the level-0 frame.
        smallchunk_px: side of a SmallChunk, target pixels.
        tissue_threshold: least share of tissue in the footprint, 0 to 1.
    """
    across, down = (
        CellAxis(
            extent=max(0, side - smallchunk_px + 1),
            cell_px=cell_side(smallchunk_px),
            smallchunk_px=smallchunk_px,
            downsample=grid.downsample,
        )
        for side in (grid.width, grid.height)
    )
    columns, rows = range(across.cells), range(down.cells)
    if tissue_threshold > 0:
        height, width = mask.cells.shape
        columns = _around(mask.cells, 0, mask.width0 / width, across)
        rows = _around(mask.cells, 1, mask.height0 / height, down)
    footprint = smallchunk_px * grid.downsample
    shares = mask.shares(footprint, footprint)
    return PositionSet(across, down, shares, tissue_threshold, columns, rows)


def _around(tissue: npt.NDArray[np.bool_], along: int, side0: float, axis: CellAxis) -> range:
    """The cells of an axis between the first and the last of the mask's lines with tissue."""
    lines = np.flatnonzero(tissue.any(axis=along))
    return axis.around(lines[0] * side0, (lines[-1] + 1) * side0) if len(lines) else range(0)
