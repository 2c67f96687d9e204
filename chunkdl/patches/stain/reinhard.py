"""Reinhard's colour transfer, of whole batches.

Reinhard et al., "Color transfer between images", IEEE Computer Graphics and Applications 21(5),
2001, in CIE LAB as slideflow has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.maths import Array, Maths, Planes
from chunkdl.patches.arithmetic.planes import take
from chunkdl.patches.stain import presets
from chunkdl.patches.stain.colour_spaces import lab_of, rgb_of
from chunkdl.patches.stain.normaliser import (
    Normaliser,
    Targets,
    brightened,
    chosen,
    frozen,
    numbers,
    preset_of,
)

LEAST_DEVIATION = 0.01
"""A standard deviation in LAB below which a channel does not vary."""


@dataclass(frozen=True, slots=True)
class Reinhard(Normaliser):
    """Gives the three channels of CIE LAB the mean and the standard deviation of the target.

    The statistics are those of all pixels of an image. A channel that does not vary is shifted; an
    image of one colour is returned as it is. Glass with noise is not glass to this method: it gets
    the colours of the target unless `mask` leaves it out.

    Attributes:
        preset: "v1", "v2" or "v3" of slideflow, which sets means and deviations; None: they are
            given, or "v3".
        fast: without the standardisation of brightness that comes first otherwise (slideflow's
            ``reinhard_fast``).
        mask: change only pixels of a lightness below `lightness` (slideflow's ``reinhard_mask``).
        means: of L, a and b in the target.
        deviations: standard deviations of L, a and b in the target.
        lightness: share of full lightness, 0 to 1.

    Raises:
        ConfigError: there is no such preset, or a number is out of its bounds.
    """

    preset: str | None = None
    fast: bool = False
    mask: bool = False
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    lightness: float = 0.93

    name: ClassVar[str] = "reinhard"

    def __post_init__(self) -> None:
        known = presets.REINHARD_FAST if self.fast else presets.REINHARD
        given = self.means, self.deviations
        called = "means and deviations"
        preset, (means, deviations) = chosen(self.name, known, self.preset, given, called)
        centres = numbers("stain normaliser reinhard: means", means, (3,))
        widths = numbers("stain normaliser reinhard: deviations", deviations, (3,))
        lightness = numbers("stain normaliser reinhard: lightness", self.lightness, ())
        if (widths < 0).any() or not 0 <= lightness <= 1:
            raise ConfigError(
                "stain normaliser reinhard: deviations must be at least 0 and lightness from 0 to "
                f"1, not {widths.tolist()} and {float(lightness)}"
            )
        object.__setattr__(self, "preset", preset)
        object.__setattr__(self, "means", frozen(centres))
        object.__setattr__(self, "deviations", frozen(widths))
        object.__setattr__(self, "lightness", float(lightness))

    @classmethod
    def fitted_to(cls, image: Any, **parameters: Any) -> Self:
        """The normaliser whose target is an image.

        Args:
            image: one image; see `normalised`.
            **parameters: fast, mask and lightness.

        Raises:
            ConfigError: it is of one colour, or no image.
        """
        like = cls(**parameters)
        taken = take(image)
        if not taken.alone:
            raise ConfigError("a normaliser is fitted to one image, without an axis of rows")
        with taken.quiet():
            lab = lab_of(taken.maths, like._pixels(taken.maths, taken.planes))
            means, deviations = _statistics(taken.maths, lab)
        if float(deviations.max()) < LEAST_DEVIATION:
            raise ConfigError(
                "this image is of one colour; fit the normaliser to an image with both stains"
            )
        centres, widths = frozen(means[0].tolist()), frozen(deviations[0].tolist())
        return cls(None, like.fast, like.mask, centres, widths, like.lightness)

    @property
    def target(self) -> Targets:
        """Means and deviations, (1, 6)."""
        return np.array([[*self.means, *self.deviations]])

    def spread(self, preset: str) -> Targets:
        """See `Normaliser.spread`."""
        times = preset_of("reinhard", presets.SPREAD_TIMES, preset)
        known = presets.REINHARD_FAST_SPREAD if self.fast else presets.REINHARD_SPREAD
        return times * np.array([[*known[0], *known[1]]])

    def onto(self, maths: Maths, planes: Planes, targets: Targets) -> Planes:
        """See `Normaliser.onto`."""
        pixels = self._pixels(maths, planes)
        lab = lab_of(maths, pixels)
        means, deviations = _statistics(maths, lab)
        aims = maths.array(targets)
        centres, widths = aims[:, :3], maths.clip(aims[:, 3:], 0, None)
        varies = deviations > LEAST_DEVIATION
        scale = maths.where(varies, widths / maths.where(varies, deviations, 1.0), 1.0)
        moved = (lab - maths.float32(means)[:, :, None]) * maths.float32(scale)[:, :, None]
        made = rgb_of(maths, moved + maths.float32(centres)[:, :, None])
        if self.mask:
            made = maths.where(lab[:, :1] < 100 * self.lightness, made, pixels)
        seen = (deviations > LEAST_DEVIATION).any(1)[:, None, None, None]
        return maths.where(seen, made.reshape(planes.shape), planes)

    def _pixels(self, maths: Maths, planes: Planes) -> Array:
        pixels = planes.reshape(planes.shape[0], 3, -1)
        return pixels if self.fast else brightened(maths, pixels)


def _statistics(maths: Maths, lab: Array) -> tuple[Array, Array]:
    """Means and standard deviations of each channel, float64 (B, 3)."""
    count = lab.shape[-1]
    means = maths.total(lab) / count
    apart = lab - maths.float32(means)[:, :, None]
    return means, maths.sqrt(maths.total(apart * apart) / count)
