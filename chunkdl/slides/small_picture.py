"""A small picture of a slide with the outline of its tissue, as JPEG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from chunkdl.slides.slide import Slide
from chunkdl.slides.tissue.mask import TissueMask
from chunkdl.slides.tissue.outline import outlined
from chunkdl.slides.tissue.thumbnail import picture_plan, read_thumbnail

LONGEST_PX = 160
"""Longer side."""
MOST_BYTES = 8 * 1024
"""Of a picture; the quality goes down until it fits."""
QUALITIES = (70, 50, 30, 15, 5)
MOST_READ_PX = 2**25
"""Of a larger level one tile in 4, 9, 16 ... is read: of a slide without small levels a picture of
this size shows no more."""
OUTLINE = (0, 150, 70)


def small_picture(slide: Slide, mask: TissueMask | None) -> bytes:
    """The slide, at most `LONGEST_PX` on a side and `MOST_BYTES` large.

    Args:
        slide: an open slide.
        mask: its tissue, which is outlined in green; None: it is not known.

    Raises:
        SlideError: nothing of the slide can be read.
    """
    # Cells are whole pixels of a level; of twice the size, the picture is never much smaller.
    plan = picture_plan(slide.info, 2 * LONGEST_PX, MOST_READ_PX)
    pixels, _ = read_thumbnail(slide, plan)
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.BOX)
    if mask is not None:
        picture = outlined(np.asarray(image), mask.cells, OUTLINE)
        image = Image.fromarray(picture)
    data = b""
    for quality in QUALITIES:
        written = io.BytesIO()
        image.save(written, "JPEG", quality=quality, optimize=True)
        data = written.getvalue()
        if len(data) <= MOST_BYTES:
            break
    return data
