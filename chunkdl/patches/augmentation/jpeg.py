"""What JPEG does to pixels, without the bytes: on any device, with a quality for each row.

The entropy coding of JPEG loses nothing, so only colours, subsampling and quantisation are
computed: those of libjpeg with its standard tables, its 4:2:0 subsampling and its "fancy"
upsampling (ITU-T T.81, annex K; JFIF 1.02).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.patches.arithmetic.maths import Array, Maths, Planes
from chunkdl.patches.augmentation.operation import Operation, set_number, set_whole
from chunkdl.patches.augmentation.random_numbers import Draws

_LUMINANCE = """
    16 11 10 16  24  40  51  61   12 12 14 19  26  58  60  55
    14 13 16 24  40  57  69  56   14 17 22 29  51  87  80  62
    18 22 37 56  68 109 103  77   24 35 55 64  81 104 113  92
    49 64 78 87 103 121 120 101   72 92 95 98 112 100 103  99
"""
_CHROMINANCE = """
    17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99
    24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
    99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
"""
TABLES = tuple(np.array(table.split(), np.int64) for table in (_LUMINANCE, _CHROMINANCE))
"""Steps of quantisation at quality 50, of luminance and chrominance, (64,) each."""

_STEPS = np.arange(8)
COSINES: npt.NDArray[np.float64] = np.where(_STEPS[:, None] == 0, np.sqrt(1 / 8), 1 / 2) * np.cos(
    np.pi / 16 * (2 * _STEPS + 1) * _STEPS[:, None]
)
"""The discrete cosine transform of eight values, a frequency each row."""
TIE = 1e-6
"""Added before rounding, so that a tie is no matter of the last bit."""


def tables_of(qualities: npt.NDArray[np.int64]) -> list[npt.NDArray[np.float64]]:
    """libjpeg's steps of quantisation for each quality, of luminance and chrominance, (B, 64)."""
    scale = np.where(qualities < 50, 5000 // np.maximum(qualities, 1), 200 - 2 * qualities)
    return [
        np.clip((table * scale[:, None] + 50) // 100, 1, 255).astype(np.float64) for table in TABLES
    ]


@dataclass(frozen=True, slots=True)
class Jpeg(Operation):
    """Compresses the image, and decompresses it.

    Attributes:
        lowest, highest: between which whole qualities are drawn, 1 to 100, both included.
        p: probability, 0 to 1.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    lowest: int = 50
    highest: int = 100
    p: float = 0.5

    name: ClassVar[str] = "jpeg"
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        set_whole(self, "highest", 1, 100)
        set_whole(self, "lowest", 1, self.highest)
        set_number(self, "p", 0, 1)

    @property
    def probability(self) -> float:
        """See `Operation.probability`."""
        return self.p

    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """See `Operation.apply`."""
        span = self.highest - self.lowest + 1
        return compressed(
            maths, planes, self.lowest + np.floor(draws[:, 0] * span).astype(np.int64)
        )


def compressed(maths: Maths, planes: Planes, qualities: npt.NDArray[np.int64]) -> Planes:
    """Planes as they come out of JPEG files of these qualities.

    Args:
        maths: of the planes.
        planes: float32 (B, 3, H, W), 0 to 1.
        qualities: (B,), 1 to 100.
    """
    height, width = planes.shape[2:]
    for axis, pixels in ((2, height), (3, width)):
        whole = -(-pixels // 16) * 16
        planes = maths.take(planes, np.minimum(np.arange(whole), pixels - 1), axis)
    red, green, blue = (maths.int64(maths.round(planes[:, index] * 255)) for index in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    blueness = (-11059 * red - 21709 * green + 32768 * blue + 8421375) >> 16
    redness = (32768 * red - 27439 * green - 5329 * blue + 8421375) >> 16
    steps = [maths.array(table.reshape(-1, 1, 1, 8, 8)) for table in tables_of(qualities)]
    luma = _quantised(maths, luma, steps[0])
    blueness, redness = (
        _upsampled(maths, _quantised(maths, _halved(maths, part), steps[1])) - 128
        for part in (blueness, redness)
    )
    colours = [
        luma + ((91881 * redness + 32768) >> 16),
        luma + ((-22554 * blueness - 46802 * redness + 32768) >> 16),
        luma + ((116130 * blueness + 32768) >> 16),
    ]
    levels = maths.clip(maths.stack(colours, 1), 0, 255)
    return maths.float32(levels)[:, :, :height, :width] * (1 / 255)


def _halved(maths: Maths, part: Array) -> Array:
    """Means of 2 x 2 pixels; ties go up and down in turn."""
    total = part[:, ::2, ::2] + part[:, ::2, 1::2] + part[:, 1::2, ::2] + part[:, 1::2, 1::2]
    return (total + 1 + maths.span(total.shape[2]) % 2) >> 2


def _upsampled(maths: Maths, part: Array) -> Array:
    """Twice as many pixels in both directions, weighed 3 to 1 between the nearest two."""
    down, across = part.shape[1:]
    above = maths.take(part, np.maximum(np.arange(down) - 1, 0), 1)
    below = maths.take(part, np.minimum(np.arange(down) + 1, down - 1), 1)
    rows = maths.stack([3 * part + above, 3 * part + below], 2).reshape(-1, 2 * down, across)
    left = maths.take(rows, np.maximum(np.arange(across) - 1, 0), 2)
    right = maths.take(rows, np.minimum(np.arange(across) + 1, across - 1), 2)
    columns = [(3 * rows + left + 8) >> 4, (3 * rows + right + 7) >> 4]
    return maths.stack(columns, 3).reshape(-1, 2 * down, 2 * across)


def _quantised(maths: Maths, part: Array, steps: Array) -> Array:
    """Values of 0 to 255 after their cosine transform was rounded to steps, (B, H, W) int64."""
    height, width = part.shape[1:]
    cosines = maths.array(COSINES)
    blocks = maths.float64(part - 128).reshape(-1, height // 8, 8, width // 8, 8)
    blocks = maths.swapped(blocks, 2, 3)
    amounts = cosines @ blocks @ maths.swapped(cosines, 0, 1)
    amounts = maths.floor(amounts / steps + (0.5 + TIE)) * steps
    blocks = maths.swapped(cosines, 0, 1) @ amounts @ cosines
    whole = maths.int64(maths.floor(blocks + (128.5 + TIE)))
    return maths.clip(maths.swapped(whole, 2, 3).reshape(-1, height, width), 0, 255)
