"""A world around the core: workers, memory and a consumer, all of them simulated and checked.

Every slot has content. A loader writes it when it works on its ticket, a collector copies it into
the rows of a batch slot, and what the consumer is told about is compared with the plan. Workers
work, speak and die whenever the test says so; nothing here decides by itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from dataclasses import dataclass, field
from random import Random

import msgspec
import numpy as np

from chunkdl.engine.decisions.bigchunks import TICKETS_PER_LOADER
from chunkdl.engine.decisions.core import Core
from chunkdl.engine.decisions.events import Event, FromConsumer, FromWorker, ToWorker, WorkerLost
from chunkdl.engine.decisions.failures import MAX_DEATHS, MAX_SUBSTITUTES
from chunkdl.engine.decisions.restarts import BLAME_OF_OUTSIDER
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.reuse import SURVEYED_WINDOWS
from chunkdl.transport.protocol.codec import decode, encode
from chunkdl.transport.protocol.engine_messages import (
    PROTOCOL_VERSION,
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
    Message,
    NextEpoch,
    Recall,
    Release,
    RowsFilled,
    Statistics,
    StreamFailed,
    SurveyGrid,
    SurveyWindow,
    Welcome,
    WindowSurveyed,
    WorkerReady,
)
from tests.engine.decisions.script import (
    PLAN_HASH,
    TOKEN,
    Accidents,
    GridPlan,
    RandomPlan,
    Region,
    Script,
    passing,
)

Row = tuple[int, ...]
"""A region and a call: what a row of a batch slot holds."""
TORN: Region = (-1, -1, -1, -1)
"""Content of a slot whose writer gave up or died over it, and of one never written."""
MOST_SWEEPS = 5000
"""In which everybody answers everything, until the next batch must be there."""


def int32(data: bytes) -> list[int]:
    """The numbers in a message."""
    return [int(number) for number in np.frombuffer(data, dtype=np.int32)]


@dataclass(slots=True)
class Worker:
    """A worker process: what it was given, what it has not begun, what it said unheard."""

    number: int
    alive: bool = True
    ready: bool = False
    given: deque[Message] = field(default_factory=deque)
    inbox: deque[Message] = field(default_factory=deque)
    said: deque[AnyMessage] = field(default_factory=deque)
    recalled: set[int] = field(default_factory=set)
    murdered_by_slide: bool = False


class World:
    """A core and everything around it.

    Args:
        script: of the world.
    """

    def __init__(self, script: Script) -> None:
        self._begin(script, script.cursor())

    def _begin(self, script: Script, cursor: Cursor) -> None:
        self.script = script
        self._base = cursor
        self.core = Core(script.config(), cursor)
        self._accidents = Accidents()
        self._accidents.begin = dict(cursor.substitutions)
        self._unseen: frozenset[int] = frozenset()
        self._areas: dict[int, float] = {}
        self.plan: RandomPlan | GridPlan
        self._left_before = frozenset(cursor.substitutions if script.cycles else ())
        self._may_fail = False
        if script.finite:
            self.plan = passing(script, self._accidents, cursor.epoch, self._left_before)
        else:
            self.plan = RandomPlan(script, self._accidents, cursor.smallchunks_per_bigchunk)
        self.workers = [Worker(number) for number in range(script.loaders + script.collectors)]
        self.bigchunks = [TORN] * script.bigchunk_slots
        self.batches: list[dict[int, Row]] = [{} for _ in range(script.batch_slots)]
        self.delivered = {*range(cursor.next_batch), *cursor.ahead}
        self.log: list[BatchReady] = []
        self.held: list[tuple[BatchReady, dict[int, Row]]] = []
        self.connected = self.ended = self.failed = False
        self.counted = [0, 0, 0]
        self._regions: dict[int, dict[int, Region]] = {}
        self._server: dict[int, int] = {}
        self._open_loads: set[tuple[int, int]] = set()
        self._orphans: set[tuple[int, int]] = set()
        self._deaths: dict[int, float] = {}
        self._kills: dict[tuple[int, int], float] = {}
        self._barren = 0.0
        self._found_bad: set[int] = set()
        self._must_fail = self._told = False

    @property
    def over(self) -> bool:
        """Whether the stream has failed, as it had to."""
        return self.failed

    def _tell(self, event: Event) -> None:
        for action in self.core.handle(event):
            assert decode(encode(action.message)) == action.message
            if isinstance(action, ToWorker):
                self._ticket(self.workers[action.worker], action.message)
            else:
                self._heard(action.message)
        self.failed = self.core.failure is not None
        assert self.failed == self._must_fail or (self.failed and self._may_fail)
        assert self._told == (self.failed and self.connected)

    # -------------------------------------------------------------- what the core says

    def _ticket(self, worker: Worker, ticket: Message) -> None:
        assert worker.ready, "a worker that is not there was given a ticket"
        if isinstance(ticket, Recall):
            assert ticket.slide in self._found_bad
            worker.recalled.add(ticket.slide)
            return
        if isinstance(ticket, FillRows):
            self._check_fill(worker, ticket)
        else:
            assert worker.number < self.script.loaders
            assert len(worker.given) < TICKETS_PER_LOADER
            assert isinstance(ticket, SurveyWindow | SurveyGrid | LoadBigChunk)
            assert ticket.slide not in self._found_bad, "a slide that is left out was asked for"
            if isinstance(ticket, LoadBigChunk):
                self._check_load(ticket)
        worker.given.append(ticket)
        worker.inbox.append(ticket)

    def _check_load(self, ticket: LoadBigChunk) -> None:
        """Nobody else writes or reads the slot, and the ticket follows the plan."""
        lease = ticket.slot, ticket.generation
        for other in self._in_hand():
            if isinstance(other, LoadBigChunk):
                assert other.slot != ticket.slot, "two loaders write one slot"
            if isinstance(other, FillRows):
                assert ticket.slot not in {group.slot for group in other.groups}, "written and read"
        self._open_loads.add(lease)
        if lease not in self._orphans:
            assert (ticket.calls, ticket.cycle, ticket.first) == self.plan.given(ticket.ordinal)
            expected = self.plan.tried(ticket.ordinal, ticket.attempt)
            assert (ticket.slide, ticket.ordinal, ticket.attempt, ticket.window) == expected

    def _check_fill(self, worker: Worker, ticket: FillRows) -> None:
        """Only rows of a slot that nobody holds, from regions that are there."""
        assert ticket.slot not in {message.slot for message, _ in self.held}, "a held batch written"
        rows = {row for group in ticket.groups for row in int32(group.rows)}
        for other in self._in_hand():
            if isinstance(other, FillRows) and other.slot == ticket.slot:
                assert rows.isdisjoint(r for group in other.groups for r in int32(group.rows))
            if isinstance(other, LoadBigChunk):
                assert other.slot not in {group.slot for group in ticket.groups}, "read and written"
        for group in ticket.groups:
            assert self.bigchunks[group.slot] == self.plan.region(group.ordinal)
            server = self._server.setdefault(group.ordinal, worker.number)
            assert server == worker.number, "a BigChunk is served by one collector"

    def _in_hand(self) -> list[Message]:
        """Tickets of workers that may still act on them, as far as the core can know."""
        return [ticket for worker in self.workers for ticket in worker.given]

    def _heard(self, message: Message) -> None:
        match message:
            case Welcome():
                self.connected = True
            case BatchReady():
                self._batch(message)
            case End():
                assert isinstance(self.plan, GridPlan)
                assert not self.ended
                assert (message.epoch, message.batches) == (self.plan.epoch, self.plan.batches())
                here = {number for number in self.delivered if number < message.batches}
                assert here == set(range(message.batches)), "ended with batches left"
                # A pass can be shorter than in the life before: a slide has no windows any more.
                assert here == self.delivered or self._unseen
                self.ended = True
                self._orphans |= self._open_loads
            case StreamFailed():
                assert message.failure == self.core.failure
                self._told = True
            case Statistics():
                self._statistics(message)

    def _batch(self, message: BatchReady) -> None:
        assert self.connected
        assert len(self.held) < self.script.credit, "sent without credit"
        assert message.slot not in {other.slot for other, _ in self.held}
        assert message.batch not in self.delivered, "delivered twice"
        oldest = next(n for n in range(message.batch + 1) if n not in self.delivered)
        window = 1 if self.script.order == "strict" else self.script.batch_slots
        assert message.batch < oldest + window, "overtook too many"
        for ticket in self._in_hand():
            assert not (isinstance(ticket, FillRows) and ticket.slot == message.slot)
        self._check_content(message)
        self.delivered.add(message.batch)
        self.log.append(message)
        self.held.append((message, dict(self.batches[message.slot])))
        self.counted[0] += 1
        self._barren = 0.0
        self.counted[1] += message.rows - len(int32(message.dropped))

    def _check_content(self, message: BatchReady) -> None:
        """Every row is what the plan says, from one and the same region of its BigChunk."""
        planned = self.plan.rows(message.batch)
        assert (message.epoch, message.rows) == (self.plan.epoch, len(planned))
        assert message.smallchunks_per_bigchunk == self.plan.calls
        regions = {ordinal: self.plan.region(ordinal) for ordinal, _ in planned}
        slot = self.batches[message.slot]
        dropped = []
        for row, (ordinal, call) in enumerate(planned):
            region = regions[ordinal]
            if region is None:
                dropped.append(row)
            else:
                assert slot[row] == (*region, call)
        assert int32(message.dropped) == dropped
        for ordinal, region in regions.items():
            for earlier in self._regions.values():
                assert earlier.get(ordinal, region) == region, "a BigChunk changed under its rows"
        kept = {o: region for o, region in regions.items() if region is not None}
        if isinstance(self.plan, RandomPlan):
            self._check_substitutions(message, kept)
        self._regions[message.batch] = kept if not self.script.finite else {}

    def _check_substitutions(self, message: BatchReady, regions: dict[int, Region]) -> None:
        """Who resumes behind this batch reads again what it shares with batches to come."""
        for number in range(self._base.next_batch, message.batch + self.script.batch_slots):
            if number in self.delivered or number == message.batch:
                continue
            for ordinal, _ in self.plan.rows(number):
                for known in (regions, *self._regions.values()):
                    _, _, attempt, _ = known.get(ordinal, TORN)
                    assert attempt <= 0 or message.substitutions.get(ordinal) == attempt

    def _statistics(self, message: Statistics) -> None:
        assert [message.batches, message.rows, message.restarts] == self.counted
        assert message.slots_free <= self.script.batch_slots - len(self.held)
        assert message.unusable_slides == len(self._found_bad)
        assert message.delivered_px == message.rows

    # ------------------------------------------------------------------- what workers do

    def start(self, worker: Worker) -> bool:
        """A new process says that it is there."""
        if not worker.alive or worker.ready:
            return False
        worker.ready = True
        self._tell(FromWorker(worker.number, WorkerReady()))
        return True

    def work(self, worker: Worker) -> bool:
        """A worker does its oldest ticket, and says so; nobody hears it yet."""
        if not worker.alive or not worker.inbox:
            return False
        ticket = worker.inbox.popleft()
        if isinstance(ticket, FillRows):
            self._fill(ticket)
            ordinals = tuple(group.ordinal for group in ticket.groups)
            worker.said.append(RowsFilled(ticket.batch, ticket.generation, ordinals))
        elif self._slide_of(ticket) in self.script.killer_slides - worker.recalled:
            worker.inbox.appendleft(ticket)
            worker.murdered_by_slide = True
            self.die(worker, torn=True)
        elif self._slide_of(ticket) in worker.recalled:
            worker.said.append(self._gives_up(ticket))
        else:
            worker.said.append(self._loaders_answer(ticket))
        return True

    @staticmethod
    def _slide_of(ticket: Message) -> int:
        assert isinstance(ticket, SurveyGrid | SurveyWindow | LoadBigChunk)
        return ticket.slide

    def _gives_up(self, ticket: Message) -> LoadFailed:
        """What a loader answers whose ticket was recalled."""
        assert isinstance(ticket, SurveyGrid | SurveyWindow | LoadBigChunk)
        if isinstance(ticket, LoadBigChunk):
            self.bigchunks[ticket.slot] = TORN
        where = (-1, 0) if isinstance(ticket, SurveyGrid) else (ticket.ordinal, ticket.attempt)
        return LoadFailed(*where, ticket.slide, True, self.script.failure(ticket.slide))

    def _fill(self, ticket: FillRows) -> None:
        for group in ticket.groups:
            region = self.bigchunks[group.slot]
            assert region == self.plan.region(group.ordinal), "a BigChunk changed while it was read"
            for row, call in zip(int32(group.rows), int32(group.calls), strict=True):
                self.batches[ticket.slot][row] = (*region, call)

    def _loaders_answer(self, ticket: Message) -> AnyMessage:
        script = self.script
        match ticket:
            case SurveyGrid():
                if ticket.slide in script.bad_slides:
                    return LoadFailed(-1, 0, ticket.slide, True, script.failure(ticket.slide))
                counts = np.array(script.windows[ticket.slide], dtype=np.int32)
                return GridSurveyed(ticket.slide, counts.tobytes())
            case SurveyWindow():
                fault = "slide" if ticket.slide in script.bad_slides else None
                if fault is None:
                    useful_px = script.useful_px(ticket.ordinal, ticket.attempt)
                    return WindowSurveyed(ticket.ordinal, ticket.attempt, useful_px)
            case LoadBigChunk():
                place = ticket.window if script.finite else ticket.ordinal
                fault = script.fault(ticket.slide, place, ticket.attempt)
                region = (ticket.slide, ticket.ordinal, ticket.attempt, ticket.window)
                self.bigchunks[ticket.slot] = TORN if fault else region
                if fault is None:
                    return BigChunkLoaded(ticket.ordinal, ticket.slot, ticket.generation, 8, 8, 0.5)
            case _:
                raise AssertionError(f"a loader was given {ticket}")
        failure = script.failure(ticket.slide)
        return LoadFailed(ticket.ordinal, ticket.attempt, ticket.slide, fault == "slide", failure)

    def hear(self, worker: Worker) -> bool:
        """The core hears the next thing that a worker said."""
        if not worker.said:
            return False
        message = worker.said.popleft()
        ticket = worker.given.popleft()
        if isinstance(ticket, SurveyGrid | SurveyWindow | LoadBigChunk):
            self._kills.pop(self._key(ticket), None)
        if isinstance(ticket, LoadBigChunk):
            lease = ticket.slot, ticket.generation
            if isinstance(message, BigChunkLoaded) and lease not in self._orphans:
                self._accidents.loaded.add((ticket.ordinal, ticket.attempt))
            self._open_loads.discard(lease)
        if isinstance(message, LoadFailed):
            self._unreadable(ticket, whole_slide=message.whole_slide)
        if isinstance(message, WindowSurveyed):
            self._surveyed(message)
        self._tell(FromWorker(worker.number, message))
        return True

    @staticmethod
    def _key(ticket: SurveyGrid | SurveyWindow | LoadBigChunk) -> tuple[int, int]:
        return ticket.slide, -1 if isinstance(ticket, SurveyGrid) else ticket.ordinal

    def _surveyed(self, message: WindowSurveyed) -> None:
        """Where a slide was left out by accident, what was surveyed before that still counts."""
        self._areas[message.ordinal] = message.useful_px
        if self._accidents.left_out and len(self._areas) == SURVEYED_WINDOWS:
            mean = math.fsum(self._areas.values()) / SURVEYED_WINDOWS
            self.plan = RandomPlan(self.script, self._accidents, max(1, round(mean)))

    def _unreadable(self, ticket: Message, *, whole_slide: bool) -> None:
        """Whether the stream has to end over it."""
        assert isinstance(ticket, SurveyGrid | SurveyWindow | LoadBigChunk)
        if self.script.on_error == "raise":
            self._must_fail = True
            return
        if whole_slide:
            self._found_bad.add(ticket.slide)
        exhausted = not isinstance(ticket, SurveyGrid) and ticket.attempt >= MAX_SUBSTITUTES
        self._must_fail = exhausted or len(self._found_bad) == self.script.slides

    def die(self, worker: Worker, *, torn: bool) -> bool:
        """A worker dies, perhaps in the middle of its oldest ticket; nobody knows yet."""
        if not worker.alive:
            return False
        worker.alive = False
        ticket = worker.inbox[0] if worker.inbox else None
        if torn and isinstance(ticket, LoadBigChunk):
            self.bigchunks[ticket.slot] = TORN
        if torn and isinstance(ticket, FillRows):
            for group in ticket.groups:
                self.batches[ticket.slot].update(dict.fromkeys(int32(group.rows), TORN))
        return True

    def bury(self, worker: Worker, *, heard: bool, by_itself: bool = True) -> bool:
        """The kernel confirms a death, after what the worker said was heard, or lost with it."""
        if worker.alive:
            return False
        while heard and self.hear(worker):
            if self.failed:
                return True
        by_itself = by_itself or worker.murdered_by_slide
        ticket = worker.given[0] if worker.given else None
        if isinstance(ticket, SurveyGrid | SurveyWindow | LoadBigChunk):
            self._blame(ticket, by_itself=by_itself)
        self._barren += 1 if by_itself else BLAME_OF_OUTSIDER
        self._must_fail |= self._barren > self.script.max_restarts
        self.workers[worker.number] = Worker(worker.number)
        self.counted[2] += 1
        self._tell(WorkerLost(worker.number, "it was ended by SIGKILL", by_itself))
        return True

    def _blame(self, ticket: SurveyGrid | SurveyWindow | LoadBigChunk, *, by_itself: bool) -> None:
        """A loader died over a ticket: its slide may have cost too many now."""
        slide, key = ticket.slide, self._key(ticket)
        if by_itself:
            self._deaths[slide] = self._deaths.get(slide, 0) + 1
        else:
            self._kills[key] = self._kills.get(key, 0.0) + BLAME_OF_OUTSIDER
        blame = self._deaths.get(slide, 0) + self._kills.get(key, 0.0)
        if blame < MAX_DEATHS or slide in self._found_bad:
            return
        # Without replacement a stream cannot go on without a slide.
        self._may_fail |= self.script.cycles > 0
        self._unreadable(ticket, whole_slide=True)
        self._accidents.left_out.add(slide)
        if isinstance(ticket, LoadBigChunk):
            self._open_loads.discard((ticket.slot, ticket.generation))
        if isinstance(ticket, SurveyGrid):
            self._unseen |= {slide}
            left_out = self._unseen | self._left_before
            self.plan = passing(self.script, self._accidents, self.plan.epoch, left_out)
        # What was delivered before a resume may be read from another slide now, as it must.
        for regions in self._regions.values():
            for ordinal, (of, _, attempt, _) in tuple(regions.items()):
                if of == slide and (ordinal, attempt) not in self._accidents.loaded:
                    del regions[ordinal]

    # --------------------------------------------------------------- what the consumer does

    def hello(self) -> bool:
        """The consumer opens its session."""
        if self.connected:
            return False
        self._tell(
            FromConsumer(Hello(PROTOCOL_VERSION, TOKEN, PLAN_HASH, credit=self.script.credit))
        )
        return True

    def release(self, number: int) -> bool:
        """The consumer gives one of its batches back; it was left alone until now."""
        if not self.held:
            return False
        message, content = self.held.pop(number % len(self.held))
        assert self.batches[message.slot] == content, "a batch changed while it was held"
        self.batches[message.slot] = {}
        self._tell(FromConsumer(Release(message.batch, message.slot, message.generation)))
        return True

    def ask(self) -> None:
        """The consumer asks for statistics."""
        self._tell(FromConsumer(AskStatistics()))

    def next_epoch(self) -> bool:
        """The consumer begins the next pass, whatever it still holds of this one."""
        if not self.ended:
            return False
        epoch = self.plan.epoch + 1
        self._base = Cursor(plan_hash=PLAN_HASH, seed=self.script.seed, epoch=epoch)
        self._accidents.loaded.clear()
        self._left_before = frozenset()
        self.plan = passing(self.script, self._accidents, epoch, self._unseen)
        self.ended = False
        self.delivered, self.log = set(), []
        self._server.clear()
        self._tell(FromConsumer(NextEpoch(epoch)))
        return True

    def resume(self, unreceived: int, **changes: object) -> None:
        """Everything ends; the training goes on from its last state, with another service.

        Args:
            unreceived: batches that were sent, and did not come into the state any more.
            changes: of the script, in what does not change the plan.
        """
        cursor = self._base
        for message in self.log[: max(0, len(self.log) - unreceived)]:
            cursor = msgspec.structs.replace(
                cursor.delivered(message.batch),
                smallchunks_per_bigchunk=message.smallchunks_per_bigchunk,
                substitutions=message.substitutions,
            )
        cursor = Cursor.from_dict(cursor.to_dict(), PLAN_HASH)
        regions = self._regions
        self._begin(dataclasses.replace(self.script, **changes), cursor)  # type: ignore[arg-type]
        self._regions = {n: r for n, r in regions.items() if n in self.delivered}

    # ------------------------------------------------------------------------ by itself

    def sweep(self) -> bool:
        """Everybody does all they can; whether that was anything."""
        did = self.hello()
        for number in range(len(self.workers)):
            did |= self.bury(self.workers[number], heard=True)
            did |= self.start(self.workers[number])
            while not self.failed and self.work(self.workers[number]):
                self.hear(self.workers[number])
                did = True
            while not self.failed and self.hear(self.workers[number]):
                did = True
        while not self.failed and self.release(0):
            did = True
        return did

    def drive(self) -> None:
        """With everybody at work the next batch, or the end, comes within bounded time."""
        before = len(self.log)
        for _ in range(MOST_SWEEPS):
            if self.failed or self.ended or len(self.log) > before:
                return
            assert self.sweep(), "nobody has anything to do, and no batch comes"
        raise AssertionError(f"no batch came in {MOST_SWEEPS} sweeps")

    def finish(self) -> None:
        """Play a pass to its end and give everything back; then no slot is in use."""
        while not self.ended and not self.failed:
            self.drive()
        while not self.failed and self.sweep():
            pass
        if not self.failed:
            assert self.core._batches.slots.free == self.script.batch_slots
            assert self.core._loads.slots.free == self.script.bigchunk_slots

    def bustle(self, random: Random, steps: int, deaths_percent: int = 3) -> None:
        """Anything that can happen, in random order."""
        for _ in range(steps):
            if self.failed:
                return
            worker = random.choice(self.workers)
            if random.randrange(100) < deaths_percent:
                self.die(worker, torn=random.random() < 0.5)
                continue
            match random.randrange(10):
                case 0:
                    if not self.start(worker):
                        heard, by_itself = random.random() < 0.7, random.random() < 0.7
                        self.bury(worker, heard=heard, by_itself=by_itself)
                case 1 | 2 | 3 | 4:
                    self.work(worker)
                case 5 | 6 | 7:
                    self.hear(worker)
                case 8:
                    self.release(random.randrange(8))
                case _:
                    if not self.hello() and random.random() < 0.3:
                        self.next_epoch()
