"""Augmentation of stains: in the colour space of three dyes, and around the fit of a normaliser."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.maths import Array, Maths, Planes
from chunkdl.patches.augmentation.operation import Operation, set_number
from chunkdl.patches.augmentation.random_numbers import Draws, normals
from chunkdl.patches.stain.colour_spaces import HED_OF_RGB, RGB_OF_HED, mixed
from chunkdl.patches.stain.normaliser import Normaliser

DARKEST = 1e-6
"""What stands for black, which has no logarithm."""


@dataclass(frozen=True, slots=True)
class HedJitter(Operation):
    """Scales and shifts haematoxylin, eosin and DAB, as Tellez et al. and wsistream do.

    The optical densities S = -ln(P + 1e-6) M^-1 become a S + b, with a from 1 - sigma to 1 + sigma
    and b from -sigma_bias to sigma_bias for each dye and row; P' = exp(-S' M) - 1e-6, cut to 0
    to 1.
    (Tellez et al., IEEE TMI 2018, arXiv 1808.05896. 0.05 is their "light", 0.2 their "strong".)

    Attributes:
        sigma: of the factors, 0 to 1.
        sigma_bias: of the shifts, at least 0; None: as `sigma`.
        p: probability, 0 to 1.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    sigma: float = 0.05
    sigma_bias: float | None = None
    p: float = 1.0

    name: ClassVar[str] = "hed"
    draws: ClassVar[int] = 6

    def __post_init__(self) -> None:
        set_number(self, "sigma", 0, 1)
        if self.sigma_bias is not None:
            set_number(self, "sigma_bias", 0, 10)
        set_number(self, "p", 0, 1)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return self.p

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`."""
        bias = self.sigma if self.sigma_bias is None else self.sigma_bias
        scales = 1 + self.sigma * (2 * draws[:, :3] - 1)
        shifts = bias * (2 * draws[:, 3:] - 1)
        # One matrix and one shift for the way into the dyes and back.
        matrices = HED_OF_RGB[None] * scales[:, None, :] @ RGB_OF_HED[None]
        densities = -maths.log(planes.reshape(planes.shape[0], 3, -1) + DARKEST)
        changed = _by_row(maths, densities, matrices, shifts @ RGB_OF_HED)
        return maths.clip(maths.exp(-changed) - DARKEST, 0, 1).reshape(planes.shape)


@dataclass(frozen=True, slots=True)
class HedShift(Operation):
    """Shifts haematoxylin, eosin and DAB, as OpenMidnight does.

    The densities are those of scikit-image's ``rgb2hed``: in units of ln(10^6), and not below 0.
    So the 0.05 of OpenMidnight are 0.69 of `HedJitter`, and colours that the three dyes cannot mix
    change also where the shift is 0.

    Attributes:
        shift: largest, in either direction, at least 0.
        p: probability, 0 to 1.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    shift: float = 0.05
    p: float = 0.5

    name: ClassVar[str] = "hed-openmidnight"
    draws: ClassVar[int] = 3

    def __post_init__(self) -> None:
        set_number(self, "shift", 0, 1)
        set_number(self, "p", 0, 1)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return self.p

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`."""
        densities = -maths.log(maths.clip(planes.reshape(planes.shape[0], 3, -1), DARKEST, None))
        dyes = maths.clip(maths.stack(mixed(HED_OF_RGB.T, densities), 1), 0, None)
        shifts = -log(DARKEST) * self.shift * (2 * draws - 1)
        dyes = dyes + maths.array(shifts.astype(np.float32))[:, :, None]
        changed = maths.stack(mixed(RGB_OF_HED.T, dyes), 1)
        return maths.clip(maths.exp(-changed), 0, 1).reshape(planes.shape)


@dataclass(frozen=True, slots=True)
class StainJitter(Operation):
    """Normalises each row to a target of its own, around the target of a normaliser (slideflow).

    The numbers of the target get independent normal shifts. So it takes the place of the
    normaliser; to do both normalises twice.

    Attributes:
        normaliser: `Macenko` or `Reinhard`.
        preset: of slideflow's standard deviations: "v2" is three times that of the fits of 50,000
            tiles of TCGA, "v1" five times.
        p: probability, 0 to 1.

    Raises:
        ConfigError: it is no normaliser, there is no such preset, or p is no probability.
    """

    normaliser: Normaliser
    preset: str = "v2"
    p: float = 1.0

    name: ClassVar[str] = "stain"
    draws: ClassVar[int] = 8

    def __post_init__(self) -> None:
        if not isinstance(self.normaliser, Normaliser):
            raise ConfigError(
                f"operation stain: normaliser must be Macenko or Reinhard, not "
                f"{self.normaliser!r:.80}"
            )
        self.normaliser.spread(self.preset)
        set_number(self, "p", 0, 1)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return self.p

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`."""
        target = self.normaliser.target
        shifts = normals(draws)[:, : target.shape[1]] * self.normaliser.spread(self.preset)
        return self.normaliser.onto(maths, planes, target + shifts)


def _by_row(maths: Maths, colours: Array, matrices: Draws, shifts: Draws) -> Array:
    """Colours (B, 3, N) by a matrix (B, 3, 3) and a shift (B, 3) of each row."""
    factors, terms = (maths.array(one.astype(np.float32)) for one in (matrices, shifts))
    made = [
        colours[:, 0] * factors[:, 0, index, None]
        + colours[:, 1] * factors[:, 1, index, None]
        + colours[:, 2] * factors[:, 2, index, None]
        + terms[:, index, None]
        for index in range(3)
    ]
    return maths.stack(made, 1)
