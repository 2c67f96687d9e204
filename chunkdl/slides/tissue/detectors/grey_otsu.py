"""Tissue by grey value: glass is bright, stained tissue is darker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import Cells, Checked
from chunkdl.slides.tissue.detectors.shapes import row_blocks, without_small_pieces

_KERNELS = {
    1: (256,),
    3: (64, 128, 64),
    5: (16, 64, 96, 64, 16),
    7: (8, 28, 56, 72, 56, 28, 8),
}
"""Gaussian weights of OpenCV for its automatic sigma, in 256ths."""
MOST_CLOSING_PX = 255


@dataclass(frozen=True, slots=True)
class GreyOtsu:
    """Otsu's threshold on grey values: wsistream's Otsu detector, with its defaults.

    The thumbnail is made grey (ITU-R BT.601), blurred, and split by Otsu's threshold (IEEE Trans.
    SMC 9(1), 1979); the darker class is tissue. Then gaps are closed with an ellipse and small
    pieces, whose pixels touch each other at sides or corners, are removed. Cell for cell it gives
    what wsistream 0.1.6 gives for the same thumbnail; the thumbnails differ (wsistream's has at
    most 2048 pixels on a side, ours about 8 microns a pixel).

    Its threshold always splits: on a slide of glass alone the darker half of the noise is "tissue",
    unless `min_area_ratio` removes it, and so is a thumbnail of pure black. `Otsu` has neither
    fault.

    Attributes:
        blur: width of the blur in pixels, 1, 3, 5 or 7 (`blur_ksize`); 1 blurs nothing.
        closing: size of the ellipse in pixels, 0 to 255 (`morph_close_ksize`); 0 closes nothing.
        min_area_ratio: share of the thumbnail that a piece must have, 0 to 1; 0 removes none.

    Raises:
        ConfigError: a parameter is out of its bounds.
    """

    blur: int = 7
    closing: int = 5
    min_area_ratio: float = 0.001

    name: ClassVar[str] = "wsistream-otsu"

    def __post_init__(self) -> None:
        checked = Checked(self)
        checked.whole("closing", 0, MOST_CLOSING_PX).number("min_area_ratio", 0, 1)
        if self.blur not in _KERNELS:
            raise ConfigError(
                f"tissue detector {self.name}: blur must be 1, 3, 5 or 7 pixels, not {self.blur!r}"
            )
        checked.whole("blur", 1, 7)

    @property
    def key(self) -> str:
        """Name, revision and parameters."""
        return f"{self.name}/1 {self!r}"

    def __call__(self, rgb: Pixels) -> Cells:
        """The tissue of a thumbnail: (h, w, 3) uint8 to (h, w) bool."""
        grey = self._blurred(rgb)
        counts = np.zeros(256, np.intp)
        for rows in row_blocks(grey.shape):
            counts += np.bincount(grey[rows].ravel(), minlength=256)
        tissue = grey <= otsu_bin(counts)
        if self.closing > 0:
            tissue = _closed(tissue, _ellipse(self.closing))
        if self.min_area_ratio > 0:
            smallest = int(tissue.size * self.min_area_ratio)
            tissue = without_small_pieces(tissue, smallest, connectivity=2)
        return tissue

    def _blurred(self, rgb: Pixels) -> npt.NDArray[np.uint8]:
        kernel = _KERNELS[self.blur]
        reach = len(kernel) // 2
        height, width = rgb.shape[:2]
        down = _mirrored(np.arange(-reach, height + reach), height)
        across = _mirrored(np.arange(-reach, width + reach), width)
        blurred = np.empty((height, width), np.uint8)
        for rows in row_blocks(rgb.shape):
            grey = _grey(rgb[down[rows.start : rows.stop + 2 * reach]])[:, across]
            count = rows.stop - rows.start
            wide = np.zeros((len(grey), width), np.uint32)
            both = np.full((count, width), 2**15, np.uint32)
            for at, weight in enumerate(kernel):
                wide += np.uint32(weight) * grey[:, at : at + width]
            for at, weight in enumerate(kernel):
                both += np.uint32(weight) * wide[at : at + count]
            blurred[rows] = both >> np.uint32(16)
        return blurred


def _grey(rgb: Pixels) -> npt.NDArray[np.uint32]:
    """Luma in 255 steps, with OpenCV's weights of 15 bits."""
    red, green, blue = (rgb[..., colour].astype(np.uint32) for colour in range(3))
    return np.asarray((9798 * red + 19235 * green + 3735 * blue + 2**14) >> 15, np.uint32)


def _mirrored(places: npt.NDArray[np.intp], length: int) -> npt.NDArray[np.intp]:
    """Places beyond the ends, as those as far inside; the outermost pixel is not repeated."""
    if length == 1:
        return np.zeros_like(places)
    period = 2 * (length - 1)
    places = places % period
    return np.asarray(np.minimum(places, period - places), np.intp)


def otsu_bin(counts: npt.NDArray[np.intp]) -> int:
    """The last bin of the darker class, by Otsu's criterion; 0 where all is in one bin.

    Args:
        counts: histogram of 256 bins.
    """
    bins = np.arange(256, dtype=np.float64)
    below = np.cumsum(counts).astype(np.float64)
    total = below[-1]
    weighted = np.cumsum(counts * bins)
    above = total - below
    means_apart = weighted / np.maximum(below, 1) - (weighted[-1] - weighted) / np.maximum(above, 1)
    spread = below * above * means_apart**2
    return int(np.argmax(spread)) if spread.max() > 0 else 0


def _ellipse(size: int) -> list[tuple[int, int, int]]:
    """The rows of OpenCV's ellipse: offset of the row, and of its first and last pixel."""
    middle = size // 2
    rows = []
    for row in range(size):
        down = row - middle
        # With an even size there is a row that is farther from the middle than the radius.
        half = 0 if middle == 0 else round(middle * max(0, 1 - (down / middle) ** 2) ** 0.5)
        rows.append((down, -half, min(half, size - 1 - middle)))
    return rows


def _closed(tissue: Cells, rows: list[tuple[int, int, int]]) -> Cells:
    return ~_dilated(~_dilated(tissue, rows), rows)


def _dilated(tissue: Cells, rows: list[tuple[int, int, int]]) -> Cells:
    """Which cells have a True one at an offset of the ellipse; outside nothing is True."""
    found = np.zeros_like(tissue)
    height, width = tissue.shape
    for down, first, last in rows:
        row = np.zeros_like(tissue)
        for across in range(first, last + 1):
            left, right = max(0, -across), min(width, width - across)
            if left < right:
                row[:, left:right] |= tissue[:, left + across : right + across]
        top, bottom = max(0, -down), min(height, height - down)
        if top < bottom:
            found[top:bottom] |= row[top + down : bottom + down]
    return found
