"""What a stain normaliser is: a frozen value that gives images the stains of its target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.maths import Array, Maths, Planes, percentile
from chunkdl.patches.arithmetic.planes import changed

Targets = npt.NDArray[np.float64]
"""Numbers of a target, one row an image or one for all: (B, n) or (1, n)."""
Value = TypeVar("Value")
Pair = tuple[Any, Any]
DEFAULT = "v3"


class Normaliser(ABC):
    """Gives images the stains of its target.

    An image whose stains cannot be told is returned as it is: glass, one colour, black.
    """

    name: ClassVar[str]
    """In a file, and in messages."""

    def normalised(self, images: Any) -> Array:
        """Images with the stains of the target; each by its own stains, whatever lies beside it.

        Args:
            images: numpy's (H, W, 3) or (B, H, W, 3), or a tensor (3, H, W) or (B, 3, H, W) on any
                device; uint8, or floats from 0 to 1.

        Returns:
            The same shape, dtype and device. numpy and torch differ by 1/255 at most.

        Raises:
            ConfigError: they are of another shape or dtype, or floats lie outside 0 to 1 or are
                NaN.
        """
        return changed(images, lambda maths, planes: self.onto(maths, planes, self.target))

    @property
    @abstractmethod
    def target(self) -> Targets:
        """The numbers of its target, (1, n)."""

    @abstractmethod
    def spread(self, preset: str) -> Targets:
        """Standard deviations of these numbers for stain augmentation, (1, n).

        Raises:
            ConfigError: there is no such preset.
        """

    @abstractmethod
    def onto(self, maths: Maths, planes: Planes, targets: Targets) -> Planes:
        """Planes with the stains of targets.

        Args:
            maths: of the planes.
            planes: float32 (B, 3, H, W), 0 to 1.
            targets: (1, n), or (B, n) with one for each image.
        """


def brightened(maths: Maths, pixels: Array) -> Array:
    """Pixels scaled so that the 90th percentile of all their values is full (slideflow).

    slideflow cuts the result to whole levels; here it is not, which is half a level at most.

    Args:
        maths: of the array.
        pixels: float32 (B, 3, N), 0 to 1.
    """
    values = maths.sorted(pixels.reshape(pixels.shape[0], -1))
    bright = percentile(maths, values, counted(maths, values), 90)
    full = maths.float32(maths.clip(bright, 1 / 255, None))[:, None, None]
    return maths.clip(pixels / full, None, 1)


def counted(maths: Maths, values: Array) -> Array:
    """How many values each row has, float64 (B,)."""
    return maths.float64(maths.span(values.shape[0]) * 0 + values.shape[-1])


def preset_of(name: str, presets: Mapping[str, Value], preset: Any) -> Value:
    """What a preset stands for.

    Raises:
        ConfigError: there is none of that name; names those that there are.
    """
    if not isinstance(preset, str) or preset not in presets:
        known = ", ".join(map(repr, presets))
        raise ConfigError(f"stain normaliser {name} has no preset {preset!r:.80}; it has {known}")
    return presets[preset]


def chosen(
    name: str, presets: Mapping[str, Pair], preset: str | None, given: Pair, called: str
) -> tuple[str | None, Pair]:
    """The preset, and what it stands for or what was given; "v3" if nothing was said.

    Args:
        name: of the normaliser.
        presets: that it has.
        preset: that was asked for.
        given: numbers, each empty where none were given.
        called: how the numbers are called, for errors.

    Raises:
        ConfigError: there is no such preset, or it has other numbers than those given.
    """
    is_given = any(np.size(one) for one in given)
    if preset is None and is_given:
        return None, given
    preset = DEFAULT if preset is None else preset
    found = preset_of(name, presets, preset)
    same = all(np.array_equal(one, other) for one, other in zip(given, found, strict=True))
    if is_given and not same:
        raise ConfigError(f"stain normaliser {name}: give a preset, or {called}")
    return preset, found


def numbers(what: str, values: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Numbers of the user as an array.

    Raises:
        ConfigError: they are not finite numbers of that shape.
    """
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} must be numbers, not {values!r:.80}") from error
    if found.shape != shape or not np.isfinite(found).all():
        raise ConfigError(f"{what} must be finite numbers of the shape {shape}, not {values!r:.80}")
    return found


def frozen(values: Sequence[Any] | npt.NDArray[np.float64]) -> tuple[Any, ...]:
    """Numbers as tuples, so that equal normalisers are equal and can be a key."""
    return tuple(frozen(one) if np.ndim(one) else float(one) for one in values)
