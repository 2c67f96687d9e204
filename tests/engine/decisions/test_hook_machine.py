"""Streams whose patients a policy chooses, in worlds where anything happens at any time."""

from __future__ import annotations

from random import Random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from chunkdl.sampling.policies.in_turn import RoundRobin, Uniform
from chunkdl.sampling.policies.quota import Quota
from tests.engine.decisions.hook_script import HookScript, hook_scripts
from tests.engine.decisions.hook_world import HookWorld

# Without Phase.explain, which traces every line, a failure is reported within the time limit.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def live_through(script: HookScript, seed: int) -> HookWorld:
    """Hundreds of random steps and some resumes; then the stream goes on, or ends."""
    world, random = HookWorld(script), Random(seed)
    for _ in range(3):
        world.bustle(random, 200)
        if not world.failed and not world.ended:
            world.drive()
        if world.failed:
            return world
        order = random.choice(["strict", "relaxed"])
        world.resume(random.randrange(4), order=order, loaders=random.randrange(1, 4))
    for _ in range(5):
        world.drive()
    if world.ended:
        world.check_slots()
    return world


@settings(max_examples=300, deadline=None, phases=PHASES)
@given(hook_scripts(), st.integers(0, 2**32))
def test_a_long_day_with_user_code_ends_well(script: HookScript, seed: int) -> None:
    """User code raises, is exhausted, halts and dies; no row is lost, and nothing is stuck."""
    live_through(script, seed)


@settings(max_examples=150, deadline=None, phases=PHASES)
@given(hook_scripts(exact=True), st.integers(0, 2**32))
def test_a_resumed_stream_is_the_undisturbed_one(script: HookScript, seed: int) -> None:
    """Row by row, whatever died and from whichever state it went on."""
    world = live_through(script, seed)
    assert not world.failed or world.disturbed


def test_a_repeated_load_does_not_undo_what_a_later_one_left() -> None:
    """Of one patient, batch 2 was delivered ahead of batch 1, whose load is repeated."""
    script = HookScript(
        places=4,
        calls=1,
        batch_rows=5,
        patients=6,
        collectors=3,
        bigchunk_slots=6,
        credit=1,
        policy=Uniform(),
    )
    assert not live_through(script, 3).failed


def test_bigchunks_that_go_on_until_they_are_exhausted_are_all_served() -> None:
    """Each patient once, and then the stream ends: none waits for a turn that never comes."""
    script = HookScript(
        places=2,
        calls=10**9,
        patients=5,
        bigchunk_slots=4,
        policy=Quota(RoundRobin(), 1),
        most_rows=6,
        lives=1,
    )
    world = HookWorld(script)
    for _ in range(50):
        world.drive()
    assert world.ended
    assert set(world.journal.checkpoints) == set(range(5)), "each has made rows"
    assert world.journal.state(world.cursor).loads == dict.fromkeys(range(5), 1)
    world.check_slots()
