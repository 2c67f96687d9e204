"""A stream without replacement: every position of a slide once in each of its cycles.

`WindowOrder` says which window the next BigChunk is, and `Turns` which of them a row is of. Both
are computed from the positions per window of the slides, which become known one after the other. So
a state is the number of a batch, as in the other streams, and which slides gave nothing: what goes
on from it is told the same of the slides, and plans the BigChunks before it once more. A slide that
gave rows and cannot be read when that is done is `missing`; without it other rows would come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set

import numpy as np

from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.cycles import Part, WindowOrder, patient_weights
from chunkdl.sampling.streams import RowPlan, Source, Stream, StreamRules
from chunkdl.sampling.turns import Turns

KEPT_BATCHES = 1024
"""Before the last one that was asked for: as many may be planned whose BigChunks are not loaded."""
SPARE = 8192
"""BigChunks that are forgotten together, at least; more than can be open at a time."""


class CycleStream(Stream):
    """One pass of some cycles of each slide, or cycles without end.

    Args:
        config: of the stream.
        cursor: where it goes on.
        slides_of_patient: slides of each patient; patients have equal weights.
        epoch: number of the pass, where there are passes.
    """

    def __init__(
        self,
        config: StreamRules,
        cursor: Cursor,
        slides_of_patient: Sequence[Sequence[int]],
        epoch: int,
    ) -> None:
        self._batch_rows = config.batch_size
        self._drop_last = config.drop_last
        self._ahead = cursor.ahead
        self._start = cursor.next_batch * self._batch_rows
        last = cursor.ahead[-1] + 1 if cursor.ahead else cursor.next_batch
        self._known_until = last * self._batch_rows
        self._used_ahead: Counter[int] | None = None
        self.has_passes = config.cycles is not None
        self.may_replace = False
        self.calls = 0
        self.epoch = epoch if self.has_passes else 0
        weights = patient_weights(slides_of_patient)
        self._order = WindowOrder(config.seed, weights, config.cycles, self.epoch)
        self._places = config.num_bigchunks
        self._turns = Turns(config.seed, self._places, self.epoch)
        self._parts: list[Part] = []
        self._first_needed: int | None = None
        self._left_out: dict[int, int] = {}
        self._before = cursor.substitutions
        for slide in self._before:
            # Others are of no stream of these slides, whatever a consumer of a service says.
            if slide < len(weights):
                self._order.know(slide, ())

    # ------------------------------------------------------------------ planning

    def _plan(self) -> bool:
        """Plan one BigChunk more; False: a slide has to be surveyed first, or there are no more."""
        while (slide := self._order.turn) is not None and self._order.has_none(slide):
            if self._gave_rows_by_now and slide not in self._before:
                self.missing = slide
                return False
            self._left_out[slide] = 0
            self._order.leave_out(slide)
        if slide is None or not self._order.knows(slide):
            self._turns.is_complete = slide is None
            if slide is None and not self.has_passes:
                # All that are left were said to have none.
                self.missing = min(self._before, default=0)
            return False
        part = self._order.take()
        self._turns.add(part.rows)
        self._turns.is_complete = self._turns.total == self._order.total
        self._parts.append(part)
        if len(self._parts) >= 2 * SPARE and self._turns.total <= self._start:
            # All of it was delivered before.
            self._forget(self._turns.known - SPARE)
        return True

    @property
    def _gave_rows_by_now(self) -> bool:
        """Whether the next BigChunk has rows before the cursor, or one ahead of it."""
        turn = self._turns.first_turn(self._turns.known)
        return turn <= self._turns.known and self._turns.before(turn) < self._known_until

    @property
    def left_out(self) -> Mapping[int, int]:
        """The slides that have no position, each with a 0."""
        return self._left_out

    def _forget(self, ordinal: int) -> None:
        del self._parts[: ordinal - self._turns.base]
        self._turns.forget(ordinal)

    def _settles(self, row: int) -> bool:
        """Plan until all rows below one are known; False: that cannot be now."""
        total = self._order.total
        row = row if total is None else min(row, total)
        while self._turns.settled < row:
            if not self._plan() and self._turns.settled < row:
                return False
        return True

    @property
    def first_ordinal(self) -> int:
        """The first BigChunk that is needed from the cursor on; 0 while that is not known."""
        if self._first_needed is None and self._settles(self._known_until):
            self._first_needed = self._turns.turn_of(self._start)
        return self._first_needed or 0

    @property
    def unsurveyed(self) -> tuple[int, ...]:
        """Slides whose positions have to be counted first, in the order of need."""
        return self._order.unsurveyed

    def add(self, counts: Sequence[int]) -> None:
        """Record the positions per window of the first unsurveyed slide."""
        self._order.add(counts)

    def has(self, ordinal: int) -> bool:
        """Whether BigChunk `ordinal`, and what the cursor leaves of it, is known."""
        if not self._settles(self._known_until):
            return False
        while self._turns.known <= ordinal:
            if not self._plan():
                return False
        return True

    def knows(self, batch: int) -> bool:
        """Whether the rows of a batch are settled."""
        length = self.length
        if length >= 0 and batch >= length:
            return False
        return self._settles((batch + 1) * self._batch_rows)

    # ------------------------------------------------------------------- batches

    @property
    def _row_end(self) -> int | None:
        """One past the last row that will be delivered; None where that is not known."""
        total = self._order.total
        if total is None or not self._drop_last:
            return total
        return total // self._batch_rows * self._batch_rows

    @property
    def length(self) -> int:
        """Batches of the pass; -1 while slides are not surveyed, and without end."""
        end = self._row_end
        return -1 if end is None else -(-end // self._batch_rows)

    def ended(self, batch: int) -> bool:
        """Whether the pass is over before `batch`."""
        length = self.length
        return length >= 0 and batch >= length

    def rows(self, batch: int) -> RowPlan:
        """The rows of a batch that `knows` says yes to; the last one may be short."""
        first, end = batch * self._batch_rows, self._row_end
        count = self._batch_rows if end is None else min(self._batch_rows, end - first)
        found = self._turns.rows(first, count)
        oldest = max(self._start, first - KEPT_BATCHES * self._batch_rows)
        if len(self._parts) >= 2 * SPARE:
            self._forget(self._turns.turn_of(oldest))
        return found

    def source(self, ordinal: int) -> Source:
        """Slide, cycle, window and positions of a BigChunk."""
        part = self._parts[ordinal - self._turns.base]
        return Source(part.slide, part.window, part.rows, part.cycle, part.first)

    # ----------------------------------------------------------------- BigChunks

    def uses(self, ordinal: int) -> int:
        """Rows that BigChunk `ordinal` serves from the cursor on; at most, until all is known."""
        if ordinal < self._turns.base:
            return 0
        if self._used_ahead is None:
            self._used_ahead = Counter()
            for batch in self._ahead:
                self._used_ahead.update(self.rows(batch)[0].tolist())
        before = self._turns.used_before(ordinal, self._start)
        return self._delivered_of(ordinal) - before - self._used_ahead[ordinal]

    def _delivered_of(self, ordinal: int) -> int:
        """Calls of a BigChunk before the end of the pass; at most, until all is known."""
        row_end = self._row_end
        if row_end is None:
            return self._turns.size(ordinal)
        # It is over before so many BigChunks behind it are; then little is left to be planned.
        while self._turns.known <= ordinal + self._places or self._turns.total > row_end:
            if not self._plan():
                return self._turns.used_before(ordinal, row_end)
        return self._turns.size(ordinal)

    def first_call(self, ordinal: int) -> int:
        """Each BigChunk is served from its first position on."""
        return 0

    def next_call(self, ordinal: int) -> int:
        """The first call that is not behind the cursor."""
        return self._turns.used_before(ordinal, self._start)

    def first_batch(self, ordinal: int) -> int:
        """The first batch that may hold rows of BigChunk `ordinal`."""
        return self._turns.before(self._turns.first_turn(ordinal)) // self._batch_rows

    def last_batch(self, ordinal: int) -> int:
        """The last batch that holds rows of BigChunk `ordinal`, as far as BigChunks are known."""
        return (self._turns.before(ordinal + 1) - 1) // self._batch_rows

    def closes(self, batch: int) -> tuple[int, ...]:
        """The BigChunks whose last row is in the batch."""
        found = np.unique(self.rows(batch)[0]).tolist()
        return tuple(ordinal for ordinal in found if self.last_batch(ordinal) == batch)

    @property
    def passed(self) -> Set[int]:
        """None: no policy chooses here."""
        return frozenset()
