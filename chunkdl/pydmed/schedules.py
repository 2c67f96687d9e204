"""PyDmed's `initial_schedule` and `schedule`, overridden by a user, as a policy of chunkdl.

Runs in the scheduler process, on a copy of the user's loader object that was made at its start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.errors import ConfigError
from chunkdl.patches.hooks import EMPTY_STATUS
from chunkdl.pydmed.reserved import PYDMEDRESERVED_HALTDL
from chunkdl.sampling.policies.policy import HALT, Halt, Policy, Situation


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

    def answer_of(self, policy: Policy) -> Any:
        """What a schedule answers where it leaves the choice to a policy of chunkdl.

        Args:
            policy: bound to the patients.
        """
        choice = policy.choose(self._now)
        if isinstance(choice, Halt):
            return PYDMEDRESERVED_HALTDL
        if choice is None:
            return None, None
        loaded = self.loaded
        return (loaded[0] if loaded else None), self._patients[choice]

    @property
    def collectors(self) -> list[ActiveCollector]:
        """The loaded patients with their statuses."""
        status: Mapping[int, object] = self._now.status
        return [
            ActiveCollector(self._patients[index], status.get(index, EMPTY_STATUS))
            for index in dict.fromkeys(self._now.open)
        ]


class AsksSchedule:
    """The helpers of a loader for schedules that a user writes.

    Attributes:
        dataset: whom to choose from.
    """

    dataset: Dataset
    _started: bool
    _view: View | None = None

    def get_list_loadedpatients(self) -> list[Patient]:
        """Inside a schedule: the patients that are loaded or on their way, oldest first."""
        return self._looking().loaded

    def get_list_waitingpatients(self) -> list[Patient]:
        """Inside a schedule: the other patients, without those that have nothing left."""
        return self._looking().waiting

    def get_schedcount_of(self, patient: Patient) -> int:
        """Inside a schedule: how often a patient was chosen."""
        return self._looking().counts[patient]

    @property
    def dict_patient_to_schedcount(self) -> dict[Patient, int]:
        """Before the start and inside a schedule: how often each patient was chosen."""
        return self._looking().counts if self._looks() else dict.fromkeys(self.dataset, 0)

    @property
    def active_subprocesses(self) -> list[ActiveCollector]:
        """Before the start and inside a schedule: the loaded patients, each with `patient` and
        `get_status()`."""
        return self._looking().collectors if self._looks() else []

    def _looks(self) -> bool:
        return self._started or self._view is not None

    def _looking(self) -> View:
        if self._view is None:
            raise ConfigError(
                "the scheduling helpers can be used only inside schedule() and initial_schedule()"
            )
        return self._view


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
            raise ConfigError(
                f"{method}() named {patient!r}, which is not a patient of the dataset"
            )
        return index


def _is_halt(answer: Any) -> bool:
    return isinstance(answer, str) and answer == PYDMEDRESERVED_HALTDL
