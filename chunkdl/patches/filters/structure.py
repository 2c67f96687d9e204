"""Filters by what differs inside a SmallChunk: its contrast and its sharpness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from chunkdl.patches.filters.pixel_filter import (
    Look,
    PixelFilter,
    Planes,
    set_number,
    set_share,
)
from chunkdl.slides.slide import Pixels


@dataclass(frozen=True, slots=True)
class Contrast(PixelFilter):
    """Passes if the greys of a SmallChunk differ enough.

    The contrast is the difference of two grey values (`Planes.grey`) as a share of 255, after the
    darkest and the brightest pixels are left out. With `cut=0` it is that of wsi-patching's
    LowContrastBackgroundFilter, whose default is 0.2 as well.

    Attributes:
        least: smallest contrast, 0 to 1.
        cut: share of the pixels that is left out at each end, 0 to 0.49: one pixel of dust is no
            contrast.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    least: float = 0.2
    cut: float = 0.01

    name: ClassVar[str] = "contrast"

    def __post_init__(self) -> None:
        set_share(self, "least")
        set_number(self, "cut", 0, 0.49)

    def judge(self, look: Look) -> bool:
        """See `PixelFilter.judge`."""
        until = np.bincount(Planes.of(look.rgb).grey.ravel(), minlength=256).cumsum()
        out = int(self.cut * until[-1])
        darkest = int(np.searchsorted(until, out, side="right"))
        brightest = int(np.searchsorted(until, until[-1] - out, side="left"))
        return (brightest - darkest) / 255 >= self.least


@dataclass(frozen=True, slots=True)
class Sharpness(PixelFilter):
    """Passes if a SmallChunk is in focus: by the variance of the Laplacian of its greys.

    The Laplacian of a pixel is 4 times its grey (`Planes.grey`, 0 to 255) less its four neighbours
    (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000). It depends on
    the resolution, the scanner's sharpening and the tissue, and empty glass is as little sharp as
    blurred tissue: look at some of your slides before you choose `least`.

    Attributes:
        least: smallest variance, grey values squared, 0 to 10^6.

    Raises:
        ConfigError: it is out of its bounds.
    """

    least: float = 30.0

    name: ClassVar[str] = "blur"

    def __post_init__(self) -> None:
        set_number(self, "least", 0, 1e6)

    def judge(self, look: Look) -> bool:
        """See `PixelFilter.judge`."""
        return self.variance(look.rgb) >= self.least

    def variance(self, rgb: Pixels) -> float:
        """The variance of the Laplacian inside the border; 0 for fewer than 3 pixels a side."""
        grey = Planes.of(rgb).grey.astype(np.int16)
        laplacian = 4 * grey[1:-1, 1:-1]
        laplacian -= grey[:-2, 1:-1]
        laplacian -= grey[2:, 1:-1]
        laplacian -= grey[1:-1, :-2]
        laplacian -= grey[1:-1, 2:]
        # In integers, so that it is the same in whatever order it is summed.
        count, wide = max(1, laplacian.size), laplacian.astype(np.int64)
        total, squares = int(wide.sum()), int((wide * wide).sum())
        return (squares * count - total * total) / count**2
