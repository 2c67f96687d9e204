"""Where a thumbnail has no edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import Cells, Checked
from chunkdl.slides.tissue.detectors.shapes import row_blocks


@dataclass(frozen=True, slots=True)
class BlurredAreas:
    """Finds where nothing has an edge: slideflow's Gaussian rule, with its defaults.

    Grey values (ITU-R BT.709, 0 to 1) are filtered with a Laplacian, whose amounts are smoothed by
    a Gaussian of `sigma`; where that is at most `threshold` it is "blurred". Empty glass and fat
    are so as well. It is meant to be taken away from tissue: ``TissueWithout(Otsu(),
    BlurredAreas())``.

    slideflow looks at 4 times the microns of its tiles, 2 microns a pixel where tiles have 0.5. A
    thumbnail here has about 8: what is out of focus by some microns looks as sharp there as
    everything else. It finds what is smooth over tens of microns, such as out-of-focus glass,
    bubbles, thick folds, mucus and homogeneous stroma. For focus, use the pixel filter
    `Sharpness`, which looks at the patches.

    Attributes:
        sigma: of the Gaussian, thumbnail pixels, 0.5 to 32.
        threshold: 0 to 4, of grey values 0 to 1.

    Raises:
        ConfigError: a parameter is out of its bounds.
    """

    sigma: float = 3.0
    threshold: float = 0.02

    name: ClassVar[str] = "blur"

    def __post_init__(self) -> None:
        Checked(self).number("sigma", 0.5, 32).number("threshold", 0, 4)

    @property
    def key(self) -> str:
        """Name, revision and parameters."""
        return f"{self.name}/1 {self!r}"

    def __call__(self, rgb: Pixels) -> Cells:
        """The blurred areas of a thumbnail: (h, w, 3) uint8 to (h, w) bool."""
        # Imported here: see `pieces`.
        from skimage.filters import gaussian

        height, width = rgb.shape[:2]
        # As far as the Gaussian looks, which ends at 4 sigma.
        reach = int(4 * self.sigma + 0.5)
        blurred = np.empty((height, width), np.bool_)
        for rows in row_blocks(rgb.shape):
            top, bottom = max(0, rows.start - reach), min(height, rows.stop + reach)
            edges = _edges(rgb, top, bottom)
            smooth = gaussian(edges, self.sigma, mode="nearest", preserve_range=True)  # type: ignore[no-untyped-call]
            blurred[rows] = smooth[rows.start - top : rows.stop - top] <= self.threshold
        return blurred


def _edges(rgb: Pixels, top: int, bottom: int) -> npt.NDArray[np.float32]:
    """Amounts of the Laplacian of rows of a thumbnail; outermost pixels are repeated outwards."""
    rows = np.clip(np.arange(top - 1, bottom + 1), 0, len(rgb) - 1)
    weights = np.array([0.2125, 0.7154, 0.0721], np.float32) / np.float32(255)
    some = rgb[rows]
    grey = sum(some[..., colour] * weights[colour] for colour in range(3))
    grey = np.pad(grey, ((0, 0), (1, 1)), mode="edge")
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return np.asarray(np.abs(4 * grey[1:-1, 1:-1] - around), np.float32)
