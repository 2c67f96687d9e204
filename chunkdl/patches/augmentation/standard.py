"""The numbers that a network wants: levels, 0 to 1, -1 to 1, or by mean and standard deviation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.maths import Array
from chunkdl.patches.arithmetic.planes import Taken
from chunkdl.patches.stain.normaliser import frozen, numbers

LEVELS = "uint8"
BY_NAME: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "[0,1]": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "[-1,1]": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "h-optimus": ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)),
}
"""Means and standard deviations of red, green and blue, of a range of 0 to 1."""


@dataclass(frozen=True, slots=True)
class Standard:
    """What is made of pixels before a network sees them: float32 (pixel - mean) / deviation.

    Attributes:
        to: "uint8" (levels, rounded), "[0,1]", "[-1,1]", "imagenet" or "h-optimus" (the card of
            H-optimus-0), which sets mean and deviation; None: they are given.
        mean: of red, green and blue, of a range of 0 to 1.
        deviation: standard deviations of red, green and blue, above 0.

    Raises:
        ConfigError: there is none of that name, or mean or deviation are no such numbers.
    """

    to: str | None = None
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        mean, deviation = self.mean, self.deviation
        if self.to is not None:
            if self.to not in (LEVELS, *BY_NAME):
                known = ", ".join(map(repr, (LEVELS, *BY_NAME)))
                raise ConfigError(f"there is no standard {self.to!r:.80}; choose one of {known}")
            chosen = BY_NAME.get(self.to, BY_NAME["[0,1]"])
            if (mean, deviation) not in (((), ()), chosen):
                raise ConfigError("give a standard by name, or mean and deviation")
            mean, deviation = chosen
        centre = numbers("the mean of a standard", mean, (3,))
        width = numbers("the deviation of a standard", deviation, (3,))
        if (width <= 0).any():
            raise ConfigError(f"the deviation of a standard must be above 0, not {width.tolist()}")
        object.__setattr__(self, "mean", frozen(centre))
        object.__setattr__(self, "deviation", frozen(width))

    def of(self, taken: Taken) -> Array:
        """The images that were taken in, in this standard and in their layout."""
        maths = taken.maths
        if self.to == LEVELS:
            return taken.laid_out(taken.planes, maths.uint8)
        mean, width = (
            maths.array(np.array(one, np.float32).reshape(1, 3, 1, 1))
            for one in (self.mean, self.deviation)
        )
        return taken.standardised((taken.planes - mean) / width, maths.floats)
