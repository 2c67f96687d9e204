"""Every patient has a weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chunkdl.dataset.patients import Patient
from chunkdl.errors import ConfigError
from chunkdl.sampling.policies.policy import (
    Halt,
    Policy,
    Situation,
    furthest_back,
    indices_of,
    one_by_weight,
    said_by,
)


@dataclass(frozen=True, slots=True)
class Weighted(Policy):
    """At random by weight, independent of earlier loads.

    The weights apply to the waiting patients. No patient is open twice while another one waits.
    So with few patients, or with one very large weight, the shares are more even than the weights.
    When all patients with a weight above 0 are finished, the stream ends.

    Attributes:
        weights: a label column of the patients, a function from patient to float, or one float
            per patient in the order of the dataset; a patient with 0 is never loaded.
    """

    weights: str | Callable[[Patient], float] | Sequence[float]

    def for_patients(self, patients: Sequence[Patient]) -> Policy:
        """The policy with the weights of these patients.

        Raises:
            ConfigError: a weight is missing, negative, infinite or not a number; there are more
                or fewer weights than patients; or all weights are 0.
        """
        given = self.weights
        if isinstance(given, str) or callable(given):
            values: Sequence[object] = [said_by(patient, given) for patient in patients]
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
        waiting = indices_of([patient for patient in now.waiting if self.weights[patient] > 0])
        if not len(waiting):
            never = {patient for patient, weight in enumerate(self.weights) if weight == 0}
            return furthest_back(now, never)
        return one_by_weight(waiting, np.array(self.weights)[waiting], now.rng)


def _checked_weight(value: Any, patient: Patient) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{patient!r}: the weight {value!r} is not a number") from error
    if not 0 <= weight < float("inf"):
        raise ConfigError(f"{patient!r}: the weight must be finite and at least 0, not {value!r}")
    return weight
