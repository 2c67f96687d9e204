"""Images of numpy and torch as planes, and planes as images of the kind that was given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.maths import Array, Maths, Planes
from chunkdl.patches.arithmetic.numpy_maths import NumpyMaths

Work = Callable[[Maths, Planes], Planes]
"""What is done with the planes of a batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A batch that was taken in.

    Attributes:
        maths: that computes with it.
        planes: float32 (B, 3, H, W), 0 to 1; own memory.
        images: as they were given.
        alone: there was one image, and no axis of rows.
    """

    maths: Maths
    planes: Planes
    images: Array
    alone: bool

    def as_given(self, planes: Planes) -> Array:
        """Planes as images of the given layout and dtype; uint8 rounded to the nearest."""
        return self.laid_out(planes, self.images.dtype)

    def laid_out(self, planes: Planes, dtype: Any) -> Array:
        """Planes as images of the given layout, cut to 0 to 1, with a dtype of their library."""
        cut = self.maths.clip(planes, 0, 1)
        if dtype == self.maths.uint8:
            cut = self.maths.round(cut * 255)
        return self.standardised(cut, dtype)

    def standardised(self, planes: Planes, dtype: Any) -> Array:
        """Values of any range, in the given layout."""
        if isinstance(self.images, np.ndarray):
            made = np.ascontiguousarray(np.moveaxis(planes, 1, -1).astype(dtype))
            return made[0] if self.alone else made
        return _torch().back(planes, self.images, dtype, alone=self.alone)

    def quiet(self) -> AbstractContextManager[Any]:
        """Without gradients, and in float32 where the training computes in less."""
        if isinstance(self.images, np.ndarray):
            return nullcontext()
        context: AbstractContextManager[Any] = _torch().exactly(self.images.device)
        return context


def take(images: Any) -> Taken:
    """Take a batch in, or one image.

    Args:
        images: numpy's (H, W, 3) or (B, H, W, 3), or a tensor (3, H, W) or (B, 3, H, W) on any
            device; uint8, or floats from 0 to 1.

    Raises:
        ConfigError: they are of another shape or dtype, or floats lie outside 0 to 1 or are NaN.
    """
    if isinstance(images, np.ndarray):
        _check(images.shape, images.dtype in (np.uint8, np.float32, np.float64), images.dtype, -1)
        alone = images.ndim == 3
        planes = np.moveaxis(images[None] if alone else images, -1, 1)
        if images.dtype == np.uint8:
            whole = np.ascontiguousarray(planes) * np.float32(1 / 255)
        else:
            _check_range(images.size == 0 or (images.min() >= 0 and images.max() <= 1))
            whole = planes.astype(np.float32)
        return Taken(NumpyMaths(), whole, images, alone)
    if not type(images).__module__.startswith("torch"):
        raise ConfigError(
            f"images must be a numpy array (B, H, W, 3) or a tensor (B, 3, H, W), not "
            f"{type(images).__name__}"
        )
    torch_images = _torch()
    _check(images.shape, torch_images.is_known(images), images.dtype, -3)
    alone = images.ndim == 3
    if images.dtype.is_floating_point:
        _check_range(torch_images.in_range(images))
    whole = torch_images.planes_of(images[None] if alone else images)
    return Taken(torch_images.maths_of(images), whole, images, alone)


def changed(images: Any, work: Work) -> Array:
    """The images after some work on their planes, of the layout and dtype that were given.

    Raises:
        ConfigError: see `take`.
    """
    taken = take(images)
    with taken.quiet():
        return taken.as_given(work(taken.maths, taken.planes))


def _torch() -> Any:
    """What knows tensors; torch is there, because a tensor is."""
    from chunkdl.patches.arithmetic import torch_images

    return torch_images


def _check(shape: tuple[int, ...], is_known: bool, dtype: Any, colours: int) -> None:
    layout = "(B, H, W, 3)" if colours == -1 else "(B, 3, H, W)"
    if len(shape) not in (3, 4) or shape[colours] != 3 or 0 in shape:
        raise ConfigError(
            f"images must have the shape {layout}, or that without B, and not {tuple(shape)}"
        )
    if not is_known:
        raise ConfigError(f"images must be uint8, or floats from 0 to 1, not {dtype}")


def _check_range(inside: bool) -> None:
    if not inside:
        raise ConfigError(
            "images of floats must lie from 0 to 1 without NaN; divide those of 0 to 255 by 255, "
            "and augment before you standardise"
        )
