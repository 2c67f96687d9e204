"""Which slide, and which class in it, a BigChunk is drawn from, where classes have weights.

A stratum is a slide with one of the classes that it has. Its weight is the class's, shared equally
by the patients that have the class, and by the slides of each that do. In round r of S ordinals,
ordinal i takes the point (π_r(i) + u_i)/S of the cumulative weights, π_r a random permutation and
u_i random numbers of the round. So every stratum comes with exactly its weight, and of strata that
lie behind each other, such as those of a class, a round has their weight times S, rounded up or
down.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from chunkdl.sampling.seeding import Purpose, generator

ROUND = 64
"""Fewest ordinals of a round, so that weights which are no simple fractions hold in it too."""


class Stratum(NamedTuple):
    """What a BigChunk is drawn from: indices of a slide and of a class."""

    slide: int
    region: int


class StratumSchedule:
    """The strata of a stream, by ordinal; pure.

    Args:
        seed: of the stream.
        weights: by index of the class.
        slides_of_patient: for each patient the indices of its slides.
        regions_of_slide: for each slide the indices of the classes that it has.
    """

    def __init__(
        self,
        seed: int,
        weights: Sequence[float],
        slides_of_patient: Sequence[Sequence[int]],
        regions_of_slide: Sequence[Sequence[int]],
    ) -> None:
        self._seed = seed
        self._strata: list[Stratum] = []
        self._of_region: list[npt.NDArray[np.float64]] = []
        """By class, the cumulative weights of its strata, up to 1."""
        self._first: list[int] = []
        """By class, its first stratum."""
        ends: list[npt.NDArray[np.float64]] = []
        total, reached = sum(weights), 0.0
        for region, weight in enumerate(weights):
            shares = []
            self._first.append(len(self._strata))
            having = [
                [slide for slide in slides if region in regions_of_slide[slide]]
                for slides in slides_of_patient
            ]
            patients = [slides for slides in having if slides]
            for slides in patients:
                shares += [1 / len(patients) / len(slides)] * len(slides)
                self._strata += [Stratum(slide, region) for slide in slides]
            until = np.cumsum(shares)
            self._of_region.append(until / until[-1] if len(until) else until)
            ends.append(reached + self._of_region[-1] * weight / total)
            reached += weight / total
        self._ends = np.concatenate(ends)
        self._size = max(ROUND, len(self._strata))
        self._round = lru_cache(maxsize=4)(self._drawn)

    def stratum(self, ordinal: int, attempt: int = 0) -> Stratum:
        """What BigChunk `ordinal` is drawn from.

        Args:
            ordinal: of the BigChunk.
            attempt: how often it was substituted; a substitute has the class of the first attempt,
                and is drawn from it by weight, independent of everything else.
        """
        round_, place = divmod(ordinal, self._size)
        chosen = self._strata[int(self._round(round_)[place])]
        if attempt == 0:
            return chosen
        until = self._of_region[chosen.region]
        point = generator(self._seed, Purpose.SUBSTITUTE, ordinal, attempt).random()
        which = min(int(np.searchsorted(until, point, side="right")), len(until) - 1)
        return self._strata[self._first[chosen.region] + which]

    @property
    def regions(self) -> tuple[int, ...]:
        """The classes that have any."""
        return tuple(sorted({one.region for one in self._strata}))

    def strata_of(self, region: int) -> tuple[Stratum, ...]:
        """Those of a class."""
        return tuple(one for one in self._strata if one.region == region)

    def _drawn(self, round_: int) -> npt.NDArray[np.intp]:
        rng = generator(self._seed, Purpose.STRATUM, round_)
        points = (rng.permutation(self._size) + rng.random(self._size)) / self._size
        which = np.searchsorted(self._ends, points * self._ends[-1], side="right")
        last = len(self._strata) - 1
        return np.asarray(np.minimum(which, last), np.intp)
