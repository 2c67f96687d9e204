"""Schedule policies: which patient the next BigChunk is taken from.

A policy decides from what it is shown, a `Situation`, and from nothing else; so a stream that is
replayed, or resumed from a saved state, chooses the same patients again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.labels import plain
from chunkdl.patients import Patient

_Indices = npt.NDArray[np.int64]

NEVER_LOADED_WEIGHT = 1e7
"""PyDmed's weight of a patient that was never loaded; one that was has at most 1/2."""


class Halt(Enum):
    """The type of `HALT`."""

    HALT = "halt"


HALT = Halt.HALT
"""What a policy returns to end the stream: what is loaded is delivered, nothing more is loaded."""


@dataclass(frozen=True, slots=True, eq=False)
class Situation:
    """What a policy may look at when it chooses the patient of the next BigChunk.

    Patients are indices in the dataset.

    Attributes:
        ordinal: of the BigChunk.
        rng: of this choice alone; the same at every replay.
        loads: (patients,) int64, BigChunks chosen so far, per patient.
        open: patients of the BigChunks that are loaded or on their way, oldest choice first; one
            may come twice.
        waiting: patients that are neither open nor finished, ascending; empty only where every
            unfinished patient is open.
        finished: patients whose loader said that there is nothing more, and those all of whose
            slides were left out of the stream.
        status: the last status that each patient's collector has set; empty for the built-in
            policies.
    """

    ordinal: int
    rng: np.random.Generator
    loads: _Indices
    open: tuple[int, ...]
    waiting: tuple[int, ...]
    finished: frozenset[int]
    status: Mapping[int, object]


class Policy:
    """Chooses patients; the base of the built-in policies and of your own.

    To write one, derive from this class, give it `choose`, and `for_patients` where it must know
    the patients::

        class LastFirst(Policy):
            def choose(self, now: Situation) -> int:
                return max(now.waiting or set(now.open) - now.finished)

    A policy keeps no memory between choices and takes its chance from `Situation.rng` only: else
    a replay would choose others. It should choose from `Situation.waiting`. It may choose an open
    patient that is not finished, whose new load then waits for the one before, or is there twice at
    a time where the plan has both open. It is pickled on its way to the process that asks it.
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
            now": asked again when something has changed. None makes sense only for a policy that
            looks at `Situation.status`.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot choose: a policy of your own needs choose(); of "
            f"chunkdl's, ask the one that for_patients() returns"
        )


@dataclass(frozen=True, slots=True)
class Uniform(Policy):
    """At random among the waiting patients with the fewest loads.

    Every patient comes once before any comes twice, as long as there are more than can be open.
    """

    def choose(self, now: Situation) -> int | Halt:
        """One of the least loaded, each with the same probability."""
        if not now.waiting:
            return _furthest_back(now)
        return _one_of(_fewest(_array(now.waiting), now.loads), now.rng)


@dataclass(frozen=True, slots=True)
class RoundRobin(Policy):
    """In turn, in the order of the dataset."""

    def choose(self, now: Situation) -> int | Halt:
        """The first of the least loaded."""
        if not now.waiting:
            return _furthest_back(now)
        return int(_fewest(_array(now.waiting), now.loads)[0])


@dataclass(frozen=True, slots=True)
class NeverLoadedFirst(Policy):
    """PyDmed's default: at random, and patients that were loaded less are more likely.

    The weight is 1 / (1 + loads), for those never loaded `NEVER_LOADED_WEIGHT`.
    """

    def choose(self, now: Situation) -> int | Halt:
        """One of the waiting, by weight."""
        if not now.waiting:
            return _furthest_back(now)
        waiting = _array(now.waiting)
        loads = now.loads[waiting]
        weights = np.where(loads == 0, NEVER_LOADED_WEIGHT, 1.0 / (1 + loads))
        return _one_by_weight(waiting, weights, now.rng)


@dataclass(frozen=True, slots=True)
class LabelBalanced(Policy):
    """Keeps the labels of the open patients balanced.

    Takes a patient of the label that is rarest among the open ones. Ties go to the label with the
    fewest loads in total, then to the one whose last choice lies furthest back, then to chance: so
    labels come in turn, and each has its share of the BigChunks however few patients it has. Of
    that label it takes one of the least loaded waiting patients, at random; where all of them are
    open, the one whose last choice is the oldest. That one is loaded twice at a time only where a
    label has fewer patients than its share of the BigChunks that are open at a time.

    Attributes:
        label: a label column of the patients, or a function from patient to anything hashable.
            A missing one (None, NaN, an empty cell of a manifest) is a label as any other.
    """

    label: str | Callable[[Patient], Hashable] = "label"

    def for_patients(self, patients: Sequence[Patient]) -> Policy:
        """The policy with the labels of these patients.

        Raises:
            ConfigError: a patient has no such label, or one that cannot be compared.
        """
        numbers: dict[Hashable, int] = {}
        labels = []
        for patient in patients:
            label = plain(_said_by(patient, self.label))
            if not _is_label(label):
                raise ConfigError(
                    f"{patient!r}: {label!r} cannot be a label, which must be hashable and equal "
                    f"to itself; give the patient one or leave it out"
                )
            labels.append(numbers.setdefault(label, len(numbers)))
        return _ByLabel(tuple(labels))


@dataclass(frozen=True, slots=True)
class _ByLabel(Policy):
    """`LabelBalanced` that knows the label of each patient, as a number from 0."""

    labels: tuple[int, ...]

    def choose(self, now: Situation) -> int | Halt:
        label_of = _array(self.labels)
        usable = sorted({*now.waiting, *now.open} - now.finished)
        if not usable:
            return HALT
        opened = label_of[_array(now.open)]
        loads = np.bincount(label_of, weights=now.loads)
        places = np.bincount(opened, minlength=len(loads))
        last_choice = np.full(len(loads), -1)
        np.maximum.at(last_choice, opened, np.arange(len(opened)))
        candidates = np.unique(label_of[usable])
        for counts in (places, loads, last_choice):
            candidates = _fewest(candidates, counts)
        label = _one_of(candidates, now.rng)
        waiting = [patient for patient in now.waiting if self.labels[patient] == label]
        if waiting:
            return _one_of(_fewest(_array(waiting), now.loads), now.rng)
        return _furthest_back(now, {one for one in now.open if self.labels[one] != label})


@dataclass(frozen=True, slots=True)
class Weighted(Policy):
    """At random by weight, whatever was loaded before.

    The weights hold among the waiting patients. No patient is open twice while another waits, so
    with few patients, or one that outweighs all others, the shares come out more even than the
    weights. When all patients with a weight above 0 are finished, the stream ends.

    Attributes:
        weights: a label column of the patients, a function from patient to float, or one float
            per patient in the order of the dataset; 0 is never loaded.
    """

    weights: str | Callable[[Patient], float] | Sequence[float]

    def for_patients(self, patients: Sequence[Patient]) -> Policy:
        """The policy with the weights of these patients.

        Raises:
            ConfigError: a weight is missing, negative, not finite or no number; there are more or
                fewer than patients; or all are 0.
        """
        given = self.weights
        if isinstance(given, str) or callable(given):
            values: Sequence[object] = [_said_by(patient, given) for patient in patients]
        else:
            values = list(given)
        if len(values) != len(patients):
            raise ConfigError(
                f"{len(values)} weights for {len(patients)} patients; give one per patient"
            )
        weights = tuple(map(_checked_weight, values, patients))
        if not any(weights):
            raise ConfigError("all weights are 0; give at least one patient a weight above 0")
        return _ByWeight(weights)


@dataclass(frozen=True, slots=True)
class _ByWeight(Policy):
    """`Weighted` that knows the weight of each patient."""

    weights: tuple[float, ...]

    def choose(self, now: Situation) -> int | Halt:
        waiting = _array([patient for patient in now.waiting if self.weights[patient] > 0])
        if not len(waiting):
            never = {patient for patient, weight in enumerate(self.weights) if weight == 0}
            return _furthest_back(now, never)
        return _one_by_weight(waiting, np.array(self.weights)[waiting], now.rng)


@dataclass(frozen=True, slots=True)
class Quota(Policy):
    """Another policy, but with at most so many BigChunks of each patient; then the stream ends.

    To the other policy a patient at its quota is as one that is finished: it does not wait.

    Attributes:
        policy: chooses among the patients below their quota.
        loads: BigChunks of each patient, at least 1; or a function from patient to that number,
            which may be 0 for some.
    """

    policy: Policy
    loads: int | Callable[[Patient], int]

    def for_patients(self, patients: Sequence[Patient]) -> Policy:
        """The policy with the quotas of these patients.

        Raises:
            ConfigError: a quota is no whole number, is negative, or all are 0; or the other
                policy cannot use these patients.
        """
        loads = self.loads
        quotas = tuple(
            _checked_quota(loads(patient) if callable(loads) else loads, patient)
            for patient in patients
        )
        if not any(quotas):
            raise ConfigError("all quotas are 0; allow at least one patient a BigChunk")
        return _UpToQuota(self.policy.for_patients(patients), quotas)


@dataclass(frozen=True, slots=True)
class _UpToQuota(Policy):
    """`Quota` that knows the quota of each patient."""

    policy: Policy
    quotas: tuple[int, ...]

    def choose(self, now: Situation) -> int | Halt | None:
        loads = now.loads.tolist()
        full = {patient for patient, most in enumerate(self.quotas) if loads[patient] >= most}
        finished = now.finished | full
        if len(finished) == len(loads):
            return HALT
        waiting = tuple(patient for patient in now.waiting if patient not in full)
        choice = self.policy.choose(replace(now, waiting=waiting, finished=finished))
        if choice in full:
            raise ConfigError(
                f"{self.policy!r} chose patient {choice}, which is at its quota of "
                f"{loads[choice]} BigChunks; a policy must not choose from Situation.finished"
            )
        return choice


def is_built_in(policy: Policy) -> bool:
    """Whether the policy, and any that it wraps, is of this module; such look at no status."""
    if type(policy).__module__ != __name__:
        return False
    return not isinstance(policy, Quota | _UpToQuota) or is_built_in(policy.policy)


def _said_by(patient: Patient, source: str | Callable[[Patient], Any]) -> Any:
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
                f"{patient!r}: {source!r} is a label of its slides, and a schedule chooses "
                "patients; give the patients a label, or a function from patient to label"
            )
        raise ConfigError(
            f"{patient!r} has no label {source!r}; it has {', '.join(map(repr, labels)) or 'none'}"
        )
    return labels[source]


def _is_label(value: Any) -> bool:
    """False for lists and arrays: each would be a label of its own."""
    try:
        hash(value)
        return bool(value == value)
    except TypeError:
        return False


def _checked_weight(value: Any, patient: Patient) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{patient!r}: the weight {value!r} is no number") from error
    if not 0 <= weight < float("inf"):
        raise ConfigError(f"{patient!r}: the weight must be finite and at least 0, not {value!r}")
    return weight


def _checked_quota(value: object, patient: Patient) -> int:
    try:
        quota = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigError(f"{patient!r}: the quota must be an int, not {value!r}") from error
    if quota < 0:
        raise ConfigError(f"{patient!r}: the quota must be at least 0 BigChunks, not {quota}")
    return quota


def _furthest_back(now: Situation, never: Collection[int] = ()) -> int | Halt:
    """The unfinished open patient whose last choice is the oldest; `HALT` where there is none."""
    last = {patient: place for place, patient in enumerate(now.open)}
    usable = [patient for patient in last if patient not in now.finished and patient not in never]
    return min(usable, key=last.__getitem__, default=HALT)


def _array(indices: Sequence[int]) -> _Indices:
    return np.array(indices, dtype=np.int64)


def _fewest(candidates: _Indices, counts: npt.NDArray[Any]) -> _Indices:
    """Those of the candidates whose count is the least of theirs."""
    of_each = counts[candidates]
    fewest: _Indices = candidates[of_each == of_each.min()]
    return fewest


def _one_of(candidates: _Indices, rng: np.random.Generator) -> int:
    return int(candidates[rng.integers(len(candidates))])


def _one_by_weight(
    candidates: _Indices, weights: npt.NDArray[np.float64], rng: np.random.Generator
) -> int:
    """One of the candidates, with probabilities in proportion to weights of which one is not 0."""
    # Divided first, so that no sum of finite weights overflows.
    ends = np.cumsum(weights / weights.max())
    return int(candidates[np.searchsorted(ends, rng.random() * ends[-1], side="right")])
