"""Which BigChunk, and which call of it, every row is where BigChunks have different sizes.

P BigChunks are open at a time. In each *turn* one of them ends, in the order of their ordinals, and
the next one begins in the turn behind: BigChunk k ends in turn k and is open for q turns, P of them
where k >= P - 1, else k + 1, so that P are open from the first turn on. In each of these turns it
gives an equal part of its n calls; in its i-th one the calls from ⌊n·i/q⌋ to ⌊n·(i+1)/q⌋. The rows
of a turn come in a keyed order. So a row of a batch is computed from the sizes of the BigChunks
around it, and the rows before turn t are

    (all calls of the BigChunks below t) + sum over k = t .. t + P - 2 of ⌊n_k·i/q_k⌋.

Where BigChunks run out, at the end of a pass, fewer are open.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from chunkdl.sampling.seeding import Purpose, generator

Ints = npt.NDArray[np.int64]


class Turns:
    """The rows of BigChunks whose sizes become known one after the other.

    Args:
        seed: of the stream.
        places: BigChunks open at a time, P.
        epoch: number of the pass.
    """

    def __init__(self, seed: int, places: int, epoch: int = 0) -> None:
        self._seed, self._places, self._epoch = seed, places, epoch
        self._starts = array("q", [0])
        self.base = 0
        """BigChunks below are forgotten."""
        self.is_complete = False
        """There are no more BigChunks."""
        self._turn = lru_cache(maxsize=8)(self._made)

    @property
    def known(self) -> int:
        """BigChunks so far, with those that are forgotten."""
        return self.base + len(self._starts) - 1

    @property
    def total(self) -> int:
        """Rows of all BigChunks so far."""
        return self._starts[-1]

    @property
    def settled(self) -> int:
        """Rows below are known; perhaps a few more are."""
        if self.is_complete:
            return self.total
        closed = self.known - self._places + 1
        return self._starts[max(0, closed - self.base)]

    def add(self, calls: int) -> None:
        """The next BigChunk has so many calls."""
        self._starts.append(self._starts[-1] + calls)

    def forget(self, ordinal: int) -> None:
        """Nobody asks any more for BigChunks below that, or for rows that they serve."""
        if ordinal > self.base:
            del self._starts[: ordinal - self.base]
            self.base = ordinal

    def size(self, ordinal: int) -> int:
        """Calls of a BigChunk."""
        place = ordinal - self.base
        return self._starts[place + 1] - self._starts[place]

    def before(self, turn: int) -> int:
        """Rows before a turn; it, or the one before, is known."""
        ordinal, calls = self._around(turn, self._places - 1)
        part, parts = self._parts(ordinal, turn)
        rows = calls * part // parts
        return self._starts[min(turn, self.known) - self.base] + int(rows.sum())

    def turn_of(self, row: int) -> int:
        """The turn of a row; for the row behind those that are known the turn behind."""
        highest = self.base + bisect_right(self._starts, row) - 1
        low, high = max(self.base, highest - self._places + 1), highest
        while low < high:
            middle = (low + high + 1) // 2
            if self.before(middle) <= row:
                low = middle
            else:
                high = middle - 1
        return low

    def rows(self, first: int, count: int) -> tuple[Ints, Ints]:
        """Ordinal and call of `count` rows from `first` on, which are known."""
        turn = self.turn_of(first)
        skip = first - self.before(turn)
        ordinals, calls = [], []
        left = count
        while left > 0:
            ordinal, call = (part[skip : skip + left] for part in self._turn(turn))
            ordinals.append(ordinal)
            calls.append(call)
            left -= len(ordinal)
            turn, skip = turn + 1, 0
        if not ordinals:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return np.concatenate(ordinals), np.concatenate(calls)

    def used_before(self, ordinal: int, row: int) -> int:
        """How many calls of a BigChunk come before a row; the rows before it are known."""
        turn = self.turn_of(row)
        if ordinal < turn:
            return 0 if ordinal < self.base else self.size(ordinal)
        first = max(0, ordinal - self._places + 1)
        if turn < first:
            return 0
        used = self.size(ordinal) * (turn - first) // (ordinal - first + 1)
        if skip := row - self.before(turn):
            used += int((self._turn(turn)[0][:skip] == ordinal).sum())
        return used

    def first_turn(self, ordinal: int) -> int:
        """The turn in which a BigChunk begins."""
        return max(0, ordinal - self._places + 1)

    def _around(self, turn: int, count: int) -> tuple[Ints, Ints]:
        """The known ones of `count` BigChunks from the one that ends in a turn on, with calls."""
        place = min(turn, self.known) - self.base
        starts = np.array(self._starts[place : place + count + 1], dtype=np.int64)
        return turn + np.arange(len(starts) - 1), np.diff(starts)

    def _parts(self, ordinal: Ints, turn: int) -> tuple[Ints, Ints]:
        """The number of a turn among those of each BigChunk, and how many these are."""
        first = np.maximum(0, ordinal - self._places + 1)
        return turn - first, ordinal - first + 1

    def _made(self, turn: int) -> tuple[Ints, Ints]:
        """Ordinal and call of the rows of a turn."""
        ordinal, calls = self._around(turn, self._places)
        part, parts = self._parts(ordinal, turn)
        low, high = calls * part // parts, calls * (part + 1) // parts
        count = high - low
        order = generator(self._seed, Purpose.ROTATION, turn, self._epoch).permutation(count.sum())
        call = np.arange(len(order)) + np.repeat(low - (np.cumsum(count) - count), count)
        return np.repeat(ordinal, count)[order], call[order]
