"""The seats of a group: who may take which, and what is left when all have gone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from chunkdl.errors import ProtocolError
from chunkdl.sampling.shares import Remainder, Share, undelivered
from chunkdl.service.decisions.members import GroupFacts, Seat
from chunkdl.transport.protocol.service_messages import Join, Position

MOST_OPEN = 800
"""Batches of single ranks that a position may have open; more would not fit into a message."""


class Seats:
    """The seats of a group, taken or free.

    Args:
        facts: of the group.
        start: where it stands before anybody has joined.
    """

    def __init__(self, facts: GroupFacts, start: Position) -> None:
        self._facts = facts
        self._start = start
        self.seats: list[Seat] = []
        """A seat for every rank, there or not; of a broadcast one for every member."""

    @property
    def wanted(self) -> list[Seat]:
        """The seats that the present pass has something left for."""
        return [seat for seat in self.seats if not seat.ended]

    def rank(self, join: Join, totals: Mapping[int, int]) -> Seat:
        """The seat of a rank; the first member of an empty group says how many ranks there are.

        Args:
            join: what it asks for.
            totals: rows of each pass whose end is known.

        Raises:
            ProtocolError: it cannot have it.
        """
        owned = self.check(join)
        if not self._is_shared_so(join) or (not owned and self._begins_anew(join)):
            start = join.position or self.position(totals)
            step = join.step if join.position is not None else 0
            self.seats = [
                Seat(Share(rank, join.world_size, self._rows(join)), start, step)
                for rank in range(join.world_size)
            ]
        seat = self.seats[join.rank]
        if join.position is not None:
            seat.start, seat.step = _as_dealt(seat, join.position, join.step)
            seat.ended = False
        return seat

    def check(self, join: Join, without: Container[str] = ()) -> list[Seat]:
        """The seats of the others, beside whom somebody can have a rank. Changes nothing.

        Args:
            join: what it asks for.
            without: sessions that count as gone.

        Raises:
            ProtocolError: it cannot have it.
        """
        rows, name = self._rows(join), self._facts.name
        owned = self._owned(without)
        if not owned:
            return owned
        if not self._is_shared_so(join):
            now = self.seats[0].share
            raise ProtocolError(
                f"group {name} is shared by {now.world_size} ranks with batches of "
                f"{now.batch_rows} rows as long as any of them is there; this is rank {join.rank} "
                f"of {join.world_size} with batches of {rows}"
            )
        seat = self.seats[join.rank]
        if seat.owner and seat.owner not in without:
            raise ProtocolError(f"rank {join.rank} of group {name} is there already")
        if join.position is not None and not _fits(seat, join.position, owned):
            raise ProtocolError(
                f"rank {join.rank} of group {name} stands where no step of the others begins; "
                "resume all ranks from the same state"
            )
        return owned

    def _owned(self, without: Container[str]) -> list[Seat]:
        return [seat for seat in self.seats if seat.owner and seat.owner not in without]

    def _is_shared_so(self, join: Join) -> bool:
        """Whether the seats are those of so many ranks with such batches."""
        rows = join.batch_rows or self._facts.batch_rows
        return len(self.seats) == join.world_size and self.seats[0].share.batch_rows == rows

    def _rows(self, join: Join) -> int:
        """Rows of a batch of a consumer.

        Raises:
            ProtocolError: they, or at the end of a pass those of all ranks, do not fit into memory.
        """
        rows = join.batch_rows or self._facts.batch_rows
        shared = self._facts.finite and not self._facts.broadcast
        together = rows * join.world_size if shared else rows
        if together > self._facts.most_rows:
            raise ProtocolError(
                f"{together} rows are wanted at a time, and the service has memory for "
                f"{self._facts.most_rows}; lower batch_size, or raise batch_slots of the service"
            )
        return rows

    def _begins_anew(self, join: Join) -> bool:
        """Whether the first who comes to an empty group stands where no seat of it does."""
        if join.position is None:
            return all(seat.ended for seat in self.seats)
        # From the same start every rank says for itself which step is its next.
        return join.position.left != self.seats[join.rank].start.left

    def in_the_way(self, join: Join, without: Container[str]) -> bool:
        """Whether the others of a group, but for these sessions, stand where a rank that resumes
        cannot join them.
        """
        if join.position is None or self._facts.broadcast or not self._is_shared_so(join):
            return False
        seat = self.seats[join.rank]
        owned = [other for other in self._owned(without) if other is not seat]
        return not _fits(seat, join.position, owned)

    def own(self, join: Join, is_missing: Callable[[Seat], bool]) -> Seat:
        """The seat of a member of a broadcast.

        Args:
            join: what it asks for.
            is_missing: whether rows that a seat needs are gone.

        Raises:
            ProtocolError: the others are past what it wants.
        """
        share = Share(0, 1, self._rows(join))
        others = self.wanted or self.seats
        oldest = min(((seat.epoch, seat.next_row()) for seat in others), default=None)
        if join.position is not None:
            seat = Seat(share, join.position, join.step)
        elif oldest is not None:
            seat = Seat(share, Position(Remainder(oldest[0], (), oldest[1])))
        else:
            seat = Seat(share, self._start)
        here = seat.epoch, seat.next_row()
        # Who was there before goes on exactly; the others wait until it has caught up.
        new = not join.session
        if new and oldest is not None and here < oldest and is_missing(seat):
            raise ProtocolError(
                f"group {self._facts.name} has passed row {here[1]} of pass {here[0]}; the others "
                f"stand at row {oldest[1]} of pass {oldest[0]}. Join without a state, or a group "
                "of your own"
            )
        self.seats.append(seat)
        return seat

    def position(self, totals: Mapping[int, int]) -> Position:
        """What is left for those who come when nobody is there."""
        if self._facts.broadcast or not self.seats:
            return self._start
        stand = [(p.epoch + 1, 0) if p.ended else (p.epoch, p.step) for p in self.seats]
        epoch, share = min(stand)[0], self.seats[0].share
        starts = (seat.start.left for seat in self.seats if seat.epoch == epoch)
        start, drop = next(starts, Remainder(epoch)), self._facts.drop_last
        total = start.total(totals[epoch]) if epoch in totals else None
        last = max(step for at, step in stand if at == epoch)
        if total is not None and max(stand)[0] > epoch:
            # Those that are in the next pass already have had all of this one.
            last = share.steps(total, drop_last=drop)
        steps = {rank: step if at == epoch else last for rank, (at, step) in enumerate(stand)}
        # Of ranks that claim to stand much further the rest comes twice, rather than not at all.
        far = min(steps.values()) + max(1, MOST_OPEN // len(steps))
        steps = {rank: min(step, far) for rank, step in steps.items()}
        return Position(undelivered(start, steps, share.batch_rows, total, drop_last=drop))


def _as_dealt(seat: Seat, position: Position, step: int) -> tuple[Position, int]:
    """Start and step of a rank that stands there, as the others of its dealing count."""
    start, left = seat.start.left, position.left
    steps, between = divmod(left.tail - start.tail, seat.share.step_rows)
    simple = not start.left and not left.left and start.epoch == left.epoch
    if simple and steps > 0 and not between:
        # Some steps behind the start of this dealing: the same rows by other numbers.
        return seat.start, step + steps
    return position, step


def _fits(seat: Seat, position: Position, owned: list[Seat]) -> bool:
    """Whether a rank that resumes from there has its steps where the others have theirs."""
    left = _as_dealt(seat, position, 0)[0].left
    return all(other.start.left == left for other in owned if other.epoch == left.epoch)
