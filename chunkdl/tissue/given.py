"""Tissue masks that users give as arrays: kept in files, instead of sent to every process."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from chunkdl.steady_log import steady_logger
from chunkdl.tissue.cache import default_folder, write_whole

_LOG = steady_logger(__name__)


def in_files(masks: Sequence[Any], folder: Path | None) -> list[Any]:
    """The same masks, those that are arrays as paths of image files.

    A file is named by what is in it, so a mask that is given again is there already.

    Args:
        masks: as users give them, with None for slides without one; what is no mask stays what it
            is, and is refused where it is used.
        folder: of the tissue mask cache, made when first needed; None: the user's. Where it cannot
            be written the masks stay arrays, with a warning.
    """
    into = default_folder() if folder is None else folder
    found = list(masks)
    try:
        for index, mask in enumerate(masks):
            if isinstance(mask, np.ndarray) and _fits_into_an_image(mask):
                found[index] = str(_written(mask, into))
    except OSError as error:
        _LOG.warning(
            "the tissue masks that were given cannot be kept in %s, and each process has its own "
            "copy of them: %s",
            into,
            error,
        )
    return found


def _fits_into_an_image(mask: npt.NDArray[Any]) -> bool:
    most = Image.MAX_IMAGE_PIXELS
    right = mask.ndim == 2 and mask.dtype in (np.bool_, np.uint8) and mask.size > 0
    return right and (most is None or mask.size <= most)


def _written(mask: npt.NDArray[Any], folder: Path) -> Path:
    image = io.BytesIO()
    Image.fromarray(mask != 0).save(image, "PNG")
    data = image.getvalue()
    path = folder / f"given-{hashlib.sha256(data).hexdigest()}.png"
    try:
        if path.read_bytes() == data:
            return path
    except FileNotFoundError:
        pass  # it is new
    write_whole(path, data)
    return path
