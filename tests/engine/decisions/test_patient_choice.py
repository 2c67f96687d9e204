"""Streams whose patients a policy chooses, event by event."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from chunkdl.engine.config import OnError
from chunkdl.engine.decisions.core import Core
from chunkdl.engine.decisions.events import (
    Action,
    Event,
    FromConsumer,
    FromWorker,
    ToConsumer,
    ToWorker,
    WorkerLost,
)
from chunkdl.errors import Failure, HookError, HookTimeout, ProtocolError
from chunkdl.sampling.cursor import Cursor
from chunkdl.transport.protocol.engine_messages import (
    HALTED,
    NOT_NOW,
    PROTOCOL_VERSION,
    BatchReady,
    BigChunkLoaded,
    CheckpointKept,
    CheckpointSet,
    ChoosePatient,
    End,
    FillRows,
    Hello,
    LoadBigChunk,
    LoadFailed,
    MessageToPatient,
    NothingLeft,
    PatientChosen,
    Release,
    RowsEnded,
    RowsFilled,
    StreamFailed,
    WorkerReady,
)
from tests.engine.decisions.hook_script import HookScript
from tests.engine.decisions.script import PLAN_HASH, TOKEN

HELLO = FromConsumer(Hello(PROTOCOL_VERSION, TOKEN, PLAN_HASH, credit=2))
ONE = HookScript(places=1, calls=4, batch_rows=2, patients=3, bigchunk_slots=1, loaders=1)
OWN = dataclasses.replace(ONE, policy=None)
LOADER, COLLECTOR, SCHEDULER = 0, 1, 2
READY = WorkerReady()
RAISED = ONE.failure("extract_bigchunk")


def int32(*numbers: int) -> bytes:
    """Numbers as they travel."""
    return np.array(numbers, dtype=np.int32).tobytes()


class Talk:
    """A core that is told things, and what it said to each."""

    def __init__(self, script: HookScript, workers: int = 2, cursor: Cursor | None = None) -> None:
        self.core = Core(script.config(), cursor or script.cursor())
        self.last: list[Action] = []
        self.tell(HELLO)
        for worker in reversed(range(workers)):
            self.tell(FromWorker(worker, READY))

    def tell(self, event: Event) -> list[Action]:
        """Let something happen."""
        self.last = self.core.handle(event)
        return self.last

    def loads(self) -> list[LoadBigChunk]:
        """The tickets for loaders of the last answer."""
        messages = [action.message for action in self.last if isinstance(action, ToWorker)]
        return [message for message in messages if isinstance(message, LoadBigChunk)]

    def fills(self) -> list[FillRows]:
        """The tickets for collectors of the last answer."""
        messages = [action.message for action in self.last if isinstance(action, ToWorker)]
        return [message for message in messages if isinstance(message, FillRows)]

    def questions(self) -> list[ChoosePatient]:
        """What the policy is asked in the last answer."""
        messages = [action.message for action in self.last if isinstance(action, ToWorker)]
        return [message for message in messages if isinstance(message, ChoosePatient)]

    def said(self) -> list[object]:
        """What the consumer is told in the last answer."""
        return [action.message for action in self.last if isinstance(action, ToConsumer)]

    def load(self) -> LoadBigChunk:
        """The loader works on the ticket of the last answer."""
        (ticket,) = self.loads()
        loaded = BigChunkLoaded(ticket.ordinal, ticket.slot, ticket.generation, 8, 8, 0.1)
        self.tell(FromWorker(LOADER, loaded))
        return ticket

    def choose(self, ordinal: int, patient: int, attempt: int = 0) -> None:
        """The policy answers."""
        answer = PatientChosen(ordinal, attempt, patient, looked=False)
        self.tell(FromWorker(SCHEDULER, answer))


def loaded_once() -> Talk:
    """A stream whose first BigChunk is loaded: its calls 0 to 3 are asked for in two batches."""
    talk = Talk(ONE)
    talk.load()
    return talk


def test_an_exhausted_bigchunk_is_followed_by_the_next_of_its_patient_from_that_call_on() -> None:
    """The rows that it did not give go to the successor, once nobody works for the old one."""
    talk = loaded_once()
    first, second = talk.fills()
    assert [group.first for ticket in (first, second) for group in ticket.groups] == [0, 0]
    talk.tell(FromWorker(COLLECTOR, RowsEnded(0, 1, 0, 0, 1, None)))
    assert [(t.ordinal, t.attempt, t.patient) for t in talk.loads()] == [(0, 1, 0)]
    ticket = talk.load()
    assert not talk.fills(), "batch 1 of the old one is still in hand"
    talk.tell(FromWorker(COLLECTOR, RowsFilled(0, 1, ())))
    talk.tell(FromWorker(COLLECTOR, RowsEnded(1, 1, 0, 0, 0, None)))
    again = [(t.batch, group) for t in talk.fills() for group in t.groups]
    assert [(batch, group.calls, group.first) for batch, group in again] == [
        (0, int32(1), 1),
        (1, int32(2, 3), 1),
    ]
    assert {(group.slot, group.attempt) for _, group in again} == {(ticket.slot, 1)}


def test_a_collector_that_dies_over_a_replaced_bigchunk_leaves_no_row_behind() -> None:
    """Its rows and those that waited for it go to its successor together, in their order."""
    talk = loaded_once()
    talk.tell(FromWorker(COLLECTOR, RowsEnded(0, 1, 0, 0, 1, None)))
    talk.load()
    talk.tell(WorkerLost(COLLECTOR, "SIGKILL", by_itself=False))
    talk.tell(FromWorker(COLLECTOR, READY))
    assert [(t.batch, t.groups[0].calls) for t in talk.fills()] == [
        (0, int32(1)),
        (1, int32(2, 3)),
    ]


def test_an_empty_answer_after_the_end_of_all_its_bigchunks_is_no_error() -> None:
    """The batch may be gone by then: its rows were left out, for the policy has ended."""
    talk = Talk(OWN, workers=3)
    talk.choose(0, 0)
    talk.load()
    talk.tell(FromWorker(COLLECTOR, RowsEnded(0, 1, 0, 0, 0, None)))
    talk.choose(1, HALTED)
    talk.tell(FromWorker(COLLECTOR, RowsFilled(0, 1, ())))
    talk.tell(FromWorker(COLLECTOR, RowsEnded(1, 1, 0, 0, 0, None)))
    assert [message for message in talk.said() if isinstance(message, End)] == [End(0, 2)]
    assert talk.tell(FromWorker(COLLECTOR, RowsFilled(1, 1, ()))) == []


def test_the_next_load_of_a_patient_gets_the_checkpoint_and_the_message() -> None:
    """Once: the load after it has no message any more."""
    talk = loaded_once()
    note = CheckpointKept(0, 0, b"c")
    assert talk.tell(FromWorker(COLLECTOR, CheckpointSet(0, 0, b"c"))) == [ToConsumer(note)]
    talk.tell(FromConsumer(MessageToPatient(0, b"m")))
    talk.tell(FromWorker(COLLECTOR, RowsEnded(0, 1, 0, 0, 1, None)))
    assert [(t.message, t.checkpoint) for t in talk.loads()] == [(b"m", b"c")]
    talk.load()
    talk.tell(FromWorker(COLLECTOR, RowsFilled(0, 1, ())))
    talk.tell(FromWorker(COLLECTOR, RowsEnded(1, 1, 0, 0, 0, None)))
    talk.tell(FromWorker(COLLECTOR, RowsFilled(1, 1, ())))
    talk.tell(FromWorker(COLLECTOR, RowsFilled(0, 1, (0,))))
    talk.tell(FromWorker(COLLECTOR, RowsEnded(1, 1, 0, 1, 1, None)))
    assert [(t.patient, t.attempt, t.message) for t in talk.loads()] == [(0, 2, b"")]


def test_a_checkpoint_of_a_replaced_bigchunk_is_no_news() -> None:
    """The successor has begun with an older one; nothing is told."""
    talk = loaded_once()
    talk.tell(FromWorker(COLLECTOR, RowsEnded(0, 1, 0, 0, 1, None)))
    assert talk.tell(FromWorker(COLLECTOR, CheckpointSet(0, 0, b"late"))) == []


def test_patients_without_more_bigchunks_are_not_chosen_and_the_last_one_ends_the_stream() -> None:
    """Its end comes at once, and no slot stays in use."""
    talk, chosen = Talk(ONE), []
    while talk.loads():
        (ticket,) = talk.loads()
        chosen.append(ticket.patient)
        talk.tell(FromWorker(LOADER, NothingLeft(ticket.ordinal, ticket.attempt)))
    assert sorted(set(chosen)) == list(range(ONE.patients))
    assert isinstance(talk.said()[-1], End)
    assert talk.core._loads.slots.free == ONE.bigchunk_slots


def test_a_policy_that_waits_while_nothing_can_change_ends_the_stream() -> None:
    """Rather than to let get() wait for ever."""
    talk = Talk(OWN, workers=3)
    talk.choose(0, NOT_NOW)
    (failed,) = talk.said()
    assert isinstance(failed, StreamFailed)
    error = failed.failure.to_error()
    assert isinstance(error, HookError)
    assert "not now" in str(error)


def test_a_policy_that_waits_is_asked_again_when_a_bigchunk_is_over() -> None:
    """Its last row was made."""
    talk = Talk(OWN, workers=3)
    talk.choose(0, 1)
    (ticket,) = talk.loads()
    talk.choose(1, NOT_NOW)
    loaded = BigChunkLoaded(0, ticket.slot, ticket.generation, 8, 8, 0.1)
    talk.tell(FromWorker(LOADER, loaded))
    assert not talk.questions()
    talk.tell(FromWorker(COLLECTOR, RowsFilled(0, 1, (0,))))
    assert not talk.questions()
    talk.tell(FromWorker(COLLECTOR, RowsFilled(1, 1, (0,))))
    assert [question.ordinal for question in talk.questions()] == [1]


def test_a_policy_that_waits_is_asked_again_when_a_bigchunk_gave_nothing() -> None:
    """For the place that has become free."""
    talk = Talk(OWN, workers=3)
    talk.choose(0, 1)
    (ticket,) = talk.loads()
    talk.choose(1, NOT_NOW)
    talk.tell(FromWorker(LOADER, LoadFailed(0, 0, ticket.slide, False, RAISED)))
    assert [(question.ordinal, question.attempt) for question in talk.questions()] == [(0, 1)]


def test_after_the_halt_no_batch_is_made_that_nobody_has_rows_for() -> None:
    """While a BigChunk is still served, relaxed order would send empty ones without end."""
    talk = Talk(dataclasses.replace(OWN, order="relaxed"), workers=3)
    talk.choose(0, 1)
    (ticket,) = talk.loads()
    talk.choose(1, HALTED)
    talk.tell(FromWorker(LOADER, BigChunkLoaded(0, ticket.slot, ticket.generation, 8, 8, 0.1)))
    talk.tell(FromWorker(COLLECTOR, RowsFilled(0, 1, (0,))))
    (batch,) = [message for message in talk.said() if isinstance(message, BatchReady)]
    assert talk.tell(FromConsumer(Release(0, batch.slot, batch.generation))) == []
    talk.tell(FromWorker(COLLECTOR, RowsFilled(1, 1, (0,))))
    assert talk.said()[-1] == End(0, 2)


def test_a_bigchunk_whose_end_was_delivered_ahead_leaves_no_older_checkpoint() -> None:
    """It is loaded once more for a row that is missing, and closed with that."""
    talk = Talk(ONE, cursor=msgspec.structs.replace(ONE.cursor(), ahead=(1,)))
    talk.load()
    assert [ticket.batch for ticket in talk.fills()] == [0]
    assert talk.tell(FromWorker(COLLECTOR, CheckpointSet(0, 0, b"older"))) == []
    talk.tell(FromWorker(COLLECTOR, RowsFilled(0, 1, (0,))))
    (batch,) = [message for message in talk.said() if isinstance(message, BatchReady)]
    assert np.frombuffer(batch.closed, np.int64).tolist() == [0]


def test_a_choice_that_was_finished_meanwhile_is_asked_for_again() -> None:
    """The policy could not know; to insist on it is its fault."""
    script = dataclasses.replace(OWN, places=2, bigchunk_slots=3)
    talk = Talk(script, workers=3)
    talk.choose(0, 1)
    assert [question.ordinal for question in talk.questions()] == [1]
    talk.tell(FromWorker(LOADER, NothingLeft(0, 0)))
    talk.choose(1, 1)
    (question,) = talk.questions()
    assert question.finished == int32(1)
    talk.choose(question.ordinal, 1, question.attempt)
    assert talk.core.failure is not None
    assert "chose 1" in talk.core.failure.message


@pytest.mark.parametrize("answer", [PatientChosen(5, 0, 1, False), PatientChosen(0, 1, 1, False)])
def test_a_choice_that_was_not_asked_for_is_refused(answer: PatientChosen) -> None:
    """The right one is still taken."""
    talk = Talk(OWN, workers=3)
    with pytest.raises(ProtocolError, match="not asked for"):
        talk.core.handle(FromWorker(SCHEDULER, answer))
    talk.choose(0, 1)
    assert [ticket.patient for ticket in talk.loads()] == [1]


def test_the_question_of_a_dead_scheduler_goes_to_its_successor() -> None:
    """It is the same question."""
    talk = Talk(OWN, workers=2)
    first = Talk(OWN, workers=2).core.handle(WorkerLost(SCHEDULER, "SIGSEGV"))
    again = talk.tell(WorkerLost(SCHEDULER, "SIGSEGV"))
    assert talk.questions()
    assert [a for a in again if isinstance(a, ToWorker)] == [
        a for a in first if isinstance(a, ToWorker)
    ]


@pytest.mark.parametrize("on_hook_error", ["substitute", "raise"])
def test_user_code_that_misses_its_deadline_has_no_second_try(on_hook_error: OnError) -> None:
    """Its BigChunk is replaced, or the stream ends with the very error."""
    late = Failure.of(HookTimeout("too late", hook="extract_smallchunk"))
    talk = Talk(dataclasses.replace(ONE, on_hook_error=on_hook_error))
    talk.load()
    talk.tell(WorkerLost(COLLECTOR, "it hung", ordinal=0, failure=late))
    if on_hook_error == "raise":
        assert talk.core.failure == late
    else:
        assert [(t.ordinal, t.attempt) for t in talk.loads()] == [(0, 1)]
        assert talk.core.statistics().substitutions == 1


def test_a_place_that_gave_rows_between_failures_is_not_given_up() -> None:
    """Only substitutes that give nothing count towards the end of the stream."""
    script = dataclasses.replace(ONE, calls=300, batch_rows=300)
    talk = Talk(script)
    failure = script.failure("extract_smallchunk")
    for attempt in range(150):
        talk.load()
        talk.tell(FromWorker(COLLECTOR, RowsEnded(0, 1, 0, attempt, 1, failure)))
    assert talk.core.failure is None


def test_a_bigchunk_that_fails_again_and_again_ends_the_stream() -> None:
    """After a hundred substitutes in a row that gave nothing."""
    talk = Talk(ONE)
    failure = ONE.failure("extract_bigchunk")
    for attempt in range(200):
        if talk.core.failure is not None:
            break
        talk.tell(FromWorker(LOADER, LoadFailed(0, attempt, -1, False, failure)))
    assert talk.core.failure is not None
    assert "100 substitutes in a row" in talk.core.failure.message
