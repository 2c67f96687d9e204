"""Schedule policies: which patient the next BigChunk is taken from.

A policy decides from what it is shown, a `Situation`, and from nothing else; so a stream that is
replayed, or resumed from a saved state, chooses the same patients again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError

if TYPE_CHECKING:
    from chunkdl.dataset.patients import Patient

Indices = npt.NDArray[np.int64]


class Halt(Enum):
    """The type of `HALT`."""

    HALT = "halt"


HALT = Halt.HALT
"""A policy returns this to end the stream: what is loaded is delivered, nothing more is loaded."""


@dataclass(frozen=True, slots=True, eq=False)
class Situation:
    """What a policy may look at when it chooses the patient of the next BigChunk.

    Patients are indices in the dataset.

    Attributes:
        ordinal: of the BigChunk.
        rng: random numbers for this choice alone; the same at every replay.
        loads: (patients,) int64, number of BigChunks chosen so far, per patient.
        open: patients of the BigChunks that are loaded or being loaded, oldest choice first; a
            patient may be in it twice.
        waiting: patients that are neither open nor finished, ascending; empty only if every
            unfinished patient is open.
        finished: patients whose loader said that there is nothing more, and patients whose slides
            were all left out of the stream.
        status: the last status that each patient's collector has set; empty for the built-in
            policies.
    """

    ordinal: int
    rng: np.random.Generator
    loads: Indices
    open: tuple[int, ...]
    waiting: tuple[int, ...]
    finished: frozenset[int]
    status: Mapping[int, object]


class Policy:
    """Chooses patients; base class of the built-in policies and of your own.

    To write a policy, derive from this class and define `choose`. Define `for_patients` too if the
    policy must know the patients::

        class LastFirst(Policy):
            def choose(self, now: Situation) -> int:
                return max(now.waiting or set(now.open) - now.finished)

    A policy keeps no memory between choices, and draws random numbers only from `Situation.rng`.
    Otherwise a replay would make other choices. It should choose from `Situation.waiting`. It may
    also choose an open patient that is not finished. Then the new load waits for the earlier one,
    or both are open at a time. A policy is pickled and sent to the process that asks it.
    """

    __slots__ = ()

    def for_patients(self, patients: Sequence[Patient]) -> Policy:
        """The policy to ask about these patients; called once, before the first choice.

        Args:
            patients: the dataset; every index in a `Situation` is one into it.

        Raises:
            ConfigError: a patient lacks what the policy needs, such as a label.
        """
        return self

    def choose(self, now: Situation) -> int | Halt | None:
        """The patient of the next BigChunk.

        Returns:
            Index of a patient that is not finished; `HALT` to end the stream; or None for "not
            now", after which it is asked again when something has changed. None makes sense only
            for a policy that uses `Situation.status`.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot choose: your own policy must define choose(); for a "
            "policy of chunkdl, call choose() of the object that for_patients() returns"
        )


def said_by(patient: Patient, source: str | Callable[[Patient], Any]) -> Any:
    """What a label column, or a function of the patient, says of it.

    Raises:
        ConfigError: the patient has no such label.
    """
    if callable(source):
        return source(patient)
    labels = patient.labels
    if source not in labels:
        if any(source in record.labels for record in patient.slides):
            raise ConfigError(
                f"{patient!r}: {source!r} is a label of slides, but a schedule chooses patients; "
                "give the patients a label, or use a function from patient to label"
            )
        raise ConfigError(
            f"{patient!r} has no label {source!r}; it has {', '.join(map(repr, labels)) or 'none'}"
        )
    return labels[source]


def furthest_back(now: Situation, never: Collection[int] = ()) -> int | Halt:
    """The unfinished open patient whose last choice is the oldest; `HALT` where there is none."""
    last = {patient: place for place, patient in enumerate(now.open)}
    usable = [patient for patient in last if patient not in now.finished and patient not in never]
    return min(usable, key=last.__getitem__, default=HALT)


def indices_of(indices: Sequence[int]) -> Indices:
    return np.array(indices, dtype=np.int64)


def fewest(candidates: Indices, counts: npt.NDArray[Any]) -> Indices:
    """Those of the candidates whose count is the least of theirs."""
    of_each = counts[candidates]
    fewest: Indices = candidates[of_each == of_each.min()]
    return fewest


def one_of(candidates: Indices, rng: np.random.Generator) -> int:
    return int(candidates[rng.integers(len(candidates))])


def one_by_weight(
    candidates: Indices, weights: npt.NDArray[np.float64], rng: np.random.Generator
) -> int:
    """One of the candidates, in proportion to their weights; at least one weight is not 0."""
    # Divided first, so that no sum of finite weights overflows.
    ends = np.cumsum(weights / weights.max())
    return int(candidates[np.searchsorted(ends, rng.random() * ends[-1], side="right")])
