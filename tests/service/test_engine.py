"""The engine of a group: how often it may die."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from chunkdl.engine.decisions.restarts import WINDOW_S
from chunkdl.sampling.cursor import Cursor
from chunkdl.service.spec import ServiceSpec
from chunkdl.transport.protocol.engine_messages import BatchReady
from chunkdl_workers.engine import MOST_DEATHS, GroupEngine

SLOWLY_S = 10 * WINDOW_S
"""Between two deaths of a loop that no count over a time would find."""


def test_an_engine_that_never_makes_a_batch_is_given_up_however_slowly_it_dies(
    service_spec: Callable[..., ServiceSpec],
) -> None:
    """A start that is ended from outside each time is not a service, though it takes hours."""
    engine = GroupEngine(service_spec().config)
    told = [engine.died(number * SLOWLY_S) for number in range(MOST_DEATHS + 1)]
    assert told[:-1] == [""] * MOST_DEATHS
    assert told[-1] == f"the engine died {MOST_DEATHS + 1} times in a row before it made a batch"


def test_an_engine_that_dies_fast_is_given_up_though_it_makes_batches(
    service_spec: Callable[..., ServiceSpec],
) -> None:
    """The error says which of the two it was."""
    engine = GroupEngine(service_spec().config)
    told = [engine.died(number) for number in range(MOST_DEATHS + 1)]
    assert told[-1] == f"the engine died {MOST_DEATHS + 1} times within {WINDOW_S:g} s"


def test_a_batch_forgives_the_deaths_before_it(service_spec: Callable[..., ServiceSpec]) -> None:
    """An engine that dies once in a while is replaced for ever."""
    spec = service_spec()
    engine = GroupEngine(spec.config)
    try:
        for number in range(MOST_DEATHS):
            assert engine.died(number * SLOWLY_S) == ""
        engine.start(1, Cursor.from_dict(spec.config.cursor, spec.config.plan_hash))
        give_up = time.monotonic() + 60
        while not isinstance(engine.poll(), BatchReady):
            assert time.monotonic() < give_up
            readable, _, _ = select.select(engine.descriptors, [], [], 0.05)
            if engine.arena is None and engine.descriptors[-1] in readable:
                engine.hear_channel()
        later = 100 * SLOWLY_S
        told = [engine.died(later + number * SLOWLY_S) for number in range(MOST_DEATHS + 1)]
        assert told[:-1] == [""] * MOST_DEATHS
        assert told[-1]
    finally:
        engine.close()
