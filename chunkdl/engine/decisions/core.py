"""The coordinator's decisions: what is read, what is cropped, what is sent, who may reuse what.

`Core.handle(event)` is the one door: it changes the state and returns what to do. It waits for
nothing, asks no clock and touches no pixel, so every order of events and every fault can be played
through in a test. All work is a pure function of the plan; what a dead worker had in hand is
simply given to another.

`BigChunks` has the BigChunks and the loaders, `Batches` the batches, the collectors and the
consumer's credit. It keeps going as long as anything can: BigChunks are loaded in the order in
which they are needed, so with P slots the batch that is due can always be completed (its missing
BigChunk is preceded in that order by at most P−1 others that are still of use).
"""

from __future__ import annotations

import logging

import numpy as np

from chunkdl.engine.decisions.batches import Batches
from chunkdl.engine.decisions.bigchunks import BigChunks
from chunkdl.engine.decisions.core_config import CoreConfig
from chunkdl.engine.decisions.events import Action, Event, FromConsumer, FromWorker, WorkerLost
from chunkdl.engine.decisions.failures import crash_loop, nothing_changes
from chunkdl.engine.decisions.filter_shares import FEW, FilterShares
from chunkdl.engine.decisions.outbox import Outgoing
from chunkdl.engine.decisions.patient_choice import PatientChoice
from chunkdl.engine.decisions.restarts import BarrenDeaths
from chunkdl.engine.decisions.slide_choice import Sources
from chunkdl.errors import Failure, ProtocolError
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.stream_kinds import stream_of
from chunkdl.sampling.streams import Stream
from chunkdl.transport.protocol.engine_messages import (
    AskStatistics,
    BigChunkLoaded,
    CheckpointSet,
    GridSurveyed,
    Hello,
    LoadBigChunk,
    LoadFailed,
    MessageToPatient,
    NextEpoch,
    NothingLeft,
    Notice,
    PatientChosen,
    Ping,
    Pong,
    Refuse,
    Release,
    RowFormatSet,
    RowsEnded,
    RowsFilled,
    ScheduleFailed,
    SlideLooked,
    SlideNote,
    Statistics,
    StatusSet,
    Welcome,
    WindowSurveyed,
    WorkerBroke,
    WorkerNote,
    WorkerReady,
)


class Core:
    """The state of a running stream; `handle` is its only door.

    Args:
        config: fixed facts.
        cursor: where the stream begins.
    """

    def __init__(self, config: CoreConfig, cursor: Cursor) -> None:
        self.config = config
        self._cursor = cursor
        self._outgoing = Outgoing()
        self._places = PatientChoice(config, cursor, self._outgoing) if config.has_places else None
        self._sources = Sources(config, dict(cursor.substitutions), self._places)
        self._loads = BigChunks(config, self._sources, self._outgoing)
        self._batches = Batches(config, self._loads, self._outgoing)
        known = config.row_format
        self._row_format = None if known is None else RowFormatSet(known)
        self._ready = [False] * config.workers
        self._restarts = 0
        self._barren_deaths = BarrenDeaths(config.max_restarts)
        self._told: set[tuple[int, str]] = set()
        self._warned: set[str] = set()
        self._filter_shares = FilterShares()
        self.last_loss = ""
        """How the last worker ended, and over what."""
        self._stream: Stream | None = None
        calls = config.stream.smallchunks_per_bigchunk or cursor.smallchunks_per_bigchunk
        self._begin_with(calls, cursor.epoch)

    @property
    def failure(self) -> Failure | None:
        """Why the stream ended, once it did."""
        return self._outgoing.failure

    def _begin_with(self, calls: int, epoch: int) -> None:
        """Begin the stream or its next pass, unless the number of calls has to be known first."""
        config = self.config
        stream = stream_of(config.stream, self._cursor, config.slides_of_patient, epoch, calls)
        if stream is None:
            return
        self._stream = stream
        if self._places is not None:
            self._places.passed(stream.passed)
        self._loads.begin(stream)
        self._batches.begin(stream, self._cursor.next_batch, self._cursor.ahead)

    def handle(self, event: Event) -> list[Action]:
        """Take in one event and say what to do.

        Raises:
            ProtocolError: the event cannot happen in this state; the state is as it was.
        """
        if self.failure is None:
            match event:
                case FromWorker(worker) | WorkerLost(worker) if not 0 <= worker < len(self._ready):
                    raise ProtocolError(f"there is no worker {worker}")
                case FromWorker(worker, message):
                    self._from_worker(worker, message)
                case WorkerLost():
                    self._worker_lost(event)
                case FromConsumer(message):
                    self._from_consumer(message)
            self._advance()
        elif isinstance(event, FromConsumer) and isinstance(event.message, Hello):
            self._hello(event.message)
        return self._outgoing.take()

    def fail(self, failure: Failure) -> list[Action]:
        """End the stream from outside (a worker that cannot be kept alive)."""
        self._outgoing.fail(failure)
        return self._outgoing.take()

    def _advance(self) -> None:
        """Do everything that the new state allows."""
        if self._stream is None and (calls := self._loads.settled_calls()) is not None:
            self._begin_with(calls, epoch=0)
        if self.failure is None:
            self._loads.assign(self._ready, self._batches.next_batch)
            self._batches.drop_rows()
            self._batches.plan()
            self._batches.flush(self._ready)
            self._batches.deliver()
            self._loads.check_missing()
            if self._waits_for_ever():
                self._outgoing.fail(nothing_changes())

    def _waits_for_ever(self) -> bool:
        """Whether the policy has said "not now", and nothing will ever change its mind."""
        waits = self._places is not None and self._places.not_now and all(self._ready)
        return waits and self._loads.idle and self._batches.idle

    # ------------------------------------------------------------------- workers

    def _from_worker(self, worker: int, message: object) -> None:
        match message:
            case WorkerReady():
                self._ready[worker] = True
                if self._row_format is not None and self._collects(worker):
                    self._outgoing.tell(worker, self._row_format)
            case BigChunkLoaded():
                self._loads.take_back(worker, message)
                if self._loads.take_in(message):
                    self._batches.bigchunk_ready(message.ordinal)
            case RowsFilled():
                self._batches.filled(worker - self.config.loaders, message)
            case WindowSurveyed():
                self._loads.take_back(worker, message)
                self._loads.window_surveyed(message.ordinal, message.useful_px)
            case GridSurveyed():
                self._loads.take_back(worker, message)
                counts = np.frombuffer(message.counts, dtype=np.int32)
                self._loads.grid_surveyed(message.slide, counts)
            case LoadFailed():
                ticket = self._loads.take_back(worker, message)
                self._loads.unreadable(ticket, message.failure, whole_slide=message.whole_slide)
            case SlideNote():
                self._mended(worker, message)
            case SlideLooked():
                self._looked(worker, message)
            case NothingLeft():
                ticket = self._loads.take_back(worker, message)
                if isinstance(ticket, LoadBigChunk):
                    self._loads.nothing_left(ticket)
            case WorkerBroke() | ScheduleFailed():
                self._outgoing.fail(message.failure)
            case WorkerNote(warning=True):
                if message.text not in self._warned:
                    self._warned.add(message.text)
                    self._outgoing.note(logging.WARNING, message.text)
            case WorkerNote():
                self._outgoing.say(Notice(logging.INFO, message.text, of_user=True))
            case RowsEnded() | RowFormatSet():
                self._from_collector(worker, message)
            case CheckpointSet() | StatusSet() | PatientChosen() if self._places is not None:
                self._for_places(message, self._places)
            case _:
                raise ProtocolError(f"worker {worker} sent {type(message).__name__}")

    def _collects(self, worker: int) -> bool:
        return self.config.loaders <= worker < self.config.scheduler

    def _from_collector(self, worker: int, message: RowsEnded | RowFormatSet) -> None:
        if not self._collects(worker):
            raise ProtocolError(f"worker {worker} is not a collector")
        if isinstance(message, RowsEnded):
            call = self._batches.ended(worker - self.config.loaders, message)
            self._loads.ended(message.ordinal, message.attempt, call, message.failure)
            self._place_ready(message.ordinal)
        elif self._row_format is None:
            # The first proposal holds; the other collectors wait for this or are told later.
            self._row_format = message
            self._outgoing.say(message)
            for other in range(self.config.loaders, self.config.scheduler):
                if self._ready[other]:
                    self._outgoing.tell(other, message)

    def _place_ready(self, ordinal: int) -> None:
        """Rows of a replaced BigChunk that were still in hand when its successor was loaded."""
        bigchunk = self._loads.bigchunks.get(ordinal)
        if bigchunk is not None and bigchunk.ready:
            self._batches.bigchunk_ready(ordinal)

    def _for_places(
        self, message: CheckpointSet | StatusSet | PatientChosen, places: PatientChoice
    ) -> None:
        match message:
            case CheckpointSet():
                if self._loads.is_current(message.ordinal, message.attempt):
                    places.checkpoint(message.ordinal, message.checkpoint)
            case StatusSet():
                if self._loads.is_current(message.ordinal, message.attempt):
                    places.status(message.ordinal, message.status)
            case PatientChosen():
                places.chosen(message)

    def _worker_lost(self, loss: WorkerLost) -> None:
        self._ready[loss.worker] = False
        self._restarts += 1
        self.last_loss = f"{self._loads.over(loss.worker)}{loss.reason}"
        self._outgoing.note(logging.WARNING, f"a worker was replaced: {self.last_loss}")
        if loss.worker == self.config.scheduler:
            if loss.failure is not None:
                self._outgoing.fail(loss.failure)
            elif self._places is not None:
                self._places.ask_again()
        elif loss.worker >= self.config.loaders:
            self._collector_lost(loss)
        else:
            self._loads.loader_lost(loss)
        if self._barren_deaths.died(self._batches.sent, by_itself=loss.by_itself):
            self._outgoing.fail(crash_loop(self.config.max_restarts, self.last_loss))

    def _collector_lost(self, loss: WorkerLost) -> None:
        call = self._batches.first_call(loss.ordinal)
        if call is not None and loss.by_itself:
            self._loads.blame(loss.ordinal, call, loss.reason, loss.failure)
        self._batches.collector_lost(loss.worker - self.config.loaders)

    def _looked(self, worker: int, told: SlideLooked) -> None:
        """What the pixel filter says of a slide."""
        self._check_told(worker, told.slide)
        share = self._filter_shares.count(told.slide, told.looked, told.refused)
        if share is not None:
            level = logging.WARNING if share >= 1 - FEW else logging.INFO
            slide = self.config.slides[told.slide]
            self._outgoing.note(level, f"slide {slide}: the pixel filter refuses {share:.1%} of it")

    def _check_told(self, worker: int, slide: int) -> None:
        if worker >= self.config.loaders or not 0 <= slide < len(self.config.slides):
            raise ProtocolError(f"worker {worker} cannot tell of slide {slide}")

    def _mended(self, worker: int, note: SlideNote) -> None:
        """Something was mended in a slide; several loaders may meet it."""
        self._check_told(worker, note.slide)
        if (note.slide, note.what) not in self._told:
            self._told.add((note.slide, note.what))
            slide = self.config.slides[note.slide]
            times = f"{note.count} times so far"
            self._outgoing.note(logging.WARNING, f"slide {slide}: {note.what} ({times})")

    # ------------------------------------------------------------------ consumer

    def _from_consumer(self, message: object) -> None:
        match message:
            case Hello():
                self._hello(message)
            case Release():
                self._batches.released(message)
            case NextEpoch():
                self._next_epoch(message.epoch)
            case MessageToPatient() if self._places is not None:
                self._places.send(message.patient, message.message)
            case AskStatistics():
                self._outgoing.say(self.statistics())
            case Ping():
                self._outgoing.say(Pong())
            case _:
                raise ProtocolError(f"the consumer sent {type(message).__name__}")

    def _hello(self, hello: Hello) -> None:
        wrong = None
        if hello.token != self.config.token or hello.plan_hash != self.config.plan_hash:
            wrong = "this service belongs to another stream"
        elif self._batches.credit is not None:
            wrong = "the service has its consumer already"
        if wrong is not None:
            self._outgoing.refuse(Refuse(wrong))
            return
        self._batches.opened(hello.credit)
        self._outgoing.open(Welcome(self.config.plan_hash[:16]))

    def _next_epoch(self, epoch: int) -> None:
        stream = self._stream
        if stream is None or not stream.has_passes or epoch != stream.epoch + 1:
            raise ProtocolError(f"pass {epoch} was asked for out of turn")
        if not self._batches.end_sent:
            raise ProtocolError("the next pass was asked for before this one ended")
        config = self.config
        self._cursor = Cursor(plan_hash=config.plan_hash, seed=config.stream.seed)
        self._begin_with(0, epoch)

    def statistics(self) -> Statistics:
        """Counters since the start and levels of the moment."""
        loads, batches = self._loads, self._batches
        return Statistics(
            batches=batches.sent,
            rows=batches.rows_sent,
            bigchunks=loads.loaded,
            decoded_px=loads.decoded_px,
            target_px=loads.target_px,
            delivered_px=batches.rows_sent * self.config.stream.smallchunk_px**2,
            read_s=loads.read_s,
            substitutions=loads.substitutions,
            unusable_slides=len(self._sources.unusable),
            restarts=self._restarts,
            smallchunks_per_bigchunk=self._stream.calls if self._stream is not None else 0,
            bigchunks_ready=sum(bigchunk.ready for bigchunk in loads.bigchunks.values()),
            batches_ready=batches.ready,
            slots_free=batches.slots.free,
            looked=self._filter_shares.looked,
            refused=self._filter_shares.refused,
        )
