"""Tissue by hue, saturation and value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import Cells
from chunkdl.slides.tissue.detectors.shapes import row_blocks


@dataclass(frozen=True, slots=True)
class HsvRange:
    """Pixels whose hue, saturation and value all lie in given ranges, ends included.

    The defaults are those of wsistream's HSV detector (OpenCV scales 90-180, 8-255, 103-255),
    an approximation of the tile filter of the Midnight pathology foundation models.

    Attributes:
        hue: degrees, 0 to 360; if the first number is larger, the range goes through 0 (red).
        saturation: 0 to 1.
        value: 0 to 1.
    """

    hue: tuple[float, float] = (180.0, 360.0)
    saturation: tuple[float, float] = (8 / 255, 1.0)
    value: tuple[float, float] = (103 / 255, 1.0)

    name: ClassVar[str] = "hsv"

    def __post_init__(self) -> None:
        for name in ("hue", "saturation", "value"):
            try:
                low, high = (float(one) for one in getattr(self, name))
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"HsvRange: {name} must be two numbers, not {getattr(self, name)!r}"
                ) from error
            # Equal detectors have equal keys, whatever kinds of numbers they were given.
            object.__setattr__(self, name, (low, high))
        if not all(0 <= degrees <= 360 for degrees in self.hue):
            raise ConfigError(f"HsvRange: hue must be two angles from 0 to 360, not {self.hue}")
        for name, (low, high) in (("saturation", self.saturation), ("value", self.value)):
            if not 0 <= low <= high <= 1:
                raise ConfigError(
                    f"HsvRange: {name} must be (low, high) with 0 <= low <= high <= 1, not "
                    f"{(low, high)}"
                )

    @property
    def key(self) -> str:
        """Revision 1 of the method, with all parameters."""
        return f"hsv/1 {self!r}"

    def __call__(self, rgb: Pixels) -> Cells:
        """The tissue of a thumbnail: (h, w, 3) uint8 to (h, w) bool."""
        tissue = np.empty(rgb.shape[:2], dtype=np.bool_)
        for rows in row_blocks(rgb.shape):
            tissue[rows] = self._in_range(rgb[rows])
        return tissue

    def _in_range(self, rgb: Pixels) -> Cells:
        pixels = rgb.astype(np.float32) / np.float32(255)
        value = pixels.max(axis=2)
        chroma = value - pixels.min(axis=2)
        saturation = chroma / np.maximum(value, 1e-6)
        hue = _hue(pixels, value, chroma)
        low, high = self.hue
        in_hue = (hue >= low) & (hue <= high) if low <= high else (hue >= low) | (hue <= high)
        # Half a grey step, so that rounding does not move the ends.
        slack = 0.5 / 255
        for channel, (least, most) in ((saturation, self.saturation), (value, self.value)):
            in_hue &= (channel >= least - slack) & (channel <= most + slack)
        return in_hue


def _hue(
    pixels: npt.NDArray[np.float32], value: npt.NDArray[np.float32], chroma: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Hue in degrees, 0 for greys (Smith, "Color gamut transform pairs", SIGGRAPH 1978)."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    divisor = np.where(chroma == 0, np.float32(1), chroma)
    sextant = np.select(
        [chroma == 0, value == red, value == green],
        [np.float32(0), (green - blue) / divisor, (blue - red) / divisor + 2],
        (red - green) / divisor + 4,
    )
    return np.asarray((sextant * 60) % 360, dtype=np.float32)
