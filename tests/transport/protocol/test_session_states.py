"""The table of a session's life."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chunkdl.errors import ProtocolError
from chunkdl.transport.protocol.session_states import TABLE, Event, State, after, drawing

OVER = {State.CLOSED, State.EXPIRED}


def test_every_state_is_reached_and_only_two_are_the_end() -> None:
    """From JOINING on; and from everywhere a session can end both ways."""
    reached, new = {State.JOINING}, {State.JOINING}
    while new:
        new = {then for (before, _), then in TABLE.items() if before in new} - reached
        reached |= new
    assert reached == set(State)
    assert {before for before, _ in TABLE} == set(State) - OVER
    for state in set(State) - OVER:
        assert TABLE[state, Event.LEFT] is TABLE[state, Event.LOST] is State.CLOSED
    for state in set(State) - OVER - {State.OPEN}:
        assert TABLE[state, Event.OVERDUE] is State.EXPIRED


def test_a_move_that_is_not_in_the_table_raises() -> None:
    """And names the state and the event."""
    for state in State:
        for event in Event:
            if (state, event) in TABLE:
                assert after(state, event) is TABLE[state, event]
            else:
                with pytest.raises(ProtocolError, match=f"{state.value}.*{event.name}"):
                    after(state, event)


def test_the_drawing_has_every_move() -> None:
    """One line each, besides those that lead nowhere else."""
    lines = {line.strip() for line in drawing().splitlines()}
    for (before, event), then in TABLE.items():
        line = f"{before.name} --> {then.name}: {event.name}"
        assert (line in lines) == (before is not then)
    assert {"[*] --> JOINING", "CLOSED --> [*]", "EXPIRED --> [*]"} <= lines


class SessionMachine(RuleBasedStateMachine):
    """Events in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.JOINING
        self.past = [State.JOINING]

    @rule(event=st.sampled_from(Event))
    def something_happens(self, event: Event) -> None:
        """What cannot happen changes nothing."""
        try:
            self.state = after(self.state, event)
        except ProtocolError:
            return
        self.past.append(self.state)

    @invariant()
    def what_is_over_stays_over(self) -> None:
        """And nobody who drains, or was open, goes back."""
        first = {state: self.past.index(state) for state in self.past}
        for state in OVER & first.keys():
            assert self.past[-1] is state
        if State.DRAINING in first:
            assert set(self.past[first[State.DRAINING] :]) <= {State.DRAINING, *OVER}
        if State.OPEN in first:
            assert State.JOINING not in self.past[first[State.OPEN] :]
        if State.SUSPECT in first:
            assert first[State.OPEN] < first[State.SUSPECT]


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=50, stateful_step_count=15, deadline=None)
