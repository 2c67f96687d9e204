"""Who is there, and how a session ends: by leaving, by silence, by a drain, or because the kernel
says that it is gone. Pure.

The states and what moves a session from one to another are a table
(`chunkdl.transport.protocol.session_states`). Here is what follows: whether its group sends it
batches, what it is told, and when what it holds is given back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from chunkdl.errors import Failure
from chunkdl.service.decisions.actions import CloseLease, Note, Peer, Say, ServiceAction
from chunkdl.service.decisions.group import Group
from chunkdl.service.decisions.leases import Leases
from chunkdl.service.decisions.sessions import OVER, DeskFacts, Session
from chunkdl.service.decisions.takeovers import Displaced, unheard
from chunkdl.transport.protocol.engine_messages import Message
from chunkdl.transport.protocol.service_messages import Detached, GroupFailed, Join, ServiceEnding
from chunkdl.transport.protocol.session_states import Event, State, after


class Attendance:
    """The sessions of a service, from when they are there until nobody reads what they had.

    Args:
        facts: fixed.
        groups: by name.
        act: takes what is to be done.
    """

    def __init__(
        self,
        facts: DeskFacts,
        groups: Mapping[str, Group],
        act: Callable[[ServiceAction], None],
    ) -> None:
        self._facts = facts
        self._groups = groups
        self._act = act
        self.sessions: dict[str, Session] = {}
        """By name; those that are over stay while somebody may read their batches."""
        self.by_peer: dict[Peer, Session] = {}
        """By the connection that they speak by."""
        self.leases = Leases()
        self.displaced = Displaced()
        self.failed: dict[str, Failure] = {}
        """Groups whose stream cannot go on, and why."""
        self.paused: set[str] = set()
        """Groups that an operator has paused."""
        self.draining = False
        """No more consumers, and no more batches."""

    @property
    def count(self) -> int:
        """Sessions that are not over; what others still read outlives even the service."""
        return sum(session.state not in OVER for session in self.sessions.values())

    def of_group(self, group: str) -> list[Session]:
        """The sessions of a group that are not over."""
        return [
            session
            for session in self.sessions.values()
            if session.group == group and session.state not in OVER
        ]

    def known(self, join: Join) -> Session | None:
        """The session of somebody who was here before."""
        named = self.sessions.get(join.session)
        if not join.consumer or (named is not None and named.state not in OVER):
            return named
        # It does not know what its session is called, or now is; the answer was lost.
        mine = (one for one in self.sessions.values() if one.join.consumer == join.consumer)
        return next((one for one in mine if one.state not in OVER), named)

    def came(self, session: Session) -> None:
        """A session is there."""
        self.sessions[session.name] = session
        self.by_peer[session.peer] = session

    def moved(self, session: Session, peer: Peer) -> None:
        """A session speaks by another connection."""
        self.by_peer.pop(session.peer, None)
        session.peer = peer
        self.by_peer[peer] = session

    def heard(self, session: Session, now_s: float) -> None:
        """A session has said something."""
        session.heard_s = now_s
        if session.state not in OVER:
            suspect = session.state is State.SUSPECT
            session.state = after(session.state, Event.HEARD)
            if suspect:
                self.set_flow(session)

    def set_flow(self, session: Session) -> None:
        """Have its group send it batches, or none for now."""
        flows = (
            session.state is State.OPEN
            and not session.paused
            and not session.stopped
            and not self.draining
            and session.group not in self.paused
            and session.group not in self.failed
        )
        self._groups[session.group].set_flow(session.name, flows=flows)

    def look(self, now_s: float) -> None:
        """Time goes by: who was silent for too long?"""
        facts = self._facts
        for session in tuple(self.sessions.values()):
            silent = now_s - session.heard_s
            if session.state is State.OPEN and silent > facts.silent_s:
                session.state = after(session.state, Event.SILENT)
                self.set_flow(session)
                self.note(logging.WARNING, f"{_who(session)} says nothing")
            elif session.state not in OVER and silent > facts.silent_s + facts.grace_s:
                self.say(session.peer, Detached(unheard(silent)))
                self.end(session, Event.OVERDUE, gone=session.lease is None)

    def end(
        self,
        session: Session,
        event: Event,
        *,
        gone: bool,
        went_on: tuple[int, int] | None = None,
    ) -> None:
        """A session is over; what it has is kept as long as somebody may read it."""
        if session.state is State.OPEN and event is Event.OVERDUE:
            session.state = after(session.state, Event.SILENT)
        session.state = after(session.state, event)
        group = self._groups[session.group]
        member = group.members[session.name]
        group.leave(session.name, went_on, gone=gone)
        self.note(logging.INFO, f"{_who(session)} is {session.state.value}")
        self.by_peer.pop(session.peer, None)
        if event in (Event.OVERDUE, Event.LOST) and not group.facts.broadcast:
            self.displaced.gone(session)
        if gone or not member.held:
            self.forget(session)
        else:
            session.kept = member

    def forget(self, session: Session) -> None:
        """Nobody reads what a session had any more."""
        if session.kept is not None:
            self._groups[session.group].gone(session.kept)
        self.sessions.pop(session.name, None)
        if session.lease is not None:
            self.leases.lost(session.lease)
            self._act(CloseLease(session.lease))

    def drain(self, session: Session) -> None:
        """A session gets no more batches, and ends when it has given back what it has."""
        if session.state not in (*OVER, State.DRAINING):
            session.state = after(session.state, Event.DRAIN)
            self.set_flow(session)
            self.end_if_drained(session)

    def end_if_drained(self, session: Session) -> None:
        """It may have given everything back."""
        if not self._groups[session.group].members[session.name].held:
            if not self.draining:
                # Else it would think that it was forgotten, and join again.
                self.say(session.peer, Detached("it was drained, and has given everything back"))
            self.end(session, Event.LEFT, gone=True)

    def begin_drain(self) -> None:
        """The service is about to end: no more consumers, no more batches."""
        self.draining = True
        there = [session for session in self.sessions.values() if session.state not in OVER]
        for session in there:
            self.set_flow(session)
        for session in there:
            self.say(session.peer, ServiceEnding())
            self.drain(session)

    def group_failed(self, group: str, failure: Failure) -> None:
        """The stream of a group cannot go on."""
        self.failed[group] = failure
        self.to_group(group, GroupFailed(failure))
        for session in self.of_group(group):
            self.set_flow(session)

    def to_group(self, group: str, message: Message) -> None:
        """Tell all of a group."""
        for session in self.of_group(group):
            self.say(session.peer, message)

    def say(self, peer: Peer, message: Message) -> None:
        """Send a message to a connection."""
        self._act(Say(peer, message))

    def note(self, level: int, text: str) -> None:
        """A line for the log."""
        self._act(Note(level, text))


def _who(session: Session) -> str:
    return f"rank {session.join.rank} of group {session.group}"
