"""Single decisions of a group, each where it once went wrong or easily could."""

from __future__ import annotations

import pytest

from chunkdl.sampling.shares import Remainder
from chunkdl.transport.protocol.service_messages import Drain, Leave, NextPass, Pause, Position
from tests.service.decisions.group_script import Consumer, Setting
from tests.service.decisions.group_world import GroupWorld


def ranks(world: GroupWorld, count: int, batch_rows: int = 2, local: bool = True) -> list[Consumer]:
    """As many ranks, joined."""
    for rank in range(count):
        world.newcomer(Consumer(rank, count, batch_rows, local, 2, 10**6))
    return world.there[-count:]


def hear_all(world: GroupWorld, *consumers: Consumer) -> None:
    """They take what they were sent."""
    for consumer in consumers:
        while world.hear(consumer):
            pass


def use_up(world: GroupWorld, consumer: Consumer) -> None:
    """The user takes everything and gives it back, as long as anything comes."""
    for _ in range(100):
        if not (world.hear(consumer) or world.use(consumer) or world.release(consumer, 0)):
            return
        world.make()


def to_the_end(world: GroupWorld, *consumers: Consumer) -> None:
    """The pass is over for all of them."""
    for _ in range(50):
        for consumer in consumers:
            use_up(world, consumer)
        world.make()
    assert all(consumer.ended for consumer in consumers)


def test_an_engine_that_is_lost_between_passes_is_replaced_for_the_next() -> None:
    """Nobody needs it when it dies; who asks for the next pass does, and may hold batches of it."""
    world = GroupWorld(Setting(totals=(8,)))
    (alone,) = ranks(world, 1, 4)
    for _ in range(4):
        world.make()
    hear_all(world, alone)
    world.use(alone)
    world.release(alone, 0)
    hear_all(world, alone)
    assert alone.ended
    world.kill_engine()
    while world.use(alone) or world.release(alone, 0):
        pass
    world.next_pass(alone)
    to_the_end(world, alone)
    assert alone.received == 4


def test_a_rank_behind_in_an_older_pass_has_the_engine_go_back() -> None:
    """A service that starts anew may hear first of the rank that is further."""
    world = GroupWorld(Setting(totals=(8,)))
    for rank, epoch in ((0, 1), (1, 0)):
        one = Consumer(rank, 2, 2, True, 2, 10**6, start=Position(Remainder(epoch)), epoch=epoch)
        world.newcomer(one)
    assert world.engine is not None
    assert (world.engine.epoch, world.engine.next_batch) == (0, 0)
    world.drive()


def test_members_of_a_broadcast_in_two_passes_do_not_wait_for_each_other() -> None:
    """The one that has begun the next pass is held; the one that is behind goes on."""
    world = GroupWorld(Setting(broadcast=True, totals=(40,), max_lag_batches=2))
    first, second = ranks(world, 2, 4)
    for _ in range(60):
        use_up(world, first)
        if second.received < 8:
            hear_all(world, second)
            world.use(second)
            world.release(second, 0)
        world.make()
    assert first.ended
    assert not second.ended
    world.next_pass(first)
    world.drive()


def test_a_rank_that_asks_later_for_the_next_pass_finds_its_rows() -> None:
    """They are not given back because it was between passes; the engine goes on as it is."""
    world = GroupWorld(Setting(totals=(16,), batch_rows=2))
    first, second = ranks(world, 2)
    to_the_end(world, first, second)
    world.next_pass(first)
    for _ in range(4):
        world.make()
        use_up(world, first)
    world.next_pass(second)
    to_the_end(world, first, second)
    assert world.engine is not None
    assert world.engine.number == 1


def test_a_rank_that_comes_back_to_a_finished_pass_is_told_so() -> None:
    """Without a state, while another is there; it goes on to the next pass."""
    world = GroupWorld(Setting(totals=(8,)))
    first, second = ranks(world, 2)
    to_the_end(world, first, second)
    world.leave(second)
    world.newcomer(again := Consumer(1, 2, 2, True, 2, 10**6))
    hear_all(world, again)
    assert again.ended
    assert again.received == 0


def test_ranks_that_come_when_all_have_finished_begin_the_next_pass() -> None:
    """The same number of them, without a state."""
    world = GroupWorld(Setting(totals=(8,)))
    both = ranks(world, 2)
    to_the_end(world, *both)
    for consumer in both:
        world.leave(consumer)
    after = ranks(world, 2)
    hear_all(world, *after)
    assert [consumer.epoch for consumer in after] == [1, 1]
    to_the_end(world, *after)


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_short_last_step_is_counted_for_those_that_have_had_it(ahead: int) -> None:
    """Ten rows for two ranks of four: whoever comes alone gets what one rank has not had."""
    world = GroupWorld(Setting(totals=(10,), batch_rows=5))
    first, second = ranks(world, 2, 4)
    to_the_end(world, first)
    if ahead:
        world.next_pass(first)
    hear_all(world, second)
    assert second.received == 2 or second.step == 2
    world.use(second)
    world.release(second, 0)
    world.close_abruptly(second)
    world.leave(first)
    left = world.group.position().left
    assert left.epoch == 0
    assert left.take(0, left.total(10)) == ((9, 10),)


def test_what_was_made_and_nobody_needs_any_more_is_given_back_when_somebody_comes() -> None:
    """Slots full of rows before the position of the newcomer would stop the engine."""
    world = GroupWorld(Setting(slots=4))
    (alone,) = ranks(world, 1, 4)
    for _ in range(8):
        world.make()
    world.close_abruptly(alone)
    ahead = Position(Remainder(0, (), 40))
    world.newcomer(Consumer(0, 1, 4, True, 2, 10**6, start=ahead))
    world.drive()


def test_an_engine_rests_when_all_of_a_broadcast_have_left() -> None:
    """It fills its slots and makes no more."""
    world = GroupWorld(Setting(broadcast=True))
    (alone,) = ranks(world, 1, 4)
    use_up(world, alone) if world.hear(alone) else None
    world.leave(alone)
    made = sum(world.make() for _ in range(100))
    assert made <= world.setting.slots


def test_a_pass_that_was_finished_with_a_service_before_is_over() -> None:
    """Its consumer may ask for the next one before the new engine has seen the end."""
    world = GroupWorld(Setting(totals=(8,)))
    (alone,) = ranks(world, 1, 4)
    to_the_end(world, alone)
    world.begin_service(world.start)
    world.connect(alone)
    world.next_pass(alone)
    hear_all(world, alone)
    to_the_end(world, alone)
    assert alone.epoch == 1


def test_what_was_received_is_not_sent_again_after_a_next_pass_that_was_lost() -> None:
    """The consumer is a pass ahead of what the service knows, and its engine is gone."""
    world = GroupWorld(Setting(totals=(8,), credit_batches=4))
    (alone,) = ranks(world, 1, 4, local=False)
    hear_all(world, alone)
    for _ in range(4):
        world.make()
        hear_all(world, alone)
    assert alone.received == 2
    world.use(alone)
    world.use(alone)
    world.lose_connection(alone)
    world.release(alone, 0)
    world.release(alone, 0)
    to_be = world.group.members[alone.session]
    assert len(to_be.held) == 2
    alone.ended = True
    world.next_pass(alone)
    world.kill_engine()
    world.connect(alone)
    hear_all(world, alone)
    assert not to_be.held
    to_the_end(world, alone)
    assert (alone.epoch, alone.received) == (1, 4)


def test_what_a_member_leaves_behind_is_delivered_again() -> None:
    """From the first batch that it has not given back, or what it says it would have wanted."""
    for goodbye in (False, True):
        world = GroupWorld(Setting(credit_batches=4))
        first, _ = ranks(world, 2)
        for _ in range(6):
            world.make()
        hear_all(world, first)
        world.use(first)
        if goodbye:
            world.say(first, Leave(0, 1))
        world.close_abruptly(first)
        world.newcomer(again := Consumer(0, 2, 2, True, 2, 10**6))
        hear_all(world, again)
        assert again.start == Position(Remainder())
        assert again.step - again.received == int(goodbye)


def test_the_next_pass_is_only_the_next() -> None:
    """Another one is dropped, and nothing has changed."""
    world = GroupWorld(Setting(totals=(8,)))
    (alone,) = ranks(world, 1, 4)
    for epoch in (0, 2, -1):
        world.event(lambda epoch=epoch: world.desk.handle(alone.peer, NextPass(epoch), 0.0))  # type: ignore[misc,arg-type]
    assert world.desk.status()["dropped"] == 3
    to_the_end(world, alone)


def test_an_engine_that_has_gone_back_for_one_who_left_comes_forward_again() -> None:
    """Passes ahead, where the others are."""
    for behind in ("leaves", "has enough"):
        world = GroupWorld(Setting(broadcast=True, totals=(8,)))
        world.newcomer(Consumer(0, 1, 4, True, 2, 10**6, start=Position(Remainder(3)), epoch=3))
        ahead = world.there[0]
        hear_all(world, ahead)
        world.begin_service(world.start)
        world.newcomer(Consumer(0, 1, 4, True, 2, 10**6))
        slow = world.there[1]
        world.connect(ahead)
        to_the_end(world, slow)
        if behind == "leaves":
            world.leave(slow)
        to_the_end(world, ahead)


def test_an_engine_does_not_make_all_that_lies_between_one_who_left_and_the_others() -> None:
    """It is started anew where the others are."""
    world = GroupWorld(Setting(broadcast=True))
    (slow,) = ranks(world, 1, 4)
    world.newcomer(Consumer(0, 1, 4, True, 2, 10**6, start=Position(Remainder(0, (), 4000))))
    assert world.engine is not None
    assert world.engine.next_batch == 0
    world.leave(slow)
    assert world.engine.next_batch == 1000


def test_a_short_last_step_is_made_again_for_the_rank_that_has_not_had_it() -> None:
    """Its rows are known, although the new engine has not come to the end of the pass."""
    world = GroupWorld(Setting(totals=(10,), batch_rows=1, slots=17))
    first, second = ranks(world, 2, 4)
    second.frozen = True
    to_the_end(world, first)
    world.close_abruptly(second)
    world.kill_engine()
    world.newcomer(again := Consumer(1, 2, 4, True, 2, 10**6))
    to_the_end(world, again)
    assert again.received == 2


def test_what_was_received_of_a_pass_that_is_over_is_not_late() -> None:
    """A consumer that is in the next pass has had all of this one, whatever it gave back."""
    world = GroupWorld(Setting(totals=(8,), credit_batches=4))
    (alone,) = ranks(world, 1, 4, local=False)
    hear_all(world, alone)
    for _ in range(4):
        world.make()
    member = world.group.members[alone.session]
    assert len(member.held) == 2
    world.group.repeat(alone.session, (1, 0), frozenset())
    assert not member.held
    assert not any(type(action).__name__ == "Deliver" for action in world.group.take())


def test_a_member_that_drains_and_has_lost_its_releases_is_sent_away_when_it_returns() -> None:
    """It has nothing more to give back, and would be waited for."""
    world = GroupWorld(Setting())
    (alone,) = ranks(world, 1, 4, local=False)
    hear_all(world, alone)
    world.make()
    hear_all(world, alone)
    world.say(alone, Pause())
    world.say(alone, Drain())
    world.use(alone)
    world.lose_connection(alone)
    world.release(alone, 0)
    world.connect(alone)
    hear_all(world, alone)
    assert alone.over
    assert not world.desk.sessions


def test_a_laggard_is_sent_away_and_told_why() -> None:
    """On another machine too, where its session is forgotten at once; the others go on."""
    world = GroupWorld(Setting(broadcast=True, detach=True))
    fast, slow = ranks(world, 2, 4, local=False)
    hear_all(world, fast, slow)
    for _ in range(30):
        use_up(world, fast)
        world.make()
    before = fast.received
    world.pass_time(4.0)
    slow.frozen = True
    assert slow in world.there
    for _ in range(12):
        world.pass_time(1.0)
        use_up(world, fast)
    slow.frozen = False
    hear_all(world, slow)
    assert slow.over
    for _ in range(30):
        use_up(world, fast)
        world.make()
    assert fast.received > before + 5
