"""What PyDmed's tutorial reads: a random 5000x5000 region with OpenSlide, random patches out of it.

Imports no torch, so that loaders need none.
"""

from __future__ import annotations

import numpy as np
import openslide

from chunkdl.dataset.patients import Patient
from chunkdl.patches.chunks import BigChunk, SmallChunk

BIGCHUNK_PX = 5000
"""Side of the region that the tutorial reads, level-0 pixels."""
SMALLCHUNK_PX = 224
"""Side of the patch that the tutorial cuts from it."""


def tutorial_bigchunk(patient: Patient) -> BigChunk:
    """A random square of `BIGCHUNK_PX` of level 0, anywhere in the patient's first slide.

    Returns:
        The region (side, side, 3) uint8, with its slide, x and y; unscanned areas are black.
    """
    path = patient.slides[0].path
    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
        x = int(np.random.randint(0, width - BIGCHUNK_PX + 1))
        y = int(np.random.randint(0, height - BIGCHUNK_PX + 1))
        image = slide.read_region((x, y), 0, (BIGCHUNK_PX, BIGCHUNK_PX))
    return BigChunk(np.array(image)[:, :, :3], {"slide": path, "x": x, "y": y}, patient)


def tutorial_smallchunk(call_count: int, bigchunk: BigChunk) -> SmallChunk:
    """A random square of `SMALLCHUNK_PX` of the region; x and y are level-0 pixels."""
    data, info = bigchunk.data, bigchunk.dict_info_of_bigchunk
    x = int(np.random.randint(0, data.shape[1] - SMALLCHUNK_PX + 1))
    y = int(np.random.randint(0, data.shape[0] - SMALLCHUNK_PX + 1))
    return SmallChunk(
        data[y : y + SMALLCHUNK_PX, x : x + SMALLCHUNK_PX],
        {"x": info["x"] + x, "y": info["y"] + y, "call": call_count},
        info,
        bigchunk.patient,
    )
