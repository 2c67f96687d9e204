"""Which slide, and which class in it, a BigChunk is drawn from, where these have weights.

A *group* is what has a weight of its own: a class of annotations, or a category of slides. Its
members are slides with a share each, and a stratum is one of them. In round r of S ordinals,
ordinal i takes the point (π_r(i) + u_i)/S of the cumulative weights, π_r a random permutation and
u_i random numbers of the round. So every stratum comes with exactly its weight, and of strata that
lie behind each other, such as those of a group, a round has their weight times S, rounded up or
down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from chunkdl.sampling.seeding import Purpose, generator

ROUND = 64
"""Fewest ordinals of a round, so that weights which are no simple fractions hold in it too."""
NO_REGION = -1
"""Index of no class."""


@dataclass(frozen=True, slots=True)
class Group:
    """Slides that are drawn from together.

    Attributes:
        name: for messages.
        region: index of the class that is drawn in them; -1: none is.
        weight: how often the group comes, above 0, up to a factor that all groups share.
        shares: how often each of its slides comes, above 0, by index, up to a factor. Strata lie
            behind each other in this order.
    """

    name: str
    region: int
    weight: float
    shares: Mapping[int, float]


class Stratum(NamedTuple):
    """What a BigChunk is drawn from: indices of a slide, of a class, and of its group."""

    slide: int
    region: int
    group: int = 0


class StratumSchedule:
    """The strata of a stream, by ordinal; pure.

    Args:
        seed: of the stream.
        groups: all of them; at least one, each with a slide.
    """

    def __init__(self, seed: int, groups: Sequence[Group]) -> None:
        self._seed = seed
        self.groups = tuple(groups)
        """As they were given."""
        self._strata: list[Stratum] = []
        self._of_group: list[npt.NDArray[np.float64]] = []
        """By group, the cumulative shares of its strata, up to 1."""
        self._first: list[int] = []
        """By group, its first stratum."""
        ends: list[npt.NDArray[np.float64]] = []
        total, reached = sum(group.weight for group in groups), 0.0
        for index, group in enumerate(groups):
            self._first.append(len(self._strata))
            self._strata += [Stratum(slide, group.region, index) for slide in group.shares]
            until = np.cumsum(list(group.shares.values()))
            self._of_group.append(until / until[-1])
            ends.append(reached + self._of_group[-1] * group.weight / total)
            reached += group.weight / total
        self._ends = np.concatenate(ends)
        self._size = max(ROUND, len(self._strata))
        self._round = lru_cache(maxsize=4)(self._drawn)

    def stratum(self, ordinal: int, attempt: int = 0) -> Stratum:
        """What BigChunk `ordinal` is drawn from.

        Args:
            ordinal: of the BigChunk.
            attempt: how often it was substituted; a substitute is of the group of the first
                attempt, and is drawn from it by its shares, independent of everything else.
        """
        round_, place = divmod(ordinal, self._size)
        chosen = self._strata[int(self._round(round_)[place])]
        if attempt == 0:
            return chosen
        until = self._of_group[chosen.group]
        point = generator(self._seed, Purpose.SUBSTITUTE, ordinal, attempt).random()
        which = min(int(np.searchsorted(until, point, side="right")), len(until) - 1)
        return self._strata[self._first[chosen.group] + which]

    def strata_of(self, group: int) -> tuple[Stratum, ...]:
        """Those of a group."""
        first = self._first[group]
        return tuple(self._strata[first : first + len(self._of_group[group])])

    def _drawn(self, round_: int) -> npt.NDArray[np.intp]:
        rng = generator(self._seed, Purpose.STRATUM, round_)
        points = (rng.permutation(self._size) + rng.random(self._size)) / self._size
        which = np.searchsorted(self._ends, points * self._ends[-1], side="right")
        last = len(self._strata) - 1
        return np.asarray(np.minimum(which, last), np.intp)
