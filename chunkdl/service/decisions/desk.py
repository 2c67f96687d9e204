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
    PassArena,
    Peer,
    ServiceAction,
)
from chunkdl.service.decisions.attendance import Attendance
from chunkdl.service.decisions.drops import Drops
from chunkdl.service.decisions.group import Group
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
from chunkdl.service.decisions.takeovers import displaced_by
from chunkdl.service.decisions.visitors import SOMEBODY, Visitor, check_same, check_wish
from chunkdl.service.decisions.waiting import Waiting
from chunkdl.transport.protocol.engine_messages import Message, Ping, Pong, Refuse
from chunkdl.transport.protocol.service_messages import (
    AskCatalogue,
    AskStatistics,
    Attach,
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
        self._actions: list[ServiceAction] = []
        self._present = Attendance(facts, groups, self._actions.append)
        self.row_formats: dict[str, RowFormatKnown] = {}
        """How the rows of a group lie, where that had to be found out."""
        self._drops = Drops()
        self.joined = 0
        """Sessions so far."""

    @property
    def sessions(self) -> Mapping[str, Session]:
        """By name, also those that are over and whose batches somebody may still read."""
        return self._present.sessions

    @property
    def draining(self) -> bool:
        """No more consumers, and no more batches."""
        return self._present.draining

    @property
    def present(self) -> int:
        """Sessions that are not over."""
        return self._present.count

    def begin_drain(self) -> None:
        """The service is about to end: no more consumers, no more batches."""
        self._present.begin_drain()

    def take(self) -> list[ServiceAction]:
        """The actions since the last call, those of the groups among them."""
        for group in self._groups.values():
            self._actions += group.take()
        # In place, for the attendance appends to the same list.
        actions, self._actions[:] = self._actions[:], []
        return actions

    # ------------------------------------------------------------------ messages

    def handle(
        self, peer: Peer, message: ServiceMessage, now_s: float, who: Visitor = SOMEBODY
    ) -> None:
        """Somebody said something; what makes no sense is dropped, counted and noted."""
        session = self._present.by_peer.get(peer)
        if isinstance(message, Join):
            self._join(peer, message, now_s, who)
        elif isinstance(message, Attach):
            self._attach(peer, message, who)
        elif isinstance(message, Operate):
            self._operate(peer, message, who)
        elif session is None or who.key != session.who.key:
            self._present.say(peer, JoinFirst())
        else:
            self._present.heard(session, now_s)
            try:
                self._from_session(session, message)
            except ProtocolError as error:
                self.drop(str(error))

    def drop(self, reason: str) -> None:
        """Something was dropped; it is noted the first, second, fourth, ... time."""
        if line := self._drops.count(reason):
            self._present.note(logging.WARNING, line)

    def _from_session(self, session: Session, message: ServiceMessage) -> None:
        group = self._groups[session.group]
        match message:
            case Ping():
                self._present.say(session.peer, Pong())
            case Released(numbers):
                group.release(session.name, numbers)
                if session.state is State.DRAINING:
                    self._present.end_if_drained(session)
            case NextPass(epoch):
                group.next_pass(session.name, epoch)
            case Pause() | Resume():
                session.paused = isinstance(message, Pause)
                self._present.set_flow(session)
            case Drain():
                self._present.drain(session)
            case Leave(epoch, step):
                gone = session.lease is None
                self._present.end(session, Event.LEFT, gone=gone, went_on=(epoch, step))
                self._present.say(session.peer, Pong())
            case AskCatalogue(first_patient, first_slide):
                if first_patient < 0 or first_slide < 0:
                    raise ProtocolError("the catalogue has no negative indices")
                self._present.say(session.peer, self._catalogue(first_patient, first_slide))
            case AskStatistics():
                self._actions.append(AskEngine(session.group, session.name))
            case _:
                raise ProtocolError(f"a consumer sent {type(message).__name__}")

    # --------------------------------------------------------------- opening

    def lease_opened(self, lease: int, who: Visitor = SOMEBODY) -> str:
        """A process of this user has connected to the lease socket; the token that it may use."""
        token = self._new_name()
        self._present.leases.opened(lease, token, who)
        return token

    def lease_lost(self, lease: int) -> None:
        """The kernel says that a lease connection is over, and with it its process, or its use."""
        self._present.leases.lost(lease)
        for session in tuple(self.sessions.values()):
            if session.lease == lease:
                if session.state in OVER:
                    self._present.forget(session)
                else:
                    self._present.end(session, Event.LOST, gone=True)

    def _join(self, peer: Peer, join: Join, now_s: float, who: Visitor) -> None:
        if peer in self._present.by_peer:
            self.drop("a connection joined twice")
            return
        if (told := self._present.displaced.told(join)) is not None:
            self._present.say(peer, told)
            return
        if self.draining and join.session:
            # It comes back; perhaps so does the service.
            self._present.say(peer, ServiceEnding())
            return
        try:
            lease, who = self._present.leases.shown(
                join.token, who, is_local=peer[0] in self._local
            )
            check(join, self._facts, self._groups)
            known = self._present.known(join)
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
        self._present.came(session)
        self.joined += 1
        if not group.facts.broadcast:
            self._present.displaced.came(session)
        self._present.note(
            logging.INFO,
            f"rank {join.rank} of {join.world_size} joined group {join.group} at step "
            f"{seat.step}, with credit for {batches} batches",
        )
        return session

    def _displace(self, session: Session, event: Event, why: str) -> None:
        """Another comes in the place of a session."""
        self._present.say(
            session.peer, self._present.displaced.note(session.name, session.join, why)
        )
        self._present.end(session, event, gone=session.lease is None)

    def _returned(self, session: Session, peer: Peer, join: Join, now_s: float) -> Session | None:
        """A session that is taken up again over another connection."""
        if session.state in OVER or asked_seat(session.join) != asked_seat(join):
            return None
        if session.lease is not None and not self._present.leases.has(session.lease, join.token):
            # What it has lies in memory that goes with the old lease connection, until that ends.
            self._present.end(session, Event.LOST, gone=False)
            return None
        self._present.moved(session, peer)
        session.join, session.returned = taken_up(join, session.name), True
        # The end of a pause may have been lost with the connection: nobody waits for it for ever.
        session.stopped, session.paused, session.data = True, False, None
        self._present.heard(session, now_s)
        self._present.set_flow(session)
        return session

    def _welcome(self, session: Session) -> None:
        group = self._groups[session.group]
        self._present.say(session.peer, welcome(session, self._facts, group))
        if session.group in self.row_formats:
            self._present.say(session.peer, self.row_formats[session.group])
        if session.group in self._present.failed:
            self._present.say(session.peer, GroupFailed(self._present.failed[session.group]))
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
        if session.returned and session.group not in self._present.failed:
            session.returned = False
            group, join = self._groups[session.group], session.join
            start = join.position or group.members[session.name].seat.start
            group.repeat(session.name, (start.left.epoch, join.step), frozenset(join.held))
            if session.state is State.DRAINING:
                self._present.end_if_drained(session)
                return
        self._present.set_flow(session)

    def engine_up(self, group: str) -> None:
        """An engine of a group has begun: its local members get its memory."""
        for session in self.sessions.values():
            if session.group == group and session.lease is not None and session.state not in OVER:
                self._actions.append(PassArena(group, session.lease))

    # --------------------------------------------------------------- life

    def tick(self, now_s: float) -> None:
        """Time goes by: who was silent for too long?"""
        self._present.look(now_s)
        for group in self._groups.values():
            for name, detached in group.tick(now_s).items():
                session = self.sessions[name]
                self._present.say(session.peer, detached)
                self._present.end(session, Event.LEFT, gone=session.lease is None)
        for name in self._waiting.look(self.sessions.values(), self._present.paused, now_s):
            why = self._waiting.reason(name)
            level, words = (logging.WARNING, f"waits: {why}") if why else (logging.INFO, "goes on")
            self._present.note(level, f"group {name} {words}")
            self._present.to_group(name, Waits(why))

    def failed(self, group: str, failure: Failure) -> None:
        """The stream of a group cannot go on."""
        self._present.group_failed(group, failure)

    def know_format(self, group: str, row_format: RowFormat) -> None:
        """The columns of the rows of a group are known."""
        self.row_formats[group] = RowFormatKnown(row_format)
        self._present.to_group(group, self.row_formats[group])

    # --------------------------------------------------------------- operator

    def _operate(self, peer: Peer, wish: Operate, who: Visitor) -> None:
        try:
            _, who = self._present.leases.shown(wish.token, who, is_local=peer[0] in self._local)
            check_wish(wish, who, self._groups)
        except ProtocolError as error:
            self._refuse(peer, "an operator", error)
            return
        names = [wish.group] if wish.group else list(self._groups)
        if wish.verb != "status":
            self._present.note(
                logging.INFO, f"{wish.verb} of {', '.join(names)}, asked by {who.name}"
            )
        if wish.verb == "pause":
            self._present.paused.update(names)
        elif wish.verb == "resume":
            self._present.paused.difference_update(names)
        elif wish.verb == "drain" and not wish.group:
            self._present.begin_drain()
        for session in tuple(self.sessions.values()):
            if session.group in names and session.state not in OVER:
                if wish.verb == "drain":
                    self._present.say(session.peer, ServiceEnding())
                    self._present.drain(session)
                else:
                    self._present.set_flow(session)
        self._present.say(peer, OperatorAnswer(json.dumps(self.status())))

    def status(self) -> dict[str, object]:
        """What an operator wants to see, as plain data."""
        failed = self._present.failed
        groups = {
            name: group_status(group, self.sessions.values())
            | {
                "paused": name in self._present.paused,
                "failed": failed[name].message if name in failed else None,
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

    def _refuse(self, peer: Peer, who: str, error: ProtocolError) -> None:
        self.drop(f"{who} was refused: {error}")
        self._present.say(peer, Refuse(str(error)[:2_000]))
