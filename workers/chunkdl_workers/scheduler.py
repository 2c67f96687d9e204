"""The scheduler: asks the user's own policy which patient is loaded next.

Started by the supervisor, only where the policy is none of the built-in ones: it may keep state,
hang or raise, and the coordinator must not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from chunkdl.engine.config import EngineConfig
from chunkdl.errors import Failure, HookError
from chunkdl.patches.seeded_code import SeededCode, seed_globals
from chunkdl.patches.user_code import UserCode, hook_errors, load_user_code
from chunkdl.sampling.policies.policy import HALT, Situation
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.transport.flight_recorder import SCHEDULE
from chunkdl.transport.memory.notes import value_of
from chunkdl.transport.protocol.engine_messages import (
    HALTED,
    NOT_NOW,
    ChoosePatient,
    PatientChosen,
    ScheduleFailed,
)
from chunkdl_workers.link import Link, serve
from chunkdl_workers.process import one_thread_for_torch


def work(link: Link, config: EngineConfig, descriptors: list[int]) -> None:
    """Answer questions until the coordinator is gone."""
    user = load_user_code(config.user["scheduler"])
    one_thread_for_torch()
    code = SeededCode(
        config.stream.seed, [(type(user.policy).__qualname__, user.policy)], link.warn
    )
    link.ready()
    for question in link.messages():
        if not isinstance(question, ChoosePatient):
            raise TypeError(f"a scheduler cannot do {type(question).__name__}")
        link.recorder.enter(SCHEDULE, 0, question.ordinal)
        try:
            link.send(_choose(question, config, user, code))
        except HookError as error:
            link.send(ScheduleFailed(question.ordinal, Failure.of(error)))
        link.recorder.leave()


def _choose(
    question: ChoosePatient, config: EngineConfig, user: UserCode, code: SeededCode
) -> PatientChosen:
    ordinal, attempt, seed = question.ordinal, question.attempt, config.stream.seed
    seed_globals(seed, Purpose.SCHEDULE, ordinal, attempt, 0)
    code.seed_own(Purpose.SCHEDULE, ordinal, attempt, 0)
    hook = getattr(user.policy, "hook_name", f"{type(user.policy).__name__}.choose")
    with hook_errors(hook, ""):
        now = Situation(
            ordinal=ordinal,
            rng=generator(seed, Purpose.SCHEDULE, ordinal, attempt),
            loads=_numbers(question.loads).astype(np.int64),
            open=tuple(_numbers(question.open).tolist()),
            waiting=tuple(_numbers(question.waiting).tolist()),
            finished=frozenset(_numbers(question.finished).tolist()),
            status=(status := Statuses(question.status)),
        )
        choice = user.policy.choose(now)
        patient = HALTED if choice is HALT else NOT_NOW if choice is None else int(choice)
        return PatientChosen(ordinal, attempt, patient, status.looked)


class Statuses(Mapping[int, object]):
    """The statuses of patients, which remember that somebody has looked."""

    def __init__(self, notes: Mapping[int, bytes]) -> None:
        self._notes = notes
        self.looked = False

    def __getitem__(self, patient: int) -> object:
        self.looked = True
        return value_of(self._notes[patient])

    def __iter__(self) -> Iterator[int]:
        self.looked = True
        return iter(self._notes)

    def __len__(self) -> int:
        self.looked = True
        return len(self._notes)


def _numbers(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.frombuffer(data, dtype=np.int32)


def main() -> None:
    """Run the program."""
    serve("scheduler", work)
