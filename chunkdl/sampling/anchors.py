"""Anchors: positions of a slide drawn uniformly, without a list of them.

Draw a uniform corner of the box around the tissue; where it is a position, it is the anchor, else
draw again. A corner that is accepted is any of the N positions with the same probability, and so is
what is accepted later. After `CANDIDATES` refusals, so where tissue is less than a hundredth of
its box, all positions are counted once, row of cells by row of cells, and the anchor is the one
with a uniform number among them. Whether that happens depends on the corners that were refused and
on nothing else, so

    P(p) = P(one is accepted) · 1/N + P(none is accepted) · 1/N = 1/N

whatever the number of candidates is. The corners come from the generator of the draw alone: an
anchor is a pure function of its name, whatever was drawn or counted before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from chunkdl.sampling.positions import Ints, PositionSet
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.windows import Content, Lattice, Window

CANDIDATES = 1024
"""Corners that are tried before positions are counted. Where a share of 1 in 100 is accepted, one
draw in 30,000 finds none."""
AT_ONCE = 128
"""Of them; looking up so many costs little more than looking up one."""
COUNTED_AT_ONCE = 2**20
"""Cells that are counted between two signs of life, about."""


class Anchors:
    """Draws the anchors of one slide.

    Args:
        positions: of the slide.
        on_progress: called again and again while positions are counted; what it raises ends that.
    """

    def __init__(self, positions: PositionSet, on_progress: Callable[[], None]) -> None:
        self._positions = positions
        self._on_progress = on_progress

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """A position (x, y), each with probability 1/N; there must be one.

        Args:
            rng: of this draw.
        """
        return self._tried(rng) or self.at(int(rng.integers(self.count)))

    def content(self, lattice: Lattice, window: Window) -> Content:
        """The positions of a window, of which there is at least one."""
        return lattice.content(self._positions, window)

    def exist(self) -> bool:
        """Whether the slide has any position; exact, and the same in every process."""
        return self._tried(generator(0, Purpose.WINDOW)) is not None or self.count > 0

    @property
    def count(self) -> int:
        """The number of positions, N; the first call counts them."""
        return int(self._until_row[-1])

    @property
    def nbytes(self) -> int:
        """Memory of what was counted so far, bytes."""
        return self._until_row.nbytes if "_until_row" in self.__dict__ else 0

    def at(self, index: int) -> tuple[int, int]:
        """The position with that number, 0 <= index < count, in an order that never changes."""
        across, down = self._positions.across, self._positions.down
        place = int(np.searchsorted(self._until_row, index, side="right")) - 1
        row = self._positions.rows[place]
        accepted = self._positions.accepted(range(row, row + 1), self._positions.columns)[0]
        columns = self._positions.columns.start + np.flatnonzero(accepted)
        widths = across.widths(columns)
        until = np.cumsum(widths) * down.widths(np.array([row]))
        rest = index - int(self._until_row[place])
        which = int(np.searchsorted(until, rest, side="right"))
        dy, dx = divmod(rest - int(until[which - 1] if which else 0), int(widths[which]))
        return int(columns[which]) * across.cell_px + dx, row * down.cell_px + dy

    def _tried(self, rng: np.random.Generator) -> tuple[int, int] | None:
        """The first of the candidates that is a position."""
        positions = self._positions
        columns, rows = positions.columns, positions.rows
        if not (columns and rows):
            return None
        right = min(columns.stop * positions.across.cell_px, positions.across.extent)
        lower = min(rows.stop * positions.down.cell_px, positions.down.extent)
        for _ in range(CANDIDATES // AT_ONCE):
            x = rng.integers(columns.start * positions.across.cell_px, right, size=AT_ONCE)
            y = rng.integers(rows.start * positions.down.cell_px, lower, size=AT_ONCE)
            held = positions.hold(x, y)
            if held.any():
                first = int(held.argmax())
                return int(x[first]), int(y[first])
        return None

    @cached_property
    def _until_row(self) -> Ints:
        """Positions before each row of cells around the tissue, and all of them at the end."""
        positions = self._positions
        columns, rows = positions.columns, positions.rows
        widths = positions.across.widths(np.asarray(columns, dtype=np.int64))
        counts = np.zeros(1 + len(rows), dtype=np.int64)
        step = max(1, COUNTED_AT_ONCE // max(1, len(columns)))
        for first in range(0, len(rows), step):
            strip = rows[first : first + step]
            heights = positions.down.widths(np.asarray(strip, dtype=np.int64))
            counts[1 + first : 1 + first + step] = heights * (
                positions.accepted(strip, columns) @ widths
            )
            self._on_progress()
        return np.cumsum(counts)
