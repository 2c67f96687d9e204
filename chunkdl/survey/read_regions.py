"""Which regions of a slide are read to see whether it can be: few, and where damage is likely."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chunkdl.slides.slide import Level, SlideInfo
from chunkdl.slides.tissue.mask import TissueMask

IN_TISSUE = 8
"""Regions of level 0 in tissue, evenly spread over it: these are what a training reads."""
MOST_SIDE_PX = 512
"""Of a region; files without tiles have very large blocks."""


class ReadRegion(NamedTuple):
    """A part of a level, pixels of that level."""

    level: int
    x: int
    y: int
    width: int
    height: int


def regions_to_read(info: SlideInfo, mask: TissueMask | None) -> list[ReadRegion]:
    """The regions, each in one tile, level by level; the same for the same slide and mask.

    Of every level the first, the middle and the last tile: levels are stored apart, and a copy that
    was broken off lacks what comes last. Of level 0 also `IN_TISSUE` tiles of the tissue.

    Args:
        info: the slide.
        mask: its tissue; None: it is not known.
    """
    found: dict[ReadRegion, None] = {}
    for index, level in enumerate(info.levels):
        places = [
            (0, 0),
            (level.width // 2, level.height // 2),
            (level.width - 1, level.height - 1),
        ]
        if index == 0 and mask is not None:
            places += _in_tissue(mask)
        found.update(dict.fromkeys(_tile_at(index, level, x, y) for x, y in places))
    return list(found)


def _tile_at(index: int, level: Level, x: int, y: int) -> ReadRegion:
    left = min(x, level.width - 1) // level.tile_width * level.tile_width
    top = min(y, level.height - 1) // level.tile_height * level.tile_height
    width = min(level.tile_width, MOST_SIDE_PX, level.width - left)
    height = min(level.tile_height, MOST_SIDE_PX, level.height - top)
    return ReadRegion(index, left, top, width, height)


def _in_tissue(mask: TissueMask) -> list[tuple[int, int]]:
    """Level-0 pixels in the middle of cells."""
    cells = np.flatnonzero(mask.cells)
    if not len(cells):
        return []
    rows, columns = mask.cells.shape
    chosen = cells[(np.arange(IN_TISSUE) * 2 + 1) * len(cells) // (2 * IN_TISSUE)]
    down, across = np.divmod(chosen, columns)
    x = ((across + 0.5) * mask.width0 / columns).astype(int).tolist()
    y = ((down + 0.5) * mask.height0 / rows).astype(int).tolist()
    return list(zip(x, y, strict=True))
