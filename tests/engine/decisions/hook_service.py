"""A core whose patients a policy chooses, and its workers; all that it says is checked.

As in `World` every slot has content, and nothing here decides by itself. What the consumer is told
waits in `unread`, as in a socket.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from chunkdl.engine.decisions.core import Core
from chunkdl.engine.decisions.events import Event, FromWorker, ToWorker, WorkerLost
from chunkdl.engine.decisions.failures import MAX_DEATHS
from chunkdl.engine.decisions.patient_choice import LOOK_AHEAD
from chunkdl.engine.decisions.restarts import BLAME_OF_OUTSIDER
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.policies.quota import Quota
from chunkdl.transport.protocol.codec import decode, encode
from chunkdl.transport.protocol.engine_messages import (
    BatchReady,
    BigChunkLoaded,
    BigChunkOpened,
    ChoosePatient,
    End,
    FillRows,
    LoadBigChunk,
    LoadFailed,
    Message,
    NothingLeft,
    PatientChosen,
    Recall,
    RowFormatSet,
    RowsEnded,
    RowsFilled,
    WorkerReady,
)
from tests.engine.decisions.hook_script import HookPlan, HookScript, Row
from tests.engine.decisions.hook_workers import (
    SHAPE,
    Collector,
    Loader,
    Memory,
    Scheduler,
    Worker,
    int32,
)

Key = tuple[int, int]
"""Ordinal and attempt of a BigChunk."""
ANSWERS = BigChunkLoaded, LoadFailed, NothingLeft, RowsFilled, PatientChosen


class HookService:
    """A core, its workers and their memory; one life after the other.

    Args:
        script: of the world.
    """

    def __init__(self, script: HookScript) -> None:
        self.plan = HookPlan(script)
        self.disturbed = not script.exact
        """Something has happened after which rows need not be those of the plan."""
        self.sent: list[tuple[int, bytes]] = []
        self._begin(script, script.cursor(), {})

    def _begin(self, script: HookScript, cursor: Cursor, taken: dict[bytes, Key]) -> None:
        self.script = script
        self._base = cursor
        self.core = Core(script.config(), cursor)
        self.delivered = {*range(cursor.next_batch), *cursor.ahead}
        made = {row for batch in self.delivered for row in self.plan.rows(batch)}
        self._base_made = frozenset(made)
        self.memory = Memory(
            [None] * script.bigchunk_slots, [{} for _ in range(script.batch_slots)], made
        )
        workers = script.loaders + script.collectors + (script.policy is None)
        self.workers = [self._new_worker(number) for number in range(workers)]
        self.unread = deque[Message]()
        self.held: list[tuple[BatchReady, dict[int, Row | None]]] = []
        self.connected = self.ended = self.failed = False
        self._taken = taken
        self._live: dict[int, int] = {}
        self._patients: dict[int, int] = {}
        self._over: set[Key] = set()
        self._handed: dict[bytes, Key] = {}
        self._deaths: dict[Key | int, float] = {}
        self._kills: dict[tuple[int, int], float] = {}
        self._loading: dict[Key, int] = {}
        self._useless: set[int] = set()
        self._left_out: dict[int, int] = {}
        self._may_fail = set[str]()

    def _new_worker(self, number: int) -> Worker:
        script, memory = self.script, self.memory
        if number < script.loaders:
            return Loader(number, script, memory)
        if number < script.loaders + script.collectors:
            return Collector(number, script, memory)
        return Scheduler(number, script, memory)

    def _tell(self, event: Event) -> None:
        for action in self.core.handle(event):
            assert decode(encode(action.message)) == action.message
            if isinstance(action, ToWorker):
                self._ticket(self.workers[action.worker], action.message)
            else:
                self._said(action.message)
        failure = self.core.failure
        self.failed = failure is not None
        if failure is not None:
            known = "substitutes in a row", "not now", "slides of the dataset", *self._may_fail
            assert any(why in failure.message for why in known), failure.message
            if "not now" in failure.message:
                assert self.script.not_now_percent
                assert not any(map(self._matters, self._in_hand())), "somebody is at work"
                assert not self.memory_is_wanted, "a batch that comes back could change something"

    def _matters(self, ticket: Message) -> bool:
        """Whether the answer to a ticket can change anything."""
        if not isinstance(ticket, FillRows):
            return True
        return any((group.ordinal, group.attempt) not in self._over for group in ticket.groups)

    @property
    def memory_is_wanted(self) -> bool:
        """Whether no batch can be planned because the consumer has them all."""
        return len(self.held) + len(self._batches_unread) == self.script.batch_slots

    @property
    def _batches_unread(self) -> list[BatchReady]:
        return [message for message in self.unread if isinstance(message, BatchReady)]

    # -------------------------------------------------------------- what the core says

    def _ticket(self, worker: Worker, ticket: Message) -> None:
        match ticket:
            case Recall():
                assert isinstance(worker, Loader)
                assert ticket.slide in self._useless
                worker.recalled.add(ticket.slide)
                return
            case RowFormatSet():
                assert isinstance(worker, Collector)
                assert ticket == SHAPE
                worker.shaped = True
                return
            case ChoosePatient():
                assert isinstance(worker, Scheduler)
                assert not worker.given, "two questions at a time"
            case LoadBigChunk():
                self._check_load(ticket)
                assert worker.ready
            case FillRows():
                self._check_fill(worker, ticket)
                assert worker.ready
        worker.given.append(ticket)
        worker.inbox.append(ticket)

    def _in_hand(self) -> list[Message]:
        return [ticket for worker in self.workers for ticket in worker.given]

    def _check_load(self, ticket: LoadBigChunk) -> None:
        for other in self._in_hand():
            if isinstance(other, LoadBigChunk):
                assert other.slot != ticket.slot, "two loaders write one slot"
            if isinstance(other, FillRows):
                for group in other.groups:
                    over = (group.ordinal, group.attempt) in self._over
                    assert group.slot != ticket.slot or over, "written and read"
        slides = self.script.slides_of_patient[ticket.patient]
        assert ticket.slide in slides or (not slides and ticket.slide == -1)
        assert ticket.slide not in self._useless, "a slide that is left out was asked for"
        self._loading[ticket.ordinal, ticket.attempt] = ticket.slide
        key = ticket.ordinal, ticket.attempt
        if ticket.message:
            assert (ticket.patient, ticket.message) in self.sent
            assert self._handed.setdefault(ticket.message, key) == key, "a message came twice"
            owner = self._taken.get(ticket.message, key)
            through = all((owner[0], call) in self._base_made for call in self.plan.calls(owner[0]))
            assert owner == key or not through, "a message came twice"
            self._taken[ticket.message] = key
        self._check_alone(ticket)
        self._live[ticket.ordinal] = self._patients[ticket.ordinal] = ticket.patient

    def _check_alone(self, ticket: LoadBigChunk) -> None:
        """No other load of the patient is in use, where there is always a patient of which none is.

        What was opened before a resume has its checkpoint already, and goes on with its patient.
        """
        script = self.script
        noted = {one.patient for openings in self._base.openings.values() for one in openings}
        many = script.patients > 2 * script.bigchunk_slots + LOOK_AHEAD + len(noted)
        again = any(opening.attempt == ticket.attempt for opening in self._opened(ticket.ordinal))
        again = again or self._patients.get(ticket.ordinal) == ticket.patient
        fewer = script.lives or script.bad_slides or isinstance(script.policy, Quota)
        if script.one_load and many and not (fewer or again):
            others = [patient for o, patient in self._live.items() if o != ticket.ordinal]
            assert ticket.patient not in others, "two loads of a patient"

    def _check_fill(self, worker: Worker, ticket: FillRows) -> None:
        assert ticket.slot not in {message.slot for message, _ in self.held}, "a held batch written"
        rows = {row for group in ticket.groups for row in int32(group.rows)}
        for other in self._in_hand():
            if isinstance(other, FillRows) and other.slot == ticket.slot:
                for group in other.groups:
                    over = (group.ordinal, group.attempt) in self._over
                    assert over or rows.isdisjoint(int32(group.rows)), "a row is made twice"
        for group in ticket.groups:
            assert (group.ordinal, group.attempt) not in self._over, "that one has given all"
            content = self.memory.bigchunks[group.slot]
            assert content is not None
            assert content[:2] == (group.ordinal, group.attempt)
            collector = group.ordinal % self.script.collectors
            assert worker.number == self.script.loaders + collector

    def _said(self, message: Message) -> None:
        match message:
            case BigChunkOpened() if not self.disturbed:
                before = {opening.attempt: opening for opening in self._opened(message.ordinal)}
                old = before.get(message.attempt)
                if old is not None:
                    assert (message.first, message.patient) == (old.first, old.patient)
                    assert (message.message, message.checkpoint) == (old.message, old.checkpoint)
            case BatchReady():
                self._check_batch(message)
            case End():
                self._check_end(message)
        self.unread.append(message)

    def _opened(self, ordinal: int) -> tuple[Any, ...]:
        return self._base.openings.get(ordinal, ())

    def _check_batch(self, message: BatchReady) -> None:
        out = {other.slot for other in [*(m for m, _ in self.held), *self._batches_unread]}
        assert len(out) < self.script.credit, "sent without credit"
        assert message.slot not in out
        sent = self.delivered | {other.batch for other in self._batches_unread}
        assert message.batch not in sent, "sent twice"
        oldest = next(number for number in range(message.batch + 1) if number not in sent)
        window = 1 if self.script.order == "strict" else self.script.batch_slots
        assert message.batch < oldest + window, "overtook too many"
        planned, slot = self.plan.rows(message.batch), self.memory.batches[message.slot]
        assert message.rows == len(planned)
        dropped = set(int32(message.dropped))
        for place, (ordinal, call) in enumerate(planned):
            row = None if place in dropped else slot[place]
            assert (row is None) == (place in dropped), "a torn row was sent"
            if not self.disturbed:
                assert row == self.plan.row(ordinal, call)
            if row is None:
                assert self.core._places is not None
                assert self.core._places.halted, "a row was left out"
                self._left_out[ordinal] = min(call, self._left_out.get(ordinal, call))
                continue
            assert (row.content.ordinal, row.call) == (ordinal, call)
            assert row.number < self.script.extent(row.content)
            assert call < self._left_out.get(ordinal, call + 1), "a dead BigChunk gave a row"

    def _check_end(self, message: End) -> None:
        assert self.core._places is not None
        assert self.core._places.halted
        sent = self.delivered | {other.batch for other in self._batches_unread}
        assert sent >= set(range(message.batches)), "ended with batches left"
        assert not self._live, "ended with BigChunks in use"
        if not self.disturbed:
            later = range(message.batches, message.batches + 3 * self.script.calls)
            rows = (
                self.plan.row(*row) for n in later if n not in sent for row in self.plan.rows(n)
            )
            assert not any(rows), "ended too early"

    # ------------------------------------------------------------------- what workers do

    def start(self, worker: Worker) -> bool:
        """A new process says that it is there."""
        if not worker.alive or worker.ready:
            return False
        worker.ready = True
        self._tell(FromWorker(worker.number, WorkerReady()))
        return True

    def hear(self, worker: Worker) -> bool:
        """The core hears the oldest thing that a worker said."""
        if not worker.said or not worker.ready:
            return False
        message = worker.said.popleft()
        match message:
            case LoadFailed():
                self._live.pop(message.ordinal, None)
                self._raised(message.failure.hook, message.failure.message)
            case NothingLeft():
                self._live.pop(message.ordinal, None)
            case RowsEnded():
                self._count(worker, message.ordinal, message.done)
                key = message.ordinal, message.attempt
                if key not in self._over:
                    self._over.add(key)
                    self._live.pop(message.ordinal, None)
                if message.failure is not None:
                    self._raised(message.failure.hook, message.failure.message)
            case RowsFilled():
                for ordinal in message.ordinals:
                    self._count(worker, ordinal, None)
        if isinstance(message, ANSWERS):
            self._answered(worker.given.popleft(), message)
        self._tell(FromWorker(worker.number, message))
        return True

    def _answered(self, ticket: Message, answer: Message) -> None:
        if not isinstance(ticket, LoadBigChunk):
            return
        self._loading.pop((ticket.ordinal, ticket.attempt), None)
        self._kills.pop((ticket.slide, ticket.ordinal), None)
        if isinstance(answer, LoadFailed) and answer.whole_slide and ticket.slide >= 0:
            self._useless.add(ticket.slide)
            self._leave_out()

    def _leave_out(self) -> None:
        """What nobody has in hand of the slides that are left out is replaced without a word."""
        in_hand = {
            (ticket.ordinal, ticket.attempt)
            for ticket in self._in_hand()
            if isinstance(ticket, LoadBigChunk)
        }
        for key, slide in tuple(self._loading.items()):
            if slide in self._useless and key not in in_hand:
                del self._loading[key]
                self._over.add(key)
                self._live.pop(key[0], None)

    def _raised(self, hook: str, message: str) -> None:
        if hook and self.script.on_hook_error == "raise":
            self._may_fail.add(message)

    def _count(self, worker: Worker, ordinal: int, done: int | None) -> None:
        """The core knows now that these rows are made."""
        ticket = worker.given[0]
        assert isinstance(ticket, FillRows)
        group = next(group for group in ticket.groups if group.ordinal == ordinal)
        self.memory.made.update((ordinal, call) for call in int32(group.calls)[:done])
        if all((ordinal, call) in self.memory.made for call in self.plan.calls(ordinal)):
            self._live.pop(ordinal, None)

    def die(self, worker: Worker, random: Random) -> bool:
        """A worker dies, perhaps in the middle of its oldest ticket; nobody knows yet."""
        if not worker.alive:
            return False
        if worker.inbox and random.random() < 0.5:
            before = len(worker.said)
            ticket = worker.inbox[0]
            worker.work()
            # What it said of the ticket got out up to somewhere, but not that it was done.
            keep = random.randrange(before, len(worker.said)) if len(worker.said) > before else 0
            while len(worker.said) > keep:
                worker.said.pop()
            told = any(isinstance(message, RowsEnded) for message in worker.said)
            if isinstance(ticket, FillRows) and not told:
                for group in ticket.groups:
                    rows = dict.fromkeys(int32(group.rows))
                    self.memory.batches[ticket.slot].update(rows)
            if isinstance(ticket, LoadBigChunk):
                self.memory.bigchunks[ticket.slot] = None
        worker.alive = False
        return True

    def bury(self, worker: Worker, random: Random, *, heard: bool, by_itself: bool = True) -> bool:
        """The kernel confirms a death, after what the worker said was heard, or lost with it."""
        if worker.alive:
            return False
        while heard and self.hear(worker):
            if self.failed:
                return True
        ordinal = self._blame(worker, random, by_itself=by_itself)
        self.workers[worker.number] = self._new_worker(worker.number)
        self._leave_out()
        self._tell(WorkerLost(worker.number, "it was ended by SIGKILL", by_itself, ordinal))
        return True

    def _blame(self, worker: Worker, random: Random, *, by_itself: bool) -> int:
        """Of which BigChunk the user's code was running, -1 where it was none."""
        ticket = worker.given[0] if worker.given else None
        blame, ordinal = 1.0 if by_itself else BLAME_OF_OUTSIDER, -1
        if isinstance(ticket, LoadBigChunk) and ticket.slide >= 0:
            self._blame_slide(ticket, by_itself=by_itself)
        elif isinstance(ticket, LoadBigChunk):
            self._blame_bigchunk((ticket.ordinal, ticket.attempt), blame)
        elif isinstance(ticket, FillRows) and by_itself and random.random() < 0.5:
            group = random.choice(ticket.groups)
            ordinal = group.ordinal
            self._blame_bigchunk((group.ordinal, group.attempt), blame)
        return ordinal

    def _blame_bigchunk(self, key: Key, blame: float) -> None:
        if key in self._over:
            return
        self._deaths[key] = self._deaths.get(key, 0.0) + blame
        if self._deaths[key] >= MAX_DEATHS:
            self.disturbed = True
            self._over.add(key)
            self._live.pop(key[0], None)

    def _blame_slide(self, ticket: LoadBigChunk, *, by_itself: bool) -> None:
        slide, key = ticket.slide, (ticket.slide, ticket.ordinal)
        if by_itself:
            self._deaths[slide] = self._deaths.get(slide, 0.0) + 1
        else:
            self._kills[key] = self._kills.get(key, 0.0) + BLAME_OF_OUTSIDER
        if self._deaths.get(slide, 0.0) + self._kills.get(key, 0.0) >= MAX_DEATHS:
            self.disturbed = True
            self._useless.add(slide)
