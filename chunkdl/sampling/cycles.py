"""Which window is BigChunk k of a stream without replacement.

The grid of a slide is cut into windows. In each *cycle* of a slide its windows come in an order of
their own, which slide and cycle name, and every position comes once. Which slide gives the next
window is settled by weights: it is the one with the largest

    w · R - r

where r are the rows that it has given, R those of all, and w is its share of the weights; the first
in a keyed order where several are equal. So no slide is ever more than a window ahead of its share.
A slide that has given all its cycles counts no more; the others go on in their proportions. All of
it is computed in integers: R and r are kept as one number a slide, which grows by (its weight) x
(rows) with each window of any slide, and falls by (all weights) x (rows) with its own.

Windows have different numbers of positions, so a prefix of whole windows in random order would have
too many positions of small windows. An endless stream begins each cycle at a row that is uniform
among all rows of the cycle; the window that this cuts gives its second part first, and its first
part at the end. Then each row of a cycle is any position with the same probability.

What slides have is asked for when it is their turn, and nothing depends on when it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ProtocolError
from chunkdl.sampling.grid_pass import slide_order
from chunkdl.sampling.seeding import Purpose, generator

WHOLE = 720_720
"""The weight of a patient; it can be divided evenly among up to 16 slides."""
AHEAD = 256
"""Slides that are told to be asked for next, at most."""
_NEVER = np.iinfo(np.int64).min

Counts = npt.NDArray[np.int32]


class Part(NamedTuple):
    """What a BigChunk gives: positions [first, first + rows) of a window, as their cycle has them.

    Attributes:
        slide, cycle, window: which.
        first, rows: of its positions.
    """

    slide: int
    cycle: int
    window: int
    first: int
    rows: int


def patient_weights(slides_of_patient: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """The weight of each slide where patients are equal, and the slides of each of them."""
    weights = np.zeros(sum(map(len, slides_of_patient)), dtype=np.int64)
    for slides in slides_of_patient:
        weights[list(slides)] = max(1, WHOLE // max(1, len(slides)))
    return weights


def positions_in_order(
    seed: int, slide: int, cycle: int, window: int, count: int
) -> npt.NDArray[np.int64]:
    """The order in which a cycle takes the positions of a window, shape (count,)."""
    return generator(seed, Purpose.CYCLE, slide, cycle, 1 + window).permutation(count)


class _SlideCycles:
    """The parts of one slide, cycle after cycle.

    Args:
        seed: of the stream.
        slide: which.
        counts: positions of each of its windows, at least one of them with any.
        cycle: number of the first cycle.
        phased: each cycle begins at a random row.
    """

    __slots__ = ("_counts", "_next", "_order", "_phased", "_seed", "_skip", "_slide", "cycle")

    def __init__(self, seed: int, slide: int, counts: Counts, cycle: int, *, phased: bool) -> None:
        self._seed, self._slide, self._counts, self._phased = seed, slide, counts, phased
        self._begin(cycle)

    def _begin(self, cycle: int) -> None:
        rng = generator(self._seed, Purpose.CYCLE, self._slide, cycle)
        order = rng.permutation(np.flatnonzero(self._counts).astype(np.int32))
        self.cycle, self._next, self._skip = cycle, 0, 0
        if self._phased:
            until = np.cumsum(self._counts[order], dtype=np.int64)
            start = int(rng.integers(until[-1]))
            place = int(np.searchsorted(until, start, side="right"))
            order = np.roll(order, -place)
            self._skip = start - int(until[place]) + int(self._counts[order[0]])
            if self._skip:
                order = np.append(order, order[:1])
        self._order = order

    def take(self) -> Part:
        """The next part; behind the last one of a cycle `cycle` is the next one."""
        place, cycle = self._next, self.cycle
        window = int(self._order[place])
        first, rows = 0, int(self._counts[window])
        self._next += 1
        is_last = self._next == len(self._order)
        if self._skip and place == 0:
            first, rows = self._skip, rows - self._skip
        elif self._skip and is_last:
            rows = self._skip
        if is_last:
            self._begin(cycle + 1)
        return Part(self._slide, cycle, window, first, rows)


class WindowOrder:
    """The BigChunks of a stream, or of a pass, one after the other.

    Args:
        seed: of the stream.
        weights: of each slide, integers, in any unit; a slide of weight 0 gives nothing.
        cycles: of each slide in a pass; None: without end.
        epoch: number of the pass.
    """

    def __init__(
        self, seed: int, weights: npt.NDArray[np.int64], cycles: int | None, epoch: int = 0
    ) -> None:
        self._seed = seed
        self._cycles = cycles
        self._first_cycle = 0 if cycles is None else epoch * cycles
        # By places in the keyed order: the first of equals is the one that counts.
        self._slides = slide_order(seed, epoch, len(weights))
        self._weights = weights[self._slides]
        self._total = int(self._weights.sum())
        self._lag = np.where(self._weights > 0, 0, _NEVER)
        self._known: dict[int, _SlideCycles | None] = {}
        self._to_come = self._weights > 0
        self._asked: tuple[int, ...] | None = None
        self._rows = 0

    @property
    def unsurveyed(self) -> tuple[int, ...]:
        """The slides whose windows are not known, in the order in which they will be needed."""
        if self._asked is None:
            places = np.flatnonzero(self._to_come)
            first = np.argsort(-self._lag[places], kind="stable")[:AHEAD]
            self._asked = tuple(self._slides[places[first]].tolist())
        return self._asked

    @property
    def total(self) -> int | None:
        """Rows of the pass; None while slides are unknown, and without end."""
        if self._cycles is None or self.unsurveyed:
            return None
        return self._rows * self._cycles

    def add(self, counts: Sequence[int]) -> None:
        """Record the positions per window of the first unsurveyed slide; nothing for a bad one."""
        self.know(self.unsurveyed[0], counts)

    def know(self, slide: int, counts: Sequence[int]) -> None:
        """Record the positions per window of a slide."""
        found = np.asarray(counts, dtype=np.int32)
        cycles = None
        if found.any():
            phased = self._cycles is None
            cycles = _SlideCycles(self._seed, slide, found, self._first_cycle, phased=phased)
        self._known[slide] = cycles
        self._rows += int(found.sum())
        self._to_come[self._place(slide)] = False
        self._asked = None

    @property
    def turn(self) -> int | None:
        """The slide that gives the next BigChunk; None: there are no more."""
        return int(self._slides[self._lag.argmax()]) if self._total else None

    def knows(self, slide: int) -> bool:
        """Whether the windows of a slide are known."""
        return slide in self._known

    def has_none(self, slide: int) -> bool:
        """Whether a slide is known to have no position at all."""
        return self._known.get(slide, self) is None

    def leave_out(self, slide: int) -> None:
        """A slide gives nothing from now on."""
        place = self._place(slide)
        if self._weights[place]:
            self._leave_out(place)

    def take(self) -> Part:
        """The next BigChunk, of the slide whose `turn` it is, which has positions."""
        place = int(self._lag.argmax())
        cycles = self._known[int(self._slides[place])]
        if cycles is None:
            raise ProtocolError("a slide without positions has no turn")
        part = cycles.take()
        self._asked = None
        self._lag += self._weights * part.rows
        self._lag[place] -= self._total * part.rows
        if self._cycles is not None and cycles.cycle == self._first_cycle + self._cycles:
            self._leave_out(place)
        return part

    def _place(self, slide: int) -> int:
        return int(np.flatnonzero(self._slides == slide)[0])

    def _leave_out(self, place: int) -> None:
        """A slide gives nothing more."""
        self._total -= int(self._weights[place])
        self._weights[place], self._lag[place] = 0, _NEVER
        self._known.pop(int(self._slides[place]), None)
        self._to_come[place], self._asked = False, None
        if self._total:
            # What it was ahead is spread over the others; only their differences count.
            self._lag[self._weights > 0] -= self._lag.max()
