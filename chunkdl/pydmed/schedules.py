"""PyDmed's `initial_schedule` and `schedule`, overridden by a user, as a policy of chunkdl.

Runs in the scheduler process, on a copy of the user's loader object that was made at its start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from chunkdl.errors import ConfigError
from chunkdl.hooks import EMPTY_STATUS
from chunkdl.patients import Patient
from chunkdl.plan.policies import HALT, Halt, Policy, Situation
from chunkdl.pydmed.reserved import PYDMEDRESERVED_HALTDL


class ActiveCollector:
    """A loaded patient, as a schedule sees it.

    Args:
        patient: who.
        status: what its collector has set last.
    """

    def __init__(self, patient: Patient, status: Any) -> None:
        self.patient = patient
        self._status = status

    def get_status(self) -> Any:
        """What the collector has set last."""
        return self._status


class View:
    """What the scheduling helpers of a loader answer from, while a schedule runs."""

    def __init__(self, patients: list[Patient], now: Situation) -> None:
        self._patients = patients
        self._now = now

    @property
    def loaded(self) -> list[Patient]:
        """Patients that are loaded or on their way, each once, oldest first."""
        return [self._patients[index] for index in dict.fromkeys(self._now.open)]

    @property
    def waiting(self) -> list[Patient]:
        """The others, without those that have nothing left."""
        return [self._patients[index] for index in self._now.waiting]

    @property
    def counts(self) -> dict[Patient, int]:
        """How often each patient was chosen."""
        return dict(zip(self._patients, self._now.loads.tolist(), strict=True))

    @property
    def collectors(self) -> list[ActiveCollector]:
        """The loaded patients with their statuses."""
        status: Mapping[int, object] = self._now.status
        return [
            ActiveCollector(self._patients[index], status.get(index, EMPTY_STATUS))
            for index in dict.fromkeys(self._now.open)
        ]


class OverriddenSchedule(Policy):
    """Asks the methods of the user's loader object.

    A BigChunk is replaced when it is used up, so what `schedule` says about which patient to
    remove has no effect; whom to load has.

    Args:
        lightdl: the user's loader.
        patients: of its dataset.
    """

    def __init__(self, lightdl: Any, patients: list[Patient]) -> None:
        self._lightdl = lightdl
        self._patients = patients
        self._index = {id(patient): index for index, patient in enumerate(patients)}
        self._first: deque[Patient] | None = None
        self.hook_name = f"{type(lightdl).__name__}.schedule"

    def choose(self, now: Situation) -> int | Halt | None:
        """The patient that the user's methods name."""
        self._lightdl._view = View(self._patients, now)
        if self._first is None:
            begun = bool(now.loads.any())
            self._first = deque() if begun else deque(self._lightdl.initial_schedule())
        while self._first:
            index = self._index_of(self._first.popleft(), "initial_schedule")
            if index not in now.open and index not in now.finished:
                return index
        answer = self._lightdl.schedule()
        if _is_halt(answer):
            return HALT
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise ConfigError(
                f"schedule() returned {answer!r}; return (patient to remove, patient to load), "
                "(None, None), or PYDMEDRESERVED_HALTDL"
            )
        if any(_is_halt(part) for part in answer):
            return HALT
        return None if answer[1] is None else self._index_of(answer[1], "schedule")

    def _index_of(self, patient: Any, method: str) -> int:
        index = self._index.get(id(patient))
        if index is None and isinstance(patient, Patient) and patient in self._patients:
            index = self._patients.index(patient)
        if index is None:
            raise ConfigError(f"{method}() named {patient!r}, which is no patient of the dataset")
        return index


def _is_halt(answer: Any) -> bool:
    return isinstance(answer, str) and answer == PYDMEDRESERVED_HALTDL
