"""Who may take which seat of a group."""

from __future__ import annotations

import pytest

from chunkdl.errors import ProtocolError
from chunkdl.sampling.shares import Remainder
from chunkdl.service.decisions.members import GroupFacts, Seat
from chunkdl.service.decisions.seats import Seats
from chunkdl.transport.protocol.service_messages import Join, Position

FACTS = GroupFacts(
    name="train",
    broadcast=False,
    max_lag_batches=1,
    detach=False,
    patience_s=1.0,
    batch_rows=8,
    row_bytes=1,
    most_rows=64,
    finite=False,
    drop_last=False,
    plan_hash="",
    seed=0,
)


def wish(rank: int, position: Position | None = None, step: int = 0, rows: int = 0) -> Join:
    """What a rank of two asks for."""
    return Join(1, "", "", "train", rank, 2, rows, 4, 1, "", position, step, ())


def taken(seats: Seats, join: Join) -> Seat:
    """The seat of a rank, which has it now."""
    seat = seats.rank(join, {})
    seat.owner = f"rank {join.rank}"
    return seat


def left_at(*steps: int) -> Seats:
    """The seats of ranks that were there and have left, each before that step."""
    seats = Seats(FACTS, Position())
    for rank, step in enumerate(steps):
        taken(seats, wish(rank)).step = step
    for seat in seats.seats:
        seat.owner = ""
    return seats


def test_a_rank_that_comes_back_to_an_empty_group_moves_nobody_else() -> None:
    """It says which step is its own next; what another has not had yet is still to come."""
    seats = left_at(5, 9)
    assert taken(seats, wish(1, Position(), 9)).step == 9
    assert seats.seats[0].step == 5


def test_an_empty_group_begins_anew_from_another_position() -> None:
    """A state that was saved elsewhere is where all ranks go on from."""
    seats = left_at(5, 9)
    assert taken(seats, wish(1, Position(Remainder(tail=24)), 2)).step == 2
    assert [seat.start.left.tail for seat in seats.seats] == [24, 24]


def test_more_rows_than_there_is_memory_for_are_refused() -> None:
    """They would never be there together, and everybody would wait for ever."""
    with pytest.raises(ProtocolError, match="memory for 64"):
        Seats(FACTS, Position()).rank(wish(0, rows=65), {})
