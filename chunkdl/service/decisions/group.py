"""A group of consumers of one stream: who gets which rows, and how long a batch is kept for them.

An engine (an embedded service) makes batches in the order of the plan and lends them to the group.
The group cuts its members' batches out of them, as far as their credit goes, and gives a batch
back when nobody needs it and nobody reads it any more. Because every row is a function of the plan,
the engine can begin anywhere at any time: after a crash, for a member that stands further back, or
for other ranks. Pure: events in, actions out.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import pairwise

import numpy as np

from chunkdl.errors import ProtocolError
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.shares import Remainder, Rows
from chunkdl.service.decisions.actions import (
    BeginPass,
    Deliver,
    FreeBatch,
    FreeRemains,
    ServiceAction,
    StartEngine,
    Tell,
)
from chunkdl.service.decisions.engine_view import EngineView, Lent
from chunkdl.service.decisions.members import GroupFacts, Member, Seat
from chunkdl.service.decisions.seats import Seats
from chunkdl.transport.protocol.credit import Credit
from chunkdl.transport.protocol.engine_messages import BatchReady, End
from chunkdl.transport.protocol.service_messages import (
    Delivered,
    Detached,
    Join,
    PassEnded,
    Piece,
    Position,
)

MOST_SKIPPED_BATCHES = 64
"""An engine that would have to make more before the first that is needed is started anew: that
takes less time than to make them."""


class Group:
    """The members of a group and the batches that it has.

    Args:
        facts: fixed.
        start: where the group stands before anybody has joined.
    """

    def __init__(self, facts: GroupFacts, start: Position) -> None:
        self.facts = facts
        self.members: dict[str, Member] = {}
        self._seats = Seats(facts, start)
        self._engine = EngineView()
        self._batches: dict[tuple[int, int], Lent] = {}
        self._remains: dict[tuple[int, int, int], Lent] = {}
        """Batches of engines that are gone, by engine, epoch and number, that somebody reads."""
        self._totals: dict[int, int] = {}
        self._blocked_since: float | None = None
        self._blocked = False
        self._actions: list[ServiceAction] = []
        self.delivered = 0
        """Batches that were sent to members."""

    @property
    def engine(self) -> int:
        """Number of the engine that runs; 0 before the first."""
        return self._engine.number

    @property
    def absent(self) -> list[Seat]:
        """The seats of ranks that are not there, and for which there is something left."""
        return [seat for seat in self._seats.wanted if not seat.owner]

    @property
    def is_full(self) -> bool:
        """Whether nothing more is made before somebody is sent, or gives back, what there is."""
        return self._blocked or len(self._batches) * self.facts.batch_rows >= self.facts.most_rows

    def take(self) -> list[ServiceAction]:
        """The actions since the last call."""
        actions, self._actions = self._actions, []
        return actions

    # ------------------------------------------------------------------- members

    def join(self, session: str, join: Join, credit: Credit) -> Seat:
        """A consumer becomes a member.

        Raises:
            ProtocolError: it cannot be one; the message says why and what to do.
        """
        self.check(join)
        position = join.position
        if self.facts.broadcast:
            seat = self._seats.own(join, self._is_missing)
        else:
            seat = self._seats.rank(join, self._totals)
        # If nothing is left of the pass, it is told so too.
        seat.owner, seat.ended, seat.came = session, False, True
        self.members[session] = Member(seat, credit)
        if position is not None:
            self._learn(position.smallchunks_per_bigchunk, position.substitutions)
        self._see_to_engine()
        self._free_unneeded()
        self._advance()
        return seat

    def check(self, join: Join, without: Container[str] = ()) -> None:
        """See that a consumer fits in once these sessions are gone; raises as `join`."""
        position = join.position
        if position is not None and not (position.left.is_sound() and join.step >= 0):
            raise ProtocolError("the position that it wants to go on from is none")
        if position is not None and not self.facts.finite and position.left.epoch:
            raise ProtocolError("an endless stream has no passes")
        if not self.facts.broadcast:
            self._seats.check(join, without)

    def _learn(self, calls: int, substitutions: dict[int, int]) -> None:
        if not self._engine.runs:
            self._engine.calls = self._engine.calls or calls
            self._engine.substitutions = {**substitutions, **self._engine.substitutions}

    def yields_to(self, join: Join, without: Container[str]) -> list[str]:
        """The members, but for these, that have used nothing yet and stand in the way of a rank
        that resumes.
        """
        others = {name: one for name, one in self.members.items() if name not in without}
        unused = not any(member.used for member in others.values())
        return list(others) if unused and self._seats.in_the_way(join, without) else []

    def position(self) -> Position:
        """What is left for those who come when nobody is there."""
        left = self._seats.position(self._totals).left
        return Position(left, self._engine.calls, dict(self._engine.substitutions))

    def leave(self, session: str, went_on: tuple[int, int] | None, *, gone: bool) -> None:
        """A member leaves its seat.

        Args:
            session: of the member.
            went_on: epoch and step that it would have wanted next; None: it cannot say, and what
                it had not given back counts as not delivered.
            gone: nobody reads its batches any more; False: it may still do so.
        """
        member = self.members.pop(session)
        seat = member.seat
        seat.owner = ""
        unread = (d.step for d in member.held.values() if d.epoch == seat.epoch)
        back = min(unread, default=seat.step)
        if went_on is not None and went_on[0] == seat.epoch:
            back = min(max(back, went_on[1]), seat.step)
        if back < seat.step and (went_on is None or went_on[0] <= seat.epoch):
            seat.step, seat.ended = back, False
        if self.facts.broadcast:
            self._seats.seats.remove(seat)
            self._see_to_engine()
        if gone:
            self.gone(member)
        self._free_unneeded()
        self._advance()

    def gone(self, member: Member) -> None:
        """Nobody reads the batches of somebody who has left any more."""
        for delivery in tuple(member.held.values()):
            self._unread(member, delivery)
        self._free_unneeded()

    def release(self, session: str, numbers: tuple[int, ...]) -> None:
        """A member has given batches back.

        Raises:
            ProtocolError: it does not have one of them; nothing was given back.
        """
        member = self.members[session]
        if len(set(numbers)) != len(numbers) or not set(numbers) <= member.held.keys():
            raise ProtocolError("a batch was released that is not out")
        member.used |= bool(numbers)
        for number in numbers:
            self._unread(member, member.held[number])
        # For the others nothing has changed, unless this one takes a step.
        if member.flows and self._send_next(session, member):
            self._advance()

    def _unread(self, member: Member, delivery: Delivered) -> None:
        size = sum(piece.rows for piece in delivery.pieces) * self.facts.row_bytes
        member.credit.give_back(size)
        keys = member.give_back(delivery.number)
        if self._engine.has(delivery):
            for key in keys:
                self._batches[key].readers -= 1
                self._free(key)
            return
        for epoch, number in keys:
            lent = self._remains[delivery.engine, epoch, number]
            lent.readers -= 1
            if not lent.readers:
                del self._remains[delivery.engine, epoch, number]
                slot = lent.message.slot
                self._actions.append(FreeRemains(self.facts.name, delivery.engine, slot))

    def set_flow(self, session: str, *, flows: bool) -> None:
        """Send a member batches, or none for now."""
        self.members[session].flows = flows
        self._advance()

    def next_pass(self, session: str, epoch: int) -> None:
        """A member wants the next pass, whether it has had all of the present one or not.

        Raises:
            ProtocolError: it is not the next one.
        """
        seat = self.members[session].seat
        if not self.facts.finite or epoch != seat.epoch + 1:
            raise ProtocolError(f"pass {epoch} was asked for out of turn")
        seat.start, seat.step, seat.ended = Position(Remainder(epoch)), 0, False
        self._see_to_engine()
        self._free_unneeded()
        self._advance()

    def repeat(self, session: str, expected: tuple[int, int], held: frozenset[int]) -> None:
        """A member was away and comes back: send again what it has not got.

        Args:
            session: of the member.
            expected: epoch and step that it wants next.
            held: the deliveries that it still has.
        """
        member = self.members[session]
        seat, lost = member.seat, member.seat.step
        for number, delivery in sorted(member.held.items()):
            if number in held:
                continue
            late = delivery.epoch == seat.epoch and (delivery.epoch, delivery.step) >= expected
            if late and self._engine.has(delivery) and lost == seat.step:
                self._actions.append(Deliver(self.facts.name, session, delivery))
                continue
            if late:
                # Its engine is gone; it is cut anew, and what follows with it.
                lost = min(lost, delivery.step)
            self._unread(member, delivery)
        if lost < seat.step:
            seat.step, seat.ended = lost, False
            self._see_to_engine()
        elif seat.ended:
            self._actions.append(Tell(session, self._ended(seat)))
        self._advance()

    # -------------------------------------------------------------------- engine

    def engine_lost(self) -> None:
        """The engine is gone with all that it had made; another begins where it is needed."""
        self._part()
        self._engine.runs = False
        self._see_to_engine()

    def batch(self, engine: int, message: BatchReady) -> None:
        """The engine has made a batch."""
        state = self._engine
        if engine != state.number or not state.runs:
            return
        if (message.epoch, message.batch) != (state.epoch, state.next_batch):
            raise ProtocolError(f"the engine made batch {message.batch} out of turn")
        state.next_batch += 1
        state.calls = message.smallchunks_per_bigchunk
        state.substitutions = message.substitutions
        key = message.epoch, message.batch
        self._batches[key] = Lent(message, np.frombuffer(message.dropped, dtype=np.int32))
        if message.rows < self.facts.batch_rows:
            self._totals[message.epoch] = self._first(key) + message.rows
        self._free(key)
        self._advance()

    def end(self, engine: int, message: End) -> None:
        """The engine has made the last batch of a pass."""
        if engine == self._engine.number and self._engine.runs:
            self._engine.ended = True
            self._totals.setdefault(message.epoch, message.batches * self.facts.batch_rows)
            self._advance()

    def _see_to_engine(self) -> None:
        """Have the engine begin where it is needed, if it will not get there as it stands."""
        wanted = self._seats.wanted
        if not self.members or not wanted:
            return
        epoch, row = min((seat.epoch, seat.next_row()) for seat in wanted)
        state, far = self._engine, self._is_far(epoch, row // self.facts.batch_rows)
        if not far and not any(map(self._is_missing, wanted)):
            return
        self._part()
        state.number += 1
        state.runs, state.ended = True, False
        state.epoch, state.next_batch = epoch, row // self.facts.batch_rows
        cursor = Cursor(
            plan_hash=self.facts.plan_hash,
            seed=self.facts.seed,
            epoch=epoch,
            next_batch=state.next_batch,
            smallchunks_per_bigchunk=state.calls,
            substitutions=state.substitutions,
        )
        remains = tuple((gone, lent.message.slot) for (gone, *_), lent in self._remains.items())
        self._actions.append(StartEngine(self.facts.name, state.number, cursor, remains))

    def _part(self) -> None:
        """The engine that runs is over; what is read of it stays until it is not."""
        for key, lent in self._batches.items():
            if lent.readers:
                self._remains[self._engine.number, *key] = lent
        self._batches.clear()

    def _is_far(self, epoch: int, batch: int) -> bool:
        """Whether the engine would make much that nobody needs before it gets to a batch."""
        state = self._engine
        if epoch == state.epoch:
            return batch > state.next_batch + MOST_SKIPPED_BATCHES
        return epoch > state.epoch + 1 or (epoch > state.epoch and state.epoch not in self._totals)

    def _is_missing(self, seat: Seat) -> bool:
        """Whether rows that a seat needs are neither here nor to come."""
        state = self._engine
        here = state.epoch, state.next_batch
        number = seat.next_row() // self.facts.batch_rows
        if not state.runs or (seat.epoch < state.epoch and seat.epoch not in self._totals):
            return True
        if (seat.epoch, number) >= here:
            return False
        # An engine that was begun behind the end of the pass has made nothing of it.
        end = self._batches_of(seat.epoch) if seat.epoch in self._totals else state.next_batch
        if seat.epoch == state.epoch:
            end = min(end, state.next_batch)
        return any(
            (seat.epoch, n) not in self._batches and self._needs(seat, (seat.epoch, n))
            for n in range(number, end)
        )

    def _batches_of(self, epoch: int) -> int:
        return -(-self._totals[epoch] // self.facts.batch_rows)

    # ------------------------------------------------------------------ delivery

    def _advance(self) -> None:
        """Send what can be sent."""
        self._blocked = False
        busy = True
        while busy:
            busy = False
            # In turn, so that no member gets all of what the others need too.
            for session, member in tuple(self.members.items()):
                busy |= member.flows and self._send_next(session, member)
        state = self._engine
        if not (state.runs and state.ended):
            return
        wanted = {seat.epoch for seat in self._seats.wanted}
        if wanted and min(wanted) > state.epoch + 1:
            self._see_to_engine()
        elif state.epoch + 1 in wanted:
            state.epoch, state.next_batch, state.ended = state.epoch + 1, 0, False
            self._actions.append(BeginPass(self.facts.name, state.epoch))

    def _send_next(self, session: str, member: Member) -> bool:
        seat = member.seat
        if seat.ended or not member.credit.available:
            return False
        total = self._total(seat)
        if self.facts.finite and total is None and not self._is_full(seat):
            return False
        cut = seat.cut(total, drop_last=self.facts.drop_last)
        if not cut.rows:
            seat.ended = True
            self._actions.append(Tell(session, self._ended(seat)))
            self._free_unneeded()
            return True
        pieces = self._pieces(seat.epoch, cut.rows)
        if pieces is None:
            return False
        size = sum(end - first for first, end in cut.rows) * self.facts.row_bytes
        if not member.credit.covers(size):
            return False
        if self.facts.broadcast and self._is_too_far(seat, cut.rows[-1][1]):
            self._blocked = True
            return False
        keys, parts = pieces
        number, step = member.next_number, seat.step
        seat.step += 1
        after = self.stands(seat)
        delivery = Delivered(number, seat.epoch, step, self._engine.number, parts, after)
        member.credit.spend(size)
        member.lend(delivery, keys)
        for key in keys:
            self._batches[key].readers += 1
        self.delivered += 1
        self._actions.append(Deliver(self.facts.name, session, delivery))
        return True

    def stands(self, seat: Seat) -> Position:
        """Where everybody stands who has had as many steps as this seat."""
        left = seat.share.after(seat.start.left, seat.step, self._total(seat))
        return Position(left, self._engine.calls, dict(self._engine.substitutions))

    def _total(self, seat: Seat) -> int | None:
        rows = self._totals.get(seat.epoch) if self._totals else None
        return None if rows is None else seat.start.left.total(rows)

    def _is_full(self, seat: Seat) -> bool:
        """Whether all rows of the seat's step exist, where the end of the pass is not known."""
        last = (seat.step + 1) * seat.share.step_rows
        end = seat.start.left.take(last - 1, last)[0][1]
        made = self._engine.next_batch if self._engine.epoch == seat.epoch else 0
        return end <= made * self.facts.batch_rows

    def _pieces(
        self, epoch: int, rows: tuple[Rows, ...]
    ) -> tuple[tuple[tuple[int, int], ...], tuple[Piece, ...]] | None:
        """The batches that rows lie in and the parts of them; None: they are not all there."""
        keys: list[tuple[int, int]] = []
        parts: list[Piece] = []
        size = self.facts.batch_rows
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

    def _is_too_far(self, seat: Seat, end: int) -> bool:
        """Whether a seat of a broadcast would be further ahead of the slowest than it may."""
        most = max(self.facts.max_lag_batches * self.facts.batch_rows, seat.share.batch_rows)
        others = (other for other in self._seats.wanted if other is not seat)
        return any(
            other.epoch < seat.epoch
            or (other.epoch == seat.epoch and end > other.next_row() + most)
            for other in others
        )

    def _ended(self, seat: Seat) -> PassEnded:
        cut = seat.cut(self._total(seat), drop_last=self.facts.drop_last)
        return PassEnded(seat.epoch, seat.step, cut.left_out)

    def tick(self, now_s: float) -> dict[str, Detached]:
        """Who has kept the others waiting for too long and is to leave, and what to tell it."""
        if not self._blocked or not self.facts.detach:
            self._blocked_since = None
            return {}
        if self._blocked_since is None:
            self._blocked_since = now_s
        if now_s - self._blocked_since < self.facts.patience_s:
            return {}
        self._blocked_since = None
        slowest = min((seat.epoch, seat.next_row()) for seat in self._seats.wanted)
        reason = (
            f"it was more than {self.facts.max_lag_batches} batches behind the others of group "
            f"{self.facts.name} for {self.facts.patience_s:g} s; raise max_lag_batches, or "
            'choose laggard = "block"'
        )
        return {
            session: Detached(reason)
            for session, member in self.members.items()
            if not member.seat.ended and (member.seat.epoch, member.seat.next_row()) == slowest
        }

    # -------------------------------------------------------------------- memory

    def _first(self, key: tuple[int, int]) -> int:
        return key[1] * self.facts.batch_rows

    def _needs(self, seat: Seat, key: tuple[int, int]) -> bool:
        if key[0] != seat.epoch:
            # A rank comes for its part of the next pass too; of a broadcast one may have enough.
            return key[0] > seat.epoch and not (seat.ended and self.facts.broadcast)
        rows = self._first(key), self._first(key) + self.facts.batch_rows
        return not seat.ended and seat.needs(rows, self._total(seat))

    def _free_unneeded(self) -> None:
        for key in tuple(self._batches):
            self._free(key)

    def _free(self, key: tuple[int, int]) -> None:
        """Give a batch back that nobody reads and nobody needs."""
        lent, seats = self._batches[key], self._seats.seats
        # Where nobody is there the engine fills its slots and rests.
        if lent.readers or not seats or any(self._needs(seat, key) for seat in seats):
            return
        del self._batches[key]
        self._actions.append(FreeBatch(self.facts.name, self._engine.number, *key))
