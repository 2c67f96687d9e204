"""The front desk of a service: sessions, their liveness, and what each message of theirs means.

`Group` decides who gets which rows; the desk knows who is there. A session belongs to a connection
until the consumer comes back by another one; it is taken up again by its name, which only the two
know. Time is told, never asked. Pure: events in, actions out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Container, Mapping

from chunkdl.errors import Failure, ProtocolError
from chunkdl.service.decisions.actions import (
    AskEngine,
    CloseLease,
    Note,
    PassArena,
    Peer,
    Say,
    ServiceAction,
)
from chunkdl.service.decisions.drops import Drops
from chunkdl.service.decisions.group import Group
from chunkdl.service.decisions.leases import Leases
from chunkdl.service.decisions.sessions import (
    OVER,
    DeskFacts,
    Session,
    asked_seat,
    check,
    credit_of,
    group_status,
    taken_up,
    welcome,
)
from chunkdl.service.decisions.takeovers import Displaced, displaced_by, unheard
from chunkdl.service.decisions.visitors import SOMEBODY, Visitor, check_same, check_wish
from chunkdl.service.decisions.waiting import Waiting
from chunkdl.transport.protocol.engine_messages import Message, Ping, Pong, Refuse
from chunkdl.transport.protocol.service_messages import (
    AskCatalogue,
    AskStatistics,
    Attach,
    Detached,
    Drain,
    GroupFailed,
    Join,
    JoinFirst,
    Leave,
    NextPass,
    Operate,
    OperatorAnswer,
    Pause,
    Released,
    Resume,
    RowFormatKnown,
    ServiceEnding,
    ServiceMessage,
    Waits,
)
from chunkdl.transport.protocol.session_states import Event, State, after
from chunkdl.transport.row_format import RowFormat


class Desk:
    """The sessions of a service.

    Args:
        facts: fixed.
        groups: by name.
        new_name: makes a name for a session that nobody can guess.
        catalogue: makes the page of the catalogue from these indices on.
        local: numbers of the sockets by which nobody comes without a token.
        troubles: what went wrong last in the engines of a group, for people.
    """

    def __init__(
        self,
        facts: DeskFacts,
        groups: Mapping[str, Group],
        new_name: Callable[[], str],
        catalogue: Callable[[int, int], Message],
        local: Container[int] = (),
        troubles: Callable[[str], list[str]] = lambda _: [],
    ) -> None:
        self._facts = facts
        self._groups = groups
        self._new_name = new_name
        self._catalogue = catalogue
        self._local = local
        self._troubles = troubles
        self._waiting = Waiting(groups, troubles)
        self.sessions: dict[str, Session] = {}
        self._by_peer: dict[Peer, Session] = {}
        self._leases = Leases()
        self._displaced = Displaced()
        self.row_formats: dict[str, RowFormatKnown] = {}
        """How the rows of a group lie, where that had to be found out."""
        self._failed: dict[str, Failure] = {}
        self._paused: set[str] = set()
        self.draining = False
        """No more consumers, and no more batches."""
        self._drops = Drops()
        self.joined = 0
        """Sessions so far."""
        self._actions: list[ServiceAction] = []

    @property
    def present(self) -> int:
        """Sessions that are not over; what others still read outlives even the service."""
        return sum(session.state not in OVER for session in self.sessions.values())

    def take(self) -> list[ServiceAction]:
        """The actions since the last call, those of the groups among them."""
        for group in self._groups.values():
            self._actions += group.take()
        actions, self._actions = self._actions, []
        return actions

    # ------------------------------------------------------------------ messages

    def handle(
        self, peer: Peer, message: ServiceMessage, now_s: float, who: Visitor = SOMEBODY
    ) -> None:
        """Somebody said something; what makes no sense is dropped, counted and noted."""
        session = self._by_peer.get(peer)
        if isinstance(message, Join):
            self._join(peer, message, now_s, who)
        elif isinstance(message, Attach):
            self._attach(peer, message, who)
        elif isinstance(message, Operate):
            self._operate(peer, message, who)
        elif session is None or who.key != session.who.key:
            self._say(peer, JoinFirst())
        else:
            self._heard(session, now_s)
            try:
                self._from_session(session, message)
            except ProtocolError as error:
                self.drop(str(error))

    def drop(self, reason: str) -> None:
        """Something was dropped; it is noted the first, second, fourth, ... time."""
        if line := self._drops.count(reason):
            self._note(logging.WARNING, line)

    def _from_session(self, session: Session, message: ServiceMessage) -> None:
        group = self._groups[session.group]
        match message:
            case Ping():
                self._say(session.peer, Pong())
            case Released(numbers):
                group.release(session.name, numbers)
                if session.state is State.DRAINING:
                    self._end_if_drained(session)
            case NextPass(epoch):
                group.next_pass(session.name, epoch)
            case Pause() | Resume():
                session.paused = isinstance(message, Pause)
                self._set_flow(session)
            case Drain():
                self._drain(session)
            case Leave(epoch, step):
                gone = session.lease is None
                self._end(session, Event.LEFT, gone=gone, went_on=(epoch, step))
                self._say(session.peer, Pong())
            case AskCatalogue(first_patient, first_slide):
                if first_patient < 0 or first_slide < 0:
                    raise ProtocolError("the catalogue has no negative indices")
                self._say(session.peer, self._catalogue(first_patient, first_slide))
            case AskStatistics():
                self._actions.append(AskEngine(session.group, session.name))
            case _:
                raise ProtocolError(f"a consumer sent {type(message).__name__}")

    # --------------------------------------------------------------- opening

    def lease_opened(self, lease: int, who: Visitor = SOMEBODY) -> str:
        """A process of this user has connected to the lease socket; the token that it may use."""
        token = self._new_name()
        self._leases.opened(lease, token, who)
        return token

    def lease_lost(self, lease: int) -> None:
        """The kernel says that a lease connection is over, and with it its process, or its use."""
        self._leases.lost(lease)
        for session in tuple(self.sessions.values()):
            if session.lease == lease:
                if session.state in OVER:
                    self._forget(session)
                else:
                    self._end(session, Event.LOST, gone=True)

    def _join(self, peer: Peer, join: Join, now_s: float, who: Visitor) -> None:
        if peer in self._by_peer:
            self.drop("a connection joined twice")
            return
        if (told := self._displaced.told(join)) is not None:
            self._say(peer, told)
            return
        if self.draining and join.session:
            # It comes back; perhaps so does the service.
            self._say(peer, ServiceEnding())
            return
        try:
            lease, who = self._leases.shown(join.token, who, is_local=peer[0] in self._local)
            check(join, self._facts, self._groups)
            known = self._known(join)
            if known is not None:
                check_same(who, known.who)
            back = None if known is None else self._returned(known, peer, join, now_s)
            session = back or self._opened(peer, join, lease, now_s, who)
        except ProtocolError as error:
            self._refuse(peer, "a consumer", error)
            return
        self._welcome(session)

    def _opened(
        self, peer: Peer, join: Join, lease: int | None, now_s: float, who: Visitor
    ) -> Session:
        facts, group = self._facts, self._groups[join.group]
        if self.draining:
            raise ProtocolError("the service is about to end")
        if lease is not None and any(other.lease == lease for other in self.sessions.values()):
            raise ProtocolError("the token has its session; connect to the lease socket again")
        away = displaced_by(self.sessions, group, join, who, now_s)
        if self.present - len(away) >= facts.max_consumers:
            raise ProtocolError(
                f"the service has its {facts.max_consumers} consumers; raise max_consumers"
            )
        credit, batches = credit_of(join, facts, group)
        for other, event, why in away:
            self._displace(other, event, why)
        name = self._new_name()
        seat = group.join(name, join, credit)
        session = Session(name, join.group, peer, None, lease, State.JOINING, now_s, join, who)
        self.sessions[name] = session
        self._by_peer[peer] = session
        self.joined += 1
        if not group.facts.broadcast:
            self._displaced.came(session)
        self._note(
            logging.INFO,
            f"rank {join.rank} of {join.world_size} joined group {join.group} at step "
            f"{seat.step}, with credit for {batches} batches",
        )
        return session

    def _displace(self, session: Session, event: Event, why: str) -> None:
        """Another comes in the place of a session."""
        self._say(session.peer, self._displaced.note(session.name, session.join, why))
        self._end(session, event, gone=session.lease is None)

    def _known(self, join: Join) -> Session | None:
        """The session of somebody who was here before."""
        named = self.sessions.get(join.session)
        if not join.consumer or (named is not None and named.state not in OVER):
            return named
        # It does not know what its session is called, or now is; the answer was lost.
        mine = (one for one in self.sessions.values() if one.join.consumer == join.consumer)
        return next((one for one in mine if one.state not in OVER), named)

    def _returned(self, session: Session, peer: Peer, join: Join, now_s: float) -> Session | None:
        """A session that is taken up again over another connection."""
        if session.state in OVER or asked_seat(session.join) != asked_seat(join):
            return None
        if session.lease is not None and not self._leases.has(session.lease, join.token):
            # What it has lies in memory that goes with the old lease connection, until that ends.
            self._end(session, Event.LOST, gone=False)
            return None
        self._by_peer.pop(session.peer, None)
        session.peer, session.join, session.returned = peer, taken_up(join, session.name), True
        self._by_peer[peer] = session
        # The end of a pause may have been lost with the connection: nobody waits for it for ever.
        session.stopped, session.paused, session.data = True, False, None
        self._heard(session, now_s)
        self._set_flow(session)
        return session

    def _welcome(self, session: Session) -> None:
        group = self._groups[session.group]
        self._say(session.peer, welcome(session, self._facts, group))
        if session.group in self.row_formats:
            self._say(session.peer, self.row_formats[session.group])
        if session.group in self._failed:
            self._say(session.peer, GroupFailed(self._failed[session.group]))
        if session.lease is not None:
            if group.engine:
                self._actions.append(PassArena(session.group, session.lease))
            self._flows(session)

    def _attach(self, peer: Peer, attach: Attach, who: Visitor) -> None:
        session = self.sessions.get(attach.session)
        over = session is None or session.state in OVER
        if session is None or over or session.lease is not None or who.key != session.who.key:
            self.drop("a data connection of no session")
            return
        session.data = peer
        self._flows(session)

    def _flows(self, session: Session) -> None:
        """The way for its batches is there."""
        session.stopped = False
        if session.state is State.JOINING:
            session.state = after(session.state, Event.WELCOMED)
        if session.returned and session.group not in self._failed:
            session.returned = False
            group, join = self._groups[session.group], session.join
            start = join.position or group.members[session.name].seat.start
            group.repeat(session.name, (start.left.epoch, join.step), frozenset(join.held))
            if session.state is State.DRAINING:
                self._end_if_drained(session)
                return
        self._set_flow(session)

    def engine_up(self, group: str) -> None:
        """An engine of a group has begun: its local members get its memory."""
        for session in self.sessions.values():
            if session.group == group and session.lease is not None and session.state not in OVER:
                self._actions.append(PassArena(group, session.lease))

    # --------------------------------------------------------------- life

    def _heard(self, session: Session, now_s: float) -> None:
        session.heard_s = now_s
        if session.state not in OVER:
            suspect = session.state is State.SUSPECT
            session.state = after(session.state, Event.HEARD)
            if suspect:
                self._set_flow(session)

    def _set_flow(self, session: Session) -> None:
        flows = (
            session.state is State.OPEN
            and not session.paused
            and not session.stopped
            and not self.draining
            and session.group not in self._paused
            and session.group not in self._failed
        )
        self._groups[session.group].set_flow(session.name, flows=flows)

    def tick(self, now_s: float) -> None:
        """Time goes by: who was silent for too long?"""
        facts = self._facts
        for session in tuple(self.sessions.values()):
            silent = now_s - session.heard_s
            if session.state is State.OPEN and silent > facts.silent_s:
                session.state = after(session.state, Event.SILENT)
                self._set_flow(session)
                self._note(logging.WARNING, f"{self._who(session)} says nothing")
            elif session.state not in OVER and silent > facts.silent_s + facts.grace_s:
                self._say(session.peer, Detached(unheard(silent)))
                self._end(session, Event.OVERDUE, gone=session.lease is None)
        for group in self._groups.values():
            for name, detached in group.tick(now_s).items():
                session = self.sessions[name]
                self._say(session.peer, detached)
                self._end(session, Event.LEFT, gone=session.lease is None)
        for name in self._waiting.look(self.sessions.values(), self._paused, now_s):
            why = self._waiting.reason(name)
            level, words = (logging.WARNING, f"waits: {why}") if why else (logging.INFO, "goes on")
            self._note(level, f"group {name} {words}")
            self._to_group(name, Waits(why))

    def _end(
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
        self._note(logging.INFO, f"{self._who(session)} is {session.state.value}")
        self._by_peer.pop(session.peer, None)
        if event in (Event.OVERDUE, Event.LOST) and not group.facts.broadcast:
            self._displaced.gone(session)
        if gone or not member.held:
            self._forget(session)
        else:
            session.kept = member

    def _forget(self, session: Session) -> None:
        if session.kept is not None:
            self._groups[session.group].gone(session.kept)
        self.sessions.pop(session.name, None)
        if session.lease is not None:
            self._leases.lost(session.lease)
            self._actions.append(CloseLease(session.lease))

    def _drain(self, session: Session) -> None:
        if session.state not in (*OVER, State.DRAINING):
            session.state = after(session.state, Event.DRAIN)
            self._set_flow(session)
            self._end_if_drained(session)

    def _end_if_drained(self, session: Session) -> None:
        if not self._groups[session.group].members[session.name].held:
            if not self.draining:
                # Else it would think that it was forgotten, and join again.
                self._say(session.peer, Detached("it was drained, and has given everything back"))
            self._end(session, Event.LEFT, gone=True)

    def begin_drain(self) -> None:
        """The service is about to end: no more consumers, no more batches."""
        self.draining = True
        there = [session for session in self.sessions.values() if session.state not in OVER]
        for session in there:
            self._set_flow(session)
        for session in there:
            self._say(session.peer, ServiceEnding())
            self._drain(session)

    def failed(self, group: str, failure: Failure) -> None:
        """The stream of a group cannot go on."""
        self._failed[group] = failure
        self._to_group(group, GroupFailed(failure))
        for session in self.sessions.values():
            if session.group == group and session.state not in OVER:
                self._set_flow(session)

    def know_format(self, group: str, row_format: RowFormat) -> None:
        """The columns of the rows of a group are known."""
        self.row_formats[group] = RowFormatKnown(row_format)
        self._to_group(group, self.row_formats[group])

    def _to_group(self, group: str, message: Message) -> None:
        for session in self.sessions.values():
            if session.group == group and session.state not in OVER:
                self._say(session.peer, message)

    # --------------------------------------------------------------- operator

    def _operate(self, peer: Peer, wish: Operate, who: Visitor) -> None:
        try:
            _, who = self._leases.shown(wish.token, who, is_local=peer[0] in self._local)
            check_wish(wish, who, self._groups)
        except ProtocolError as error:
            self._refuse(peer, "an operator", error)
            return
        names = [wish.group] if wish.group else list(self._groups)
        if wish.verb != "status":
            self._note(logging.INFO, f"{wish.verb} of {', '.join(names)}, asked by {who.name}")
        if wish.verb == "pause":
            self._paused.update(names)
        elif wish.verb == "resume":
            self._paused.difference_update(names)
        elif wish.verb == "drain" and not wish.group:
            self.begin_drain()
        for session in tuple(self.sessions.values()):
            if session.group in names and session.state not in OVER:
                if wish.verb == "drain":
                    self._say(session.peer, ServiceEnding())
                    self._drain(session)
                else:
                    self._set_flow(session)
        self._say(peer, OperatorAnswer(json.dumps(self.status())))

    def status(self) -> dict[str, object]:
        """What an operator wants to see, as plain data."""
        groups = {
            name: group_status(group, self.sessions.values())
            | {
                "paused": name in self._paused,
                "failed": self._failed[name].message if name in self._failed else None,
                "waits": self._waiting.reason(name) or None,
                "troubles": self._troubles(name),
            }
            for name, group in self._groups.items()
        }
        return {
            "draining": self.draining,
            "patients": self._facts.patients,
            "batch_size": self._facts.batch_rows,
            "sessions": len(self.sessions),
            "joined": self.joined,
            "dropped": self._drops.total,
            "groups": groups,
        }

    def _who(self, session: Session) -> str:
        return f"rank {session.join.rank} of group {session.group}"

    def _say(self, peer: Peer, message: Message) -> None:
        self._actions.append(Say(peer, message))

    def _refuse(self, peer: Peer, who: str, error: ProtocolError) -> None:
        self.drop(f"{who} was refused: {error}")
        self._say(peer, Refuse(str(error)[:2_000]))

    def _note(self, level: int, text: str) -> None:
        self._actions.append(Note(level, text))
