"""How different the rows of a batch are: rows of one BigChunk are neighbours, and may overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from chunkdl.engine.loader_statistics import MeanDiversity
from chunkdl.transport.memory.layouts import RECORD

Ints = npt.NDArray[np.int64]

MEASURED_EVERY = 32
"""Batches, for the means of `stats`; of more than `LARGE` rows it takes more than linear time, and
is done more rarely."""
LARGE = 1024
_MOST_BOXES = 2**20
"""That are looked at together, so that no batch takes more than some megabytes."""


@dataclass(frozen=True, slots=True)
class Diversity:
    """How different the rows of a batch are.

    Attributes:
        rows: of the batch.
        bigchunks: different BigChunks among them.
        patients: different patients among them.
        overlap: share of the pixels of the rows that another row of the same BigChunk shows too,
            0 to 1; before any transform. NaN with classes of the user, which do not say what a row
            shows, and of a batch without rows.
    """

    rows: int
    bigchunks: int
    patients: int
    overlap: float

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """Of rows that come from several services, which share no BigChunk and no patient."""
        rows = sum(part.rows for part in parts)
        shared = sum(part.overlap * part.rows for part in parts if part.rows)
        return cls(
            rows,
            sum(part.bigchunks for part in parts),
            sum(part.patients for part in parts),
            shared / rows if rows else nan,
        )


@dataclass(frozen=True, slots=True)
class Footprints:
    """What the rows of a batch show, of one service.

    Attributes:
        records: the bytes of a `chunkdl.transport.memory.layouts.RECORD` of each row.
        side_px: side of the square of its BigChunk that a row shows, target pixels; 0: nobody
            knows.
    """

    records: bytes
    side_px: int

    @classmethod
    def of(cls, records: npt.NDArray[Any], side_px: int) -> Self:
        """Of records, shape (rows,), which may be overwritten later.

        Whoever keeps a tensor of the batch keeps this too, and must keep no slot by it.
        """
        # A copy of the array would take twenty times as long, field by field.
        return cls(records.tobytes(), side_px)

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.records) // RECORD.itemsize

    @property
    def diversity(self) -> Diversity:
        """How different the rows are."""
        records = np.frombuffer(self.records, RECORD)
        order, rows = records["bigchunk"].argsort(kind="stable"), self.rows
        ordinals = records["bigchunk"][order]
        starts = np.flatnonzero(np.diff(ordinals, prepend=-1 - ordinals[:1]))
        counts = np.diff(starts, append=rows)
        overlap = nan
        if self.side_px and rows:
            left, top = (records[name][order].astype(np.int64) for name in ("left", "top"))
            shared = _shared_in_pairs(left, top, starts[counts == 2], self.side_px)
            for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
                if count > 2:
                    some = slice(start, start + count)
                    shared += _shared_px(left[some], top[some], self.side_px)
            overlap = shared / (rows * self.side_px**2)
        return Diversity(rows, len(starts), len(np.unique(records["patient"])), overlap)


class Means:
    """The mean diversity of the batches that a loader has given out, measured in a few of them.

    Used by one thread at a time; `mean` by any.
    """

    def __init__(self) -> None:
        self._until_next = 0
        self._sums = 0, 0, 0, 0.0

    def see(self, footprints: Sequence[Footprints]) -> None:
        """A batch is given out."""
        if self._until_next:
            self._until_next -= 1
            return
        rows = sum(one.rows for one in footprints)
        if not rows:
            return
        self._until_next = MEASURED_EVERY * max(1, rows // LARGE) - 1
        seen = Diversity.together([one.diversity for one in footprints])
        batches, bigchunks, patients, overlap = self._sums
        # At once: another thread may ask meanwhile.
        self._sums = (
            batches + 1,
            bigchunks + seen.bigchunks,
            patients + seen.patients,
            overlap + seen.overlap,
        )

    @property
    def mean(self) -> MeanDiversity:
        """Over the batches that were measured."""
        batches, *sums = self._sums
        return MeanDiversity(*(value / batches if batches else nan for value in sums))


def _shared_in_pairs(left: Ints, top: Ints, first: Ints, side_px: int) -> int:
    """Pixels of pairs of rows that the other row shows too.

    Args:
        left, top: of each row, shape (rows,).
        first: the first row of each pair; the second one is behind it.
        side_px: side of a row.
    """
    across = np.maximum(side_px - np.abs(left[first] - left[first + 1]), 0)
    down = np.maximum(side_px - np.abs(top[first] - top[first + 1]), 0)
    return 2 * int((across * down).sum())


def _shared_px(left: Ints, top: Ints, side_px: int) -> int:
    """Pixels of squares that at least one of the others shows too.

    The edges of all squares cut the plane into boxes, each of which a square shows whole or not at
    all. How many squares show a box is a sum over the corners above it and to its left.
    """
    widths, x0, x1 = _cuts(left, side_px)
    heights, y0, y1 = _cuts(top, side_px)
    rows, columns = np.concatenate((y0, y0, y1, y1)), np.concatenate((x0, x1, x0, x1))
    signs = np.repeat(_SIGNS, len(left))
    step, shared = max(1, _MOST_BOXES // len(widths)), 0
    above = np.zeros(len(widths) + 1, dtype=np.int64)
    for first in range(0, len(heights), step):
        slab = heights[first : first + step]
        inside = (rows >= first) & (rows < first + len(slab))
        shown = np.zeros((len(slab), len(above)), dtype=np.int64)
        shown[rows[inside] - first, columns[inside]] = signs[inside]
        shown[0] += above
        shown.cumsum(axis=0, out=shown)
        above = shown[-1].copy()
        shown.cumsum(axis=1, out=shown)
        shown[shown == 1] = 0
        shared += int(slab @ shown[:, :-1] @ widths)
    return shared


_SIGNS = np.array((1, -1, -1, 1))
"""Of the corners of a square, as they enter and leave the sums."""


def _cuts(start: Ints, side_px: int) -> tuple[Ints, Ints, Ints]:
    """Where both ends of each square come in the order of all ends, and what lies between these.

    Of ends in the same place the order is any, with nothing in between.
    """
    ends = np.concatenate((start, start + side_px))
    order = ends.argsort()
    rank = np.empty_like(order)
    rank[order] = np.arange(len(ends))
    return np.diff(ends[order]), rank[: len(start)], rank[len(start) :]
