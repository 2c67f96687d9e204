"""Every label has the same share of the BigChunks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chunkdl.dataset.labels import plain
from chunkdl.dataset.patients import Patient
from chunkdl.errors import ConfigError
from chunkdl.sampling.policies.policy import (
    HALT,
    Halt,
    Policy,
    Situation,
    fewest,
    furthest_back,
    indices_of,
    one_of,
    said_by,
)


@dataclass(frozen=True, slots=True)
class LabelBalanced(Policy):
    """Keeps the labels of the open patients balanced.

    It takes a patient of the label that is rarest among the open patients. Ties go to the label
    with the fewest loads in total, then to the label whose last choice is the oldest, then to
    chance. So labels come in turn, and each label has the same share of the BigChunks, however few
    patients it has. Among the patients of this label it takes one of the least loaded waiting ones,
    at random. If all of them are open, it takes the one whose last choice is the oldest. A patient
    is loaded twice at a time only if its label has fewer patients than its share of the open
    BigChunks.

    Attributes:
        label: a label column of the patients, or a function from patient to anything hashable.
            A missing value (None, NaN, an empty cell of a manifest) counts as a label too.
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
            label = plain(said_by(patient, self.label))
            if not _is_label(label):
                raise ConfigError(
                    f"{patient!r}: {label!r} cannot be used as a label: a label must be hashable "
                    "and equal to itself (NaN is not); give the patient another value, or remove "
                    "the patient"
                )
            labels.append(numbers.setdefault(label, len(numbers)))
        return _ByLabel(tuple(labels))


@dataclass(frozen=True, slots=True)
class _ByLabel(Policy):
    """`LabelBalanced` that knows the label of each patient, as a number from 0."""

    labels: tuple[int, ...]

    def choose(self, now: Situation) -> int | Halt:
        label_of = indices_of(self.labels)
        usable = sorted({*now.waiting, *now.open} - now.finished)
        if not usable:
            return HALT
        opened = label_of[indices_of(now.open)]
        loads = np.bincount(label_of, weights=now.loads)
        places = np.bincount(opened, minlength=len(loads))
        last_choice = np.full(len(loads), -1)
        np.maximum.at(last_choice, opened, np.arange(len(opened)))
        candidates = np.unique(label_of[usable])
        for counts in (places, loads, last_choice):
            candidates = fewest(candidates, counts)
        label = one_of(candidates, now.rng)
        waiting = [patient for patient in now.waiting if self.labels[patient] == label]
        if waiting:
            return one_of(fewest(indices_of(waiting), now.loads), now.rng)
        return furthest_back(now, {one for one in now.open if self.labels[one] != label})


def _is_label(value: Any) -> bool:
    """False for lists and arrays: each would be a label of its own."""
    try:
        hash(value)
        return bool(value == value)
    except TypeError:
        return False
