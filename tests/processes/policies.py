"""Policies of a user. Imports no torch."""

from __future__ import annotations

from chunkdl import HALT, Policy
from chunkdl.sampling.policies.policy import Halt, Situation


class LastFirst(Policy):
    """Always the last that waits."""

    def choose(self, now: Situation) -> int:
        """It takes no chance."""
        return max(now.waiting or set(now.open) - now.finished)


class ByChance(Policy):
    """Draws from the generator of its choice."""

    def choose(self, now: Situation) -> int:
        """Any that waits."""
        return int(now.waiting[now.rng.integers(len(now.waiting))])


class EndsAt(Policy):
    """In turn, until so many BigChunks are chosen."""

    def __init__(self, loads: int) -> None:
        self.loads = loads

    def choose(self, now: Situation) -> int | Halt:
        """The least loaded, or the end."""
        if now.loads.sum() >= self.loads:
            return HALT
        return min(now.waiting, key=now.loads.__getitem__)


class ByStatus(Policy):
    """Looks at what the collectors say."""

    def choose(self, now: Situation) -> int:
        """The first whose status is the lowest."""
        return min(now.waiting, key=lambda patient: now.status.get(patient, 0))  # type: ignore[arg-type, return-value]


class Stranger(Policy):
    """Chooses a patient that there is not."""

    def choose(self, now: Situation) -> int:
        """One too many."""
        return len(now.loads)
