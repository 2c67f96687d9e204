"""The two kinds of stream as the coordinator sees them: which rows, from which BigChunks, when."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence, Set
from typing import Protocol

import numpy as np
import numpy.typing as npt

from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.grid import GridPass, slide_order
from chunkdl.sampling.rotation import Rotation


class StreamRules(Protocol):
    """What a stream has to know of its configuration; see `chunkdl.engine.config.StreamConfig`."""

    @property
    def seed(self) -> int:
        """Of the plan."""

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""

    @property
    def num_bigchunks(self) -> int:
        """BigChunks open at a time."""

    @property
    def drop_last(self) -> bool:
        """Whether a pass leaves out a short batch at its end."""

    @property
    def shuffle(self) -> bool:
        """Whether each pass visits the slides in another order."""

    @property
    def most_calls(self) -> int:
        """SmallChunks of a BigChunk at most."""

    def calls_for(self, decoded_px: float) -> int:
        """SmallChunks of a BigChunk that makes so many pixels decoded, for the wished reuse."""


Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""BigChunk ordinal and call of each row of a batch."""

SURVEYED_WINDOWS = 64
"""Planned windows whose decoded area sets the SmallChunks per BigChunk for a wished reuse."""


def calls_for_reuse(config: StreamRules, decoded_px: Collection[float]) -> tuple[int, bool]:
    """The SmallChunks per BigChunk for the wished reuse, and whether a limit has lowered them.

    Args:
        config: of the stream.
        decoded_px: pixels that each surveyed window makes a loader decode.
    """
    # Exactly rounded: the order in which the answers came must not show.
    decoded = math.fsum(decoded_px) / len(decoded_px)
    calls = config.calls_for(decoded)
    return min(calls, config.most_calls), calls > config.most_calls


class RandomStream:
    """The endless stream of random positions.

    Args:
        config: of the stream.
        cursor: where it goes on.
        calls: SmallChunks per BigChunk.
    """

    def __init__(self, config: StreamRules, cursor: Cursor, calls: int) -> None:
        self._rows = config.batch_size
        self._rotation = Rotation(config.seed, config.num_bigchunks, calls)
        self._start = cursor.next_batch * self._rows
        self._ahead = Counter[int]()
        for batch in cursor.ahead:
            self._ahead.update(self.rows(batch)[0].tolist())
        self.calls = calls
        self.epoch = 0
        self.first_ordinal = self._rotation.first_needed(self._start)
        self._passed: dict[int, int] = {}
        for batch in cursor.ahead:
            between = set(range(cursor.next_batch, batch)).difference(cursor.ahead)
            for ordinal in self.closes(batch):
                left = (number for number in between if ordinal in self.rows(number)[0])
                self._passed[ordinal] = max(left, default=cursor.next_batch)

    @property
    def length(self) -> int:
        """Batches of the stream: it has no end."""
        return -1

    def rows(self, batch: int) -> Rows:
        """The rows of a batch."""
        return self._rotation.rows(batch * self._rows, self._rows)

    def knows(self, batch: int) -> bool:
        """Whether the rows of a batch are settled: always."""
        return True

    def has(self, ordinal: int) -> bool:
        """Whether there is such a BigChunk: always."""
        return True

    def ended(self, batch: int) -> bool:
        """Whether the stream is over before `batch`: never."""
        return False

    def uses(self, ordinal: int) -> int:
        """Rows that BigChunk `ordinal` still serves from the cursor on."""
        before = self._rotation.used_before(ordinal, self._start)
        return self._rotation.uses(ordinal) - before - self._ahead[ordinal]

    def next_call(self, ordinal: int) -> int:
        """The first call of BigChunk `ordinal` from the cursor on."""
        return self.first_call(ordinal) + self._rotation.used_before(ordinal, self._start)

    def first_call(self, ordinal: int) -> int:
        """The call with which BigChunk `ordinal` begins; later ones in the first generation."""
        generation, place = divmod(ordinal, self._rotation.places)
        return self._rotation.offset(place) if generation == 0 else 0

    def first_batch(self, ordinal: int) -> int:
        """The first batch that may hold rows of BigChunk `ordinal`."""
        return self._rotation.first_draw(ordinal) // self._rows

    def closes(self, batch: int) -> tuple[int, ...]:
        """The BigChunks that are delivered whole when `batch` and all before it are."""
        ordinals, calls = self.rows(batch)
        last = ordinals[calls == self.calls - 1].tolist()
        return (*last, *(ordinal for ordinal, late in self._passed.items() if late == batch))

    @property
    def passed(self) -> Set[int]:
        """The BigChunks whose last call was delivered before the cursor (relaxed order)."""
        return self._passed.keys()

    def last_batch(self, ordinal: int) -> int:
        """The last batch that holds rows of BigChunk `ordinal`, or one after it."""
        rotation = self._rotation
        end = rotation.first_draw(ordinal) + rotation.uses(ordinal) * rotation.places
        return (end - 1) // self._rows


class GridStream:
    """One finite pass over the grid positions; grows as slides are surveyed.

    Args:
        config: of the stream.
        cursor: where it goes on.
        slides: number of slides of the dataset.
        epoch: number of the pass.
    """

    def __init__(self, config: StreamRules, cursor: Cursor, slides: int, epoch: int) -> None:
        self._batch_rows = config.batch_size
        self._drop_last = config.drop_last
        self._cursor = cursor
        order = slide_order(config.seed, epoch if config.shuffle else 0, slides)
        self._pass = GridPass(order.tolist())
        self.calls = 0
        self.epoch = epoch
        self.first_ordinal = 0

    @property
    def unsurveyed(self) -> tuple[int, ...]:
        """Slides whose positions are not known yet, in the order in which they are needed."""
        return self._pass.upcoming

    @property
    def windows(self) -> int:
        """BigChunks known so far."""
        return self._pass.windows

    def add(self, counts: Sequence[int]) -> None:
        """Record the positions per window of the first unsurveyed slide."""
        self._pass.add(counts)

    def source(self, ordinal: int) -> tuple[int, int]:
        """Slide and window of a BigChunk."""
        return self._pass.source(ordinal)

    @property
    def _complete(self) -> bool:
        return self._pass.next_slide is None

    def _row_end(self) -> int:
        """One past the last row that will be delivered, of those known."""
        full = self._pass.rows // self._batch_rows * self._batch_rows
        return self._pass.rows if self._complete and not self._drop_last else full

    def batches(self) -> int:
        """Batches known so far; all of them once every slide is surveyed."""
        return -(-self._row_end() // self._batch_rows)

    @property
    def length(self) -> int:
        """Batches of the pass; -1 while slides are not surveyed."""
        return self.batches() if self._complete else -1

    def rows(self, batch: int) -> Rows:
        """The rows of a batch that `knows` says yes to; the last one may be short."""
        first = batch * self._batch_rows
        return self._pass.ordinals(first, min(self._batch_rows, self._row_end() - first))

    def knows(self, batch: int) -> bool:
        """Whether the rows of a batch are settled."""
        return batch < self.batches()

    def has(self, ordinal: int) -> bool:
        """Whether BigChunk `ordinal` is known."""
        return ordinal < self._pass.windows

    def ended(self, batch: int) -> bool:
        """Whether the pass is over before `batch`."""
        return self._complete and batch >= self.batches()

    def uses(self, ordinal: int) -> int:
        """Rows that BigChunk `ordinal` serves from the cursor on; at most, until all is known."""
        first, last = self._pass.span(ordinal)
        if self._complete:
            last = min(last, self._row_end())
        start = self._cursor.next_batch * self._batch_rows
        left = max(0, last - max(first, start))
        for batch in self._cursor.ahead:
            low = batch * self._batch_rows
            left -= max(0, min(last, low + self._batch_rows) - max(first, low))
        return left
