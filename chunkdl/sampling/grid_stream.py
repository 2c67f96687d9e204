"""The stream of a pass over a grid, as the coordinator sees it."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.grid_pass import GridPass, slide_order
from chunkdl.sampling.streams import RowPlan, Source, Stream, StreamRules


class GridStream(Stream):
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
        order: Sequence[int] = range(slides)
        if not config.in_order:
            order = slide_order(config.seed, epoch if config.shuffle else 0, slides).tolist()
        self._pass = GridPass(order)
        self.calls = 0
        self.epoch = epoch
        self.may_replace, self.has_passes = False, True

    @property
    def unsurveyed(self) -> tuple[int, ...]:
        """Slides whose positions are not known yet, in the order in which they are needed."""
        return self._pass.upcoming

    @property
    def first_ordinal(self) -> int:
        """The first of all; those that serve no row from the cursor on are passed over."""
        return 0

    @property
    def windows(self) -> int:
        """BigChunks known so far."""
        return self._pass.windows

    def add(self, counts: Sequence[int]) -> None:
        """Record the positions per window of the first unsurveyed slide."""
        self._pass.add(counts)

    def source(self, ordinal: int) -> Source:
        """Slide and window of a BigChunk."""
        return Source(*self._pass.source(ordinal))

    def first_call(self, ordinal: int) -> int:
        """Each window is served from its first position on."""
        return 0

    def next_call(self, ordinal: int) -> int:
        """The first position that is not behind the cursor."""
        first, last = self._pass.span(ordinal)
        start = self._cursor.next_batch * self._batch_rows
        return min(max(start, first), last) - first

    def first_batch(self, ordinal: int) -> int:
        """The batch of its first position."""
        return self._pass.span(ordinal)[0] // self._batch_rows

    def last_batch(self, ordinal: int) -> int:
        """The batch of its last position."""
        return (self._pass.span(ordinal)[1] - 1) // self._batch_rows

    def closes(self, batch: int) -> tuple[int, ...]:
        """The windows whose last position is in the batch."""
        found = np.unique(self.rows(batch)[0]).tolist()
        return tuple(ordinal for ordinal in found if self.last_batch(ordinal) == batch)

    @property
    def passed(self) -> Set[int]:
        """None: a pass goes on behind its last batch."""
        return frozenset()

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

    def rows(self, batch: int) -> RowPlan:
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
