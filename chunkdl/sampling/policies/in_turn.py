"""Every patient has the same chance, or its turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chunkdl.sampling.policies.policy import (
    Halt,
    Policy,
    Situation,
    fewest,
    furthest_back,
    indices_of,
    one_by_weight,
    one_of,
)

NEVER_LOADED_WEIGHT = 1e7
"""PyDmed's weight of a patient that was never loaded; other patients have at most 1/2."""


@dataclass(frozen=True, slots=True)
class Uniform(Policy):
    """At random among the waiting patients with the fewest loads.

    Every patient comes once before any comes twice, if there are more patients than can be open.
    """

    def choose(self, now: Situation) -> int | Halt:
        """One of the least loaded, each with the same probability."""
        if not now.waiting:
            return furthest_back(now)
        return one_of(fewest(indices_of(now.waiting), now.loads), now.rng)


@dataclass(frozen=True, slots=True)
class RoundRobin(Policy):
    """In turn, in the order of the dataset."""

    def choose(self, now: Situation) -> int | Halt:
        """The first of the least loaded."""
        if not now.waiting:
            return furthest_back(now)
        return int(fewest(indices_of(now.waiting), now.loads)[0])


@dataclass(frozen=True, slots=True)
class NeverLoadedFirst(Policy):
    """PyDmed's default: at random, and patients that were loaded less are more likely.

    The weight is 1 / (1 + loads), and `NEVER_LOADED_WEIGHT` for patients never loaded.
    """

    def choose(self, now: Situation) -> int | Halt:
        """One of the waiting, by weight."""
        if not now.waiting:
            return furthest_back(now)
        waiting = indices_of(now.waiting)
        loads = now.loads[waiting]
        weights = np.where(loads == 0, NEVER_LOADED_WEIGHT, 1.0 / (1 + loads))
        return one_by_weight(waiting, weights, now.rng)
