"""Ranks that one consumer takes from another: who may, and what the one is told that has lost it.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from chunkdl.errors import ProtocolError
from chunkdl.service.decisions.group import Group
from chunkdl.service.decisions.sessions import OVER, Session, asked_seat
from chunkdl.service.decisions.visitors import Visitor, how_to_operate
from chunkdl.transport.protocol.service_messages import Detached, Join
from chunkdl.transport.protocol.session_states import Event, State

MOST_DISPLACED = 1024
"""Sessions that are remembered after another has taken their rank."""


def displaced_by(
    sessions: Mapping[str, Session], group: Group, join: Join, who: Visitor, now_s: float
) -> list[tuple[Session, Event, str]]:
    """The sessions that end so that somebody can join a group: how, and what each is told.

    They end only for somebody who can be a member then.

    Raises:
        ProtocolError: it cannot; all stay what they are.
    """
    taken = [] if group.facts.broadcast else _losers(sessions.values(), join, who, now_s)
    away = {other.name: (other, Event.OVERDUE, why) for other, why in taken}
    why = f"{who.name} resumes from a state as another rank; load the same here"
    stay = []
    for other in map(sessions.__getitem__, group.yields_to(join, tuple(away))):
        # Else whoever is let in could send others' ranks away, though they are well.
        if who.is_operator or who.key == other.who.key:
            away[other.name] = other, Event.LEFT, why
        else:
            stay.append(other)
    try:
        group.check(join, away)
    except ProtocolError as error:
        if not stay:
            raise
        raise ProtocolError(
            f"{error}. Rank {stay[0].join.rank} is held by {stay[0].who.name}, and yields to its "
            "own key and to operators: load the state before it connects"
        ) from error
    return list(away.values())


def _losers(
    sessions: Iterable[Session], join: Join, who: Visitor, now_s: float
) -> list[tuple[Session, str]]:
    """The sessions whose rank somebody takes who joins a shard group, and what each is told.

    Raises:
        ProtocolError: it may not take it.
    """
    found = []
    for other in sessions:
        same = other.group == join.group and other.join.rank == join.rank
        silent = other.state is State.SUSPECT
        # As another number of ranks: the group says why it cannot.
        same &= silent or asked_seat(other.join) == asked_seat(join)
        if same and other.state not in OVER:
            _check(join, who, other.who, silent=silent)
            why = f"since {unheard(now_s - other.heard_s)}" if silent else "as an operator wished."
            found.append((other, _told(other.join, who, why)))
    return found


def _check(join: Join, who: Visitor, holder: Visitor, *, silent: bool) -> None:
    """Refuse a rank that somebody else holds to who may not take it.

    Of one that is silent whoever has the same key may, since it may be the same training, begun
    again; operators may as well, and where they ask for it, of one that is well.

    Raises:
        ProtocolError: it may not; who holds the rank, and what to do.
    """
    rank = f"rank {join.rank} of group {join.group}"
    held = f"{rank} is there already, held by {holder.name}"
    if not silent and not join.take_over:
        raise ProtocolError(
            f"{held}; join with another rank or group, end that one, or take its place with "
            "take_over=True, which an operator may"
        )
    if who.is_operator or (silent and who.key == holder.key):
        return
    when = "; it is silent, and its rank is free after grace_s" if silent else ""
    raise ProtocolError(f"{held}{when}. Taking it is for operators, and {how_to_operate(who)}")


def _told(join: Join, by: Visitor, why: str) -> str:
    """What the first holder of a rank is told, whom another follows for some reason."""
    return (
        f"rank {join.rank} of group {join.group} was taken by {by.name}, {why} The rows that were "
        "on their way here go there; end one of the two, or give each a rank or a group of its own"
    )


def unheard(silent_s: float) -> str:
    """What a consumer is told that was silent for so long."""
    return (
        f"the service had heard nothing of this consumer for {silent_s:.0f} s: was it stopped, or "
        "its network cut?"
    )


class Displaced:
    """What those are told whose place another has, however late they come back to hear it.

    Of the others that ended without a word it is known who they were: once another has their
    place, they have lost it too.
    """

    def __init__(self) -> None:
        self._told: dict[str, Detached] = {}
        self._gone: dict[str, Join] = {}

    def note(self, session: str, join: Join, reason: str) -> Detached:
        """Remember a session that has lost its place; what it is told."""
        told = Detached(reason, at_once=True)
        for name in filter(None, (session, join.consumer)):
            self._told[name] = told
        while len(self._told) > 2 * MOST_DISPLACED:
            del self._told[next(iter(self._told))]
        return told

    def gone(self, session: Session) -> None:
        """Remember a session that has ended without a goodbye; its consumer may come back."""
        # Without what may be large, and what nobody asks for.
        self._gone[session.name] = msgspec.structs.replace(
            session.join, token="", session="", rows_hash="", position=None, held=()
        )
        while len(self._gone) > MOST_DISPLACED:
            del self._gone[next(iter(self._gone))]

    def came(self, session: Session) -> None:
        """Somebody has a rank now: whoever had it before, or shared the rows with another number
        of ranks, has lost its own; unless it is the same consumer.
        """
        now = session.join
        for name, then in tuple(self._gone.items()):
            same = then.rank == now.rank or then.world_size != now.world_size
            if then.group != now.group or not same:
                continue
            del self._gone[name]
            back = now.session == name or (then.consumer and now.consumer == then.consumer)
            if not back and name not in self._told:
                why = "since its connection had ended, or been silent for too long."
                self.note(name, then, _told(then, session.who, why))

    def told(self, join: Join) -> Detached | None:
        """What somebody is told who wants to take up a session; None: it has lost none."""
        return self._told.get(join.session) or self._told.get(join.consumer)
