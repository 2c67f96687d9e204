"""The border of what is marked on a slide, drawn into a picture of it."""

from __future__ import annotations

import numpy as np

from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import Cells


def outlined(pixels: Pixels, tissue: Cells, colour: tuple[int, int, int]) -> Pixels:
    """The picture with the border of what is marked, two pixels wide.

    Args:
        pixels: the whole slide.
        tissue: the whole slide as well, in cells of any size.
        colour: red, green and blue of the border.
    """
    height, width = pixels.shape[:2]
    rows = np.arange(height) * tissue.shape[0] // height
    columns = np.arange(width) * tissue.shape[1] // width
    large = tissue[rows[:, None], columns]
    border = np.zeros_like(large)
    down, across = large[1:] != large[:-1], large[:, 1:] != large[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= across
    border[:, :-1] |= across
    return np.where(border[..., None], np.array(colour, np.uint8), pixels)
