"""Macenko's stain normalisation, of whole batches.

Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009, in
the form of torchstain and slideflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.maths import Array, Maths, Planes, percentile
from chunkdl.patches.arithmetic.planes import take
from chunkdl.patches.stain import presets
from chunkdl.patches.stain.normaliser import (
    Normaliser,
    Targets,
    brightened,
    chosen,
    counted,
    frozen,
    numbers,
    preset_of,
)

LEAST_PIXELS = 16
"""Stained pixels without which an image has no stains."""
LEAST_VARIANCE = 1e-4
"""Of optical density along the second principal axis; less is the rounding of levels."""
LEAST_GAP = 1e-5
"""Between the variances along the second and the third axis; with less, the second is chance."""
LEAST_SINE_SQUARED = 1e-4
"""Of the angle between the two stains: half a degree."""
LEAST_CONCENTRATION = 1e-3
"""A 99th percentile of a stain below which it is not there."""
TORCHSTAIN_LIGHT = 240.0
BEYOND = 10.0
"""More than any angle: sorts pixels that are not stained behind the others."""


@dataclass(frozen=True, slots=True)
class Macenko(Normaliser):
    """Finds the two stains of an image, and gives it those of the target.

    The optical density is -ln((I + 1) / light). The stains are the directions of the `angle` and
    100 - `angle` percentiles of the angles in the plane of the two largest principal components of
    stained pixels; that with more red is haematoxylin. Concentrations are least squares, and are
    scaled so that their 99th percentiles are the target's.

    Attributes:
        preset: "v1", "v2" or "v3" of slideflow, or "torchstain" (with fast=True and light=240),
            which sets matrix and concentrations; None: they are given, or "v3".
        fast: without the standardisation of brightness that comes first otherwise (slideflow's
            ``macenko_fast``).
        matrix: optical densities of red, green and blue (rows) of haematoxylin and eosin (columns)
            of the target.
        concentrations: their 99th percentiles in the target.
        light: the level of glass, 1 to 255.
        density: pixels with a colour of less optical density are not stained.
        angle: percentile of the angles, 0 to 50.

    Raises:
        ConfigError: there is no such preset, or a number is out of its bounds.
    """

    preset: str | None = None
    fast: bool = False
    matrix: tuple[tuple[float, ...], ...] = ()
    concentrations: tuple[float, ...] = ()
    light: float = 255.0
    density: float = 0.15
    angle: float = 1.0

    name: ClassVar[str] = "macenko"

    def __post_init__(self) -> None:
        if self.preset == "torchstain":
            object.__setattr__(self, "fast", True)
            object.__setattr__(self, "light", TORCHSTAIN_LIGHT)
        known = presets.MACENKO_FAST if self.fast else presets.MACENKO
        given = self.matrix, self.concentrations
        called = "matrix and concentrations"
        preset, (matrix, concentrations) = chosen(self.name, known, self.preset, given, called)
        found = numbers("stain normaliser macenko: matrix", matrix, (3, 2))
        limits = numbers("stain normaliser macenko: concentrations", concentrations, (2,))
        for name, least, most in (("light", 1, 255), ("density", 0, 5), ("angle", 0, 49.9)):
            value = numbers(f"stain normaliser macenko: {name}", getattr(self, name), ())
            if not least <= value <= most:
                raise ConfigError(
                    f"stain normaliser macenko: {name} must be from {least} to {most}, not {value}"
                )
            object.__setattr__(self, name, float(value))
        if (limits <= 0).any() or np.linalg.matrix_rank(found) < 2:
            raise ConfigError(
                "stain normaliser macenko: the two stains of the target must differ, and have "
                f"concentrations above 0, not {found.tolist()} and {limits.tolist()}"
            )
        object.__setattr__(self, "preset", preset)
        object.__setattr__(self, "matrix", frozen(found))
        object.__setattr__(self, "concentrations", frozen(limits))

    @classmethod
    def fitted_to(cls, image: Any, **parameters: Any) -> Self:
        """The normaliser whose target is an image.

        Args:
            image: one image; see `normalised`.
            **parameters: fast, light, density and angle.

        Raises:
            ConfigError: its stains cannot be told, or it is no image.
        """
        like = cls(**parameters)
        taken = take(image)
        if not taken.alone:
            raise ConfigError("a normaliser is fitted to one image, without an axis of rows")
        with taken.quiet():
            found = like._looked_at(taken.maths, like._pixels(taken.maths, taken.planes))
        if not bool(found.seen[0]):
            raise ConfigError(
                "the stains of this image cannot be told: it is glass, black or of one colour; fit "
                "the normaliser to an image with both stains"
            )
        matrix = frozen(found.matrix[0].tolist())
        limits = frozen(found.limits[0].tolist())
        return cls(None, like.fast, matrix, limits, like.light, like.density, like.angle)

    @property
    def target(self) -> Targets:
        """Matrix row by row and concentrations, (1, 8)."""
        return np.array([[*np.ravel(self.matrix), *self.concentrations]])

    def spread(self, preset: str) -> Targets:
        """See `Normaliser.spread`."""
        times = preset_of("macenko", presets.SPREAD_TIMES, preset)
        known = presets.MACENKO_FAST_SPREAD if self.fast else presets.MACENKO_SPREAD
        return times * np.array([[*np.ravel(known[0]), *known[1]]])

    def onto(self, maths: Maths, planes: Planes, targets: Targets) -> Planes:
        """See `Normaliser.onto`."""
        found = self._looked_at(maths, self._pixels(maths, planes))
        aims = maths.array(targets)
        matrix, limits = aims[:, :6].reshape(-1, 3, 2), aims[:, 6:]
        # One matrix for both steps: from the concentrations found to the densities wanted.
        scaled = maths.float32(matrix * (limits / found.limits)[:, None, :])
        haematoxylin, eosin = found.concentrations
        colours = [
            haematoxylin * scaled[:, colour, 0, None] + eosin * scaled[:, colour, 1, None]
            for colour in range(3)
        ]
        light = self.light / 255
        densities = maths.clip(maths.stack(colours, 1), -10, None)
        made = maths.clip(light * maths.exp(-densities), 0, 1)
        return maths.where(found.seen[:, None, None, None], made.reshape(planes.shape), planes)

    def _pixels(self, maths: Maths, planes: Planes) -> Array:
        pixels = planes.reshape(planes.shape[0], 3, -1)
        return pixels if self.fast else brightened(maths, pixels)

    def _looked_at(self, maths: Maths, pixels: Array) -> _Stains:
        densities = -maths.log((pixels * 255 + 1) / self.light)
        is_stained = (densities >= self.density).all(1)
        count = maths.float64(is_stained.sum(1))
        plane, is_plane = _principal_plane(maths, densities, is_stained, count)
        across, along = (_dot(maths, densities, plane[:, :, axis]) for axis in (0, 1))
        angles = maths.arctan2(along, across)
        ordered = maths.sorted(maths.where(is_stained, angles, BEYOND))
        at_least_one = maths.clip(count, 1, None)
        ends = []
        for per_cent in (self.angle, 100 - self.angle):
            end = percentile(maths, ordered, at_least_one, per_cent)
            ends.append(
                plane[:, :, 0] * maths.cos(end)[:, None] + plane[:, :, 1] * maths.sin(end)[:, None]
            )
        is_first = (ends[0][:, 0] > ends[1][:, 0])[:, None]
        haematoxylin = maths.where(is_first, ends[0], ends[1])
        eosin = maths.where(is_first, ends[1], ends[0])
        # Of unit vectors the determinant of the normal equations is the square of the sine.
        cosine = (haematoxylin * eosin).sum(1)
        sine_squared = 1 - cosine * cosine
        differ = sine_squared > LEAST_SINE_SQUARED
        by = maths.where(differ, sine_squared, 1.0)[:, None]
        concentrations = (
            _dot(maths, densities, (haematoxylin - eosin * cosine[:, None]) / by),
            _dot(maths, densities, (eosin - haematoxylin * cosine[:, None]) / by),
        )
        all_pixels = counted(maths, concentrations[0])
        limits = maths.stack(
            [percentile(maths, maths.sorted(one), all_pixels, 99) for one in concentrations], 1
        )
        is_there = (limits > LEAST_CONCENTRATION).all(1)
        return _Stains(
            matrix=maths.stack([haematoxylin, eosin], 2),
            concentrations=concentrations,
            limits=maths.clip(limits, LEAST_CONCENTRATION, None),
            seen=(count >= LEAST_PIXELS) & is_plane & differ & is_there,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Stains:
    """What was found in images.

    Attributes:
        matrix: float64 (B, 3, 2), haematoxylin first.
        concentrations: of both, float32 (B, N).
        limits: their 99th percentiles, float64 (B, 2).
        seen: whether the stains can be told, (B,).
    """

    matrix: Array
    concentrations: tuple[Array, Array]
    limits: Array
    seen: Array


def _dot(maths: Maths, colours: Array, weights: Array) -> Array:
    """(B, 3, N) and (B, 3) as (B, N), in float32 and one order."""
    red, green, blue = (
        colours[:, index] * maths.float32(weights[:, index, None]) for index in range(3)
    )
    return red + green + blue


def _principal_plane(
    maths: Maths, densities: Array, is_stained: Array, count: Array
) -> tuple[Array, Array]:
    """The second and the first principal axis of stained pixels, float64 (B, 3, 2), and whether
    there are two, (B,).

    They point to where the pixels are, so that no angle lies at the seam of the circle.
    """
    parts = [maths.where(is_stained, densities[:, colour], 0.0) for colour in range(3)]
    n = maths.clip(count, 2, None)
    means = [maths.total(part) / n for part in parts]
    products = {
        (one, other): maths.total(parts[one] * parts[other]) / n - means[one] * means[other]
        for one in range(3)
        for other in range(one, 3)
    }
    rows = [
        maths.stack([products[min(one, other), max(one, other)] for other in range(3)], 1)
        for one in range(3)
    ]
    variances, axes = maths.eigen(maths.stack(rows, 1))
    third, second = variances[:, 0], variances[:, 1]
    is_plane = (second > LEAST_VARIANCE) & (second - third > LEAST_GAP)
    plane = axes[:, :, 1:]
    mean = maths.stack(means, 1)[:, :, None]
    sign = maths.where((plane * mean).sum(1) < 0, -1.0, 1.0)[:, None, :]
    return plane * maths.float64(sign), is_plane
