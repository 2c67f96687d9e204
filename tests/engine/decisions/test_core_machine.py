"""The core in a world where anything happens at any time: what must hold, holds."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from chunkdl.engine.decisions.events import FromConsumer, FromWorker
from chunkdl.errors import ProtocolError
from chunkdl.transport.protocol.engine_messages import (
    AskStatistics,
    BigChunkLoaded,
    NextEpoch,
    Release,
    RowsFilled,
)
from tests.engine.decisions.script import Script, scripts
from tests.engine.decisions.world import Worker, World

WHO = st.integers(0, 5)
# Without Phase.explain, which traces every line, a failure is reported within the time limit.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


class CoreMachine(RuleBasedStateMachine):
    """Single steps and bursts of them, in any order; `World` checks every action of the core."""

    world: World

    @initialize(script=scripts())
    def begin(self, script: Script) -> None:
        """A service has started; no worker and no consumer is there yet."""
        self.world = World(script)

    def _worker(self, who: int) -> Worker:
        return self.world.workers[who % len(self.world.workers)]

    @precondition(lambda self: not self.world.over)
    @rule(who=WHO)
    def a_worker_starts_or_works(self, who: int) -> None:
        """It says that it is there, or does its oldest ticket."""
        worker = self._worker(who)
        if not self.world.start(worker):
            self.world.work(worker)

    @precondition(lambda self: not self.world.over)
    @rule(who=WHO)
    def the_core_hears_a_worker(self, who: int) -> None:
        """In the order in which that worker spoke."""
        self.world.hear(self._worker(who))

    @precondition(lambda self: not self.world.over)
    @rule(who=WHO, torn=st.booleans())
    def a_worker_dies(self, who: int, torn: bool) -> None:
        """Nobody knows yet."""
        self.world.die(self._worker(who), torn=torn)

    @precondition(lambda self: not self.world.over)
    @rule(who=WHO, heard=st.booleans(), by_itself=st.booleans())
    def a_death_is_confirmed(self, who: int, heard: bool, by_itself: bool) -> None:
        """What it had said was heard before, or never will be."""
        self.world.bury(self._worker(who), heard=heard, by_itself=by_itself)

    @precondition(lambda self: not self.world.over)
    @rule(number=st.integers(0, 4))
    def the_consumer_comes_or_gives_a_batch_back(self, number: int) -> None:
        """In any order."""
        if not self.world.hello():
            self.world.release(number)

    @precondition(lambda self: not self.world.over and self.world.connected)
    @rule()
    def the_consumer_asks(self) -> None:
        """Statistics are true at any time."""
        self.world.ask()

    @precondition(lambda self: not self.world.over and self.world.ended)
    @rule()
    def the_consumer_begins_the_next_pass(self) -> None:
        """It may hold batches of the last one."""
        self.world.next_epoch()

    @precondition(lambda self: not self.world.over)
    @rule(seed=st.integers(0, 2**32), steps=st.integers(1, 80))
    def much_happens(self, seed: int, steps: int) -> None:
        """So that runs get deep."""
        self.world.bustle(Random(seed), steps)

    @precondition(lambda self: not self.world.over)
    @rule()
    def everybody_works(self) -> None:
        """Then the next batch comes."""
        self.world.drive()

    @precondition(lambda self: not self.world.over)
    @rule(
        unreceived=st.integers(0, 3),
        loaders=st.integers(1, 3),
        collectors=st.integers(1, 3),
        more_slots=st.integers(0, 2),
        batch_slots=st.integers(2, 4),
        order=st.sampled_from(["strict", "relaxed"]),
    )
    def the_training_goes_on_elsewhere(
        self,
        unreceived: int,
        loaders: int,
        collectors: int,
        more_slots: int,
        batch_slots: int,
        order: str,
    ) -> None:
        """From its last state, with other processes, slots and order."""
        self.world.resume(
            unreceived,
            loaders=loaders,
            collectors=collectors,
            bigchunk_slots=self.world.script.places + more_slots,
            batch_slots=batch_slots,
            credit=batch_slots,
            order=order,
        )

    @precondition(lambda self: not self.world.over)
    @rule(who=WHO, kind=st.integers(0, 3))
    def something_impossible_is_refused(self, who: int, kind: int) -> None:
        """And leaves the state as it was, as everything after it shows."""
        worker = self._worker(who).number
        impossible = (
            FromWorker(worker, BigChunkLoaded(0, 0, 10**6, 1, 1, 0.0)),
            FromWorker(worker, RowsFilled(0, 10**6, (0,))),
            FromConsumer(Release(0, 0, 10**6)),
            FromConsumer(NextEpoch(10**6)),
        )
        with pytest.raises(ProtocolError):
            self.world.core.handle(impossible[kind])

    @precondition(lambda self: self.world.over)
    @rule()
    def a_failed_stream_stays_silent(self) -> None:
        """It has said why."""
        assert self.world.core.handle(FromConsumer(AskStatistics())) == []

    @invariant()
    def slots_are_enough_for_what_is_out(self) -> None:
        """Held batches, credit and slots agree at all times."""
        if hasattr(self, "world"):
            assert len(self.world.held) <= min(self.world.script.credit, len(self.world.batches))

    def teardown(self) -> None:
        """From wherever the run ended the stream goes on; a pass ends and leaves no slot in use."""
        if not hasattr(self, "world") or self.world.over:
            return
        if self.world.script.finite:
            self.world.finish()
        for _ in range(3):
            self.world.drive()


TestCoreMachine = CoreMachine.TestCase
TestCoreMachine.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    phases=PHASES,
    suppress_health_check=list(HealthCheck),
)


@settings(max_examples=200, deadline=None, phases=PHASES)
@given(scripts(), st.integers(0, 2**32))
def test_a_long_day_of_accidents_ends_well(script: Script, seed: int) -> None:
    """Hundreds of random steps, then passes and resumes: the stream is the plan's."""
    world, random = World(script), Random(seed)
    for _ in range(3):
        world.bustle(random, 150)
        if world.over:
            return
        world.drive()
        world.resume(random.randrange(3), order=random.choice(["strict", "relaxed"]))
    world.drive()
    if script.finite:
        world.finish()
        if not world.over and world.next_epoch():
            world.finish()
