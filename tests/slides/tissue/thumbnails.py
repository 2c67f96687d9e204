"""Made thumbnails, and masks drawn with letters."""

from __future__ import annotations

import numpy as np

from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import Cells

PINK = (220, 150, 190)
GLASS = (241, 240, 242)


def drawn(text: str) -> Cells:
    """A mask from lines, `#` is tissue."""
    lines = text.split()
    return np.array([[letter == "#" for letter in line] for line in lines])


def enlarged(mask: Cells, times: int) -> Cells:
    """Each cell as a square of cells."""
    return np.kron(mask, np.ones((times, times), np.bool_)).astype(np.bool_)


def stained(mask: Cells) -> Pixels:
    """Pink where the mask is, and glass."""
    return np.where(mask[..., None], np.array(PINK), np.array(GLASS)).astype(np.uint8)


def clouds(height: int, width: int, seed: int) -> Pixels:
    """Blobs of stain of all strengths on glass with dust: pieces and holes of many sizes."""
    from skimage.filters import gaussian

    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(height, width))
    field = np.zeros((height, width))
    for sigma in (2, 6, 20):
        field += gaussian(noise, sigma) * sigma  # type: ignore[no-untyped-call]
    share = np.clip((field - np.quantile(field, 0.5)) / field.std(), 0, 1)[..., None]
    colours = np.array(GLASS) * (1 - share) + np.array((170, 90, 150)) * share
    noisy = colours + rng.normal(0, 2, colours.shape)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)
