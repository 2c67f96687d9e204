"""The tissue mask that a dataset gives for a slide: an array, an image, or outlines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from chunkdl.slides.slide import SlideInfo
from chunkdl.slides.tissue.mask import TissueMask, mask_from
from chunkdl.system.own_imports import importing_ours

OUTLINES = (".geojson", ".json", ".xml", ".csv", ".geojson.gz", ".json.gz")
"""How the names of files of outlines end, in lower case."""
FOLDER = "annotations"
"""Of kept outlines, in the folder of the tissue mask cache."""


def given_mask(given: Any, info: SlideInfo, cache: Path) -> TissueMask:
    """The mask that is given for a slide.

    Args:
        given: an array or the path of an image, as of `mask_from`, or the path of a file of
            outlines: what is drawn in it is tissue, whatever its class.
        info: the slide.
        cache: folder of the tissue mask cache.

    Raises:
        SlideError: it cannot be read, or does not fit the slide.
    """
    is_path = isinstance(given, str | os.PathLike)
    if not is_path or not os.fspath(given).lower().endswith(OUTLINES):
        return mask_from(given, info)
    # Only loaders of slides that have outlines need what reads them.
    with importing_ours():
        from chunkdl.engine.work.tissue_outlines import mask_of_outlines
    return mask_of_outlines(os.fspath(given), info, cache / FOLDER)
