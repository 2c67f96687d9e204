"""Draws around annotations: each is drawn with a weight of its own, however large it is.

A *spot* is a rectangle of corners in one row of cells, with a density: the probability of each of
its corners, up to a common factor. What is drawn for one annotation is one or several spots. They
take the place of the positions of a slide (`chunkdl.sampling.windows`): with D(p) the sum of the
densities of the spots that hold p, and D their sum over all corners, the anchor is p with
probability D(p)/D, and draws in a window have weights D(p)/A(p). By the same proof

    P(p) = sum over windows w around p of P(w) · (D(p)/A(p))/Z(w) = D(p)/D

with Z(w) the sum of D/A over w, whatever the stride of the lattice is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chunkdl.sampling.positions import Ints, PositionSet
from chunkdl.sampling.windows import Axis, Draws, Lattice, Window

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Spots:
    """All spots of a slide at one resolution, at least one.

    Attributes:
        positions: of the slide; every spot lies in accepted cells of it.
        left, top, right, bottom: int64 (n,), corners in target pixels, half-open; none is empty.
        until: float64 (n,), running sum of density × area, up to 1.
    """

    positions: PositionSet
    left: Ints
    top: Ints
    right: Ints
    bottom: Ints
    until: Floats

    @classmethod
    def of(
        cls,
        positions: PositionSet,
        boxes: tuple[Ints, Ints, Ints, Ints],
        owner: Ints,
        weights: Floats,
    ) -> Spots:
        """Those of annotations.

        Args:
            positions: of the slide.
            boxes: left, top, right, bottom of each spot, (n,) each; n is at least 1.
            owner: whose it is, (n,), as an index into `weights`.
            weights: how often each annotation is drawn, (m,), above 0. What has no spot is passed
                over, and the others keep their proportions.
        """
        left, top, right, bottom = boxes
        area = ((right - left) * (bottom - top)).astype(np.float64)
        of_owner = np.bincount(owner, area, minlength=len(weights))
        until = np.cumsum(weights[owner] * area / of_owner[owner])
        return cls(positions, left, top, right, bottom, until / until[-1])

    @property
    def nbytes(self) -> int:
        """Memory, bytes."""
        arrays = (self.left, self.top, self.right, self.bottom, self.until)
        return sum(array.nbytes for array in arrays)

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """An anchor (x, y).

        Args:
            rng: of this draw.
        """
        which = min(
            int(np.searchsorted(self.until, rng.random(), side="right")), len(self.left) - 1
        )
        x = rng.integers(self.left[which], self.right[which])
        y = rng.integers(self.top[which], self.bottom[which])
        return int(x), int(y)

    def content(self, lattice: Lattice, window: Window) -> SpotsOfWindow:
        """What lies in a window that is around an anchor."""
        across = _Line.of(lattice.across, window.x, self.positions.across.extent)
        down = _Line.of(lattice.down, window.y, self.positions.down.extent)
        here = (self.right > across.start) & (self.left < across.stop)
        here &= (self.bottom > down.start) & (self.top < down.stop)
        some = np.flatnonzero(here)
        left, right = across.clipped(self.left[some]), across.clipped(self.right[some])
        top, bottom = down.clipped(self.top[some]), down.clipped(self.bottom[some])
        before = np.where(some > 0, self.until[some - 1], 0.0)
        area = (self.right - self.left) * (self.bottom - self.top)
        mass = (self.until[some] - before) / area[some]
        mass *= across.mass(left, right) * down.mass(top, bottom)
        return SpotsOfWindow(
            self.positions, window, across, down, (left, top, right, bottom), np.cumsum(mass)
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """The corners of a window along one axis, with their weights 1/A."""

    axis: Axis
    start: int
    stop: int
    totals: Ints
    """Running sum of the weights from `start` on, one longer than the corners."""

    @classmethod
    def of(cls, axis: Axis, origin: int, extent: int) -> _Line:
        start = max(0, origin)
        stop = min(extent, origin + axis.window_px - axis.smallchunk_px + 1)
        weights = axis.weights(np.arange(start, stop, dtype=np.int64))
        return cls(axis, start, stop, np.concatenate(([0], np.cumsum(weights))))

    def clipped(self, corner: Ints) -> Ints:
        return np.clip(corner, self.start, self.stop)

    def mass(self, low: Ints, high: Ints) -> Ints:
        """Weight of the corners from each `low` up to its `high`."""
        return self.totals[high - self.start] - self.totals[low - self.start]

    def pick(self, low: Ints, high: Ints, rng: np.random.Generator) -> Ints:
        """A corner from each `low` up to its `high`, by weight."""
        ticket = self.totals[low - self.start] + rng.integers(self.mass(low, high))
        return self.start + np.searchsorted(self.totals, ticket, side="right") - 1

    def blocks(self, low: Ints, high: Ints, origin: int) -> tuple[Ints, Ints]:
        """The first and the last block of the window that footprints there touch."""
        stride = self.axis.stride_px
        return (low - origin) // stride, (high + self.axis.smallchunk_px - 2 - origin) // stride


@dataclass(frozen=True, slots=True, eq=False)
class SpotsOfWindow:
    """The spots of a window, cut to it; it has at least one.

    Attributes:
        positions: of the slide.
        window: the region.
        across, down: its corners along x and y.
        boxes: left, top, right, bottom of the spots.
        until: running sum of what each weighs.
    """

    positions: PositionSet
    window: Window
    across: _Line
    down: _Line
    boxes: tuple[Ints, Ints, Ints, Ints]
    until: Floats

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        """`count` corners, independent, each with its weight."""
        tickets = rng.random(count) * self.until[-1]
        which = np.minimum(np.searchsorted(self.until, tickets, side="right"), len(self.until) - 1)
        left, top, right, bottom = (side[which] for side in self.boxes)
        x, y = self.across.pick(left, right, rng), self.down.pick(top, bottom, rng)
        cells = y // self.positions.down.cell_px, x // self.positions.across.cell_px
        return Draws(x.astype(np.int32), y.astype(np.int32), self.positions.fractions(*cells))

    def useful_px(self) -> int:
        """Target pixels of the blocks that some SmallChunk can show, as far as they are inside the
        window and the slide; see `Content.useful_px`."""
        left, top, right, bottom = self.boxes
        first_x, last_x = self.across.blocks(left, right, self.window.x)
        first_y, last_y = self.down.blocks(top, bottom, self.window.y)
        columns, rows = (
            -(-line.axis.window_px // line.axis.stride_px) for line in (self.across, self.down)
        )
        # Running sums of a difference array count the spots that touch each block.
        corners = np.zeros((rows + 1, columns + 1), np.int64)
        np.add.at(corners, (first_y, first_x), 1)
        np.add.at(corners, (last_y + 1, last_x + 1), 1)
        np.add.at(corners, (first_y, last_x + 1), -1)
        np.add.at(corners, (last_y + 1, first_x), -1)
        blocks = corners.cumsum(0).cumsum(1)[:rows, :columns] > 0
        height = self.down.axis.clipped(self.window.y, rows, self.positions.down.length_px)
        width = self.across.axis.clipped(self.window.x, columns, self.positions.across.length_px)
        return int(height @ blocks @ width)
