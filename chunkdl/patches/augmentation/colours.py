"""Colours of a pixel: jitter as torchvision means it, grey, and solarise."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import numpy as np

from chunkdl.patches.arithmetic.maths import Array, Maths, Planes, Rows
from chunkdl.patches.augmentation.operation import Operation, a_row, between, by_groups, set_number
from chunkdl.patches.augmentation.random_numbers import Draws

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey, of ITU-R BT.601 as torchvision rounds them."""


def grey(planes: Planes) -> Planes:
    """The brightness of each pixel, (B, 1, H, W)."""
    red, green, blue = (planes[:, index : index + 1] for index in range(3))
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def blended(maths: Maths, planes: Planes, other: Array, factors: Array) -> Planes:
    """Planes moved away from others (factors above 1), or towards them (below 1)."""
    return maths.clip(planes * factors + other * (1 - factors), 0, 1)


def hue_shifted(maths: Maths, planes: Planes, turns: Array) -> Planes:
    """Planes whose HSV hue is turned by a share of the circle; greys stay.

    Args:
        maths: of the planes.
        planes: float32 (B, 3, H, W), 0 to 1.
        turns: (B, 1, 1, 1).
    """
    red, green, blue = (planes[:, index : index + 1] for index in range(3))
    value = maths.maximum(maths.maximum(red, green), blue)
    chroma = value - maths.minimum(maths.minimum(red, green), blue)
    by = maths.where(chroma > 0, chroma, 1.0)
    sixths = maths.where(
        value == red,
        (green - blue) / by,
        maths.where(value == green, (blue - red) / by + 2, (red - green) / by + 4),
    )
    sixths = sixths + 6 * turns
    parts = []
    for offset in (5.0, 3.0, 1.0):
        place = sixths + offset
        place = place - 6 * maths.floor(place / 6)
        parts.append(value - chroma * maths.clip(maths.minimum(place, 4 - place), 0, 1))
    return maths.joined(parts, 1)


@dataclass(frozen=True, slots=True)
class ColourJitter(Operation):
    """Brightness, contrast, saturation and hue in random order (torchvision's ``ColorJitter``).

    The defaults are those of OpenMidnight. Factors are drawn from max(0, 1 - strength) to
    1 + strength; contrast moves pixels away from the mean grey of the image.

    Attributes:
        brightness, contrast, saturation: strengths, at least 0.
        hue: largest turn in either direction, 0 to 0.5 of the circle.
        p: probability, 0 to 1.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.1
    hue: float = 0.05
    p: float = 0.8

    name: ClassVar[str] = "jitter"
    draws: ClassVar[int] = 5

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            set_number(self, name, 0, 100)
        set_number(self, "hue", 0, 0.5)
        set_number(self, "p", 0, 1)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return self.p

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`."""
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        changes = [_brightness, _contrast, _saturation, hue_shifted]
        amounts = [
            between(draws, index, (max(0.0, 1 - strength), 1 + strength))
            for index, strength in enumerate(strengths[:3])
        ]
        amounts.append(between(draws, 3, (-self.hue, self.hue)))
        orders = np.array(list(permutations(range(4))))
        order = orders[np.floor(draws[:, 4] * len(orders)).astype(np.int64)]

        def change(some: Planes, rows: Rows, number: int) -> Planes:
            index = number - 1
            return changes[index](maths, some, a_row(maths, amounts[index][rows]))

        weak = [index for index, strength in enumerate(strengths) if not strength]
        for turn in range(4):
            which = np.where(np.isin(order[:, turn], weak), 0, order[:, turn] + 1)
            planes = by_groups(maths, planes, which, change)
        return planes


def _brightness(maths: Maths, planes: Planes, factors: Array) -> Planes:
    return maths.clip(planes * factors, 0, 1)


def _contrast(maths: Maths, planes: Planes, factors: Array) -> Planes:
    levels = grey(planes).reshape(planes.shape[0], -1)
    mean = maths.float32(maths.total(levels) / levels.shape[-1])[:, None, None, None]
    return blended(maths, planes, mean, factors)


def _saturation(maths: Maths, planes: Planes, factors: Array) -> Planes:
    return blended(maths, planes, grey(planes), factors)


@dataclass(frozen=True, slots=True)
class Grey(Operation):
    """Without colour: each pixel has its brightness in all three colours.

    Attributes:
        p: probability, 0 to 1.

    Raises:
        ConfigError: p is no probability.
    """

    p: float = 0.2

    name: ClassVar[str] = "grey"
    draws: ClassVar[int] = 0

    def __post_init__(self) -> None:
        set_number(self, "p", 0, 1)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return self.p

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`."""
        return maths.joined([grey(planes)] * 3, 1)


@dataclass(frozen=True, slots=True)
class Solarise(Operation):
    """Values from a threshold on are inverted, in each colour by itself.

    Attributes:
        threshold: 0 to 1; the default is 128 of 255.
        p: probability, 0 to 1.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    threshold: float = 0.5
    p: float = 0.2

    name: ClassVar[str] = "solarise"
    draws: ClassVar[int] = 0

    def __post_init__(self) -> None:
        set_number(self, "threshold", 0, 1)
        set_number(self, "p", 0, 1)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return self.p

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`."""
        return maths.where(planes >= self.threshold, 1 - planes, planes)
