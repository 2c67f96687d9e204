"""The desk: who may join, who is there, and what an operator and a stranger can do."""

from __future__ import annotations

import json
import logging
import re

import msgspec
import pytest

from chunkdl.errors import Failure
from chunkdl.sampling.shares import Remainder
from chunkdl.service.decisions.actions import (
    AskEngine,
    CloseLease,
    Deliver,
    Note,
    Peer,
    Say,
    ServiceAction,
)
from chunkdl.service.decisions.desk import Desk
from chunkdl.service.decisions.group import Group
from chunkdl.service.decisions.visitors import Visitor
from chunkdl.transport.protocol.engine_messages import Message, Ping, Pong, Refuse
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    AskCatalogue,
    AskStatistics,
    Attach,
    CataloguePage,
    Delivered,
    Detached,
    Drain,
    GroupFailed,
    Join,
    Joined,
    JoinFirst,
    LeaseOpened,
    Leave,
    Operate,
    OperatorAnswer,
    Pause,
    Position,
    Released,
    RowFormatKnown,
    ServiceEnding,
    ServiceMessage,
)
from chunkdl.transport.protocol.session_states import State
from chunkdl.transport.row_format import ColumnFormat, RowFormat
from tests.service.decisions.group_script import GRACE_S, GROUP, ROWS_HASH, SILENT_S, Setting

STRANGER = Visitor("somebody", is_operator=False)
OWNER = Visitor("process 7 of user 1000", is_operator=True)
FAILURE = Failure("SlideError", "cannot read a.tif", "trace")


class Counter:
    """A desk with one group, and what it does, heard by one who only listens."""

    def __init__(self, setting: Setting | None = None) -> None:
        self.setting = setting or Setting(max_consumers=2)
        self.group = Group(self.setting.group_facts(), Position())
        names = iter(f"name {number}" for number in range(1000))
        self.desk = Desk(
            self.setting.desk_facts(),
            {GROUP: self.group},
            lambda: next(names),
            lambda patient, slide: CataloguePage(patient, (), slide, ((b"a.tif", {}),)),
        )
        self.now_s = 0.0
        self.actions: list[ServiceAction] = []

    def say(self, peer: Peer, message: ServiceMessage, who: Visitor = OWNER) -> list[Message]:
        """Somebody says something; what is said to it then."""
        self.desk.handle(peer, message, self.now_s, who)
        return self.heard(peer)

    def heard(self, peer: Peer) -> list[Message]:
        """What was said to a connection just now."""
        self.actions = self.desk.take()
        return [a.message for a in self.actions if isinstance(a, Say) and a.peer == peer]

    def state(self, name: str) -> State:
        """Of a session."""
        return self.desk.sessions[name].state

    def tick(self, now_s: float) -> list[ServiceAction]:
        """Time goes by."""
        self.now_s = now_s
        self.desk.tick(now_s)
        self.actions = self.desk.take()
        return self.actions

    def joined(self, number: int, **fields: object) -> tuple[Peer, str]:
        """A connection that has joined, and its session; remote, with its way for bytes."""
        peer = 0, f"p{number}".encode()
        answer = self.say(peer, a_join(**fields))[0]
        assert isinstance(answer, Joined), answer
        if not answer.local:
            self.say((0, f"d{number}".encode()), Attach(answer.session))
        return peer, answer.session

    def notes(self, words: str) -> list[str]:
        """Lines for the log with these words."""
        return [a.text for a in self.actions if isinstance(a, Note) and words in a.text]


def a_join(**fields: object) -> Join:
    """A sound one, but for these fields."""
    version, credit = SERVICE_PROTOCOL_VERSION, 10**6
    join = Join(version, "", "", GROUP, 0, 1, 0, 2, credit, ROWS_HASH, None, 0, ())
    return msgspec.structs.replace(join, **fields)


PEER = 0, b"somebody"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"group": "none"}, "no group 'none'; there are train"),
        ({"rows_hash": "feed"}, "another stream"),
        ({"rank": 1}, "out of range"),
        ({"rank": -1}, "out of range"),
        ({"world_size": 0}, "out of range"),
        ({"batch_rows": -1}, "out of range"),
        ({"credit_batches": 0}, "out of range"),
        ({"credit_bytes": 0}, "out of range"),
        ({"token": "unknown"}, "token is not known"),
        ({"session": "s" * 65}, "out of range"),
        ({"consumer": "c" * 65}, "out of range"),
        ({"position": Position(Remainder(0, ((3, 2),), 9))}, "position"),
        ({"position": Position(), "step": -1}, "position"),
        ({"position": Position(Remainder(1))}, "no passes"),
    ],
    ids=str,
)
def test_who_cannot_join_is_told_why(fields: dict[str, object], words: str) -> None:
    """And nothing is kept of it."""
    counter = Counter()
    (answer,) = counter.say(PEER, a_join(**fields))
    assert isinstance(answer, Refuse)
    assert re.search(words, answer.reason), answer.reason
    assert not counter.desk.sessions
    assert counter.say(PEER, Ping()) == [JoinFirst()]


def test_a_full_service_refuses_one_more() -> None:
    """Until a session has ended."""
    counter = Counter()
    first, _ = counter.joined(0, world_size=2)
    counter.joined(1, rank=1, world_size=2)
    (answer,) = counter.say(PEER, a_join())
    assert isinstance(answer, Refuse)
    counter.say(first, Leave(0, 0))
    counter.joined(2, world_size=2)


def test_a_session_that_is_only_kept_for_its_memory_takes_no_place() -> None:
    """Its consumer comes back, although the service is full."""
    counter = Counter(Setting(max_consumers=1))
    lease = 7
    _, name = counter.joined(0, token=counter.desk.lease_opened(lease))
    counter.desk.sessions[name].kept = None
    counter.group.members[name].held[0] = Delivered(0, 0, 0, 1, (), Position())
    counter.tick(SILENT_S + 1)
    counter.tick(SILENT_S + GRACE_S + 1)
    assert counter.desk.sessions[name].state is State.EXPIRED
    counter.joined(1, token=counter.desk.lease_opened(8))


def test_a_rank_is_there_only_once() -> None:
    """Until its session is suspect: then its successor has it."""
    counter = Counter()
    _, name = counter.joined(0)
    (answer,) = counter.say(PEER, a_join())
    assert isinstance(answer, Refuse)
    assert "is there already" in answer.reason
    counter.tick(SILENT_S + 1)
    counter.joined(1)
    assert name not in counter.desk.sessions


def test_silence_makes_a_session_suspect_and_then_expired() -> None:
    """At the times that were set; a word in between makes it open again."""
    counter = Counter()
    peer, name = counter.joined(0)
    session = counter.desk.sessions[name]
    counter.tick(SILENT_S)
    assert counter.state(name) is State.OPEN
    counter.tick(SILENT_S + 0.5)
    assert counter.state(name) is State.SUSPECT
    assert not counter.group.members[name].flows
    assert counter.notes("says nothing")
    assert counter.say(peer, Ping()) == [Pong()]
    assert counter.state(name) is State.OPEN
    assert counter.group.members[name].flows
    start = counter.now_s
    counter.tick(start + SILENT_S + 0.5)
    counter.tick(start + SILENT_S + GRACE_S)
    assert counter.state(name) is State.SUSPECT
    counter.tick(start + SILENT_S + GRACE_S + 0.5)
    assert session.state is State.EXPIRED
    assert any(isinstance(a, Say) and isinstance(a.message, Detached) for a in counter.actions)
    assert not counter.desk.sessions
    assert not counter.group.members


def test_who_never_opens_the_way_for_its_batches_expires() -> None:
    """A session that stays in its first state."""
    counter = Counter()
    counter.say(PEER, a_join())
    (session,) = counter.desk.sessions.values()
    assert counter.state(session.name) is State.JOINING
    counter.tick(SILENT_S + GRACE_S + 1)
    assert session.state is State.EXPIRED


def test_a_session_is_taken_up_again_by_its_name_only() -> None:
    """From any connection; the one before is nobody then. A stranger's name gets a session."""
    counter = Counter()
    peer, name = counter.joined(0)
    (again,) = counter.say((0, b"new"), a_join(session=name, position=Position()))
    assert isinstance(again, Joined)
    assert again.session == name
    assert counter.say(peer, Ping()) == [JoinFirst()]
    assert counter.say((0, b"new"), Ping()) == [Pong()]
    for guess in ("", "name", name + " ", name.upper()):
        (answer,) = counter.say(PEER, a_join(session=guess, position=Position()))
        assert isinstance(answer, Refuse), guess
    assert counter.desk.sessions[name].peer == (0, b"new")


def test_a_pause_ends_with_the_connection() -> None:
    """What ends it may have been lost with that, and its consumer would wait for ever."""
    counter = Counter()
    peer, name = counter.joined(0)
    counter.say(peer, Pause())
    assert counter.desk.sessions[name].paused
    counter.say((0, b"new"), a_join(session=name, position=Position()))
    assert not counter.desk.sessions[name].paused


def test_who_never_heard_its_welcome_is_known_again_by_its_own_name() -> None:
    """It has its rank, at once; with another name, or none, the rank is taken."""
    counter = Counter()
    mine = a_join(consumer="mine")
    counter.say((0, b"lost"), mine)
    for other in ("", "another"):
        (answer,) = counter.say((0, b"other"), a_join(consumer=other))
        assert isinstance(answer, Refuse)
    (answer,) = counter.say(PEER, mine)
    assert isinstance(answer, Joined)
    (session,) = counter.desk.sessions.values()
    assert (session.name, session.peer) == (answer.session, PEER)
    counter.say((0, b"bytes"), Attach(answer.session))
    assert session.state is State.OPEN
    # One that is over is not taken up.
    counter.say(PEER, Leave(0, 0))
    (answer,) = counter.say(PEER, mine)
    assert isinstance(answer, Joined)
    assert answer.session != session.name


def test_who_never_heard_its_second_welcome_is_known_again() -> None:
    """It names a session that the service does not know, as after its end, or that is over. What it
    holds of that one is none of the new one's.
    """
    for before in ("of a service that has ended", "of this one"):
        counter = Counter()
        name = before
        if before == "of this one":
            _, name = counter.joined(0, consumer="mine")
            counter.tick(SILENT_S + 1)
            counter.tick(SILENT_S + GRACE_S + 1)
            assert not counter.desk.sessions
        again = a_join(session=name, consumer="mine", position=Position(), held=(0,))
        (lost, *_) = counter.say((0, b"lost"), again)
        assert isinstance(lost, Joined)
        (answer, *_) = counter.say(PEER, again)
        assert isinstance(answer, Joined), answer
        assert (answer.session, answer.step) == (lost.session, lost.step)
        (session,) = counter.desk.sessions.values()
        assert session.peer == PEER
        member, number = counter.group.members[session.name], counter.group.engine
        member.lend(Delivered(0, 0, 0, number, (), Position()), ())
        member.seat.step = 1
        counter.say((0, b"bytes"), Attach(answer.session))
        sent = [action for action in counter.actions if isinstance(action, Deliver)]
        assert [action.message.number for action in sent] == [0]


def test_a_local_session_is_not_taken_up_over_another_lease() -> None:
    """Its memory goes with the old lease: it is kept until that ends, and the consumer is new."""
    counter = Counter()
    old, new = counter.desk.lease_opened(7), counter.desk.lease_opened(8)
    _, name = counter.joined(0, token=old)
    member = counter.group.members[name]
    member.held[0] = Delivered(0, 0, 0, 1, (), Position())
    _, other = counter.joined(1, token=new, session=name, position=Position())
    assert other != name
    assert counter.desk.sessions[name].kept is member
    del member.held[0]
    counter.desk.lease_lost(7)
    counter.heard(PEER)
    assert CloseLease(7) in counter.actions
    assert list(counter.desk.sessions) == [other]


def test_a_stranger_cannot_do_anything_with_a_session() -> None:
    """Whatever it says without having joined is answered with a question; bytes go nowhere."""
    counter = Counter()
    _, name = counter.joined(0)
    for message in (Released((0,)), Leave(0, 0), Drain(), AskStatistics(), AskCatalogue(0, 0)):
        assert counter.say(PEER, message) == [JoinFirst()]
    counter.say(PEER, Attach("guess"))
    assert counter.notes("a data connection of no session")
    assert counter.desk.sessions[name].data == (0, b"d0")
    assert counter.desk.sessions[name].state is State.OPEN


def test_what_makes_no_sense_is_dropped_counted_and_noted_ever_more_seldom() -> None:
    """The first, second, fourth, eighth time."""
    counter = Counter()
    peer, _ = counter.joined(0)
    noted = 0
    for _ in range(10):
        counter.say(peer, Released((5,)))
        noted += len(counter.notes("released that is not out"))
    assert noted == 4
    for message in (LeaseOpened("x"), AskCatalogue(-1, 0)):
        counter.say(peer, message)
        assert counter.notes("dropped (1x")
    assert counter.desk.status()["dropped"] == 12


def test_reasons_that_strangers_make_up_do_not_fill_the_log() -> None:
    """All are counted, few are noted."""
    counter = Counter()
    for number in range(2000):
        counter.desk.drop(f"{number}" * 500)
    counter.heard(PEER)
    assert counter.desk.status()["dropped"] == 2000
    notes = counter.notes("dropped")
    assert 100 <= len(notes) < 150
    assert max(map(len, notes)) < 300


def test_the_catalogue_and_the_counters_are_asked_for() -> None:
    """One page, and the engine of the group."""
    counter = Counter()
    peer, name = counter.joined(0)
    assert counter.say(peer, AskCatalogue(3, 4)) == [CataloguePage(3, (), 4, ((b"a.tif", {}),))]
    counter.say(peer, AskStatistics())
    assert AskEngine(GROUP, name) in counter.actions


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Operate(SERVICE_PROTOCOL_VERSION, "x", "status", ""), "token"),
        (Operate(SERVICE_PROTOCOL_VERSION, "", "status", "none"), "no group 'none'"),
        (Operate(SERVICE_PROTOCOL_VERSION, "", "stop", ""), "status, pause, resume and drain"),
    ],
    ids=str,
)
def test_an_operator_is_refused_what_is_not_there(wish: Operate, words: str) -> None:
    """With the reason."""
    (answer,) = Counter().say(PEER, wish)
    assert isinstance(answer, Refuse)
    assert words in answer.reason


def operate(counter: Counter, verb: str, group: str = "") -> dict[str, object]:
    """An operator's wish; the status that answers it."""
    *_, answer = counter.say(PEER, Operate(SERVICE_PROTOCOL_VERSION, "", verb, group))
    assert isinstance(answer, OperatorAnswer)
    status: dict[str, object] = json.loads(answer.status)
    return status


def test_an_operator_pauses_a_group_and_has_it_go_on() -> None:
    """Who joins meanwhile waits too."""
    counter = Counter()
    _, name = counter.joined(0, world_size=2)
    groups = operate(counter, "pause", GROUP)["groups"]
    assert isinstance(groups, dict)
    assert groups[GROUP]["paused"]
    assert not counter.group.members[name].flows
    _, other = counter.joined(1, rank=1, world_size=2)
    assert not counter.group.members[other].flows
    operate(counter, "resume")
    assert all(member.flows for member in counter.group.members.values())


def test_a_drained_service_takes_nobody_and_ends_its_sessions() -> None:
    """Those that have nothing at once."""
    counter = Counter()
    peer, _ = counter.joined(0)
    counter.desk.begin_drain()
    assert ServiceEnding() in counter.heard(peer)
    assert not counter.desk.sessions
    (answer,) = counter.say(PEER, a_join())
    assert isinstance(answer, Refuse)
    assert "about to end" in answer.reason
    assert operate(counter, "status")["draining"]


def test_nobody_gets_anything_from_the_end_of_another_while_a_service_drains() -> None:
    """All are stopped before the first one goes."""
    counter = Counter(Setting(broadcast=True))
    flows = []
    counter.joined(0)
    _, second = counter.joined(1)
    leave = counter.group.leave

    def watched(session: str, went_on: tuple[int, int] | None, *, gone: bool) -> None:
        flows.append(second in counter.group.members and counter.group.members[second].flows)
        leave(session, went_on, gone=gone)

    counter.group.leave = watched  # type: ignore[method-assign]
    counter.desk.begin_drain()
    assert flows == [False, False]


def test_a_group_that_is_drained_tells_its_consumers_that_they_are_sent_away() -> None:
    """Else they would think that they were forgotten, and join again."""
    counter = Counter()
    peer, _ = counter.joined(0)
    counter.desk.handle(PEER, Operate(SERVICE_PROTOCOL_VERSION, "", "drain", GROUP), 0.0, OWNER)
    told = counter.heard(peer)
    assert told[0] == ServiceEnding()
    assert isinstance(told[1], Detached)
    assert not counter.desk.sessions


def test_a_consumer_that_drains_keeps_its_session_until_it_has_given_everything_back() -> None:
    """Then it is told that it is over."""
    counter = Counter()
    peer, name = counter.joined(0)
    counter.group.members[name].held[0] = Delivered(0, 0, 0, 1, (), Position())
    assert counter.say(peer, Drain()) == []
    assert counter.desk.sessions[name].state is State.DRAINING
    counter.group.members[name].held.clear()
    (told,) = counter.say(peer, Released(()))
    assert isinstance(told, Detached)
    assert not counter.desk.sessions


@pytest.mark.parametrize("how", ["leaves", "drains", "is silent"])
def test_the_token_of_a_local_session_ends_with_it(how: str) -> None:
    """Its lease connection is closed, and nobody joins or operates with what was given there."""
    counter = Counter()
    for number in range(3):
        token = counter.desk.lease_opened(7)
        peer, _ = counter.joined(number, token=token)
        if how == "is silent":
            counter.tick(counter.now_s + SILENT_S + 1)
            counter.tick(counter.now_s + GRACE_S + 1)
        else:
            counter.say(peer, Leave(0, 0) if how == "leaves" else Drain())
        assert CloseLease(7) in counter.actions
        wish = Operate(SERVICE_PROTOCOL_VERSION, token, "drain", "")
        for message in (a_join(token=token), wish):
            (answer,) = counter.say((0, b"later"), message, STRANGER)
            assert isinstance(answer, Refuse), how
            assert "the token is not known" in answer.reason


def test_a_lease_that_is_lost_ends_its_session_and_its_token() -> None:
    """At once, whatever the session was doing."""
    counter = Counter()
    token = counter.desk.lease_opened(7)
    _, name = counter.joined(0, token=token)
    assert counter.desk.sessions[name].lease == 7
    counter.desk.lease_lost(7)
    counter.heard(PEER)
    assert CloseLease(7) in counter.actions
    assert not counter.desk.sessions
    (answer,) = counter.say(PEER, a_join(token=token))
    assert isinstance(answer, Refuse)


def test_a_group_that_has_failed_says_so_to_all_and_to_whoever_comes() -> None:
    """And sends nothing: what lay in its engine is gone."""
    counter = Counter()
    peer, name = counter.joined(0, world_size=2)
    counter.desk.failed(GROUP, FAILURE)
    assert counter.heard(peer) == [GroupFailed(FAILURE)]
    assert not counter.group.members[name].flows
    answers = counter.say(PEER, a_join(rank=1, world_size=2))
    assert answers[1:] == [GroupFailed(FAILURE)]


def test_how_rows_lie_is_said_to_all_and_to_whoever_comes() -> None:
    """Where the user's transform makes them."""
    counter = Counter()
    peer, _ = counter.joined(0, world_size=2)
    row_format = RowFormat((ColumnFormat("image", "<f4", (3, 4)),))
    counter.desk.know_format(GROUP, row_format)
    assert counter.heard(peer) == [RowFormatKnown(row_format)]
    answers = counter.say(PEER, a_join(rank=1, world_size=2))
    assert answers[1:] == [RowFormatKnown(row_format)]


def test_refusals_are_noted() -> None:
    """For the operator."""
    counter = Counter()
    counter.say(PEER, a_join(group="none"))
    assert counter.notes("no group 'none'")
    assert all(
        a.level in (logging.INFO, logging.WARNING) for a in counter.actions if isinstance(a, Note)
    )
