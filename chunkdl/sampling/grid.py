"""The windows of a grid on one slide: every position that has tissue is in one of them.

Grid positions lie at multiples of the stride. They are grouped into windows of as many of them as a
BigChunk holds, so that each BigChunk is read once and used up at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from chunkdl.sampling.anchors import COUNTED_AT_ONCE
from chunkdl.sampling.grid_shape import GridShape
from chunkdl.sampling.positions import Area, FootprintShares
from chunkdl.sampling.windows import Draws, Window
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.tissue.mask import TissueMask


@dataclass(frozen=True, slots=True, eq=False)
class GridWindow:
    """One BigChunk of the pass and its positions."""

    window: Window
    draws: Draws


class GridWindows:
    """The windows of a slide, row by row.

    Kept is how many grid positions with enough tissue each has, once that was asked for; which
    these are is looked up when a window is asked for. Of a footprint that overhangs the slide the
    part inside counts.

    Args:
        grid: the target frame of the slide.
        mask: tissue of the slide in the level-0 frame.
        shape: of the grid.
        tissue_threshold: least share of tissue in a footprint, 0 to 1.
        on_progress: called again and again while positions are counted; what it raises ends that.
        areas: of which a footprint must have a share each besides.
    """

    def __init__(
        self,
        grid: TargetGrid,
        mask: TissueMask,
        shape: GridShape,
        tissue_threshold: float,
        on_progress: Callable[[], None],
        areas: Sequence[Area] = (),
    ) -> None:
        self._grid = grid
        self._shape = shape
        self._columns, self._rows = shape.positions(grid.width), shape.positions(grid.height)
        self._along = shape.along
        self._shares = FootprintShares.of(
            mask, tissue_threshold, areas, shape.smallchunk_px * grid.downsample
        )
        self._on_progress = on_progress

    @cached_property
    def all_counts(self) -> npt.NDArray[np.int32]:
        """Positions of each window, with those that have none, shape (windows,)."""
        return self._counted(self._on_progress).ravel()

    @cached_property
    def _with_any(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self.all_counts)

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """Positions of each window that has any, shape (windows,)."""
        return self.all_counts[self._with_any]

    @property
    def nbytes(self) -> int:
        """Memory of what is kept, bytes."""
        if "all_counts" not in self.__dict__:
            return self._shares.nbytes
        return self._shares.nbytes + self.all_counts.nbytes + self._with_any.nbytes

    def window(self, number: int) -> GridWindow:
        """Of the windows that have positions the one with that number; they are in reading
        order."""
        return self.at(int(self._with_any[number]))

    def at(self, place: int) -> GridWindow:
        """Of all windows the one with that number, without counting the others."""
        across = -(-self._columns // self._along)
        row, column = (which * self._along for which in divmod(place, across))
        rows = range(row, min(row + self._along, self._rows))
        columns = range(column, min(column + self._along, self._columns))
        fraction, accepted = self._looked_up(rows, columns)
        y, x = np.nonzero(accepted)
        stride = self._shape.stride_px
        draws = Draws(
            ((column + x) * stride).astype(np.int32),
            ((row + y) * stride).astype(np.int32),
            fraction[y, x],
        )
        window = Window(column * stride, row * stride, self._shape.window_px)
        return GridWindow(window, draws)

    def _looked_up(
        self, rows: range, columns: range
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Of the footprints of a rectangle of grid positions: the share of tissue, and whether
        they are accepted; each of shape (rows, columns)."""
        stride, downsample = self._shape.stride_px, self._grid.downsample
        left, top = (np.asarray(places) * stride * downsample for places in (columns, rows))
        side0 = self._shape.smallchunk_px * downsample
        return self._shares.outer(left, top, left + side0, top + side0)

    def _counted(self, on_progress: Callable[[], None]) -> npt.NDArray[np.int32]:
        """Positions of every window, shape (rows of windows, columns of windows)."""
        down, across = -(-self._rows // self._along), -(-self._columns // self._along)
        counts = np.zeros((down, across), dtype=np.int32)
        if not counts.size:
            return counts
        columns = range(self._columns)
        step = min(self._along, max(1, COUNTED_AT_ONCE // len(columns)))
        for band in range(down):
            end = min((band + 1) * self._along, self._rows)
            for first in range(band * self._along, end, step):
                rows = range(first, min(first + step, end))
                held = self._looked_up(rows, columns)[1].sum(axis=0)
                counts[band] += np.add.reduceat(held, columns[:: self._along])
                on_progress()
        return counts


def covered_px(draws: Draws, side_px: int, width: int, height: int) -> int:
    """Pixels of a slide that lie in at least one of some footprints, which may overlap.

    Args:
        draws: their corners.
        side_px: of a footprint.
        width, height: of the slide; what overhangs it does not count.
    """
    left, right, columns = _edges(draws.x, side_px, width)
    top, bottom, rows = _edges(draws.y, side_px, height)
    # Corners in a difference array: its running sums count the footprints over each piece.
    corners = np.zeros((len(rows) + 1, len(columns) + 1), dtype=np.int64)
    np.add.at(corners, (top, left), 1)
    np.add.at(corners, (bottom, right), 1)
    np.add.at(corners, (top, right), -1)
    np.add.at(corners, (bottom, left), -1)
    covered = corners.cumsum(0).cumsum(1)[:-1, :-1] > 0
    return int(rows @ covered @ columns)


def _edges(
    corner: npt.NDArray[np.int32], side_px: int, length_px: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """The pieces of an axis that each footprint begins and ends with, and the lengths of all."""
    first = corner.astype(np.int64)
    last = np.minimum(first + side_px, length_px)
    edges = np.unique(np.concatenate((first, last)))
    return np.searchsorted(edges, first), np.searchsorted(edges, last), edges[1:] - edges[:-1]
