"""Who may take a rank that another holds, or steer the service, and what the other is told."""

from __future__ import annotations

import msgspec
import pytest

from chunkdl.sampling.shares import Remainder
from chunkdl.service.decisions.actions import Peer, Say
from chunkdl.service.decisions.sessions import MOST_NAME, OVER, Session
from chunkdl.service.decisions.takeovers import MOST_DISPLACED, Displaced
from chunkdl.service.decisions.visitors import Visitor
from chunkdl.transport.protocol.engine_messages import Message, Ping, Pong, Refuse
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    Attach,
    Detached,
    Drain,
    Join,
    Joined,
    JoinFirst,
    Leave,
    Operate,
    OperatorAnswer,
    Position,
    Released,
)
from chunkdl.transport.protocol.session_states import State
from tests.service.decisions.group_script import GRACE_S, GROUP, SILENT_S, Setting
from tests.service.decisions.test_desk import Counter, a_join

ALICE = Visitor("the consumer's key alice.key, at 10.0.0.1", is_operator=False, key="alice")
AGAIN = Visitor("the consumer's key alice.key, at 10.0.0.2", is_operator=False, key="alice")
BOB = Visitor("the consumer's key bob.key, at 10.0.0.3", is_operator=False, key="bob")
BOSS = Visitor("the operator's key operators/boss.key, at 10.0.0.4", is_operator=True, key="boss")
HERE = Visitor("process 7 of user 1000", is_operator=True)

FIRST, SECOND, OTHER = (0, b"first"), (0, b"second"), (0, b"other")


def joined(counter: Counter, peer: Peer, who: Visitor, **fields: object) -> str:
    """The session of somebody who has joined."""
    (answer, *_) = counter.say(peer, a_join(**fields), who)
    assert isinstance(answer, Joined), answer
    counter.say((peer[0], peer[1] + b" data"), Attach(answer.session), who)
    return answer.session


def silent(who: Visitor = ALICE, **fields: object) -> tuple[Counter, str]:
    """A service whose only consumer has said nothing for a while, and its session."""
    counter = Counter(Setting(max_consumers=4))
    name = joined(counter, FIRST, who, **fields)
    counter.tick(SILENT_S + 1.0)
    assert counter.state(name) is State.SUSPECT
    return counter, name


def expire(counter: Counter) -> None:
    """All are silent until their sessions are over."""
    for late_s in (1.0, GRACE_S + 2.0):
        counter.tick(SILENT_S + late_s)


def wish(verb: str, group: str = "") -> Operate:
    """What an operator may want."""
    return Operate(SERVICE_PROTOCOL_VERSION, "", verb, group)


@pytest.mark.parametrize("group", ["", GROUP])
@pytest.mark.parametrize("verb", ["pause", "resume", "drain"])
def test_a_consumer_steers_nothing_and_is_told_why(verb: str, group: str) -> None:
    """Its key's file, what is missing and what to do are in the refusal; the consumers go on."""
    counter = Counter()
    name = joined(counter, FIRST, ALICE)
    (answer,) = counter.say(OTHER, wish(verb, group), BOB)
    assert isinstance(answer, Refuse)
    for words in (f"{verb} is for operators", "bob.key", "'operators'", "started again", "ipc"):
        assert words in answer.reason
    assert counter.state(name) is State.OPEN
    assert not counter.desk.draining
    assert counter.desk.status()["groups"][GROUP]["paused"] is False  # type: ignore[index]
    (status,) = counter.say(OTHER, wish("status", group), BOB)
    assert isinstance(status, OperatorAnswer)


@pytest.mark.parametrize("who", [BOSS, HERE], ids=["key", "ipc"])
@pytest.mark.parametrize("verb", ["pause", "resume", "drain"])
def test_an_operator_steers(verb: str, who: Visitor) -> None:
    """By its key, or by coming from its own user on this machine."""
    counter = Counter()
    (answer,) = counter.say(OTHER, wish(verb), who)
    assert isinstance(answer, OperatorAnswer)
    assert counter.desk.draining == (verb == "drain")


@pytest.mark.parametrize("who", [AGAIN, BOSS, HERE], ids=["same key", "operator", "ipc"])
def test_the_rank_of_a_silent_consumer_is_taken_and_it_is_told(who: Visitor) -> None:
    """By whoever has its key, as the same training begun anew, and by operators."""
    counter, name = silent()
    before = counter.desk.sessions[name]
    joined(counter, SECOND, who)
    assert before.state in OVER
    (told,) = counter.say(FIRST, a_join(session=name), ALICE)
    assert isinstance(told, Detached)
    assert told.at_once
    for words in ("rank 0 of group", f"was taken by {who.name}", "had heard nothing", "end one of"):
        assert words in told.reason


def test_the_rank_of_a_silent_consumer_is_not_another_consumers() -> None:
    """It may come once the time of the silent one is over, or ask an operator."""
    counter, name = silent()
    (answer,) = counter.say(SECOND, a_join(), BOB)
    assert isinstance(answer, Refuse)
    for words in ("held by the consumer's key alice.key", "free after grace_s", "bob.key"):
        assert words in answer.reason
    assert counter.state(name) is State.SUSPECT
    counter.say(FIRST, Ping(), ALICE)
    assert counter.state(name) is State.OPEN


def test_a_consumer_with_a_key_takes_nothing_from_one_on_the_machine_of_the_service() -> None:
    """Who has no key belongs to the owner of the service."""
    counter, name = silent(HERE)
    (answer,) = counter.say(SECOND, a_join(), BOB)
    assert isinstance(answer, Refuse)
    assert "process 7 of user 1000" in answer.reason
    assert counter.state(name) is State.SUSPECT


@pytest.mark.parametrize("who", [AGAIN, BOB, BOSS], ids=["same key", "another", "operator"])
def test_the_rank_of_a_consumer_that_is_well_is_taken_by_an_operator_who_says_so(
    who: Visitor,
) -> None:
    """Nobody takes it by accident; who may not is told what to do."""
    counter = Counter(Setting(max_consumers=4))
    name = joined(counter, FIRST, ALICE)
    session = counter.desk.sessions[name]
    (answer,) = counter.say(SECOND, a_join(), who)
    assert isinstance(answer, Refuse)
    assert "is there already, held by the consumer's key alice.key" in answer.reason
    assert "take_over=True" in answer.reason
    (answer, *_) = counter.say(SECOND, a_join(take_over=True), who)
    if who is BOSS:
        assert isinstance(answer, Joined)
        assert session.state in OVER
    else:
        assert isinstance(answer, Refuse)
        assert "Taking it is for operators" in answer.reason
        assert session.state is State.OPEN


def test_a_rank_that_would_not_fit_in_takes_nobodys_place() -> None:
    """One of three, where two share the rows and are well."""
    counter = Counter(Setting(max_consumers=4))
    names = [
        joined(counter, peer, HERE, rank=rank, world_size=2)
        for rank, peer in enumerate((FIRST, SECOND))
    ]
    (answer,) = counter.say(OTHER, a_join(rank=0, world_size=3, take_over=True), HERE)
    assert isinstance(answer, Refuse)
    assert "is shared by 2 ranks" in answer.reason
    assert [counter.state(name) for name in names] == [State.OPEN] * 2


WRONG = {
    "one rank": {"world_size": 1},
    "other batches": {"world_size": 2, "batch_rows": 3},
    "no step of the others": {"world_size": 2, "position": Position(Remainder(0, (), 3))},
    "no position": {"world_size": 2, "position": Position(Remainder(0, ((3, 2),), 9))},
    "another pass": {"world_size": 2, "position": Position(Remainder(1))},
}


@pytest.mark.parametrize("how", ["silent", "well"])
@pytest.mark.parametrize("fields", WRONG.values(), ids=WRONG.keys())
def test_who_is_refused_takes_nobodys_place(fields: dict[str, object], how: str) -> None:
    """Though it may take the rank: the holder stays what it is, is told nothing, and goes on."""
    counter = Counter(Setting(max_consumers=4))
    name = joined(counter, FIRST, ALICE, rank=0, world_size=2)
    joined(counter, OTHER, ALICE, rank=1, world_size=2)
    for member in counter.group.members.values():
        # So that nobody yields to a state.
        member.used = True
    counter.tick(SILENT_S - 1.0)
    counter.say(OTHER, Ping(), ALICE)
    if how == "silent":
        counter.tick(SILENT_S + 1.0)
    before = counter.state(name)
    (answer,) = counter.say(SECOND, a_join(take_over=True, **fields), BOSS)
    assert isinstance(answer, Refuse)
    assert not [a for a in counter.actions if isinstance(a, Say) and a.peer != SECOND]
    assert counter.state(name) is before
    (answer, *_) = counter.say((0, b"back"), a_join(session=name, rank=0, world_size=2), ALICE)
    assert isinstance(answer, Joined)
    assert answer.session == name


@pytest.mark.parametrize("known", ["session", "consumer"])
def test_who_lost_its_rank_hears_it_whenever_it_comes_back(known: str) -> None:
    """Though its connection was lost before, and though the rank is free again by then."""
    counter, name = silent(consumer="c" * 32)
    after = joined(counter, SECOND, AGAIN)
    counter.desk.begin_drain()
    counter.desk._present.draining = False
    assert after not in counter.desk.sessions
    came_back = a_join(**{known: name if known == "session" else "c" * 32})
    (told,) = counter.say(OTHER, came_back, ALICE)
    assert isinstance(told, Detached)
    assert "was taken by" in told.reason
    (answer, *_) = counter.say((0, b"new"), a_join(), ALICE)
    assert isinstance(answer, Joined)


@pytest.mark.parametrize("how", ["overdue", "lost"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_who_was_away_while_another_had_its_place_is_told(how: str, world_size: int) -> None:
    """Nobody took it from anybody, and the rank is free again; its rows are still another's."""
    counter = Counter(Setting(max_consumers=4))
    token = counter.desk.lease_opened(7, HERE) if how == "lost" else ""
    name = joined(counter, FIRST, HERE, token=token, consumer="c" * 32)
    if how == "lost":
        counter.desk.lease_lost(7)
    else:
        expire(counter)
    assert name not in counter.desk.sessions
    joined(counter, SECOND, BOSS, world_size=world_size)
    assert isinstance(counter.say(SECOND, Leave(0, 0), BOSS)[0], Pong)
    (told,) = counter.say(OTHER, a_join(session=name, consumer="c" * 32), HERE)
    assert isinstance(told, Detached)
    assert told.at_once
    assert f"was taken by {BOSS.name}" in told.reason


def test_who_was_away_and_alone_goes_on() -> None:
    """Nobody had its place meanwhile."""
    counter = Counter(Setting(max_consumers=4))
    name = joined(counter, FIRST, ALICE, consumer="c" * 32, rank=0, world_size=2)
    joined(counter, SECOND, ALICE, rank=1, world_size=2)
    expire(counter)
    joined(counter, (0, b"third"), ALICE, rank=1, world_size=2)
    for number in range(2):
        again = a_join(session=name, consumer="c" * 32, rank=0, world_size=2)
        (answer, *_) = counter.say((0, b"again %d" % number), again, ALICE)
        assert isinstance(answer, Joined)
        name = answer.session


def test_who_stands_in_the_way_of_a_state_is_told_who_resumes() -> None:
    """Of ranks that have used nothing yet; what was on its way to them is dealt out anew."""
    counter = Counter(Setting(max_consumers=4))
    name = joined(counter, FIRST, ALICE, rank=1, world_size=2)
    ahead = a_join(rank=0, world_size=2, position=Position(Remainder(0, ((0, 1),), 8)))
    counter.desk.handle(SECOND, ahead, 0.0, AGAIN)
    (told,) = counter.heard(FIRST)
    assert isinstance(told, Detached)
    assert told.at_once
    assert AGAIN.name in told.reason
    assert "load the same here" in told.reason
    assert counter.say(OTHER, a_join(session=name), ALICE) == [told]


@pytest.mark.parametrize("who", [AGAIN, BOB, BOSS, HERE], ids=["same key", "other", "boss", "ipc"])
def test_a_state_sends_nobody_away_who_has_another_key(who: Visitor) -> None:
    """Ranks of one training have one; an operator may."""
    counter = Counter(Setting(max_consumers=4))
    name = joined(counter, FIRST, ALICE, rank=1, world_size=2)
    before = counter.desk.sessions[name]
    ahead = a_join(rank=0, world_size=2, position=Position(Remainder(0, ((0, 1),), 8)))
    (answer, *_) = counter.say(SECOND, ahead, who)
    if who is BOB:
        assert isinstance(answer, Refuse)
        for words in ("resume all ranks from the same state", ALICE.name, "before it connects"):
            assert words in answer.reason
        assert before.state is State.OPEN
        assert counter.say(FIRST, Ping(), ALICE) == [Pong()]
    else:
        assert isinstance(answer, Joined)
        assert before.state in OVER


def test_ranks_with_several_keys_load_a_state_before_the_others_connect() -> None:
    """As the refusal says; the others may load it as well."""
    counter = Counter(Setting(max_consumers=4))
    state = Position(Remainder(0, ((0, 1),), 8))
    joined(counter, FIRST, ALICE, rank=0, world_size=2, position=state)
    joined(counter, SECOND, BOB, rank=1, world_size=2)
    counter.say(SECOND, Leave(0, 0), BOB)
    joined(counter, SECOND, BOB, rank=1, world_size=2, position=state)
    assert len(counter.desk.sessions) == 2


def test_a_state_sends_only_ones_own_away() -> None:
    """Who has another key stays, and then nobody leaves for one that it cannot be beside."""
    counter = Counter(Setting(max_consumers=4))
    names = [
        joined(counter, (0, b"%d" % rank), who, rank=rank, world_size=3)
        for rank, who in enumerate((ALICE, BOB))
    ]
    ahead = a_join(rank=2, world_size=3, position=Position(Remainder(0, ((0, 1),), 8)))
    (answer,) = counter.say(SECOND, ahead, ALICE)
    assert isinstance(answer, Refuse)
    assert [counter.state(name) for name in names] == [State.OPEN] * 2


def test_a_connection_is_heard_only_with_the_key_that_opened_its_session() -> None:
    """Who has come by its name with another is told to join, and has done nothing."""
    counter = Counter(Setting(max_consumers=4))
    name = joined(counter, FIRST, ALICE)
    counter.tick(SILENT_S + 1.0)
    for message in (Ping(), Drain(), Released(()), Leave(0, 0)):
        assert counter.say(FIRST, message, BOB) == [JoinFirst()]
    assert counter.state(name) is State.SUSPECT
    assert counter.say(FIRST, Ping(), AGAIN) == [Pong()]
    assert counter.state(name) is State.OPEN


@pytest.mark.parametrize("state", [None, Position(Remainder(0, ((0, 1),), 8))])
def test_a_rank_is_taken_beside_another(state: Position | None) -> None:
    """Which stays where it is; or yields, with what the silent one has used not counted."""
    counter = Counter(Setting(max_consumers=2))
    names = [
        joined(counter, peer, ALICE, rank=rank, world_size=2)
        for rank, peer in enumerate((FIRST, OTHER))
    ]
    counter.group.members[names[0]].used = True
    counter.tick(SILENT_S - 1.0)
    counter.say(OTHER, Ping(), ALICE)
    counter.tick(SILENT_S + 1.0)
    (answer, *_) = counter.say(SECOND, a_join(rank=0, world_size=2, position=state), AGAIN)
    assert isinstance(answer, Joined)
    assert [name in counter.desk.sessions for name in names] == [False, state is None]
    told = {
        action.peer: action.message.reason
        for action in counter.actions
        if isinstance(action, Say) and isinstance(action.message, Detached)
    }
    assert "rank 0 of group train was taken by" in told.pop(FIRST)
    assert [("load the same here" in reason) for reason in told.values()] == [True] * bool(state)


def test_a_session_is_not_taken_up_with_another_key() -> None:
    """Whoever has learned its name; nor do its bytes go to another."""
    counter = Counter(Setting(max_consumers=4))
    name = joined(counter, FIRST, ALICE, consumer="c" * 32)
    for claim in (a_join(session=name), a_join(consumer="c" * 32)):
        (answer,) = counter.say(OTHER, claim, BOB)
        assert isinstance(answer, Refuse)
        assert "belongs to the consumer's key alice.key" in answer.reason
    counter.say(OTHER, Attach(name), BOB)
    assert counter.desk.sessions[name].data == (0, b"first data")
    (answer, *_) = counter.say(OTHER, a_join(session=name), AGAIN)
    assert isinstance(answer, Joined)


def test_nothing_that_a_consumer_says_of_itself_makes_it_an_operator() -> None:
    """Names that operators have, in every field that takes one."""
    counter = Counter(Setting(max_consumers=4))
    name = joined(counter, FIRST, ALICE)
    claims: list[Message] = [
        msgspec.structs.replace(wish("drain"), token="operators/boss.key"),
        msgspec.structs.replace(wish("drain"), token="boss"),
        a_join(take_over=True, consumer="operators/boss.key"),
        a_join(take_over=True, consumer="boss", token="boss"),
        a_join(take_over=True, session="boss"),
    ]
    for claim in claims:
        assert isinstance(claim, Join | Operate)
        (answer,) = counter.say(OTHER, claim, BOB)
        assert isinstance(answer, Refuse), claim
    assert counter.state(name) is State.OPEN
    assert not counter.desk.draining


def test_an_operator_sees_who_holds_a_rank() -> None:
    """In the status, by the word of the kernel or the key's file."""
    counter = Counter(Setting(max_consumers=4))
    joined(counter, FIRST, ALICE)
    groups = counter.desk.status()["groups"]
    assert isinstance(groups, dict)
    assert [member["who"] for member in groups[GROUP]["members"]] == [ALICE.name]


def test_little_is_remembered_of_who_has_gone() -> None:
    """Nothing of what it may have sent that is large; of a broadcast, where nobody takes anybody's
    place, nothing at all.
    """
    for broadcast in (False, True):
        counter = Counter(Setting(max_consumers=4, broadcast=broadcast))
        joined(
            counter,
            FIRST,
            ALICE,
            session="s" * MOST_NAME,
            consumer="c" * MOST_NAME,
            position=Position(Remainder(0, ((0, 1),), 8)),
            held=tuple(range(1000)),
        )
        expire(counter)
        kept = counter.desk._present.displaced._gone
        assert len(kept) == (not broadcast)
        assert sum(len(msgspec.msgpack.encode(join)) for join in kept.values()) < 512


def test_no_more_is_remembered_than_may_be() -> None:
    """The oldest is forgotten first."""
    displaced = Displaced()
    for number in range(MOST_DISPLACED + 1):
        join = a_join(consumer=f"c{number}")
        session = Session(f"s{number}", GROUP, FIRST, None, None, State.CLOSED, 0.0, join)
        displaced.note(session.name, join, "taken")
        displaced.gone(session)
    assert displaced.told(a_join(session="s0")) is None
    assert displaced.told(a_join(session="s1")) is not None
    assert displaced.told(a_join(consumer=f"c{MOST_DISPLACED}")) is not None
    assert displaced.told(a_join()) is None
