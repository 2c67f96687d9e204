"""Tissue by saturation: glass is grey, stained tissue is coloured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import Cells
from chunkdl.slides.tissue.detectors.shapes import close_gaps, row_blocks, without_small_pieces

MOST_GAP_PX = 4096
"""Widest gap, in thumbnail pixels; closing wider ones would take too long."""


@dataclass(frozen=True, slots=True)
class Otsu:
    """Otsu's threshold on HSV saturation: glass is grey, stained tissue is coloured.

    Otsu's threshold (Otsu, "A threshold selection method from gray-level histograms", IEEE
    Trans. SMC 9(1), 1979) always splits the pixels into two classes, even on a slide of only glass
    or only tissue. So it is limited to a range. Pixels of pure white or pure black are filling of
    the file format; they have no saturation and do not count for the threshold.

    Attributes:
        lowest: saturation, 0 to 1, below which nothing is tissue.
        highest: saturation above which everything is tissue. The threshold lies between `lowest`
            and `highest`, and is `highest` if the two classes differ by less than `separation`.
        separation: minimum difference between the mean saturations of the two classes.
        closing: gaps up to this many thumbnail pixels wide are closed; 0 closes none.
        smallest: minimum size of a piece of tissue, and of a hole in it, in thumbnail pixels;
            smaller ones are removed.
    """

    lowest: float = 0.03
    highest: float = 0.12
    separation: float = 0.03
    closing: int = 4
    smallest: int = 64

    name: ClassVar[str] = "otsu"

    def __post_init__(self) -> None:
        if not 0 <= self.lowest <= self.highest <= 1:
            raise ConfigError(
                f"Otsu: lowest and highest must be saturations with 0 <= lowest <= highest <= 1, "
                f"not {self.lowest} and {self.highest}"
            )
        if not 0 <= self.separation <= 1:
            raise ConfigError(f"Otsu: separation must lie from 0 to 1, not {self.separation}")
        if not 0 <= self.closing <= MOST_GAP_PX or not 0 <= self.smallest <= MOST_GAP_PX**2:
            raise ConfigError(
                f"Otsu: closing must be 0 to {MOST_GAP_PX} thumbnail pixels, and smallest 0 to "
                f"{MOST_GAP_PX**2}, not {self.closing} and {self.smallest}"
            )
        # Equal detectors have equal keys, whatever kinds of numbers they were given.
        for name in ("lowest", "highest", "separation"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("closing", "smallest"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def key(self) -> str:
        """Revision 1 of the method, with all parameters."""
        return f"otsu/1 {self!r}"

    def __call__(self, rgb: Pixels) -> Cells:
        """The tissue of a thumbnail: (h, w, 3) uint8 to (h, w) bool."""
        saturation = np.empty(rgb.shape[:2], dtype=np.uint8)
        counts = np.zeros(256, dtype=np.intp)
        for rows in row_blocks(rgb.shape):
            # One row more at each end, for the blur.
            above = max(0, rows.start - 1)
            blurred = _smoothed(_saturation(rgb[above : rows.stop + 1]))
            saturation[rows] = blurred[rows.start - above :][: rows.stop - rows.start]
            counts += np.bincount(saturation[rows][~_is_fill(rgb[rows])], minlength=256)
        tissue = close_gaps(saturation > self._threshold(counts) * 255, self.closing)
        tissue = without_small_pieces(tissue, self.smallest)
        if not tissue.any():
            # Of a tiny thumbnail all glass would be smaller than a hole.
            return tissue
        return ~without_small_pieces(~tissue, self.smallest)

    def _threshold(self, counts: npt.NDArray[np.intp]) -> float:
        """The saturation above which a pixel is tissue, from the histogram of 256 bins."""
        pixels_below = np.cumsum(counts)[:-1]
        sum_below = np.cumsum(counts * np.arange(256))
        sum_above = sum_below[-1] - sum_below[:-1]
        pixels_above = counts.sum() - pixels_below
        mean_below = sum_below[:-1] / np.maximum(pixels_below, 1)
        mean_above = sum_above / np.maximum(pixels_above, 1)
        spread = pixels_below * pixels_above.astype(np.float64) * (mean_above - mean_below) ** 2
        best = int(np.argmax(spread))
        one_class = spread[best] == 0
        if one_class or mean_above[best] - mean_below[best] < self.separation * 255:
            return self.highest
        # Bins are whole numbers: every threshold in [best, best + 1) splits alike.
        return min(max((best + 0.5) / 255, self.lowest), self.highest)


def _is_fill(rgb: Pixels) -> Cells:
    darkest, brightest = rgb.min(axis=2), rgb.max(axis=2)
    return np.asarray((darkest == 255) | (brightest == 0))


def _saturation(rgb: Pixels) -> npt.NDArray[np.uint8]:
    """HSV saturation in 255 steps; that of nearly black pixels, which is noise, is damped."""
    brightest = rgb.max(axis=2)
    chroma = (brightest - rgb.min(axis=2)).astype(np.uint16)
    return np.asarray(chroma * np.uint16(255) // np.maximum(brightest, 64), dtype=np.uint8)


def _smoothed(plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A 3 x 3 binomial blur (1 2 1 each way), the outermost pixels repeated outwards."""
    padded = np.pad(plane, 1, mode="edge").astype(np.uint16)
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    both = columns[:-2] + 2 * columns[1:-1] + columns[2:]
    return np.asarray((both + 8) // 16, dtype=np.uint8)
