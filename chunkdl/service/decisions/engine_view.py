"""The engines of a group as the group sees them: where the one that runs stands, and the batches
that it and those before it have lent. Pure.

The engine makes batch after batch of the plan, from where it was begun. It is begun anew where it
cannot come to what is needed next (a member stands further back, or a batch that it had made is
gone), or would come there by many batches that nobody needs. Each one has a number; what one that
is gone says late is known by that.

A batch is lent to the group from the moment it is made until it is given back, which is as soon as

- no member reads any part of it (`Lent.readers`: deliveries out of it that are not given back), and
- no seat will get any of its rows, taken or free. While there are no seats all batches are kept, so
  the engine fills its slots and rests.

When an engine is gone its unread batches go with it. Those that are read stay in memory, as
remains, until they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from chunkdl.errors import ProtocolError
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.shares import Remainder, Rows
from chunkdl.service.decisions.actions import (
    BeginPass,
    FreeBatch,
    FreeRemains,
    ServiceAction,
    StartEngine,
)
from chunkdl.service.decisions.members import GroupFacts, Seat
from chunkdl.service.decisions.seats import Seats
from chunkdl.transport.protocol.engine_messages import BatchReady, End
from chunkdl.transport.protocol.service_messages import Delivered, Piece, Position

MOST_SKIPPED_BATCHES = 64
"""An engine that would have to make more before the first that is needed is started anew: that
takes less time than to make them."""

Key = tuple[int, int]
"""A batch of the engine: epoch and number."""


@dataclass(slots=True)
class Lent:
    """A batch of the engine, while the group has it."""

    message: BatchReady
    dropped: np.ndarray[tuple[int, ...], np.dtype[np.int32]]
    readers: int = 0


class EngineView:
    """What a group knows of its engines, and has of them.

    Args:
        facts: of the group.
        seats: what they will get is needed.
        act: takes what is to be done.
    """

    def __init__(
        self, facts: GroupFacts, seats: Seats, act: Callable[[ServiceAction], None]
    ) -> None:
        self._facts = facts
        self._seats = seats
        self._act = act
        self.number = 0
        """Of the engine that runs; 0 before the first."""
        self._runs = False
        self._ended = False
        """It has made all of the present pass."""
        self._epoch = self._next_batch = 0
        """That it makes next."""
        self._calls = 0
        self._substitutions: dict[int, int] = {}
        self._batches: dict[Key, Lent] = {}
        """Lent by the engine that runs."""
        self._remains: dict[tuple[int, int, int], Lent] = {}
        """Of engines that are gone, by engine, epoch and number; somebody reads each of them."""
        self.totals: dict[int, int] = {}
        """Rows of each pass whose end is known."""

    # ------------------------------------------------------------- what is known

    @property
    def rows(self) -> int:
        """Of the batches that are lent, about."""
        return len(self._batches) * self._facts.batch_rows

    def has(self, delivery: Delivered) -> bool:
        """Whether what was delivered is still in the memory of the engine that runs."""
        return self._runs and delivery.engine == self.number

    def total(self, seat: Seat) -> int | None:
        """Rows that there are for a seat in its pass; None: the end is not known."""
        rows = self.totals.get(seat.epoch) if self.totals else None
        return None if rows is None else seat.start.left.total(rows)

    def has_step_of(self, seat: Seat) -> bool:
        """Whether all rows of the seat's step exist, where the end of the pass is not known."""
        last = (seat.step + 1) * seat.share.step_rows
        end = seat.start.left.take(last - 1, last)[0][1]
        made = self._next_batch if self._epoch == seat.epoch else 0
        return end <= made * self._facts.batch_rows

    def position(self, left: Remainder) -> Position:
        """What is left, with what is known of the plan."""
        return Position(left, self._calls, dict(self._substitutions))

    def learn(self, position: Position) -> None:
        """What somebody who resumes knows of the plan counts until an engine says it."""
        if not self._runs:
            self._calls = self._calls or position.smallchunks_per_bigchunk
            self._substitutions = {**position.substitutions, **self._substitutions}

    # ------------------------------------------------------------------ the engine

    def lost(self) -> None:
        """It is gone with all that it had made."""
        self._part()
        self._runs = False

    def made(self, engine: int, message: BatchReady) -> bool:
        """The engine has made a batch; False: it does not run.

        Raises:
            ProtocolError: it is not the next one.
        """
        if engine != self.number or not self._runs:
            return False
        if (message.epoch, message.batch) != (self._epoch, self._next_batch):
            raise ProtocolError(f"the engine made batch {message.batch} out of turn")
        self._next_batch += 1
        self._calls = message.smallchunks_per_bigchunk
        self._substitutions = message.substitutions
        key = message.epoch, message.batch
        self._batches[key] = Lent(message, np.frombuffer(message.dropped, dtype=np.int32))
        if message.rows < self._facts.batch_rows:
            self.totals[message.epoch] = self._first(key) + message.rows
        self._free(key)
        return True

    def end(self, engine: int, message: End) -> bool:
        """The engine has made the last batch of a pass; False: it does not run."""
        if engine != self.number or not self._runs:
            return False
        self._ended = True
        self.totals.setdefault(message.epoch, message.batches * self._facts.batch_rows)
        return True

    def see_to(self) -> None:
        """Have the engine begin where it is needed, if it will not get there as it stands."""
        wanted = self._seats.wanted
        if not wanted:
            return
        epoch, row = min((seat.epoch, seat.next_row()) for seat in wanted)
        far = self._is_far(epoch, row // self._facts.batch_rows)
        if not far and not any(map(self.is_missing, wanted)):
            return
        self._part()
        self.number += 1
        self._runs, self._ended = True, False
        self._epoch, self._next_batch = epoch, row // self._facts.batch_rows
        cursor = Cursor(
            plan_hash=self._facts.plan_hash,
            seed=self._facts.seed,
            epoch=epoch,
            next_batch=self._next_batch,
            smallchunks_per_bigchunk=self._calls,
            substitutions=self._substitutions,
        )
        remains = tuple((gone, lent.message.slot) for (gone, *_), lent in self._remains.items())
        self._act(StartEngine(self._facts.name, self.number, cursor, remains))

    def see_to_pass(self) -> bool:
        """Begin the next pass where the present one is made and the next one wanted; True: another
        one is, and the engine has to be seen to."""
        if not (self._runs and self._ended):
            return False
        wanted = {seat.epoch for seat in self._seats.wanted}
        if wanted and min(wanted) > self._epoch + 1:
            return True
        if self._epoch + 1 in wanted:
            self._epoch, self._next_batch, self._ended = self._epoch + 1, 0, False
            self._act(BeginPass(self._facts.name, self._epoch))
        return False

    def _part(self) -> None:
        """The engine that runs is over; what is read of it stays until it is not."""
        for key, lent in self._batches.items():
            if lent.readers:
                self._remains[self.number, *key] = lent
        self._batches.clear()

    def _is_far(self, epoch: int, batch: int) -> bool:
        """Whether the engine would make much that nobody needs before it gets to a batch."""
        if epoch == self._epoch:
            return batch > self._next_batch + MOST_SKIPPED_BATCHES
        return epoch > self._epoch + 1 or (epoch > self._epoch and self._epoch not in self.totals)

    def is_missing(self, seat: Seat) -> bool:
        """Whether rows that a seat needs are neither here nor to come."""
        here = self._epoch, self._next_batch
        number = seat.next_row() // self._facts.batch_rows
        if not self._runs or (seat.epoch < self._epoch and seat.epoch not in self.totals):
            return True
        if (seat.epoch, number) >= here:
            return False
        # An engine that was begun behind the end of the pass has made nothing of it.
        end = self._batches_of(seat.epoch) if seat.epoch in self.totals else self._next_batch
        if seat.epoch == self._epoch:
            end = min(end, self._next_batch)
        return any(
            (seat.epoch, n) not in self._batches and self._needs(seat, (seat.epoch, n))
            for n in range(number, end)
        )

    def _batches_of(self, epoch: int) -> int:
        return -(-self.totals[epoch] // self._facts.batch_rows)

    # ------------------------------------------------------------------ the batches

    def pieces(
        self, epoch: int, rows: tuple[Rows, ...]
    ) -> tuple[tuple[Key, ...], tuple[Piece, ...]] | None:
        """The batches that rows lie in and the parts of them; None: they are not all there."""
        keys: list[Key] = []
        parts: list[Piece] = []
        size = self._facts.batch_rows
        for first, end in rows:
            edges = [first, *range((first // size + 1) * size, end, size), end]
            for low, high in pairwise(edges):
                key = epoch, low // size
                lent = self._batches.get(key)
                if lent is None:
                    return None
                start, stop = low - self._first(key), high - self._first(key)
                inside = lent.dropped[(lent.dropped >= start) & (lent.dropped < stop)] - start
                piece = Piece(lent.message.slot, start, stop - start, inside.tobytes())
                parts.append(piece)
                keys.append(key)
        return tuple(keys), tuple(parts)

    def read(self, keys: Iterable[Key]) -> None:
        """A member reads these batches."""
        for key in keys:
            self._batches[key].readers += 1

    def unread(self, delivery: Delivered, keys: Iterable[Key]) -> None:
        """A member has read what was delivered out of these batches of that engine."""
        if self.has(delivery):
            for key in keys:
                self._batches[key].readers -= 1
                self._free(key)
            return
        for epoch, number in keys:
            lent = self._remains[delivery.engine, epoch, number]
            lent.readers -= 1
            if not lent.readers:
                del self._remains[delivery.engine, epoch, number]
                self._act(FreeRemains(self._facts.name, delivery.engine, lent.message.slot))

    def free_unneeded(self) -> None:
        """Give back what nobody needs any more."""
        for key in tuple(self._batches):
            self._free(key)

    def _free(self, key: Key) -> None:
        """Give a batch back that nobody reads and nobody needs."""
        lent, seats = self._batches[key], self._seats.seats
        # Where nobody is there the engine fills its slots and rests.
        if lent.readers or not seats or any(self._needs(seat, key) for seat in seats):
            return
        del self._batches[key]
        self._act(FreeBatch(self._facts.name, self.number, *key))

    def _first(self, key: Key) -> int:
        return key[1] * self._facts.batch_rows

    def _needs(self, seat: Seat, key: Key) -> bool:
        if key[0] != seat.epoch:
            # A rank comes for its part of the next pass too; of a broadcast one may have enough.
            return key[0] > seat.epoch and not (seat.ended and self._facts.broadcast)
        rows = self._first(key), self._first(key) + self._facts.batch_rows
        return not seat.ended and seat.needs(rows, self.total(seat))
