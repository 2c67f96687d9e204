"""Worker processes that run user code, simulated: what each does with its oldest ticket."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

import numpy as np

from chunkdl.errors import Failure, SlideError
from chunkdl.transport.protocol.engine_messages import (
    HALTED,
    NOT_NOW,
    AnyMessage,
    BigChunkLoaded,
    CheckpointSet,
    ChoosePatient,
    FillRows,
    LoadBigChunk,
    LoadFailed,
    Message,
    NothingLeft,
    PatientChosen,
    RowFormatSet,
    RowGroup,
    RowsEnded,
    RowsFilled,
    StatusSet,
)
from chunkdl.transport.row_format import ColumnFormat, RowFormat
from tests.engine.decisions.hook_script import Content, HookScript, Row

SHAPE = RowFormatSet(RowFormat((ColumnFormat("image", "<f4", (3, 8)),)))


def int32(data: bytes) -> list[int]:
    """The numbers in a message."""
    return [int(number) for number in np.frombuffer(data, dtype=np.int32)]


@dataclass(slots=True)
class Memory:
    """What the processes share, and which (ordinal, call) the core knows to be made."""

    bigchunks: list[Content | None]
    batches: list[dict[int, Row | None]]
    made: set[tuple[int, int]]
    questions: int = 0


@dataclass(slots=True)
class Worker:
    """A process: what it was given, what it has not begun, what it said unheard."""

    number: int
    script: HookScript
    memory: Memory
    alive: bool = True
    ready: bool = False
    given: deque[Message] = field(default_factory=deque)
    inbox: deque[Message] = field(default_factory=deque)
    said: deque[AnyMessage] = field(default_factory=deque)

    def work(self) -> bool:
        """Do the oldest ticket, and say so; False: there is nothing to do."""
        raise NotImplementedError


@dataclass(slots=True)
class Loader(Worker):
    """Runs the hook that extracts a BigChunk; not for slides that were recalled."""

    recalled: set[int] = field(default_factory=set)

    def work(self) -> bool:
        """Load, or fail, or say that nothing is left."""
        if not self.alive or not self.inbox:
            return False
        ticket = self.inbox.popleft()
        assert isinstance(ticket, LoadBigChunk)
        content = Content(ticket.ordinal, ticket.attempt, ticket.patient, ticket.checkpoint)
        self.memory.bigchunks[ticket.slot] = None
        where = ticket.ordinal, ticket.attempt
        failure = self._failure(ticket, content)
        if failure is not None:
            whole = not failure.hook
            self.said.append(LoadFailed(*where, ticket.slide, whole, failure))
        elif self.script.is_finished(ticket.checkpoint):
            self.said.append(NothingLeft(*where))
        else:
            self.memory.bigchunks[ticket.slot] = content
            self.said.append(
                BigChunkLoaded(ticket.ordinal, ticket.slot, ticket.generation, 8, 8, 0.5)
            )
        return True

    def _failure(self, ticket: LoadBigChunk, content: Content) -> Failure | None:
        if ticket.slide in self.script.bad_slides | self.recalled:
            return Failure.of(SlideError("cannot read it", slide=f"{ticket.slide}.tif"))
        raises = self.script.loader_raises(content)
        return self.script.failure("extract_bigchunk") if raises else None


@dataclass(slots=True)
class _Serving:
    content: Content
    first: int
    next: int
    ended: bool = False


@dataclass(slots=True)
class Collector(Worker):
    """Runs the hook that extracts a SmallChunk, for each call in turn."""

    shaped: bool = False
    proposed: bool = False
    serving: dict[int, _Serving] = field(default_factory=dict)

    def work(self) -> bool:
        """Make the rows of a ticket; the very first of a process waits for their shape."""
        if not self.alive or not self.inbox:
            return False
        if not self.shaped:
            if self.proposed:
                return False
            self.proposed = True
            self.said.append(SHAPE)
            return True
        ticket = self.inbox.popleft()
        assert isinstance(ticket, FillRows)
        filled = []
        for group in ticket.groups:
            done, failure = self._group(ticket, group)
            if done == len(int32(group.rows)):
                filled.append(group.ordinal)
                continue
            where = ticket.batch, ticket.generation, group.ordinal, group.attempt
            self.said.append(RowsEnded(*where, done, failure))
        self.said.append(RowsFilled(ticket.batch, ticket.generation, tuple(filled)))
        return True

    def _group(self, ticket: FillRows, group: RowGroup) -> tuple[int, Failure | None]:
        """How many rows a BigChunk gives, and what it raised."""
        serving = self.serving.get(group.slot)
        if serving is None or serving.content[:2] != (group.ordinal, group.attempt):
            content = self.memory.bigchunks[group.slot]
            assert content is not None, "a BigChunk was read before it was written"
            assert content[:2] == (group.ordinal, group.attempt), "another BigChunk was read"
            serving = _Serving(content, group.first, group.first)
            self.serving[group.slot] = serving
        elif serving.ended:
            return 0, None
        assert self.memory.bigchunks[group.slot] == serving.content, "changed while it was read"
        assert serving.first == group.first
        rows = zip(int32(group.rows), int32(group.calls), strict=True)
        for done, (place, call) in enumerate(rows):
            assert call >= serving.next, "rows of a BigChunk are made in order"
            while serving.next <= call:
                row = Row(serving.content, serving.next - serving.first, serving.next)
                raised = self.script.collector_raises(row)
                if raised or row.number >= self.script.extent(serving.content):
                    serving.ended = True
                    return done, self.script.failure("extract_smallchunk") if raised else None
                made = (group.ordinal, row.call) in self.memory.made
                assert row.call == call or made, "a row was passed over that nobody has made"
                self._leave_notes(row)
                serving.next += 1
            self.memory.batches[ticket.slot][place] = row
        return len(int32(group.rows)), None

    def _leave_notes(self, row: Row) -> None:
        where = row.content.ordinal, row.content.attempt
        if self.script.checkpoints:
            self.said.append(CheckpointSet(*where, self.script.checkpoint_after(row)))
        if row.call % 2:
            self.said.append(StatusSet(*where, b"status"))


@dataclass(slots=True)
class Scheduler(Worker):
    """Runs the user's policy: at random, but always the same for the same question."""

    def work(self) -> bool:
        """Answer a question."""
        if not self.alive or not self.inbox:
            return False
        question = self.inbox.popleft()
        assert isinstance(question, ChoosePatient)
        self.memory.questions += 1
        choice = self._choose(question)
        self.said.append(PatientChosen(question.ordinal, question.attempt, choice, looked=True))
        return True

    def _choose(self, question: ChoosePatient) -> int:
        random = Random(hash((self.script.seed, question.ordinal, question.attempt)))
        if 0 < self.script.halts_after <= sum(int32(question.loads)):
            return HALTED
        mood = abs(hash((self.script.seed, self.memory.questions)))
        if mood % 100 < self.script.not_now_percent:
            return NOT_NOW
        waiting, opened = int32(question.waiting), set(int32(question.open))
        usable = waiting or sorted(opened - set(int32(question.finished)))
        return random.choice(usable) if usable else HALTED
