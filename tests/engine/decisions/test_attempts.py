"""Streams without a policy whose transform raises: the attempt that rows are made from."""

from __future__ import annotations

import dataclasses

import pytest

from chunkdl.engine.decisions.core import Core
from chunkdl.engine.decisions.events import Action, FromConsumer, FromWorker
from chunkdl.errors import Failure, ProtocolError
from chunkdl.transport.protocol.engine_messages import (
    PROTOCOL_VERSION,
    BatchReady,
    BigChunkLoaded,
    CheckpointSet,
    FillRows,
    Hello,
    LoadBigChunk,
    LoadFailed,
    NothingLeft,
    RowsEnded,
    RowsFilled,
    StreamFailed,
    WorkerReady,
)
from tests.engine.decisions.script import PLAN_HASH, TOKEN, Script

SCRIPT = Script(
    places=1, calls=4, batch_rows=2, slides_of_patient=((0,), (1,), (2,)), bigchunk_slots=1
)
RAISED = Failure("HookError", "it went wrong", "trace", hook="transform", raised="ValueError")
UNREADABLE = Failure("SlideError", "the disk is gone", "trace")


def a_core(on_hook_error: str = "substitute", attempts: dict[int, int] | None = None) -> Core:
    """A core with a consumer and a collector, but no loader yet."""
    config = dataclasses.replace(SCRIPT.config(), on_hook_error=on_hook_error)  # type: ignore[arg-type]
    cursor = dataclasses.replace(SCRIPT, first_batch=0).cursor()
    if attempts:
        cursor.substitutions.update(attempts)
    core = Core(config, cursor)
    core.handle(FromConsumer(Hello(PROTOCOL_VERSION, TOKEN, PLAN_HASH, credit=2)))
    core.handle(FromWorker(1, WorkerReady()))
    return core


def the_load(actions: list[Action]) -> LoadBigChunk:
    """The one ticket for a loader among actions."""
    (ticket,) = [a.message for a in actions if isinstance(a.message, LoadBigChunk)]
    return ticket


def loaded(core: Core, ticket: LoadBigChunk) -> list[FillRows]:
    """The loader has done the ticket: what the collector is given."""
    answer = BigChunkLoaded(ticket.ordinal, ticket.slot, ticket.generation, 8, 8, 0.1)
    actions = core.handle(FromWorker(0, answer))
    return [action.message for action in actions if isinstance(action.message, FillRows)]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_collector_is_told_the_attempt_that_the_plan_has_loaded(resumed: bool) -> None:
    """After a substitution as after a resume: what a transform draws depends on it."""
    core = a_core(attempts={0: 1} if resumed else None)
    ticket = the_load(core.handle(FromWorker(0, WorkerReady())))
    if not resumed:
        failed = LoadFailed(0, 0, ticket.slide, False, UNREADABLE)
        ticket = the_load(core.handle(FromWorker(0, failed)))
    assert ticket.attempt == 1
    assert {group.attempt for fill in loaded(core, ticket) for group in fill.groups} == {1}


def test_what_a_transform_could_not_make_is_made_from_the_next_attempt() -> None:
    """And the batch says which that was, for a resume."""
    core = a_core()
    loaded(core, the_load(core.handle(FromWorker(0, WorkerReady()))))
    ticket = the_load(core.handle(FromWorker(1, RowsEnded(0, 1, 0, 0, 1, RAISED))))
    assert (ticket.ordinal, ticket.attempt) == (0, 1)
    loaded(core, ticket)
    core.handle(FromWorker(1, RowsFilled(0, 1, ())))
    core.handle(FromWorker(1, RowsEnded(1, 1, 0, 0, 0, None)))
    actions = core.handle(FromWorker(1, RowsFilled(0, 1, (0,))))
    (batch,) = [action.message for action in actions if isinstance(action.message, BatchReady)]
    assert (batch.batch, batch.substitutions, batch.dropped) == (0, {0: 1}, b"")


def test_a_transform_that_raises_ends_the_stream_where_it_shall() -> None:
    """With its very failure."""
    core = a_core(on_hook_error="raise")
    loaded(core, the_load(core.handle(FromWorker(0, WorkerReady()))))
    actions = core.handle(FromWorker(1, RowsEnded(0, 1, 0, 0, 1, RAISED)))
    assert [action.message for action in actions] == [StreamFailed(RAISED)]


@pytest.mark.parametrize(
    "answer", [RowsEnded(0, 1, 0, 0, 2, None), RowsEnded(0, 2, 0, 0, 0, None)], ids=repr
)
def test_an_end_that_cannot_be_is_refused(answer: RowsEnded) -> None:
    """A whole group is filled, not ended; and nobody waits for rows of another batch."""
    core = a_core()
    loaded(core, the_load(core.handle(FromWorker(0, WorkerReady()))))
    with pytest.raises(ProtocolError):
        core.handle(FromWorker(1, answer))
    assert core.handle(FromWorker(1, RowsFilled(0, 1, (0,))))


@pytest.mark.parametrize("answer", [NothingLeft(0, 0), CheckpointSet(0, 0, b"c")], ids=repr)
def test_what_only_user_classes_say_is_refused_of_others(answer: NothingLeft) -> None:
    """There is no patient to finish, and nobody to leave a checkpoint to."""
    core = a_core()
    core.handle(FromWorker(0, WorkerReady()))
    with pytest.raises(ProtocolError):
        core.handle(FromWorker(0, answer))
