"""Windows on the tile lattice, and draws that leave every position equally likely.

A *window* is the region of one BigChunk: a square of `window_px` target pixels whose origin is a
multiple of the lattice stride (the tile size of the file, so that no tile is decoded for a sliver).
Windows may overhang the slide; only the inside is read.

Let A(p) be the number of windows that hold the whole footprint at position p. Draw an *anchor*
uniformly from the N positions, then one of the A(anchor) windows around it uniformly. Inside the
window draw positions with weight 1/A(p). With Z(w) the sum of 1/A over the positions in w,

    P(w) = sum over p in w of 1/N · 1/A(p) = Z(w)/N
    P(p) = sum over windows w around p of Z(w)/N · (1/A(p))/Z(w) = A(p) · 1/(N·A(p)) = 1/N

so every position of the slide is equally likely, edges and sparse tissue included. A is a product
of two one-dimensional counts, each of which takes two neighbouring values m and m+1 only; scaled by
m·(m+1) the weights are integers, and the draws are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from chunkdl.sampling.positions import CellAxis, PositionSet
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.slide import Level

SMALLEST_STRIDE_PX = 256
"""Files with small blocks (strips of 8 rows) get a lattice of several blocks, so that one read is
worth its call."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The windows along one axis of a slide.

    Attributes:
        stride_px: distance of window origins, target pixels.
        window_px: side of a window, target pixels.
        smallchunk_px: side of a SmallChunk, target pixels.
    """

    stride_px: int
    window_px: int
    smallchunk_px: int

    def first(self, position: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
        """Index of the first window that holds the footprint at `position`."""
        reach = np.asarray(position, dtype=np.int64) + self.smallchunk_px - self.window_px
        return -((-reach) // self.stride_px)

    def count(self, position: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
        """How many windows hold the footprint at `position`; at least 1."""
        last = np.asarray(position, dtype=np.int64) // self.stride_px
        return last - self.first(position) + 1

    @property
    def fewest(self) -> int:
        """The smaller of the two values that `count` takes."""
        return (self.window_px - self.smallchunk_px + 1) // self.stride_px

    def clipped(self, origin: int, blocks: int, length_px: int) -> npt.NDArray[np.int64]:
        """How much of each block of a window is inside the window and the slide, target pixels.

        Args:
            origin: of the window.
            blocks: how many, from the origin on.
            length_px: of the slide.

        Returns:
            Shape (blocks,).
        """
        edges = origin + np.arange(blocks + 1, dtype=np.int64) * self.stride_px
        edges = np.clip(edges, max(origin, 0), min(origin + self.window_px, length_px))
        return edges[1:] - edges[:-1]

    def weights(self, position: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """1/count, scaled to integers: m+1 where the count is m, m where it is m+1."""
        return 2 * self.fewest + 1 - self.count(position)


@dataclass(frozen=True, slots=True)
class Window:
    """The region of a BigChunk: origin in target pixels (may be negative) and side."""

    x: int
    y: int
    side_px: int


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Positions drawn in a window, in the order of their calls.

    Attributes:
        x, y: corners in target pixels of the slide, int32, shape (n,).
        fraction: tissue fraction of each footprint, float32, shape (n,).
    """

    x: npt.NDArray[np.int32]
    y: npt.NDArray[np.int32]
    fraction: npt.NDArray[np.float32]

    def taken(self, which: npt.NDArray[Any]) -> Draws:
        """Some of them, by flag or by index."""
        return Draws(self.x[which], self.y[which], self.fraction[which])


class WindowContent(Protocol):
    """What may be drawn in a window."""

    @property
    def window(self) -> Window:
        """The region."""

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        """`count` corners, independent of each other."""

    def useful_px(self) -> int:
        """Target pixels of the blocks that its SmallChunks can show, as far as they are inside the
        window and the slide."""


class Places(Protocol):
    """What is drawn on a slide at one resolution: all its positions alike, or spots by weight."""

    @property
    def nbytes(self) -> int:
        """Memory, bytes."""

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """An anchor (x, y)."""

    def content(self, lattice: Lattice, window: Window) -> WindowContent:
        """What may be drawn in a window that is around an anchor."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """The windows of one slide."""

    across: Axis
    down: Axis

    @classmethod
    def of(cls, level: Level, grid: TargetGrid, window_px: int, smallchunk_px: int) -> Lattice:
        """The lattice of a slide whose `level` is read for `grid`."""
        return cls(
            Axis(
                _stride(level.tile_width, grid.factor, window_px, smallchunk_px),
                window_px,
                smallchunk_px,
            ),
            Axis(
                _stride(level.tile_height, grid.factor, window_px, smallchunk_px),
                window_px,
                smallchunk_px,
            ),
        )

    def draw_window(self, places: Places, rng: np.random.Generator) -> Window:
        """A window with probability Z(w)/N.

        Args:
            places: of the slide, at least one.
            rng: of this draw.
        """
        return self.window_around(*places.draw(rng), rng)

    def window_around(self, x: int, y: int, rng: np.random.Generator) -> Window:
        """One of the windows that hold the footprint at a position, each with equal probability."""
        column = int(self.across.first(x)) + int(rng.integers(int(self.across.count(x))))
        row = int(self.down.first(y)) + int(rng.integers(int(self.down.count(y))))
        return Window(
            column * self.across.stride_px, row * self.down.stride_px, self.across.window_px
        )

    def content(self, positions: PositionSet, window: Window) -> Content:
        """The positions of a window, of which there is at least one."""
        return Content.of(self, positions, window)

    def touched_blocks(self, draws: Draws, window: Window) -> npt.NDArray[np.bool_]:
        """Which blocks the draws need; shape (rows, columns).

        The first block is the one that holds the window's origin; windows of a grid pass do not
        begin on the lattice.
        """
        left, right, columns = _block_span(draws.x, window.x, self.across)
        top, bottom, rows = _block_span(draws.y, window.y, self.down)
        # Corners of the spans in a difference array: its running sums count the draws per block.
        corners = np.zeros((rows + 1, columns + 1), dtype=np.int64)
        np.add.at(corners, (top, left), 1)
        np.add.at(corners, (bottom + 1, right + 1), 1)
        np.add.at(corners, (top, right + 1), -1)
        np.add.at(corners, (bottom + 1, left), -1)
        return np.asarray(corners.cumsum(0).cumsum(1)[:rows, :columns] > 0)


def _stride(tile: int, factor: float, window_px: int, smallchunk_px: int) -> int:
    """The lattice stride: whole tiles, small enough that some window holds each footprint."""
    stride = max(1, round(tile / factor))
    stride *= max(1, SMALLEST_STRIDE_PX // stride)
    most = window_px - smallchunk_px + 1
    return stride if stride <= most else -(-stride // -(-stride // most))


def _block_span(
    corner: npt.NDArray[np.int32], origin: int, axis: Axis
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """First and last block of the footprints at `corner`, and the number of blocks."""
    first = origin // axis.stride_px
    last = (origin + axis.window_px - 1) // axis.stride_px
    low = corner.astype(np.int64) // axis.stride_px - first
    high = (corner.astype(np.int64) + axis.smallchunk_px - 1) // axis.stride_px - first
    return low, high, last - first + 1


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """The positions of a window along one axis, with their weights.

    Attributes:
        axis: the windows along it.
        start: first position.
        totals: running sum of the weights, one longer than the positions.
        low, high: bounds of each cell as offsets from `start`, clipped to the window.
    """

    axis: Axis
    start: int
    totals: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]
    first_cell: int

    @classmethod
    def of(cls, axis: Axis, origin: int, cells: CellAxis) -> _Line:
        cell_px = cells.cell_px
        start = max(0, origin)
        stop = min(cells.extent, origin + axis.window_px - axis.smallchunk_px + 1)
        weights = axis.weights(np.arange(start, stop, dtype=np.int64))
        totals = np.concatenate(([0], np.cumsum(weights)))
        first, last = start // cell_px, (stop - 1) // cell_px
        edges = np.clip(np.arange(first, last + 2) * cell_px, start, stop) - start
        return cls(axis, start, totals, edges[:-1], edges[1:], first)

    @property
    def cells(self) -> range:
        return range(self.first_cell, self.first_cell + len(self.low))

    @property
    def mass(self) -> npt.NDArray[np.int64]:
        """Weight of the positions in each cell."""
        return self.totals[self.high] - self.totals[self.low]

    def pick(
        self, cell: npt.NDArray[np.int64], ticket: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """The position in `cell` on which `ticket`, below its mass, falls."""
        return (
            self.start
            + np.searchsorted(self.totals, self.totals[self.low[cell]] + ticket, side="right")
            - 1
        )

    def reach(self, origin: int) -> npt.NDArray[np.bool_]:
        """Whether a footprint of the cell touches the block; shape (cells, blocks)."""
        blocks = np.arange(-(-self.axis.window_px // self.axis.stride_px))
        offset = self.start - origin
        first = (self.low + offset) // self.axis.stride_px
        last = (self.high + offset + self.axis.smallchunk_px - 2) // self.axis.stride_px
        return np.asarray((blocks >= first[:, None]) & (blocks <= last[:, None]))


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """The accepted cells of a window, with their weights.

    Attributes:
        positions: of the slide.
        window: the region.
        across, down: its cells along x and y.
        accepted: which of them are accepted, shape (rows, columns).
        cumulative: weight of the rows of cells up to and including each.
    """

    positions: PositionSet
    window: Window
    across: _Line
    down: _Line
    accepted: npt.NDArray[np.bool_]
    cumulative: npt.NDArray[np.int64]

    @classmethod
    def of(cls, lattice: Lattice, positions: PositionSet, window: Window) -> Content:
        across = _Line.of(lattice.across, window.x, positions.across)
        down = _Line.of(lattice.down, window.y, positions.down)
        accepted = positions.accepted(down.cells, across.cells)
        cumulative = np.cumsum(down.mass * (accepted @ across.mass))
        return cls(positions, window, across, down, accepted, cumulative)

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        """`count` positions, independent, each with probability (1/A(p))/Z(w)."""
        row, column, down, across = self._places(rng.integers(self.cumulative[-1], size=count))
        return Draws(
            self.across.pick(column, across).astype(np.int32),
            self.down.pick(row, down).astype(np.int32),
            self.positions.fractions(self.down.first_cell + row, self.across.first_cell + column),
        )

    def useful_blocks(self) -> npt.NDArray[np.bool_]:
        """Which blocks of the window some position of it needs; shape (rows, columns).

        A block is one cell of the lattice, `stride_px` on a side.
        """
        down = self.down.reach(self.window.y).astype(np.float32)
        across = self.across.reach(self.window.x).astype(np.float32)
        return np.asarray(down.T @ self.accepted.astype(np.float32) @ across > 0)

    def useful_px(self) -> int:
        """See `WindowContent.useful_px`."""
        blocks = self.useful_blocks()
        rows, columns = blocks.shape
        height = self.down.axis.clipped(self.window.y, rows, self.positions.down.length_px)
        width = self.across.axis.clipped(self.window.x, columns, self.positions.across.length_px)
        return int(height @ blocks @ width)

    def _places(self, ticket: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
        """On what each of the tickets, below the weight of the window, falls.

        Returns:
            Row and column of the cell; tickets for the place in it along y and along x, below its
            mass there.
        """
        row = np.searchsorted(self.cumulative, ticket, side="right")
        height, width = self.down.mass[row], self.across.mass
        # Only of the rows that were drawn: a large window has millions of cells.
        drawn, which = np.unique(row, return_inverse=True)
        until = np.cumsum(self.accepted[drawn] * width)
        in_row = self.accepted[drawn] @ width
        before = np.cumsum(in_row) - in_row
        along, odd = np.divmod(ticket - (self.cumulative[row] - height * in_row[which]), height)
        along += before[which]
        cell = np.searchsorted(until, along, side="right")
        column = cell % len(width)
        rest = (along - (until[cell] - width[column])) * height + odd
        return row, column, *np.divmod(rest, width[column])
