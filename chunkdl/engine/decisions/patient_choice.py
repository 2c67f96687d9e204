"""Which patient each BigChunk is of, where a policy chooses; and what passes between its loads.

BigChunks are chosen one after the other in the order of their ordinals. What a policy sees is a
function of the choices before, never of the moment: a patient counts as open from its choice until
P + `LOOK_AHEAD` more were chosen, P being the BigChunks open at a time.

A load waits until those before it of the same patient are over, where the plan has them over
before it begins; so checkpoints arrive, and nothing can block.

Theory
------
A BigChunk, by its ordinal, goes through these states; a number behind it is its attempt.

==========  ===============================================  ======================================
State       What is known                                    What moves it on
==========  ===============================================  ======================================
unknown     nothing                                          `patient` asks the policy, here or, for
                                                             one of the user's, in its process
asked       one question at a time, in order of ordinals     `chosen`: a patient, "not now" (asked
                                                             again when `something_changed`), or the
                                                             end of the stream (`halted`)
chosen      its patient                                      `opened` reports it with its notes;
                                                             `forget` and `give_away` choose anew
open        its patient, the message it had (which no other  `close`: its last row was given
            load gets) and the checkpoint before it
==========  ===============================================  ======================================

What a resume changes: the cursor has the *openings* of the BigChunks that were under way. They are
not chosen but `keep` their patients (`resumed`), and have the same messages and checkpoints, as
long as each attempt comes at the same call; from the first that does not, they are chosen anew
(`_give_up`). `passed` are those whose last call was delivered before: what they leave is known
already and does not count twice.

What always holds:

- The n-th choice sees the same situation in every run: loads, open and finished patients come from
  the choices before it. Where something else had a say (a message, a status that the policy looks
  at, a failure, two loads of a patient at a time) the stream is not `pure`, and says so.
- A patient is open in at most one BigChunk, where there is one load per patient at a time.
- A message goes to exactly one load; a checkpoint to all loads after it, until the next one.
- A policy that says "not now" is asked again after every change, and never without one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from chunkdl.engine.decisions.core_config import CoreConfig
from chunkdl.engine.decisions.outbox import Outgoing
from chunkdl.errors import Failure, HookError, ProtocolError
from chunkdl.sampling.cursor import Cursor, Opening
from chunkdl.sampling.policies.policy import HALT, Situation
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.transport.protocol.engine_messages import (
    HALTED,
    NOT_NOW,
    BigChunkOpened,
    CheckpointKept,
    ChoosePatient,
    PatientChosen,
)

LOOK_AHEAD = 2
"""Choices beyond the open BigChunks that keep a patient from being chosen again, so that the next
load of a patient seldom waits for the one before."""


@dataclass(frozen=True, slots=True)
class _Asked:
    ordinal: int
    attempt: int
    finished: frozenset[int]
    stale: bool = False


class PatientChoice:
    """The choices of a stream, and the notes of its patients.

    Args:
        config: fixed facts.
        cursor: where the stream begins.
        outgoing: where questions and reports go.
    """

    def __init__(self, config: CoreConfig, cursor: Cursor, outgoing: Outgoing) -> None:
        self._config = config
        self._outgoing = outgoing
        self._policy = config.stream.policy
        self._loads = np.zeros(len(config.slides_of_patient), dtype=np.int64)
        for patient, count in cursor.loads.items():
            self._loads[patient] = count
        ahead = config.stream.num_bigchunks + LOOK_AHEAD
        self._finished = _without_slides(config)
        patients = len(self._loads) - len(self._finished)
        self._recent = deque(cursor.recent, maxlen=max(0, min(ahead, patients - 1)))
        self._resumed: dict[int, tuple[Opening, ...]] = dict(cursor.openings)
        self._resumed_next: dict[int, deque[Opening]] = {}
        self._chosen: dict[int, int] = {}
        self._repeated: set[int] = set()
        self._passed: set[int] = set()
        self._passed_to: dict[int, int] = {}
        self._unreported: set[int] = set()
        self._asked: _Asked | None = None
        self.not_now = False
        """The policy does not choose before something changes."""
        self._messages: dict[int, bytes] = {}
        self._checkpoints: dict[int, bytes] = dict(cursor.checkpoints)
        self._status: dict[int, bytes] = {}
        self._pure = True
        self.halted = False
        """Nothing more is chosen."""

    # ------------------------------------------------------------------- choices

    def passed(self, ordinals: Iterable[int]) -> None:
        """The last call of these BigChunks was delivered before the stream was resumed; what they
        have left in the end is known."""
        for ordinal in ordinals:
            self._passed.add(ordinal)
            for opening in self._resumed.get(ordinal, ())[-1:]:
                newest = self._passed_to.get(opening.patient, ordinal)
                self._passed_to[opening.patient] = max(newest, ordinal)

    def resumed(self, ordinal: int, call: int) -> Opening | None:
        """How a BigChunk was opened before the stream was resumed at its `call`, if it was."""
        openings = deque(self._resumed.pop(ordinal, ()))
        fitting = None
        while openings and openings[0].first <= call:
            fitting = openings.popleft()
        if openings:
            self._resumed_next[ordinal] = openings
        return fitting

    def resumed_next(self, ordinal: int, attempt: int, first: int) -> Opening | None:
        """How a BigChunk that has to be replaced now was replaced before the stream was resumed.

        Where it was otherwise, it is replaced anew.
        """
        openings = self._resumed_next.get(ordinal)
        if not openings:
            return None
        if openings[0].attempt == attempt and openings[0].first <= first:
            return openings.popleft()
        self._give_up(ordinal)
        return None

    def _give_up(self, ordinal: int) -> None:
        """Loads of before the resume will not be repeated; their messages go to others."""
        for opening in self._resumed_next.pop(ordinal, ()):
            if opening.message:
                self._messages.setdefault(opening.patient, opening.message)

    def knows(self, ordinal: int) -> bool:
        """Whether the patient of a BigChunk is chosen."""
        return ordinal in self._chosen

    def expects(self, ordinal: int) -> bool:
        """Whether the patient of a BigChunk is chosen, now or before the stream was resumed."""
        return ordinal in self._chosen or ordinal in self._resumed

    def patient_of(self, ordinal: int) -> int | None:
        """The patient of a BigChunk, None where it is not chosen."""
        return self._chosen.get(ordinal)

    def patient(self, ordinal: int, attempt: int) -> int | None:
        """The patient of a BigChunk, chosen now where it is not; None: not known yet, or none."""
        if ordinal in self._chosen:
            return self._chosen[ordinal]
        if self.halted or self._asked is not None or self.not_now:
            return None
        if len(self._finished) == len(self._loads):
            self.halted = True
            return None
        if self._policy is None:
            self._ask(ordinal, attempt)
            return None
        now = self._situation(ordinal, attempt)
        choice = self._policy.choose(now)
        self._answer(ordinal, HALTED if choice is HALT else NOT_NOW if choice is None else choice)
        return self._chosen.get(ordinal)

    def _situation(self, ordinal: int, attempt: int) -> Situation:
        opened = self._open(ordinal, attempt)
        return Situation(
            ordinal=ordinal,
            rng=generator(self._config.stream.seed, Purpose.SCHEDULE, ordinal, attempt),
            loads=self._loads.copy(),
            open=opened,
            waiting=self._waiting(opened),
            finished=frozenset(self._finished),
            status={},
        )

    def _open(self, ordinal: int, attempt: int) -> tuple[int, ...]:
        """The patients that count as open, oldest choice first."""
        recent = tuple(self._recent)
        if not self._config.stream.one_load_per_patient:
            return recent
        # Choices anew take the room of others in `recent`, whose BigChunks no load can wait for.
        over = ordinal - self._config.stream.num_bigchunks
        others = {p for other, p in self._chosen.items() if attempt or other > over}
        if attempt:
            resumed = (again for other, again in self._resumed.items() if other > over)
            others.update(opening.patient for openings in resumed for opening in openings)
        return (*sorted(others.difference(recent)), *recent)

    def _waiting(self, opened: tuple[int, ...]) -> tuple[int, ...]:
        busy = {*opened, *self._finished}
        return tuple(patient for patient in range(len(self._loads)) if patient not in busy)

    def _ask(self, ordinal: int, attempt: int) -> None:
        self._asked = _Asked(ordinal, attempt, frozenset(self._finished))
        opened = self._open(ordinal, attempt)
        message = ChoosePatient(
            ordinal,
            attempt,
            self._loads.astype(np.int32).tobytes(),
            _numbers(opened),
            _numbers(self._waiting(opened)),
            _numbers(sorted(self._finished)),
            dict(self._status),
        )
        self._outgoing.tell(self._config.scheduler, message)

    def ask_again(self) -> None:
        """The scheduler was replaced; the question goes to its successor."""
        if self._asked is not None:
            asked, self._asked = self._asked, None
            self._ask(asked.ordinal, asked.attempt)

    def chosen(self, message: PatientChosen) -> None:
        """The scheduler has answered.

        Raises:
            ProtocolError: it was not asked.
        """
        asked = self._asked
        if asked is None or (asked.ordinal, asked.attempt) != (message.ordinal, message.attempt):
            raise ProtocolError(f"the patient of BigChunk {message.ordinal} was not asked for")
        self._asked = None
        if message.looked:
            self.looked()
        # What happened meanwhile is no fault of the policy; it is asked again.
        late = asked.stale and message.patient == NOT_NOW
        if not late and message.patient not in self._finished - asked.finished:
            self._answer(message.ordinal, message.patient)

    def _answer(self, ordinal: int, choice: int) -> None:
        """The policy has chosen."""
        if choice == HALTED:
            self.halted = True
        elif choice == NOT_NOW:
            self.not_now = True
        elif not 0 <= choice < len(self._loads) or choice in self._finished:
            error = HookError(
                f"the schedule chose {choice}, which is not a patient of the dataset that has more "
                "BigChunks",
                hook="choose",
                kind="ValueError",
            )
            self._outgoing.fail(Failure.of(error))
        else:
            self._chosen[ordinal] = choice
            self._unreported.add(ordinal)
            self._loads[choice] += 1
            self._recent.append(choice)

    def something_changed(self) -> None:
        """A policy that said "not now", or is about to say so, is asked again."""
        self.not_now = False
        if self._asked is not None:
            self._asked = replace(self._asked, stale=True)

    def forget(self, ordinal: int) -> None:
        """The patient of a BigChunk is chosen anew."""
        self._chosen.pop(ordinal, None)
        self.something_changed()

    def give_away(self, ordinal: int) -> None:
        """The patient of a BigChunk that failed is chosen anew: whose turn is first depends on when
        the failures were told, so the stream cannot be repeated."""
        self._pure = False
        self.forget(ordinal)

    def keep(self, ordinal: int, patient: int) -> None:
        """The patient of a BigChunk is this one, without a choice."""
        self._chosen[ordinal] = patient

    def finish(self, patient: int) -> None:
        """A patient has no more BigChunks."""
        if patient not in self._finished:
            self._finished.add(patient)
            self._outgoing.note(
                logging.INFO, f"patient {self._config.patients[patient]} gives no more BigChunks"
            )
            self.something_changed()

    # --------------------------------------------------------------------- notes

    def opened(self, ordinal: int, attempt: int, first: int, before: Opening | None) -> Opening:
        """A BigChunk is being loaded: what its patient's notes are, reported for a resume."""
        patient = self._chosen[ordinal]
        if before is not None:
            opening = before
            self._repeated.add(ordinal)
        else:
            self._repeated.discard(ordinal)
            opening = Opening(
                attempt,
                first,
                patient,
                self._messages.pop(patient, b""),
                self._checkpoints.get(patient, b""),
            )
        chosen = ordinal in self._unreported
        self._unreported.discard(ordinal)
        self._outgoing.say(
            BigChunkOpened(
                ordinal,
                opening.attempt,
                opening.first,
                patient,
                chosen,
                self._pure,
                opening.message,
                opening.checkpoint,
            )
        )
        return opening

    def looked(self) -> None:
        """The policy has looked at what a second run would not see."""
        if self._pure:
            self._pure = False
            self._outgoing.note(
                logging.WARNING,
                "the schedule looks at the status of patients: the stream cannot be repeated",
            )

    def send(self, patient: int, message: bytes) -> None:
        """The training process has a message for the next load of a patient."""
        self._pure = False
        self._messages[patient] = message

    def checkpoint(self, ordinal: int, note: bytes) -> None:
        """The collector of a BigChunk has set a checkpoint."""
        patient = self._chosen.get(ordinal)
        if patient is None or ordinal in self._passed:
            return
        # What a later load of the patient has left, delivered ahead, is not undone by a repetition.
        if ordinal not in self._repeated or ordinal > self._passed_to.get(patient, -1):
            if self._beside_another(ordinal, patient):
                # Which of two loads at a time a third one hears of depends on the moment.
                self._pure = False
            self._checkpoints[patient] = note
            self._outgoing.say(CheckpointKept(ordinal, patient, note))
            self.something_changed()

    def _beside_another(self, ordinal: int, patient: int) -> bool:
        """Whether the plan has another BigChunk of the patient open at the same time."""
        places = self._config.stream.num_bigchunks
        return any(
            other != ordinal and abs(other - ordinal) < places and its == patient
            for other, its in self._chosen.items()
        )

    def status(self, ordinal: int, note: bytes) -> None:
        """The collector of a BigChunk has a status."""
        patient = self._chosen.get(ordinal)
        if patient is not None:
            self._status[patient] = note
            self.something_changed()

    def close(self, ordinal: int) -> None:
        """A BigChunk has given its last row."""
        self._chosen.pop(ordinal, None)
        self._repeated.discard(ordinal)
        if ordinal in self._passed:
            # The attempt that gave its last call is not repeated and has had its message.
            self._resumed_next.pop(ordinal, None)
        self._give_up(ordinal)
        self.something_changed()


def _without_slides(config: CoreConfig) -> set[int]:
    """Patients all of whose slides were left out; the user's classes need none."""
    if config.stream.rows.by_hooks:
        return set()
    return {patient for patient, slides in enumerate(config.slides_of_patient) if not slides}


def _numbers(values: Iterable[int]) -> bytes:
    return np.fromiter(values, dtype=np.int32).tobytes()
