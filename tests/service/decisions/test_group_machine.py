"""A service's desk and group in a world where anything happens at any time."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chunkdl.transport.protocol.service_messages import Drain, Pause, Resume
from tests.service.decisions.group_script import Consumer, Setting
from tests.service.decisions.group_world import GroupWorld

WHO = st.integers(0, 5)
# Without Phase.explain, which traces every line, a failure is reported within the time limit.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


@st.composite
def worlds(draw: st.DrawFn) -> Setting:
    """Small worlds of every kind, in which the largest step has room."""
    batch_rows = draw(st.integers(1, 6))
    return Setting(
        broadcast=draw(st.booleans()),
        batch_rows=batch_rows,
        slots=-(-15 // batch_rows) + 2 + draw(st.integers(0, 3)),
        totals=tuple(draw(st.lists(st.integers(0, 40), max_size=3))),
        drop_last=draw(st.booleans()),
        max_lag_batches=draw(st.integers(1, 4)),
        detach=draw(st.booleans()),
        credit_batches=draw(st.integers(1, 4)),
        credit_bytes=draw(st.sampled_from([1, 80, 1000])),
        max_consumers=draw(st.integers(4, 6)),
    )


class GroupMachine(RuleBasedStateMachine):
    """Single steps and bursts of them, in any order; `GroupWorld` checks every action."""

    world: GroupWorld

    @initialize(setting=worlds())
    def begin(self, setting: Setting) -> None:
        """A service is up; nobody is there."""
        self.world = GroupWorld(setting)

    def _who(self, who: int) -> Consumer | None:
        there = self.world.there
        return there[who % len(there)] if there else None

    @precondition(lambda self: len(self.world.there) < 5)
    @rule(
        rank=st.integers(0, 2),
        world_size=st.integers(1, 3),
        batch_rows=st.integers(0, 5),
        same=st.sampled_from([True, True, True, False]),
        local=st.booleans(),
        credit_batches=st.integers(1, 4),
    )
    def a_consumer_starts(
        self,
        rank: int,
        world_size: int,
        batch_rows: int,
        same: bool,
        local: bool,
        credit_batches: int,
    ) -> None:
        """Mostly one that fits the others."""
        if same and self.world.seats and not self.world.setting.broadcast:
            seat = self.world.seats[0]
            world_size, batch_rows = seat.world_size, seat.batch_rows
        self.world.newcomer(
            Consumer(rank % world_size, world_size, batch_rows, local, credit_batches, 10**6)
        )

    @rule(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
    def much_happens(self, seed: int, steps: int) -> None:
        """So that runs get deep."""
        self.world.bustle(Random(seed), steps)

    @rule(who=WHO)
    def a_consumer_hears(self, who: int) -> None:
        """One message."""
        if consumer := self._who(who):
            self.world.hear(consumer)

    @rule(who=WHO, number=st.integers(0, 5))
    def a_user_takes_or_drops_a_batch(self, who: int, number: int) -> None:
        """In any order."""
        if (consumer := self._who(who)) and (number > 2 or not self.world.use(consumer)):
            self.world.release(consumer, number)

    @rule(who=WHO)
    def a_user_begins_the_next_pass(self, who: int) -> None:
        """It may hold batches of the last one."""
        if consumer := self._who(who):
            self.world.next_pass(consumer)

    @rule(who=WHO, pause=st.booleans())
    def a_consumer_pauses_or_resumes(self, who: int, pause: bool) -> None:
        """Nothing comes until it resumes."""
        consumer = self._who(who)
        if consumer and consumer.session and not consumer.frozen:
            self.world.say(consumer, Pause() if pause else Resume())

    @rule(who=WHO)
    def a_consumer_drains(self, who: int) -> None:
        """It is sent away once it has given everything back."""
        consumer = self._who(who)
        if consumer and consumer.session and not consumer.frozen:
            self.world.say(consumer, Drain())

    @rule(who=WHO)
    def a_consumer_leaves(self, who: int) -> None:
        """And says what it would have wanted next."""
        if (consumer := self._who(who)) and not consumer.frozen:
            self.world.leave(consumer)

    @rule(who=WHO)
    def a_consumer_dies(self, who: int) -> None:
        """Of one on another machine nobody hears."""
        if consumer := self._who(who):
            self.world.close_abruptly(consumer)

    @rule(who=WHO, again=st.booleans())
    def a_connection_is_lost(self, who: int, again: bool) -> None:
        """With what was under way; perhaps the consumer is back at once."""
        if consumer := self._who(who):
            self.world.lose_connection(consumer)
            if again and not consumer.frozen:
                self.world.connect(consumer)

    @rule(who=WHO, frozen=st.booleans())
    def a_consumer_freezes(self, who: int, frozen: bool) -> None:
        """Or wakes up."""
        if consumer := self._who(who):
            consumer.frozen = frozen

    @rule()
    def everybody_connects(self) -> None:
        """Who is away comes back."""
        for consumer in self.world.there:
            if not consumer.frozen:
                self.world.connect(consumer)

    @rule()
    def the_engine_makes_a_batch(self) -> None:
        """If it has a slot."""
        self.world.make()

    @rule()
    def the_engine_dies(self) -> None:
        """With all that it had made."""
        self.world.kill_engine()

    @rule(seconds=st.sampled_from([1.0, 4.0, 8.0, 12.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        """Who says nothing is suspect, then expired."""
        self.world.pass_time(seconds)

    @rule(verb=st.sampled_from(["pause", "resume", "status"]))
    def an_operator_acts(self, verb: str) -> None:
        """On all of the group."""
        self.world.operate(verb)

    @rule(keep=st.booleans())
    def the_service_starts_anew(self, keep: bool) -> None:
        """Perhaps from its file; consumers know by themselves where they stand."""
        self.world.begin_service(self.world.group.position() if keep else self.world.start)

    @precondition(lambda self: not self.world.live and not self.world.setting.broadcast)
    @rule(seed=st.integers(0, 100), world_size=st.integers(1, 3), batch_rows=st.integers(1, 5))
    def a_training_goes_on_from_a_state(self, seed: int, world_size: int, batch_rows: int) -> None:
        """All ranks from the same, however many."""
        self.world.resume(seed, world_size, batch_rows)

    @rule()
    def everybody_is_willing(self) -> None:
        """Then everybody gets on."""
        self.world.drive()

    @invariant()
    def what_is_read_is_lent(self) -> None:
        """No slot that somebody reads is free."""
        if hasattr(self, "world"):
            self.world.check_memory()

    def teardown(self) -> None:
        """From wherever the run ended it goes on; when all have left nothing is read any more."""
        if hasattr(self, "world"):
            self.world.drive()
            self.world.finish()


TestGroupMachine = GroupMachine.TestCase
TestGroupMachine.settings = settings(
    max_examples=300,
    stateful_step_count=30,
    deadline=None,
    phases=PHASES,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
