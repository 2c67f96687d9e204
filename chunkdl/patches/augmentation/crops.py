"""Parts of an image: a random resized crop, and a rectangle that is filled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.patches.arithmetic.maths import Array, Maths, Planes
from chunkdl.patches.augmentation.operation import (
    Operation,
    set_ends,
    set_number,
    set_whole,
)
from chunkdl.patches.augmentation.random_numbers import Draws

ATTEMPTS = 10
"""To draw a rectangle that fits, as torchvision has it."""
Boxes = npt.NDArray[np.int64]
"""Top, left, height and width in pixels, (B, 4)."""


def drawn_boxes(
    draws: Draws,
    size: tuple[int, int],
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[Boxes, npt.NDArray[np.bool_]]:
    """Rectangles with a uniform share of the area and a log-uniform width for their height.

    The first of ten attempts that fits is taken, as in torchvision's ``RandomResizedCrop``.

    Args:
        draws: (B, 2 * ATTEMPTS + 2).
        size: height and width of the images.
        area, aspect: between which shares and ratios lie.

    Returns:
        Boxes, and whether any attempt did fit.
    """
    height, width = size
    shares = area[0] + draws[:, :ATTEMPTS] * (area[1] - area[0])
    low, high = np.log(aspect)
    ratios = np.exp(low + draws[:, ATTEMPTS : 2 * ATTEMPTS] * (high - low))
    across = np.rint(np.sqrt(height * width * shares * ratios)).astype(np.int64)
    down = np.rint(np.sqrt(height * width * shares / ratios)).astype(np.int64)
    fits = (across > 0) & (across <= width) & (down > 0) & (down <= height)
    first = fits.argmax(1)[:, None]
    h, w = (np.take_along_axis(side, first, 1)[:, 0] for side in (down, across))
    top = np.floor(draws[:, -2] * (height - h + 1)).astype(np.int64)
    left = np.floor(draws[:, -1] * (width - w + 1)).astype(np.int64)
    return np.stack([top, left, h, w], 1), fits.any(1)


@dataclass(frozen=True, slots=True)
class ResizedCrop(Operation):
    """A random part of the image, resized (torchvision's ``RandomResizedCrop``, with its numbers).

    Resampled bilinearly with antialiasing, as `torch.nn.functional.interpolate` does.

    Attributes:
        size_px: side of the square that it becomes.
        area: between which shares of the area are drawn, above 0 to 1.
        aspect: between which widths for one height are drawn, log-uniformly.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    size_px: int
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    name: ClassVar[str] = "resized-crop"
    draws: ClassVar[int] = 2 * ATTEMPTS + 2

    def __post_init__(self) -> None:
        set_whole(self, "size_px", 1, 16_384)
        set_ends(self, "area", 1e-6, 1)
        set_ends(self, "aspect", 1e-3, 1e3)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return 1.0

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`; makes (B, 3, size_px, size_px)."""
        height, width = planes.shape[2:]
        boxes, fits = drawn_boxes(draws, (height, width), self.area, self.aspect)
        boxes[~fits] = self._in_the_middle(height, width)
        rows = _weights(maths, boxes[:, 0], boxes[:, 2], height, self.size_px)
        columns = _weights(maths, boxes[:, 1], boxes[:, 3], width, self.size_px)
        return rows[:, None] @ planes @ maths.swapped(columns, 1, 2)[:, None]

    def _in_the_middle(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The largest part with an aspect that is allowed."""
        least, most = self.aspect
        h, w = height, width
        if width / height < least:
            h = max(1, min(height, round(width / least)))
        elif width / height > most:
            w = max(1, min(width, round(height * most)))
        return (height - h) // 2, (width - w) // 2, h, w


def _weights(
    maths: Maths,
    first: npt.NDArray[np.int64],
    length: npt.NDArray[np.int64],
    pixels: int,
    size_px: int,
) -> Array:
    """How much of each pixel of a line each pixel of the result has, float32 (B, size_px, pixels).

    A triangle as wide as the pixels of the result, and at least as those of the line.
    """
    begin, long = (maths.array(side.astype(np.float32))[:, None, None] for side in (first, length))
    scale = long / size_px
    reach = maths.clip(scale, 1, None)
    made = maths.float32(maths.span(size_px))[None, :, None]
    place = maths.float32(maths.span(pixels))[None, None, :] - begin
    apart = (place + 0.5 - (made + 0.5) * scale) / reach
    weights = maths.clip(1 - maths.maximum(apart, -apart), 0, None)
    weights = maths.where((place >= 0) & (place < long), weights, 0.0)
    return weights / weights.sum(-1)[..., None]


@dataclass(frozen=True, slots=True)
class Cutout(Operation):
    """A rectangle in one colour (torchvision's ``RandomErasing``, with its numbers).

    A rectangle that is longer than the image in ten attempts is left out.

    Attributes:
        area: between which shares of the area are drawn, above 0 to 1.
        aspect: between which widths for one height are drawn, log-uniformly.
        level: of all three colours, 0 (black) to 1 (white).
        p: probability, 0 to 1.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    area: tuple[float, float] = (0.02, 0.33)
    aspect: tuple[float, float] = (0.3, 3.3)
    level: float = 0.0
    p: float = 0.5

    name: ClassVar[str] = "cutout"
    draws: ClassVar[int] = 2 * ATTEMPTS + 2

    def __post_init__(self) -> None:
        set_ends(self, "area", 1e-6, 1)
        set_ends(self, "aspect", 1e-3, 1e3)
        set_number(self, "level", 0, 1)
        set_number(self, "p", 0, 1)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return self.p

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`."""
        height, width = planes.shape[2:]
        boxes, fits = drawn_boxes(draws, (height, width), self.area, self.aspect)
        boxes[~fits] = 0
        top, left, h, w = (maths.array(boxes[:, index])[:, None] for index in range(4))
        y, x = maths.span(height)[None, :], maths.span(width)[None, :]
        down, across = (y >= top) & (y < top + h), (x >= left) & (x < left + w)
        inside = down[:, None, :, None] & across[:, None, None, :]
        return maths.where(inside, self.level, planes)
