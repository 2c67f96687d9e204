"""The core, event by event: what it answers to each, and what it refuses."""

from __future__ import annotations

import dataclasses
import logging
import re

import msgspec
import numpy as np
import pytest

from chunkdl.engine.decisions.core import Core
from chunkdl.engine.decisions.events import (
    Action,
    Event,
    FromConsumer,
    FromWorker,
    Silence,
    ToConsumer,
    ToWorker,
    WorkerLost,
)
from chunkdl.engine.decisions.failures import MAX_DEATHS, MAX_SUBSTITUTES
from chunkdl.engine.decisions.restarts import BLAME_OF_OUTSIDER
from chunkdl.errors import Failure, ProtocolError, SlideError, WorkerDied, WorkerFailed
from chunkdl.sampling.reuse import SURVEYED_WINDOWS
from chunkdl.transport.protocol.codec import decode, encode
from chunkdl.transport.protocol.engine_messages import (
    PROTOCOL_VERSION,
    WITHHELD_BATCH,
    AnyMessage,
    AskStatistics,
    BatchReady,
    BigChunkLoaded,
    End,
    FillRows,
    GridSurveyed,
    Hello,
    LoadBigChunk,
    LoadFailed,
    NextEpoch,
    Notice,
    Recall,
    Refuse,
    Release,
    RowGroup,
    RowsFilled,
    SlideNote,
    StreamFailed,
    SurveyGrid,
    SurveyWindow,
    Welcome,
    WindowSurveyed,
    WorkerBroke,
    WorkerReady,
)
from tests.engine.decisions.script import PLAN_HASH, TOKEN, Script
from tests.engine.decisions.world import World

HELLO = Hello(PROTOCOL_VERSION, TOKEN, PLAN_HASH, credit=2)
ONE_SLIDE = Script(places=1, calls=4, batch_rows=2, slides_of_patient=((0,),), bigchunk_slots=2)
GRID = dataclasses.replace(ONE_SLIDE, grid=True, windows=((2, 1),))
ZERO_ONE = np.array([0, 1], dtype=np.int32).tobytes()
ZERO = np.array([0], dtype=np.int32).tobytes()
FAILURE = Failure("SlideError", "the disk is gone", "trace")
READY = WorkerReady()


def core_of(script: Script, *events: Event) -> Core:
    """A core to which these events have happened."""
    core = Core(script.config(), script.cursor())
    for event in events:
        core.handle(event)
    return core


def said(actions: list[Action]) -> list[object]:
    """What the consumer is told."""
    return [action.message for action in actions if isinstance(action, ToConsumer)]


def loaded(ticket: LoadBigChunk) -> BigChunkLoaded:
    """The answer of a loader to which nothing happened."""
    return BigChunkLoaded(ticket.ordinal, ticket.slot, ticket.generation, 64, 64, 0.1)


def test_a_loader_that_is_ready_gets_two_bigchunks_to_read() -> None:
    """The first two of the plan, each into a slot of its own."""
    core = core_of(ONE_SLIDE)
    first = LoadBigChunk(0, 0, 0, -1, 4, slot=0, generation=1)
    second = LoadBigChunk(1, 0, 0, -1, 4, slot=1, generation=1)
    assert core.handle(FromWorker(0, READY)) == [ToWorker(0, first), ToWorker(0, second)]


def test_a_bigchunk_goes_from_loader_to_collector_to_consumer() -> None:
    """Three events after the start the first batch is out, and its slot is used again later."""
    core = core_of(ONE_SLIDE, FromWorker(0, READY), FromWorker(1, READY), FromConsumer(HELLO))
    filling = core.handle(FromWorker(0, BigChunkLoaded(0, 0, 1, 64, 64, 0.1)))
    two_three = np.array([2, 3], dtype=np.int32).tobytes()
    assert filling == [
        ToWorker(1, FillRows(0, 0, 1, (RowGroup(0, 0, ZERO_ONE, ZERO_ONE),))),
        ToWorker(1, FillRows(1, 1, 1, (RowGroup(0, 0, ZERO_ONE, two_three),))),
    ]
    sent = core.handle(FromWorker(1, RowsFilled(0, 1, (0,))))
    assert sent == [ToConsumer(BatchReady(0, 0, 0, 1, 2, b"", 4, {}))]
    assert core.handle(FromConsumer(Release(0, 0, 1))) == []
    # The last rows of BigChunk 0 free its slot for BigChunk 2.
    freed = core.handle(FromWorker(1, RowsFilled(1, 1, (0,))))
    assert freed == [
        ToWorker(0, LoadBigChunk(2, 0, 0, -1, 4, slot=0, generation=2)),
        ToConsumer(BatchReady(1, 0, 1, 1, 2, b"", 4, {})),
    ]


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello(PROTOCOL_VERSION, b"guessed", PLAN_HASH, 2), "another stream"),
        (Hello(PROTOCOL_VERSION, TOKEN, "0" * 64, 2), "another stream"),
    ],
)
def test_a_hello_that_is_wrong_is_refused_with_the_reason(hello: Hello, reason: str) -> None:
    """And the right consumer can still come."""
    core = core_of(ONE_SLIDE)
    (refusal,) = said(core.handle(FromConsumer(hello)))
    assert isinstance(refusal, Refuse)
    assert reason in refusal.reason
    assert isinstance(said(core.handle(FromConsumer(HELLO)))[0], Welcome)


def test_a_second_consumer_is_refused() -> None:
    """One service has one consumer."""
    core = core_of(ONE_SLIDE, FromConsumer(HELLO))
    assert said(core.handle(FromConsumer(HELLO))) == [
        Refuse("the service has its consumer already")
    ]


@pytest.mark.parametrize("credit", [0, -1, 10**6])
def test_a_hello_with_impossible_credit_opens_no_session(credit: int) -> None:
    """It is refused as an error, and the right consumer can still come."""
    core = core_of(ONE_SLIDE)
    with pytest.raises(ProtocolError):
        core.handle(FromConsumer(hello_with(credit)))
    assert isinstance(said(core.handle(FromConsumer(HELLO)))[0], Welcome)


def hello_with(credit: int) -> Hello:
    """HELLO with another credit."""
    return Hello(PROTOCOL_VERSION, TOKEN, PLAN_HASH, credit)


def test_what_happened_before_the_consumer_came_is_told_when_it_comes() -> None:
    """In order, after the welcome; and not again."""
    core = core_of(ONE_SLIDE)
    assert core.handle(WorkerLost(0, "loader 0 was ended by SIGKILL")) == []
    welcome, notice = said(core.handle(FromConsumer(HELLO)))
    assert welcome == Welcome(PLAN_HASH[:16])
    assert isinstance(notice, Notice)
    assert (notice.level, "SIGKILL" in notice.text) == (logging.WARNING, True)
    assert said(core.handle(WorkerLost(0, "again")))[0] == Notice(
        logging.WARNING, "a worker was replaced: again"
    )


def test_a_stream_that_failed_before_the_consumer_came_says_so_when_it_comes() -> None:
    """get() must raise, not wait."""
    core = core_of(ONE_SLIDE, FromWorker(0, WorkerBroke(FAILURE)))
    assert said(core.handle(FromConsumer(HELLO))) == [
        Welcome(PLAN_HASH[:16]),
        StreamFailed(FAILURE),
    ]


def test_code_that_raises_in_a_worker_ends_the_stream_once() -> None:
    """With its failure; nothing that comes later is answered."""
    core = core_of(ONE_SLIDE, FromWorker(0, READY), FromConsumer(HELLO))
    assert said(core.handle(FromWorker(0, WorkerBroke(FAILURE)))) == [StreamFailed(FAILURE)]
    assert core.failure == FAILURE
    assert core.handle(FromWorker(0, WorkerBroke(FAILURE))) == []
    assert core.fail(FAILURE) == []


def test_workers_that_cannot_be_kept_alive_end_the_stream() -> None:
    """The shell says so; the first failure is the one that counts."""
    core = core_of(ONE_SLIDE, FromConsumer(HELLO))
    died = Failure.of(WorkerDied("too many"))
    assert said(core.fail(died)) == [StreamFailed(died)]
    assert core.handle(FromWorker(0, READY)) == []


IMPOSSIBLE: list[AnyMessage] = [
    BigChunkLoaded(1, 1, 1, 64, 64, 0.1),
    BigChunkLoaded(0, 0, 2, 64, 64, 0.1),
    BigChunkLoaded(0, 1, 1, 64, 64, 0.1),
    WindowSurveyed(0, 0, 1),
    GridSurveyed(0, b""),
    LoadFailed(0, 1, 0, False, FAILURE),
    LoadFailed(-1, 0, 0, True, FAILURE),
    RowsFilled(0, 1, (0,)),
    RowsFilled(99, 1, (0,)),
]


@pytest.mark.parametrize("message", IMPOSSIBLE, ids=repr)
@pytest.mark.parametrize("worker", [0, 1])
def test_an_answer_to_something_else_is_refused_and_changes_nothing(
    message: AnyMessage, worker: int
) -> None:
    """The right answer is still taken afterwards."""
    core = core_of(ONE_SLIDE, FromWorker(0, READY), FromWorker(1, READY))
    with pytest.raises(ProtocolError):
        core.handle(FromWorker(worker, message))
    assert len(core.handle(FromWorker(0, BigChunkLoaded(0, 0, 1, 64, 64, 0.1)))) == 2


@pytest.mark.parametrize("answer", [RowsFilled(0, 1, (0, 7)), RowsFilled(0, 2, (0,))])
def test_rows_that_nobody_asked_for_are_refused(answer: RowsFilled) -> None:
    """Also where some of them were; the right answer is still taken."""
    core = core_of(ONE_SLIDE, FromWorker(0, READY), FromWorker(1, READY), FromConsumer(HELLO))
    core.handle(FromWorker(0, BigChunkLoaded(0, 0, 1, 64, 64, 0.1)))
    with pytest.raises(ProtocolError):
        core.handle(FromWorker(1, answer))
    assert said(core.handle(FromWorker(1, RowsFilled(0, 1, (0,)))))


def test_a_batch_can_be_given_back_once() -> None:
    """And only as it was sent; that it is said twice changes nothing."""
    core = core_of(ONE_SLIDE, FromWorker(0, READY), FromWorker(1, READY), FromConsumer(HELLO))
    core.handle(FromWorker(0, BigChunkLoaded(0, 0, 1, 64, 64, 0.1)))
    with pytest.raises(ProtocolError, match="batch 0"):
        core.handle(FromConsumer(Release(0, 0, 1)))
    core.handle(FromWorker(1, RowsFilled(0, 1, (0,))))
    for wrong in (Release(1, 0, 1), Release(0, 1, 1), Release(0, 0, 2)):
        with pytest.raises(ProtocolError):
            core.handle(FromConsumer(wrong))
    core.handle(FromConsumer(Release(0, 0, 1)))
    assert core.handle(FromConsumer(Release(0, 0, 1))) == []


def test_slots_that_are_withheld_are_used_once_they_are_released() -> None:
    """The first of the arena; the consumer has as much less credit, and gets it with them."""
    script = dataclasses.replace(ONE_SLIDE, batch_slots=3)
    config = dataclasses.replace(script.config(), withheld_slots=2)
    core = Core(config, script.cursor())
    core.handle(FromWorker(0, READY))
    core.handle(FromWorker(1, READY))
    assert isinstance(said(core.handle(FromConsumer(hello_with(3))))[0], Welcome)
    actions = core.handle(FromWorker(0, BigChunkLoaded(0, 0, 1, 64, 64, 0.1)))

    def slots_of(actions: list[Action]) -> list[int]:
        """Of the batches that are being filled."""
        messages = [action.message for action in actions if isinstance(action, ToWorker)]
        return [message.slot for message in messages if isinstance(message, FillRows)]

    assert slots_of(actions) == [2]
    assert slots_of(core.handle(FromConsumer(Release(WITHHELD_BATCH, 1, 1)))) == [1]
    assert core.handle(FromConsumer(Release(WITHHELD_BATCH, 1, 1))) == []
    with pytest.raises(ProtocolError):
        core.handle(FromConsumer(Release(7, 0, 1)))


@pytest.mark.parametrize(
    "event",
    [
        FromWorker(2, READY),
        FromWorker(-1, READY),
        WorkerLost(2, "who?"),
        FromConsumer(Release(0, 0, 1)),
        FromConsumer(NextEpoch(1)),
        FromConsumer(WorkerReady()),
    ],
    ids=repr,
)
def test_an_event_that_cannot_happen_is_an_error(event: Event) -> None:
    """Workers that are not there, and things that a consumer cannot say."""
    with pytest.raises(ProtocolError):
        core_of(ONE_SLIDE).handle(event)


def test_the_next_pass_begins_only_after_the_end_of_this_one() -> None:
    """And passes come one after the other."""
    world = World(GRID)
    for epoch in (1, 2):
        with pytest.raises(ProtocolError):
            world.core.handle(FromConsumer(NextEpoch(epoch)))
    world.finish()
    with pytest.raises(ProtocolError, match="out of turn"):
        world.core.handle(FromConsumer(NextEpoch(2)))
    world.next_epoch()
    world.finish()
    assert world.plan.epoch == 1


def test_a_pass_without_positions_ends_at_once() -> None:
    """With a count of 0; there is nothing to wait for."""
    core = core_of(dataclasses.replace(GRID, windows=((),)), FromConsumer(HELLO))
    assert core.handle(FromWorker(0, READY)) == [ToWorker(0, SurveyGrid(0))]
    assert said(core.handle(FromWorker(0, GridSurveyed(0, b"")))) == [End(0, 0)]


@pytest.mark.parametrize("grid", [False, True])
def test_a_bigchunk_whose_rows_were_delivered_ahead_gives_its_slot_back(grid: bool) -> None:
    """After a resume from a state of relaxed order no slot waits for rows that are never asked."""
    script = dataclasses.replace(
        GRID if grid else ONE_SLIDE,
        batch_rows=1,
        bigchunk_slots=1,
        windows=((3, 2, 3),),
        ahead=(1,),
    )
    world = World(script)
    if grid:
        world.finish()
    for _ in range(12):
        world.drive()


def test_batches_held_over_the_end_of_a_pass_are_given_back_in_the_next() -> None:
    """Batch 0 of one pass is not batch 0 of the next."""
    world = World(dataclasses.replace(GRID, credit=3, batch_slots=3))
    while not world.ended:
        world.hello()
        for worker in world.workers:
            if not world.start(worker) and not world.work(worker):
                world.hear(worker)
    assert len(world.held) == 2
    world.next_epoch()
    world.drive()
    world.finish()


def test_a_batch_longer_than_the_windows_in_memory_is_filled() -> None:
    """Slides are surveyed until a batch is known, however many windows wait to be read."""
    World(
        dataclasses.replace(
            GRID, batch_rows=9, slides_of_patient=((0,), (1,)), windows=((1,) * 8, (1,) * 8)
        )
    ).finish()


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("calls", [0, 3])
def test_a_dataset_of_which_no_slide_can_be_used_ends_in_an_error(grid: bool, calls: int) -> None:
    """It names how many there are and the last reason, and is not an endless search."""
    script = Script(grid=grid, calls=calls, windows=((2,), (2,)), first_batch=0)
    core = core_of(script, FromConsumer(HELLO))
    messages: list[object] = []
    tickets = [a.message for a in core.handle(FromWorker(0, READY)) if isinstance(a, ToWorker)]
    for _ in range(20):
        if core.failure is not None:
            break
        ticket = tickets.pop(0)
        assert isinstance(ticket, SurveyGrid | SurveyWindow | LoadBigChunk)
        where = (-1, 0) if isinstance(ticket, SurveyGrid) else (ticket.ordinal, ticket.attempt)
        failure = Failure.of(SlideError("no TIFF", slide=f"{ticket.slide}.tif"))
        failed = LoadFailed(*where, slide=ticket.slide, whole_slide=True, failure=failure)
        actions = core.handle(FromWorker(0, failed))
        messages += said(actions)
        tickets += [action.message for action in actions if isinstance(action, ToWorker)]
    last = messages[-1]
    assert isinstance(last, StreamFailed)
    error = last.failure.to_error()
    assert type(error) is SlideError
    assert "none of the 2 slides" in str(error)
    assert "no TIFF" in str(error)


def test_a_dataset_whose_regions_all_fail_ends_in_an_error() -> None:
    """After so many substitutes in a row; a slide that opens does not help."""
    world = World(dataclasses.replace(ONE_SLIDE, bad_percent=100))
    world.drive()
    assert world.failed
    assert world.core.failure is not None
    assert f"{MAX_SUBSTITUTES} substitutes" in world.core.failure.message


def test_on_error_raise_ends_the_stream_with_the_very_failure() -> None:
    """Of a region as of a slide; nothing is substituted."""
    script = dataclasses.replace(ONE_SLIDE, on_error="raise")
    core = core_of(script, FromWorker(0, READY), FromConsumer(HELLO))
    failed = LoadFailed(0, 0, 0, False, FAILURE)
    assert core.handle(FromWorker(0, failed)) == [ToConsumer(StreamFailed(FAILURE))]
    assert core.statistics().substitutions == 0


def test_an_unreadable_region_is_substituted_into_the_same_slot_and_reported() -> None:
    """The next attempt is the plan's, and the batch says that it was taken."""
    core = core_of(ONE_SLIDE, FromWorker(0, READY), FromWorker(1, READY), FromConsumer(HELLO))
    assert core.handle(FromWorker(0, LoadFailed(0, 0, 0, False, FAILURE))) == [
        ToConsumer(Notice(logging.WARNING, "region left out: the disk is gone")),
        ToWorker(0, LoadBigChunk(0, 1, 0, -1, 4, slot=0, generation=1)),
    ]
    core.handle(FromWorker(0, BigChunkLoaded(1, 1, 1, 64, 64, 0.1)))
    core.handle(FromWorker(0, BigChunkLoaded(0, 0, 1, 64, 64, 0.1)))
    sent = said(core.handle(FromWorker(1, RowsFilled(0, 1, (0,)))))
    assert sent == [BatchReady(0, 0, 0, 1, 2, b"", 4, {0: 1})]


ONE_SLIDE_TWO_LOADERS = dataclasses.replace(ONE_SLIDE, loaders=2, bigchunk_slots=4)
TWO_SLIDES = dataclasses.replace(
    ONE_SLIDE, slides_of_patient=((0,), (1,)), loaders=2, seed=6, bigchunk_slots=4
)
"""Of the first four BigChunks 0 and 3 are read from slide 0, the others from slide 1."""


def loads(actions: list[Action]) -> list[tuple[int, int, int]]:
    """The tickets among actions: ordinal, attempt, slide."""
    tickets = [action.message for action in actions]
    return [(t.ordinal, t.attempt, t.slide) for t in tickets if isinstance(t, LoadBigChunk)]


def test_a_slide_over_which_two_loaders_die_is_left_out_and_told_once() -> None:
    """With all that waits of it, in the same way as a slide that cannot be opened."""
    core = core_of(TWO_SLIDES, FromConsumer(HELLO))
    assert loads(core.handle(FromWorker(0, READY))) == [(0, 0, 0), (1, 0, 1)]
    assert loads(core.handle(FromWorker(1, READY))) == [(2, 0, 1), (3, 0, 0)]
    core.handle(WorkerLost(0, "SIGSEGV"))
    assert loads(core.handle(FromWorker(0, READY))) == [(0, 0, 0), (1, 0, 1)]
    actions = core.handle(WorkerLost(0, "SIGSEGV"))
    texts = [notice.text for notice in said(actions) if isinstance(notice, Notice)]
    assert texts == [
        "a worker was replaced: over slide 0.tif, SIGSEGV",
        "slide left out: slide 0.tif has ended 2 workers and is not tried again; look at it, or "
        "take it out of the dataset; the last: SIGSEGV",
    ]
    assert ToWorker(1, Recall(0)) in actions
    assert loads(core.handle(FromWorker(0, READY))) == [(0, 1, 1), (1, 0, 1)]
    # The other loader dies over what it was given before: that is given to nobody again.
    core.handle(FromWorker(1, loaded(LoadBigChunk(2, 0, 1, -1, 4, slot=2, generation=1))))
    core.handle(WorkerLost(1, "SIGSEGV"))
    more = core.handle(FromWorker(1, READY))
    assert loads(more) == [(3, 1, 1)]
    assert not any("left out" in notice.text for notice in said(more) if isinstance(notice, Notice))
    assert core.statistics().unusable_slides == 1


def test_who_gives_back_what_was_recalled_is_not_told_of() -> None:
    """The user knows it already; the plan puts another slide in its place."""
    core = core_of(TWO_SLIDES, FromConsumer(HELLO), FromWorker(0, READY), FromWorker(1, READY))
    for _ in range(2):
        core.handle(WorkerLost(0, "SIGSEGV"))
        core.handle(FromWorker(0, READY))
    core.handle(FromWorker(1, loaded(LoadBigChunk(2, 0, 1, -1, 4, slot=2, generation=1))))
    actions = core.handle(FromWorker(1, LoadFailed(3, 0, 0, True, FAILURE)))
    assert said(actions) == []
    assert loads(actions) == [(3, 1, 1)]


@pytest.mark.parametrize("calls", [0, 4])
def test_a_loader_that_dies_over_a_survey_is_blamed_on_the_slide(calls: int) -> None:
    """Of a window, or of a grid; then nothing more is asked of it."""
    script = dataclasses.replace(
        TWO_SLIDES, calls=calls, grid=bool(calls), windows=((1,), (1,)), loaders=1
    )
    core = core_of(script, FromConsumer(HELLO))
    (ticket, *_) = [action.message for action in core.handle(FromWorker(0, READY))]
    assert isinstance(ticket, SurveyGrid | SurveyWindow)
    core.handle(WorkerLost(0, "SIGSEGV"))
    core.handle(FromWorker(0, READY))
    texts = [str(notice) for notice in said(core.handle(WorkerLost(0, "SIGSEGV")))]
    assert sum(f"slide {ticket.slide}.tif has ended 2 workers" in text for text in texts) == 1
    after = [action.message for action in core.handle(FromWorker(0, READY))]
    assert after
    assert all(t.slide != ticket.slide for t in after if isinstance(t, SurveyGrid | SurveyWindow))


def test_the_windows_of_a_slide_that_is_left_out_are_left_out_of_the_pass() -> None:
    """Nobody is asked for them; the rows of the others keep their places."""
    core = core_of(
        dataclasses.replace(GRID, slides_of_patient=((0,), (1,)), windows=((1, 1, 1), (1,))),
        *(FromConsumer(HELLO), FromWorker(0, READY), FromWorker(1, READY)),
    )
    ones = np.ones(3, dtype=np.int32)
    first = core._loads._tickets[0][0].slide
    tickets = core.handle(FromWorker(0, GridSurveyed(first, ones.tobytes())))
    assert [ordinal for ordinal, _, _ in loads(tickets)] == [0, 1]
    core.handle(WorkerLost(0, "SIGSEGV"))
    core.handle(FromWorker(0, READY))
    core.handle(WorkerLost(0, "SIGSEGV"))
    last = core.handle(FromWorker(0, READY))
    assert [a.message for a in last if isinstance(a, ToWorker)] == [SurveyGrid(1 - first)]
    (sent,) = [message for message in said(last) if isinstance(message, BatchReady)]
    assert (sent.batch, sent.dropped) == (0, ZERO_ONE)
    rest = core.handle(FromWorker(0, GridSurveyed(1 - first, ones[:1].tobytes())))
    assert [(ordinal, slide) for ordinal, _, slide in loads(rest)] == [(3, 1 - first)]


def test_a_worker_that_is_killed_from_outside_counts_less_against_its_slide() -> None:
    """Somebody who kills workers does not change the stream; what does not fit ends."""
    core = core_of(dataclasses.replace(TWO_SLIDES, loaders=1), FromWorker(0, READY))
    attempts = []
    for _ in range(int(MAX_DEATHS / BLAME_OF_OUTSIDER)):
        core.handle(WorkerLost(0, "SIGKILL", by_itself=False))
        tickets = loads(core.handle(FromWorker(0, READY)))
        attempts += [attempt for ordinal, attempt, _ in tickets if ordinal == 0]
    assert attempts == [0] * (len(attempts) - 1) + [1]


def lost_in_silence(worker: int, since_s: float, until_s: float) -> WorkerLost:
    """A loader that hung."""
    return WorkerLost(worker, "it was silent", silence=Silence(since_s, until_s))


def test_loaders_that_fall_silent_together_are_one_piece_of_evidence() -> None:
    """What froze them all was not the slide that they have in hand; a hang after that is."""
    core = core_of(ONE_SLIDE_TWO_LOADERS, FromWorker(0, READY), FromWorker(1, READY))
    core.handle(lost_in_silence(0, 10.0, 130.0))
    core.handle(lost_in_silence(1, 11.0, 131.0))
    assert core.statistics().unusable_slides == 0
    core.handle(FromWorker(0, READY))
    core.handle(lost_in_silence(0, 140.0, 260.0))
    assert core.failure is not None
    assert "0.tif has ended 2 workers" in core.failure.message


def test_a_silence_is_forgiven_when_the_work_is_done_after_all() -> None:
    """A file server that is away now and then costs no slide; what was never answered counts."""
    core = core_of(ONE_SLIDE_TWO_LOADERS, FromWorker(0, READY))
    core.handle(lost_in_silence(0, 10.0, 130.0))
    (first, *_) = [action.message for action in core.handle(FromWorker(0, READY))]
    assert isinstance(first, LoadBigChunk)
    core.handle(FromWorker(0, loaded(first)))
    core.handle(lost_in_silence(0, 1_000.0, 1_120.0))
    assert core.statistics().unusable_slides == 0
    core.handle(FromWorker(0, READY))
    core.handle(lost_in_silence(0, 2_000.0, 2_120.0))
    assert core.failure is not None


def test_a_kill_from_outside_is_forgiven_when_the_work_is_done_after_all() -> None:
    """A long training on a machine where workers are killed keeps its slides."""
    core = core_of(ONE_SLIDE, FromWorker(0, READY), FromWorker(1, READY), FromConsumer(HELLO))
    number = 0
    for round_ in range(4 * int(MAX_DEATHS / BLAME_OF_OUTSIDER)):
        core.handle(WorkerLost(0, "SIGKILL", by_itself=False))
        tickets = [action.message for action in core.handle(FromWorker(0, READY))]
        ticket = tickets[0]
        assert isinstance(ticket, LoadBigChunk)
        assert (ticket.ordinal, ticket.attempt) == (round_, 0)
        core.handle(FromWorker(0, loaded(ticket)))
        for _ in range(2):
            batch = next(iter(core._batches._batches.values()))
            lease = batch.lease
            ordinals = tuple(batch.groups)
            core.handle(FromWorker(1, RowsFilled(number, lease.generation, ordinals)))
            core.handle(FromConsumer(Release(number, lease.slot, lease.generation)))
            number += 1
    assert core.statistics().unusable_slides == 0


def test_workers_that_die_without_a_batch_in_between_end_the_stream() -> None:
    """However long that takes: the core knows no clock. The error names what the last died of."""
    script = dataclasses.replace(TWO_SLIDES, max_restarts=4)
    core = core_of(script, FromConsumer(HELLO), FromWorker(0, READY), FromWorker(2, READY))
    for death in range(5):
        assert core.failure is None
        core.handle(WorkerLost(2 if death % 2 else 0, f"exit code {death}"))
        core.handle(FromWorker(2 if death % 2 else 0, READY))
    assert core.failure is not None
    error = core.failure.to_error()
    assert isinstance(error, WorkerDied)
    assert "max_restarts=4" in str(error)
    assert re.search(r"the last: over slide \d\.tif, exit code 4", str(error))


def test_a_batch_forgives_the_deaths_before_it() -> None:
    """A stream that gets on may lose workers for ever."""
    script = dataclasses.replace(ONE_SLIDE, max_restarts=2, credit=4, batch_slots=3)
    core = core_of(script, FromWorker(0, READY), FromWorker(1, READY), FromConsumer(HELLO))
    core.handle(FromWorker(0, loaded(LoadBigChunk(0, 0, 0, -1, 4, slot=0, generation=1))))
    for batch in range(2):
        for _ in range(2):
            core.handle(WorkerLost(1, "SIGSEGV"))
            core.handle(FromWorker(1, READY))
        assert said(core.handle(FromWorker(1, RowsFilled(batch, 1, (0,)))))
    assert core.failure is None


def test_what_was_mended_in_a_slide_is_told_once() -> None:
    """However many loaders meet it, and with another sentence again."""
    core = core_of(TWO_SLIDES, FromConsumer(HELLO))
    note = SlideNote(1, "tiles of level 2 are absent", 7)
    assert said(core.handle(FromWorker(0, note))) == [
        Notice(logging.WARNING, "slide 1.tif: tiles of level 2 are absent (7 times so far)")
    ]
    assert said(core.handle(FromWorker(1, SlideNote(1, "tiles of level 2 are absent", 9)))) == []
    assert len(said(core.handle(FromWorker(1, SlideNote(1, "another thing", 1))))) == 1
    assert len(said(core.handle(FromWorker(1, SlideNote(0, "another thing", 1))))) == 1


@pytest.mark.parametrize(("worker", "slide"), [(0, 2), (0, -1), (2, 0)])
def test_what_nobody_can_tell_of_a_slide_is_refused(worker: int, slide: int) -> None:
    """A slide that is not there, and a worker that reads none."""
    with pytest.raises(ProtocolError):
        core_of(TWO_SLIDES).handle(FromWorker(worker, SlideNote(slide, "a thing", 1)))


def test_a_killer_ends_the_stream_where_errors_are_to_be_raised() -> None:
    """As `WorkerDied`, which says what killed."""
    core = core_of(dataclasses.replace(ONE_SLIDE, on_error="raise"), FromWorker(0, READY))
    for _ in range(2):
        core.handle(WorkerLost(0, "SIGSEGV"))
        core.handle(FromWorker(0, READY))
    assert core.failure is not None
    assert isinstance(core.failure.to_error(), WorkerDied)


def surveyed(areas: list[int]) -> Core:
    """A core whose windows have these useful areas, of at most 8 x 8 pixels."""
    core = core_of(dataclasses.replace(ONE_SLIDE, calls=0))
    tickets = core.handle(FromWorker(0, READY))
    for area in areas:
        ticket = tickets.pop(0).message
        assert isinstance(ticket, SurveyWindow)
        answer = WindowSurveyed(ticket.ordinal, ticket.attempt, area)
        tickets += core.handle(FromWorker(0, answer))
    return core


def test_a_bigchunk_gives_as_many_smallchunks_as_the_mean_useful_area_of_the_survey_holds() -> None:
    """Of one pixel each, at reuse 1; never more than a slot has room for."""
    half = SURVEYED_WINDOWS // 2
    assert surveyed([64] * SURVEYED_WINDOWS).statistics().smallchunks_per_bigchunk == 64
    mixed = [64] * half + [10] * (SURVEYED_WINDOWS - half)
    assert surveyed(mixed).statistics().smallchunks_per_bigchunk == 37
    assert surveyed(mixed[::-1]).statistics().smallchunks_per_bigchunk == 37


@pytest.mark.parametrize("area", [0, -1, 65])
def test_a_useful_area_that_no_window_has_is_refused(area: int) -> None:
    """Else a BigChunk would get more SmallChunks than its slot has room for."""
    with pytest.raises(ProtocolError, match="useful"):
        surveyed([area])


@pytest.mark.parametrize(("places", "calls", "rows"), [(2048, 1, 4096), (1, 4096, 4096)])
def test_the_tickets_of_a_large_batch_fit_into_messages(places: int, calls: int, rows: int) -> None:
    """Many BigChunks with few rows each, and one with all of them."""
    script = Script(
        places=places, calls=calls, batch_rows=rows, bigchunk_slots=places + 1, batch_slots=2
    )
    core = core_of(script)
    todo = core.handle(FromWorker(0, READY))
    while todo:
        ticket = todo.pop(0).message
        assert isinstance(ticket, LoadBigChunk)
        todo += core.handle(FromWorker(0, loaded(ticket)))
    actions = core.handle(FromWorker(1, READY))
    tickets = [action.message for action in actions if isinstance(action.message, FillRows)]
    answers = [
        RowsFilled(ticket.batch, ticket.generation, tuple(group.ordinal for group in ticket.groups))
        for ticket in tickets
    ]
    assert max(len(encode(message)) for message in (*tickets, *answers)) <= 48 * 1024
    for message in (*tickets, *answers):
        assert decode(encode(message)) == message
    for answer in answers:
        core.handle(FromWorker(1, answer))


def test_statistics_are_given_when_asked_for() -> None:
    """Counters of what was delivered and read, and what is free now."""
    world = World(ONE_SLIDE)
    world.drive()
    world.drive()
    statistics = world.core.statistics()
    assert (statistics.batches, statistics.rows) == (world.counted[0], world.counted[1])
    assert statistics.delivered_px == statistics.rows
    assert statistics.decoded_px == statistics.target_px == 8 * statistics.bigchunks
    assert statistics.smallchunks_per_bigchunk == 4
    assert said(world.core.handle(FromConsumer(AskStatistics()))) == [statistics]


def test_a_failure_of_unknown_kind_keeps_its_name() -> None:
    """What code of a user raised in a worker is `WorkerFailed` here."""
    broke = Failure("ZeroDivisionError", "division by zero", "trace")
    core = core_of(ONE_SLIDE, FromWorker(0, WorkerBroke(broke)))
    assert core.failure is not None
    assert isinstance(core.failure.to_error(), WorkerFailed)


def test_a_dropped_row_is_named_in_its_batch() -> None:
    """A grid pass has no substitutes: the rows of an unreadable window are left out, visibly."""
    core = core_of(GRID, FromConsumer(HELLO), FromWorker(0, READY), FromWorker(1, READY))
    tickets = core.handle(
        FromWorker(0, GridSurveyed(0, np.array([2, 1], dtype=np.int32).tobytes()))
    )
    assert len(tickets) == 2
    sent = said(core.handle(FromWorker(0, LoadFailed(0, 0, 0, False, FAILURE))))
    assert sent[-1] == BatchReady(0, 0, 0, 1, 2, ZERO_ONE, 0, {}, pass_batches=2)
    core.handle(FromWorker(0, BigChunkLoaded(1, 1, 1, 64, 64, 0.1)))
    last = said(core.handle(FromWorker(1, RowsFilled(1, 1, (1,)))))
    assert last == [BatchReady(1, 0, 1, 1, 1, b"", 0, {}, pass_batches=2), End(0, 2)]


def test_a_pass_has_no_substitutes_whatever_a_state_says() -> None:
    """A consumer's position may name BigChunks that there are not; no engine ends over it."""
    cursor = msgspec.structs.replace(GRID.cursor(), substitutions={999_999: 1})
    core = Core(GRID.config(), cursor)
    events: list[Event] = [FromWorker(0, READY), FromWorker(1, READY), FromConsumer(HELLO)]
    batches: list[BatchReady] = []
    while events:
        for action in core.handle(events.pop(0)):
            match action:
                case ToWorker(worker, SurveyGrid(slide)):
                    counts = np.array(GRID.windows[slide], dtype=np.int32).tobytes()
                    events.append(FromWorker(worker, GridSurveyed(slide, counts)))
                case ToWorker(worker, LoadBigChunk() as ticket):
                    loaded = BigChunkLoaded(
                        ticket.ordinal, ticket.slot, ticket.generation, 1, 1, 0.0
                    )
                    events.append(FromWorker(worker, loaded))
                case ToWorker(worker, FillRows() as ticket):
                    rows = tuple(group.ordinal for group in ticket.groups)
                    events.append(
                        FromWorker(worker, RowsFilled(ticket.batch, ticket.generation, rows))
                    )
                case ToConsumer(BatchReady() as batch):
                    batches.append(batch)
    assert core.failure is None
    assert [batch.substitutions for batch in batches] == [{}] * len(batches)
    assert batches


CYCLES = Script(cycles=1, batch_rows=2, windows=((3, 3), (2, 2)))


@pytest.mark.parametrize("others", [0, 1])
def test_a_slide_that_gave_rows_before_a_resume_and_none_now_ends_the_stream(others: int) -> None:
    """By its name and with the reason, rather than that other rows come, or none; also where all
    others are known by then."""
    core = core_of(dataclasses.replace(CYCLES, first_batch=3), FromConsumer(HELLO))
    actions = core.handle(FromWorker(0, READY))
    for _ in range(others + 1):
        (asked,) = [a.message for a in actions if isinstance(a, ToWorker)][:1]
        assert isinstance(asked, SurveyGrid)
        slide = asked.slide
        counts = np.array(CYCLES.windows[slide], dtype=np.int32)
        answer: AnyMessage = GridSurveyed(slide, counts.tobytes())
        if not others:
            answer = LoadFailed(-1, 0, slide, True, FAILURE)
        others -= 1
        actions = core.handle(FromWorker(0, answer))
    last = said(actions)[-1]
    assert isinstance(last, StreamFailed)
    name = re.escape(f"{slide}.tif")
    told = f"slide {name} gave rows before .* disk is gone|cannot go on without .* disk is gone"
    assert re.search(told, last.failure.message)


def test_a_stream_without_end_whose_regions_all_fail_ends_in_an_error() -> None:
    """After so many in a row; in a pass they are left out, since it has an end."""
    config = CYCLES.config()
    config = dataclasses.replace(config, stream=dataclasses.replace(config.stream, cycles=None))
    core = Core(config, CYCLES.cursor())
    core.handle(FromConsumer(HELLO))
    tickets = [a.message for a in core.handle(FromWorker(0, READY)) if isinstance(a, ToWorker)]
    refused = 0
    while core.failure is None:
        ticket = tickets.pop(0)
        answer: AnyMessage
        if isinstance(ticket, SurveyGrid):
            counts = np.array(CYCLES.windows[ticket.slide], dtype=np.int32)
            answer = GridSurveyed(ticket.slide, counts.tobytes())
        else:
            assert isinstance(ticket, LoadBigChunk)
            refused += 1
            answer = LoadFailed(ticket.ordinal, 0, ticket.slide, False, FAILURE)
        actions = core.handle(FromWorker(0, answer))
        tickets += [action.message for action in actions if isinstance(action, ToWorker)]
        for message in said(actions):
            if isinstance(message, BatchReady):
                give_back = Release(message.batch, message.slot, message.generation)
                actions = core.handle(FromConsumer(give_back))
                tickets += [action.message for action in actions if isinstance(action, ToWorker)]
    assert refused == MAX_SUBSTITUTES + 1
    assert f"{MAX_SUBSTITUTES} substitutes in a row" in core.failure.message


@pytest.mark.parametrize("cycles", [1, None])
def test_a_slide_that_is_lost_ends_a_stream_without_replacement(cycles: int | None) -> None:
    """Rather than that all rows behind are others; a slide without tissue has none each time."""
    config = CYCLES.config()
    config = dataclasses.replace(config, stream=dataclasses.replace(config.stream, cycles=cycles))
    core = Core(config, CYCLES.cursor())
    core.handle(FromConsumer(HELLO))
    (first,) = [a.message for a in core.handle(FromWorker(0, READY)) if isinstance(a, ToWorker)][:1]
    assert isinstance(first, SurveyGrid)
    without = msgspec.structs.replace(FAILURE, kind="NoTissueError")
    core.handle(FromWorker(0, LoadFailed(-1, 0, first.slide, True, without)))
    assert [said for said in [core.failure] if said] == []
    (second,) = [t for t in core._loads._tickets[0] if isinstance(t, SurveyGrid)]
    counts = np.array(CYCLES.windows[second.slide], dtype=np.int32)
    core.handle(FromWorker(0, GridSurveyed(second.slide, counts.tobytes())))
    (load, *_) = core._loads._tickets[0]
    assert isinstance(load, LoadBigChunk)
    core.handle(FromWorker(0, LoadFailed(load.ordinal, 0, load.slide, True, FAILURE)))
    assert core.failure is not None
    assert "cannot go on without one of its slides" in core.failure.message


@pytest.mark.parametrize("script", [GRID, CYCLES], ids=["grid", "cycles"])
def test_code_of_the_user_that_raises_over_a_position_of_a_grid_ends_the_stream(
    script: Script,
) -> None:
    """Also with on_error="substitute": nothing can take its place, and nobody waits for it."""
    core = core_of(script, FromConsumer(HELLO), FromWorker(0, READY), FromWorker(1, READY))
    while isinstance(ticket := core._loads._tickets[0][0], SurveyGrid):
        counts = np.array(script.windows[ticket.slide], dtype=np.int32)
        core.handle(FromWorker(0, GridSurveyed(ticket.slide, counts.tobytes())))
    load = ticket
    assert isinstance(load, LoadBigChunk)
    core.handle(FromWorker(0, loaded(load)))
    raised = msgspec.structs.replace(FAILURE, kind="HookError", hook="tfms")
    core._loads.ended(load.ordinal, core._loads.bigchunks[load.ordinal].attempt, 0, raised)
    assert core.failure == raised
