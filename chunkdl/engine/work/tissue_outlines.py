"""Outlines of tissue, as TRIDENT and QuPath write them, as the tissue mask of a slide."""

from __future__ import annotations

from pathlib import Path

from chunkdl.annotations.kept import AnnotationCache
from chunkdl.annotations.rasterise import rasterise
from chunkdl.errors import AnnotationError, SlideError
from chunkdl.slides.slide import SlideInfo
from chunkdl.slides.tissue.mask import TissueMask

CELLS = 4096
"""Along the longer side of a mask, at most; a cell is tissue if its centre is in an outline."""


def mask_of_outlines(path: str, info: SlideInfo, folder: Path) -> TissueMask:
    """The mask that has tissue wherever something is drawn, whatever its class.

    Args:
        path: of the file, in any format of `chunkdl.annotations`.
        info: the slide.
        folder: of kept outlines.

    Raises:
        SlideError: the file cannot be read, or has no area.
    """
    level0 = info.levels[0]
    size = level0.width, level0.height
    if any(info.scanned_from):
        raise SlideError(
            f"the scanned part of the slide begins at {info.scanned_from}, and nobody knows "
            f"whether the outlines of {path} count from there, as QuPath does; give the mask as an "
            "image of the whole slide",
            slide=info.path,
        )
    try:
        outlines = AnnotationCache(folder).of_file(path, size=size, slide=info.path)
    except AnnotationError as error:
        raise SlideError(f"tissue mask {path}: {error}", slide=info.path) from error
    if outlines is None or not (outlines.areas > 0).any():
        raise SlideError(
            f"tissue mask {path} has no outline with an area; leave the slide out, or give a mask",
            slide=info.path,
        )
    along = max(1.0, max(size) / CELLS)
    cells = max(1, round(level0.width / along)), max(1, round(level0.height / along))
    scale = level0.width / cells[0], level0.height / cells[1]
    found = rasterise(outlines, downsample=scale, origin=(0, 0), size=cells, objects="all")
    return TissueMask(found > 0, level0.width, level0.height)
