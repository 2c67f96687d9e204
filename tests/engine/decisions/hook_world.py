"""A world around a core whose patients a policy chooses: its service, a consumer, and a journal.

The consumer reads when the test says so, keeps the journal as the training process does, and goes
on from any state that it had, through JSON, with another service.
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from random import Random

import msgspec
import numpy as np

from chunkdl.engine.decisions.events import FromConsumer
from chunkdl.engine.decisions.patient_choice import LOOK_AHEAD
from chunkdl.engine.resume_state import ResumeState
from chunkdl.sampling.cursor import Cursor
from chunkdl.transport.memory.layouts import RECORD
from chunkdl.transport.protocol.engine_messages import (
    PROTOCOL_VERSION,
    BatchReady,
    BigChunkOpened,
    CheckpointKept,
    End,
    Hello,
    MessageToPatient,
    Release,
    RowFormatSet,
)
from tests.engine.decisions.hook_script import HookScript
from tests.engine.decisions.hook_service import HookService, Key
from tests.engine.decisions.script import PLAN_HASH, TOKEN

MOST_SWEEPS = 5000
"""In which everybody does all they can, until the next batch or the end must be there."""


class HookWorld(HookService):
    """A service and its consumer.

    Args:
        script: of the world.
    """

    def __init__(self, script: HookScript) -> None:
        super().__init__(script)
        self.cursor = script.cursor()
        self._keep_books()

    def _keep_books(self) -> None:
        self.journal = ResumeState(self.cursor, self.script.places + LOOK_AHEAD)
        self.connected = self.ended = False
        self.read_so_far = 0
        self._states = deque([(self.state(), len(self.sent))], maxlen=5)
        for patient, note in self.journal.messages.items():
            self._tell(FromConsumer(MessageToPatient(patient, note)))

    def state(self) -> str:
        """Of the stream, as it is saved."""
        return json.dumps(self.journal.state(self.cursor).to_dict())

    def hello(self) -> bool:
        """The consumer opens its session."""
        if self.connected:
            return False
        self.connected = True
        hello = Hello(PROTOCOL_VERSION, TOKEN, PLAN_HASH, credit=self.script.credit)
        self._tell(FromConsumer(hello))
        return True

    def read(self) -> bool:
        """The consumer takes the next message out of its socket."""
        if not self.unread:
            return False
        message = self.unread.popleft()
        match message:
            case RowFormatSet() | BigChunkOpened() | CheckpointKept():
                self.journal.take(message)
            case BatchReady():
                self._receive(message)
            case End():
                self.ended = True
        return True

    def _receive(self, message: BatchReady) -> None:
        content = self.memory.batches[message.slot]
        rows = [row for row in content.values() if row is not None]
        records = np.zeros(len(rows), dtype=RECORD)
        records["bigchunk"] = [row.content.ordinal for row in rows]
        records["call"] = [row.call for row in rows]
        self.cursor = msgspec.structs.replace(
            self.cursor.delivered(message.batch),
            smallchunks_per_bigchunk=message.smallchunks_per_bigchunk,
            substitutions=message.substitutions,
        )
        self.journal.delivered(message, records, self.cursor)
        self.delivered.add(message.batch)
        self.held.append((message, dict(content)))
        self.read_so_far += 1
        self._states.append((self.state(), len(self.sent)))

    def release(self, number: int) -> bool:
        """The consumer gives one of its batches back; it was left alone until now."""
        if not self.held:
            return False
        message, content = self.held.pop(number % len(self.held))
        assert self.memory.batches[message.slot] == content, "a batch changed while it was held"
        self.memory.batches[message.slot].clear()
        self._tell(FromConsumer(Release(message.batch, message.slot, message.generation)))
        return True

    def send(self, patient: int) -> None:
        """The training has a message for the next load of a patient."""
        patient %= self.script.patients
        note = b"message %d" % len(self.sent)
        self.sent.append((patient, note))
        self.journal.messages[patient] = note
        self.journal.deterministic = False
        self._tell(FromConsumer(MessageToPatient(patient, note)))

    def resume(self, back: int, **changes: object) -> None:
        """Everything ends; the training goes on from a state that it had, with another service.

        Args:
            back: how many batches before the last one that was read; 0: from the moment.
            changes: of the script, in what does not change the plan.
        """
        moment = self.state(), len(self.sent)
        state, sent = [moment, *reversed(self._states)][back % (len(self._states) + 1)]
        cursor = Cursor.from_dict(json.loads(state), PLAN_HASH)
        del self.sent[sent:]
        taken = self._still_taken(cursor)
        self.cursor = cursor
        self._begin(dataclasses.replace(self.script, **changes), cursor, taken)  # type: ignore[arg-type]
        self._keep_books()

    def _still_taken(self, cursor: Cursor) -> dict[bytes, Key]:
        """Which load has had which message, as of a state; none may be lost."""
        taken: dict[bytes, Key] = {}
        noted = {
            opening.message: (ordinal, opening.attempt)
            for ordinal, openings in cursor.openings.items()
            for opening in openings
        }
        newest = dict(self.sent)
        for patient, note in self.sent:
            if note in noted:
                taken[note] = noted[note]
            elif cursor.messages.get(patient) != note and note in self._taken:
                ordinal, attempt = taken[note] = self._taken[note]
                # Its load is over, or a newer message has replaced it before that was known.
                later = [opening.attempt for opening in cursor.openings.get(ordinal, ())]
                over = not later or max(later) > attempt
                assert over or newest[patient] != note, "a message was lost"
            elif cursor.messages.get(patient) != note:
                assert newest[patient] != note, "a message was lost"
        return taken

    # ------------------------------------------------------------------------ by itself

    def sweep(self, random: Random) -> bool:
        """Everybody does all they can; whether that was anything."""
        did = self.hello()
        for number in range(len(self.workers)):
            did |= self.bury(self.workers[number], random, heard=True)
            did |= not self.failed and self.start(self.workers[number])
            while not self.failed and self.workers[number].work():
                did |= self.hear(self.workers[number])
            while not self.failed and self.hear(self.workers[number]):
                did = True
        while self.read():
            did = True
        while not self.failed and self.release(0):
            did = True
        return did

    def drive(self) -> None:
        """With everybody at work the next batch, or the end, comes within bounded time."""
        before, random = self.read_so_far, Random(0)
        for _ in range(MOST_SWEEPS):
            if self.failed or self.ended or self.read_so_far > before:
                return
            assert self.sweep(random), "nobody has anything to do, and no batch comes"
        raise AssertionError(f"no batch came in {MOST_SWEEPS} sweeps")

    def check_slots(self) -> None:
        """At the end of a stream no slot is in use."""
        while not self.failed and self.sweep(Random(0)):
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
                self.die(worker, random)
                continue
            match random.randrange(14):
                case 0 | 1:
                    if not self.start(worker):
                        heard, by_itself = random.random() < 0.7, random.random() < 0.3
                        self.bury(worker, random, heard=heard, by_itself=by_itself)
                case 2 | 3 | 4 | 5:
                    worker.work()
                case 6 | 7 | 8:
                    self.hear(worker)
                case 9 | 10:
                    self.read()
                case 11:
                    self.release(random.randrange(8))
                case 12:
                    self.hello()
                case _:
                    if random.random() < 0.2:
                        self.send(random.randrange(100))
