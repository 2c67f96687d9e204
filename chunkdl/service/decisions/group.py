"""A group of consumers of one stream: who gets which rows, and how long a batch is kept for them.

Engines (embedded services) make batches in the order of the plan and lend them to the group
(`EngineView`). The group cuts its members' batches out of them, as far as their credit goes.
Because every row is a function of the plan, an engine can begin anywhere at any time: after a
crash, for a member that stands further back, or for other ranks. Pure: events in, actions out.

Theory
------
A group has *seats* (`Seats`): in a shard group one for every rank, there or not; in a broadcast one
for every member. A seat is a share of what is left from its start on, and the step that it gets
next; both together are a row of the plan. A *member* sits on a seat as long as its session lasts,
and has credit and the deliveries that it has not given back.

========================  =======================================================================
What happens              What follows
========================  =======================================================================
`join`                    a seat has an owner; the engine is begun where rows of it are missing
`leave`                   the seat is free and stands where the member says that it had come, or
                          before the first delivery that it had not given back; of a broadcast it
                          is gone
`release`                 credit and, when nobody reads or needs them, batches are given back
`set_flow`                a member that is silent, paused or has no way for bytes is sent nothing
`next_pass`               the seat begins the next pass, also where the present one is not over
`repeat`                  what a member that comes back has not got is sent again, or, where its
                          engine is gone, cut anew: the seat goes back to that step
`batch`, `end`            there is more to send, or the length of the pass is known
`engine_lost`             another is begun where the first of the seats stands
`tick`                    who has kept a broadcast waiting for too long is sent away
========================  =======================================================================

Whatever can be sent after that is sent, in turn (`_advance`). What always holds:

- A seat is sent its steps one after the other, each once, but for those it was set back to.
- Rows of a shard group go to exactly one seat, and the same rows to it whatever the others do.
- The engine stands where it will make all that any seat needs and that is not here (`see_to`).
- A batch is kept while a member reads it or any seat will need it, and no longer.
- In a broadcast no seat is further than `max_lag_batches` ahead of the slowest that is not at the
  end of its pass.
"""

from __future__ import annotations

from collections.abc import Container

from chunkdl.errors import ProtocolError
from chunkdl.sampling.shares import Remainder
from chunkdl.service.decisions.actions import (
    Deliver,
    ServiceAction,
    Tell,
)
from chunkdl.service.decisions.engine_view import EngineView
from chunkdl.service.decisions.members import GroupFacts, Member, Seat
from chunkdl.service.decisions.seats import Seats
from chunkdl.transport.protocol.credit import Credit
from chunkdl.transport.protocol.engine_messages import BatchReady, End
from chunkdl.transport.protocol.service_messages import (
    Delivered,
    Detached,
    Join,
    PassEnded,
    Position,
)


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
        self._actions: list[ServiceAction] = []
        self._engine = EngineView(facts, self._seats, self._actions.append)
        self._blocked_since: float | None = None
        self._blocked = False
        """Somebody is not sent what is there, for it would be too far ahead."""
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
        return self._blocked or self._engine.rows >= self.facts.most_rows

    def take(self) -> list[ServiceAction]:
        """The actions since the last call."""
        # The engine's view appends to the same list.
        actions = self._actions.copy()
        self._actions.clear()
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
            seat = self._seats.own(join, self._engine.is_missing)
        else:
            seat = self._seats.rank(join, self._engine.totals)
        # If nothing is left of the pass, it is told so too.
        seat.owner, seat.ended, seat.came = session, False, True
        self.members[session] = Member(seat, credit)
        if position is not None:
            self._engine.learn(position)
        self._see_to_engine()
        self._engine.free_unneeded()
        self._advance()
        return seat

    def check(self, join: Join, without: Container[str] = ()) -> None:
        """See that a consumer fits in once these sessions are gone; raises as `join`."""
        position = join.position
        if position is not None and not (position.left.is_sound() and join.step >= 0):
            raise ProtocolError("the position that the consumer wants to go on from is invalid")
        if position is not None and not self.facts.finite and position.left.epoch:
            raise ProtocolError("an endless stream has no passes")
        if not self.facts.broadcast:
            self._seats.check(join, without)

    def yields_to(self, join: Join, without: Container[str]) -> list[str]:
        """The members, but for these, that have used nothing yet and stand in the way of a rank
        that resumes.
        """
        others = {name: one for name, one in self.members.items() if name not in without}
        unused = not any(member.used for member in others.values())
        return list(others) if unused and self._seats.in_the_way(join, without) else []

    def position(self) -> Position:
        """What is left for those who come when nobody is there."""
        return self._engine.position(self._seats.position(self._engine.totals).left)

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
        self._engine.free_unneeded()
        self._advance()

    def gone(self, member: Member) -> None:
        """Nobody reads the batches of somebody who has left any more."""
        for delivery in tuple(member.held.values()):
            self._unread(member, delivery)
        self._engine.free_unneeded()

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
        self._engine.unread(delivery, member.give_back(delivery.number))

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
        self._engine.free_unneeded()
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
        self._engine.lost()
        self._see_to_engine()

    def batch(self, engine: int, message: BatchReady) -> None:
        """The engine has made a batch."""
        if self._engine.made(engine, message):
            self._advance()

    def end(self, engine: int, message: End) -> None:
        """The engine has made the last batch of a pass."""
        if self._engine.end(engine, message):
            self._advance()

    def _see_to_engine(self) -> None:
        # For nobody none is begun.
        if self.members:
            self._engine.see_to()

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
        if self._engine.see_to_pass():
            self._see_to_engine()

    def _send_next(self, session: str, member: Member) -> bool:
        seat = member.seat
        if seat.ended or not member.credit.available:
            return False
        total = self._engine.total(seat)
        if self.facts.finite and total is None and not self._engine.has_step_of(seat):
            return False
        cut = seat.cut(total, drop_last=self.facts.drop_last)
        if not cut.rows:
            seat.ended = True
            self._actions.append(Tell(session, self._ended(seat)))
            self._engine.free_unneeded()
            return True
        pieces = self._engine.pieces(seat.epoch, cut.rows)
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
        self._engine.read(keys)
        self.delivered += 1
        self._actions.append(Deliver(self.facts.name, session, delivery))
        return True

    def stands(self, seat: Seat) -> Position:
        """Where everybody stands who has had as many steps as this seat."""
        total = self._engine.total(seat)
        return self._engine.position(seat.share.after(seat.start.left, seat.step, total))

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
        cut = seat.cut(self._engine.total(seat), drop_last=self.facts.drop_last)
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
