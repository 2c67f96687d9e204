"""The state of a stream that several machines serve, without machines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.errors import StateError
from chunkdl.sampling.shares import Remainder, Share
from chunkdl.service.client.machines import (
    MOST_REMEMBERED,
    Learned,
    MachinesState,
    after_whole_steps,
    last_before,
    read_state,
)
from chunkdl.transport.protocol.service_messages import Position

HASHES = ("one", "two")
STATE = MachinesState(
    HASHES, Remainder(2, ((3, 5),), 40), (Learned(2, 30, 40), Learned(2, 31, 44, ((7, 1),)))
)
sizes = st.integers(1, 5)


@st.composite
def remainders(draw: st.DrawFn) -> Remainder:
    """What may be left of a pass, with gaps."""
    edges = sorted(draw(st.sets(st.integers(0, 60), max_size=6)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    return Remainder(draw(st.integers(0, 3)), tuple(pairs), draw(st.integers(60, 80)))


@given(
    start=remainders(), here=st.integers(0, 60), there=st.integers(0, 60), ranks=sizes, rows=sizes
)
def test_the_state_of_one_machine_is_where_the_others_stand(
    start: Remainder, here: int, there: int, ranks: int, rows: int
) -> None:
    """After every step of a pass, however many rows each machine has: what is left of the rows of
    another one is what its own service would have said.
    """
    share = Share(0, ranks, rows)
    mine, others = start.before_tail + here, start.before_tail + there
    for steps in range(-(-mine // share.step_rows) + 1):
        left = after_whole_steps(share.after(start, steps, mine), start, share.step_rows)
        last = start.tail + there
        found = share.after(start, steps, others)
        assert left.take(0, left.total(last)) == found.take(0, found.total(last))
        last = start.tail + here
        found = share.after(start, steps, mine)
        assert left.take(0, left.total(last)) == found.take(0, found.total(last))


def test_a_state_survives_json_and_says_where_each_machine_stands() -> None:
    """Each machine gets what its own service has learned."""
    saved = json.loads(json.dumps(STATE.to_dict()))
    found = read_state(saved, HASHES)
    assert found.position(0) == Position(STATE.left, 40)
    assert found.position(1) == Position(STATE.left, 44, {7: 1})


def state(**changed: Any) -> dict[str, Any]:
    """The state as plain data, with fields changed."""
    return {**STATE.to_dict(), **changed}


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (None, "not a state of a chunkdl stream"),
        (state(rows_hashes=3), "not a state of a chunkdl stream"),
        (state(rows_hashes=["one"]), "of 1 machines, and here are 2.*go on with as many"),
        (state(rows_hashes=["two", "one"]), "another stream"),
        (state(left=3), "not a state of a chunkdl stream"),
        (state(other=3), "not a state of a chunkdl stream"),
        (state(learned=[]), "out of range"),
        (state(left={"epoch": 0, "left": [[5, 3]], "tail": 7}), "out of range"),
        (state(learned=[{"smallchunks_per_bigchunk": -1}, {}]), "out of range"),
    ],
)
def test_what_is_no_state_of_these_machines_is_refused(saved: Any, message: str) -> None:
    """On every machine alike, so that none goes on while others do not."""
    with pytest.raises(StateError, match=message):
        read_state(saved, HASHES)


def test_what_was_learned_counts_from_its_row_on() -> None:
    """A state may be asked for when the other machines are further already."""
    history = [Learned(0, 0, 40), Learned(0, 32, 40, ((5, 1),)), Learned(1, 16, 40)]
    ask = [Remainder(0, (), 0), Remainder(0, (), 31), Remainder(0, (), 32), Remainder(1, (), 99)]
    assert [last_before(history, left) for left in ask] == [history[n] for n in (0, 0, 1, 2)]
    assert last_before([], ask[0]) == Learned()


def test_what_was_learned_long_ago_is_refused_instead_of_guessed() -> None:
    """Where the history is full and begins later, what was before is not known."""
    history = [Learned(0, 100 + row) for row in range(MOST_REMEMBERED)]
    with pytest.raises(StateError, match="long ago"):
        last_before(history, Remainder(0, (), 99))
