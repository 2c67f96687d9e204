"""Sharpness and grain: Gaussian blur, and noise."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.patches.arithmetic.maths import Array, Maths, Planes
from chunkdl.patches.augmentation.operation import (
    Operation,
    a_row,
    between,
    set_ends,
    set_number,
)
from chunkdl.patches.augmentation.random_numbers import Draws, noise


@dataclass(frozen=True, slots=True)
class Blur(Operation):
    """Gaussian blur; the image is mirrored at its edges.

    The kernel reaches three of the largest standard deviations, so none of them is cut.

    Attributes:
        sigma_px: between which standard deviations are drawn, in pixels, above 0.
        p: probability, 0 to 1.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    sigma_px: tuple[float, float] = (0.1, 2.0)
    p: float = 0.5

    name: ClassVar[str] = "blur"
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        set_ends(self, "sigma_px", 0.01, 100)
        set_number(self, "p", 0, 1)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return self.p

    @property
    def reach_px(self) -> int:
        """Of the kernel to either side."""
        return ceil(3 * self.sigma_px[1])

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`."""
        sigmas = between(draws, 0, self.sigma_px)[:, None]
        apart = np.arange(-self.reach_px, self.reach_px + 1)
        kernels = np.exp(-0.5 * (apart / sigmas) ** 2)
        kernels /= kernels.sum(1, keepdims=True)
        weights = [a_row(maths, kernels[:, index]) for index in range(len(apart))]
        for axis in (2, 3):
            planes = _weighed(maths, planes, weights, axis)
        return planes


def _weighed(maths: Maths, planes: Planes, weights: list[Array], axis: int) -> Planes:
    pixels, reach = planes.shape[axis], len(weights) // 2
    wide = maths.take(planes, _mirrored(pixels, reach), axis)
    total = None
    for index, weight in enumerate(weights):
        shifted = wide[:, :, index : index + pixels] if axis == 2 else None
        part = (wide[..., index : index + pixels] if shifted is None else shifted) * weight
        total = part if total is None else total + part
    return total


def _mirrored(pixels: int, reach: int) -> npt.NDArray[np.intp]:
    """Which pixel stands at each place from `-reach` on; the edge is not repeated."""
    turn = max(1, 2 * (pixels - 1))
    places = np.arange(-reach, pixels + reach) % turn
    return np.minimum(places, turn - places) if pixels > 1 else places * 0


@dataclass(frozen=True, slots=True)
class Noise(Operation):
    """Gaussian noise, independent for each pixel and colour.

    Attributes:
        sigma: between which standard deviations are drawn, of a range of 0 to 1.
        p: probability, 0 to 1.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    sigma: tuple[float, float] = (0.0, 0.05)
    p: float = 0.5

    name: ClassVar[str] = "noise"
    draws: ClassVar[int] = 3

    def __post_init__(self) -> None:
        set_ends(self, "sigma", 0, 1)
        set_number(self, "p", 0, 1)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return self.p

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`."""
        height, width = planes.shape[2:]
        grain = noise(maths, draws[:, 1:], height * width).reshape(planes.shape)
        strength = a_row(maths, between(draws, 0, self.sigma))
        return maths.clip(planes + grain * strength, 0, 1)
