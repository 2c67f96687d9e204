"""The positions of one slide: every place where a SmallChunk may be taken.

A *position* is the top-left corner, in target pixels, of a SmallChunk whose footprint lies inside
the slide and holds at least `tissue_threshold` tissue, and as much of the areas that are asked for
besides. A slide has up to 10^10 of them. They are accepted or refused in *cells* of `cell_px` ×
`cell_px` neighbours, by the exact shares in the footprint at the middle of the cell. Even the cells
are never listed for a whole slide: whether one is accepted is looked up where somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.tissue.box_shares import BoxShares, Floats
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
class Area:
    """A part of the slide of which a footprint must have some, such as an annotated region.

    Attributes:
        mask: where it is; of any kind, not only tissue.
        least: share of the footprint, above 0, to 1.
    """

    mask: TissueMask
    least: float


@dataclass(frozen=True, slots=True, eq=False)
class FootprintShares:
    """Looks up the shares of a footprint that decide whether it is accepted.

    Attributes:
        tissue: of tissue.
        tissue_threshold: least share of it, 0 to 1.
        areas: of other areas, each with its least share.
    """

    tissue: BoxShares
    tissue_threshold: float
    areas: tuple[tuple[BoxShares, float], ...] = ()

    @classmethod
    def of(
        cls, mask: TissueMask, tissue_threshold: float, areas: Sequence[Area], side0: float
    ) -> Self:
        """Those of a slide, for footprints of `side0` level-0 pixels a side."""
        others = tuple((area.mask.shares(side0, side0), area.least) for area in areas)
        return cls(mask.shares(side0, side0), tissue_threshold, others)

    @property
    def nbytes(self) -> int:
        """Memory of the tables, bytes."""
        return self.tissue.nbytes + sum(shares.nbytes for shares, _ in self.areas)

    def outer(
        self, x0: Floats, y0: Floats, x1: Floats, y1: Floats
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Of the boxes of all pairs of intervals, as `BoxShares.outer`: the share of tissue, and
        whether the box is accepted, each of shape (n, m)."""
        fraction = self.tissue.outer(x0, y0, x1, y1)
        accepted = fraction >= self.tissue_threshold
        for shares, least in self.areas:
            accepted &= shares.outer(x0, y0, x1, y1) >= least
        return fraction, accepted

    def accepted_at(self, x0: Floats, y0: Floats, x1: Floats, y1: Floats) -> npt.NDArray[np.bool_]:
        """Whether each box is accepted, as `BoxShares.at`, shape (n,)."""
        accepted = self.tissue.at(x0, y0, x1, y1) >= self.tissue_threshold
        for shares, least in self.areas:
            accepted &= shares.at(x0, y0, x1, y1) >= least
        return accepted


@dataclass(frozen=True, slots=True, eq=False)
class PositionSet:
    """All positions of one slide.

    Attributes:
        across, down: the cells along x and y.
        shares: in boxes of the size of a footprint.
        columns, rows: all accepted cells are among these, around the tissue and all areas.
    """

    across: CellAxis
    down: CellAxis
    shares: FootprintShares
    columns: range
    rows: range

    @property
    def nbytes(self) -> int:
        """Memory of the tables of shares, bytes."""
        return self.shares.nbytes

    def fractions(self, row: Ints, column: Ints) -> npt.NDArray[np.float32]:
        """The tissue fraction of cells, shape (n,); `row` and `column` have that shape."""
        left, right = self.across.ends(column)
        top, bottom = self.down.ends(row)
        return self.shares.tissue.at(left, top, right, bottom)

    def accepted(self, rows: range, columns: range) -> npt.NDArray[np.bool_]:
        """Which cells of a rectangle are accepted, shape (rows, columns)."""
        left, right = self.across.ends(np.asarray(columns, dtype=np.int64))
        top, bottom = self.down.ends(np.asarray(rows, dtype=np.int64))
        return self.shares.outer(left, top, right, bottom)[1]

    def hold(self, x: Ints, y: Ints) -> npt.NDArray[np.bool_]:
        """Whether corners inside the slide are positions, shape (n,) as `x` and `y`."""
        left, right = self.across.ends(x // self.across.cell_px)
        top, bottom = self.down.ends(y // self.down.cell_px)
        return self.shares.accepted_at(left, top, right, bottom)


def positions_of(
    grid: TargetGrid,
    mask: TissueMask,
    smallchunk_px: int,
    tissue_threshold: float,
    areas: Sequence[Area] = (),
) -> PositionSet:
    """The positions of a slide; there may be none.

    Args:
        grid: the target frame of the slide.
        mask: tissue of the slide in the level-0 frame.
        smallchunk_px: side of a SmallChunk, target pixels.
        tissue_threshold: least share of tissue in the footprint, 0 to 1.
        areas: of which the footprint must have a share each besides.
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
    needed = [area.mask for area in areas]
    if tissue_threshold > 0:
        needed.append(mask)
    for one in needed:
        height, width = one.cells.shape
        columns = _common(columns, _around(one.cells, 0, one.width0 / width, across))
        rows = _common(rows, _around(one.cells, 1, one.height0 / height, down))
    shares = FootprintShares.of(mask, tissue_threshold, areas, smallchunk_px * grid.downsample)
    return PositionSet(across, down, shares, columns, rows)


def _common(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _around(tissue: npt.NDArray[np.bool_], along: int, side0: float, axis: CellAxis) -> range:
    """The cells of an axis between the first and the last of the mask's lines with tissue."""
    lines = np.flatnonzero(tissue.any(axis=along))
    return axis.around(lines[0] * side0, (lines[-1] + 1) * side0) if len(lines) else range(0)
