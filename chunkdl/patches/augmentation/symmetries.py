"""The eight symmetries of a square, exactly uniform, and slideflow's parts of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.maths import Maths, Planes, Rows
from chunkdl.patches.augmentation.operation import Operation, by_groups, set_number
from chunkdl.patches.augmentation.random_numbers import Draws


def turned(maths: Maths, planes: Planes, quarters: int) -> Planes:
    """Turned to the left by so many quarters, as `numpy.rot90` does it."""
    if quarters == 2:
        return maths.flipped(maths.flipped(planes, 2), 3)
    if quarters:
        return maths.flipped(maths.swapped(planes, 2, 3), 2 if quarters == 1 else 3)
    return planes


def _check_square(planes: Planes) -> None:
    if planes.shape[2] != planes.shape[3]:
        raise ConfigError(
            f"images of {planes.shape[3]} x {planes.shape[2]} pixels cannot be turned by a quarter "
            "in one batch; give square ones, or flip them only (Flip)"
        )


@dataclass(frozen=True, slots=True)
class Symmetry(Operation):
    """One of the eight symmetries of a square, each with the probability 1/8.

    (Two flips and a turn with a half each, as in wsistream, give four of them 1/6 and four 1/12.)
    """

    name: ClassVar[str] = "symmetry"
    draws: ClassVar[int] = 1

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return 1.0

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`; images must be square."""

        def change(some: Planes, rows: Rows, number: int) -> Planes:
            turns = turned(maths, some, number % 4)
            return maths.flipped(turns, 3) if number >= 4 else turns

        _check_square(planes)
        return by_groups(maths, planes, np.floor(draws[:, 0] * 8).astype(np.int64), change)


@dataclass(frozen=True, slots=True)
class QuarterTurn(Operation):
    """A turn by 0, 90, 180 or 270 degrees, each with the probability 1/4 (slideflow's "r")."""

    name: ClassVar[str] = "quarter-turn"
    draws: ClassVar[int] = 1

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return 1.0

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`; images must be square."""

        def change(some: Planes, rows: Rows, number: int) -> Planes:
            return turned(maths, some, number)

        _check_square(planes)
        return by_groups(maths, planes, np.floor(draws[:, 0] * 4).astype(np.int64), change)


@dataclass(frozen=True, slots=True)
class Flip(Operation):
    """A mirror image.

    Attributes:
        axis: "x": left and right change places; "y": top and bottom do.
        p: probability, 0 to 1.

    Raises:
        ConfigError: there is no such axis, or p is no probability.
    """

    axis: str = "x"
    p: float = 0.5

    name: ClassVar[str] = "flip"
    draws: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.axis not in ("x", "y"):
            raise ConfigError(f'operation flip: axis must be "x" or "y", not {self.axis!r:.80}')
        set_number(self, "p", 0, 1)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return self.p

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`."""
        return maths.flipped(planes, 3 if self.axis == "x" else 2)
