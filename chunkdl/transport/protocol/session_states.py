"""The session of a consumer: its states, and what moves it from one to another, as one table."""

from __future__ import annotations

from enum import Enum

from chunkdl.errors import ProtocolError


class State(Enum):
    """Where a session is in its life."""

    JOINING = "joining"
    """Accepted; the way for its batches is not there yet."""
    OPEN = "open"
    """It is sent batches as far as its credit goes."""
    SUSPECT = "suspect"
    """It has said nothing for a while and is sent nothing more."""
    DRAINING = "draining"
    """It gets no more batches and gives back those that it has."""
    CLOSED = "closed"
    """It has left, or the kernel says that it is gone."""
    EXPIRED = "expired"
    """It was silent for too long; its place is free for another."""


class Event(Enum):
    """What happens to a session."""

    WELCOMED = "the way for its batches is there"
    HEARD = "it says something"
    SILENT = "it says nothing for a while"
    DRAIN = "the operator, or the consumer, wants it to end"
    LEFT = "it says goodbye, or has given everything back"
    LOST = "the kernel says that it is gone"
    OVERDUE = "it says nothing for too long"


_S, _E = State, Event

TABLE: dict[tuple[State, Event], State] = {
    (_S.JOINING, _E.WELCOMED): _S.OPEN,
    (_S.JOINING, _E.HEARD): _S.JOINING,
    (_S.JOINING, _E.DRAIN): _S.DRAINING,
    (_S.JOINING, _E.LEFT): _S.CLOSED,
    (_S.JOINING, _E.LOST): _S.CLOSED,
    (_S.JOINING, _E.OVERDUE): _S.EXPIRED,
    (_S.OPEN, _E.HEARD): _S.OPEN,
    (_S.OPEN, _E.SILENT): _S.SUSPECT,
    (_S.OPEN, _E.DRAIN): _S.DRAINING,
    (_S.OPEN, _E.LEFT): _S.CLOSED,
    (_S.OPEN, _E.LOST): _S.CLOSED,
    (_S.SUSPECT, _E.HEARD): _S.OPEN,
    (_S.SUSPECT, _E.DRAIN): _S.DRAINING,
    (_S.SUSPECT, _E.LEFT): _S.CLOSED,
    (_S.SUSPECT, _E.LOST): _S.CLOSED,
    (_S.SUSPECT, _E.OVERDUE): _S.EXPIRED,
    (_S.DRAINING, _E.HEARD): _S.DRAINING,
    (_S.DRAINING, _E.LEFT): _S.CLOSED,
    (_S.DRAINING, _E.LOST): _S.CLOSED,
    (_S.DRAINING, _E.OVERDUE): _S.EXPIRED,
}
"""Every move that there is; CLOSED and EXPIRED are the end."""


def after(state: State, event: Event) -> State:
    """The state after an event.

    Raises:
        ProtocolError: the event cannot happen in this state.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise ProtocolError(f"a session that is {state.value} cannot take {event.name}") from None


def drawing() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> JOINING"]
    lines += [
        f"    {before.name} --> {then.name}: {event.name}"
        for (before, event), then in TABLE.items()
        if before is not then
    ]
    lines += [f"    {state.name} --> [*]" for state in (State.CLOSED, State.EXPIRED)]
    return "\n".join(lines)
