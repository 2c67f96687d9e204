"""Which BigChunk, and which call of it, every row of the stream is; in closed form.

P BigChunks are *open* at a time, each for exactly n SmallChunks. Draw s of the stream belongs to
round t = s div P. In every round each open place j is used once, in an order that is a keyed
permutation of the round. Place j has the offset o_j = ⌊n(P−1−j)/P⌋, which spreads replacements
evenly and makes BigChunks needed in the order of their ordinals:

    generation g = (t + o_j) div n    ordinal k = g·P + j    call = (t + o_j) mod n

Any B rows in a row therefore hold at most ⌈B/P⌉ + 1 of one BigChunk, and a batch less
(`most_rows_of_one`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

from chunkdl.sampling.seeding import Purpose, generator


def most_rows_of_one(rows: int, places: int) -> int:
    """The most rows of one BigChunk in a batch of so many rows.

    Batches begin at multiples of B, and so at multiples of gcd(B, P) within a round. The latest
    such beginning is P − gcd(B, P), so a batch touches at most ⌈(P − gcd(B, P) + B)/P⌉ rounds, each
    of which has one row of a place.
    """
    return -(-(places - gcd(rows, places) + rows) // places)


@dataclass(frozen=True, slots=True)
class Rotation:
    """The rotation of a stream.

    Attributes:
        seed: of the stream.
        places: BigChunks open at a time, P.
        calls: SmallChunks of each BigChunk, n.
    """

    seed: int
    places: int
    calls: int

    def offset(self, place: int) -> int:
        """o_j: the call with which place j starts."""
        return self.calls * (self.places - 1 - place) // self.places

    def rows(
        self, first_draw: int, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ordinal and call of `count` draws from `first_draw` on, each int64 of shape (count,)."""
        first_round = first_draw // self.places
        last_round = (first_draw + count - 1) // self.places
        places = np.concatenate(
            [
                generator(self.seed, Purpose.ROTATION, t).permutation(self.places)
                for t in range(first_round, last_round + 1)
            ]
        )
        rounds = np.repeat(np.arange(first_round, last_round + 1), self.places)
        skip = first_draw - first_round * self.places
        place, round_ = places[skip : skip + count], rounds[skip : skip + count]
        offset = self.calls * (self.places - 1 - place) // self.places
        generation, call = np.divmod(round_ + offset, self.calls)
        return generation * self.places + place, call

    def uses(self, ordinal: int) -> int:
        """How many draws BigChunk `ordinal` serves: n, less in the first generation."""
        generation, place = divmod(ordinal, self.places)
        return self.calls - (self.offset(place) if generation == 0 else 0)

    def first_draw(self, ordinal: int) -> int:
        """First draw of the round in which BigChunk `ordinal` is first used."""
        generation, place = divmod(ordinal, self.places)
        return max(0, generation * self.calls - self.offset(place)) * self.places

    def used_before(self, ordinal: int, draw: int) -> int:
        """How many of the uses of BigChunk `ordinal` come before `draw`.

        Whole rounds are counted; the round that `draw` cuts is looked at.
        """
        place = ordinal % self.places
        start = self.first_draw(ordinal) // self.places
        round_, within = divmod(draw, self.places)
        used = min(max(0, round_ - start), self.uses(ordinal))
        if within and start <= round_ < start + self.uses(ordinal):
            order = generator(self.seed, Purpose.ROTATION, round_).permutation(self.places)
            used += int(place in order[:within])
        return used

    def first_needed(self, draw: int) -> int:
        """The smallest ordinal that is used at `draw` or later."""
        round_ = draw // self.places
        ordinals = [
            (round_ + self.offset(place)) // self.calls * self.places + place
            for place in range(self.places)
        ]
        return min(
            k if self.used_before(k, draw) < self.uses(k) else k + self.places for k in ordinals
        )
