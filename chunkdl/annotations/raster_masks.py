"""Pictures of class numbers (PNG, TIFF, pyramids), as polygons along the borders of pixels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from chunkdl.annotations.drawn import Drawn, Source
from chunkdl.annotations.outlines import regions_of
from chunkdl.annotations.scales import scale_to_slide
from chunkdl.errors import SlideError
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.slide import Level, Slide

MOST_PIXELS = 1024 * 1024 * 1024 // 4 // 3
"""Of a picture that is read whole; more than these Pillow warns of."""
_ONE_SAMPLE = {"1", "L", "P", "I;16", "I;16B", "I"}
"""Pillow's modes of one number a pixel; of a palette that is the index."""

_LOOKED_AT = 100
"""Pixels of a reduced level."""
_PNG = b"\x89PNG"

Values = npt.NDArray[np.unsignedinteger]


def read_mask(source: Source) -> Iterator[Drawn]:
    """Each connected region of a class as one polygon with holes, class by class.

    The picture shows the whole slide at any scale. Of a TIFF pyramid that is too large the finest
    level of at most 29,826,161 pixels is read, and some pixels of it are looked for in level 0.

    Raises:
        AnnotationError: it is no picture of one number a pixel, has another aspect ratio than the
            slide, is too large, has a value of no class, was averaged, or no classes were given.
    """
    table = source.options.mask_classes
    if not table:
        raise source.error(
            "it is a raster mask, and what its values mean is not known: give mask_classes, such "
            'as {1: "tumor", 2: "stroma"}'
        )
    values = _values(source)
    height, width = values.shape
    scale = np.array(scale_to_slide(width, height, source, "the mask"))
    _check_values(values, source)
    number = 0
    for value, name in sorted(table.items()):
        try:
            regions = regions_of(values == value)
        except ValueError as error:
            raise source.error(
                f"its value {value} ({name!r:.60}) is too ragged: {error}; give a smaller mask"
            ) from error
        for rings in regions:
            polygon = [ring * scale for ring in rings]
            yield Drawn(number, f"{name} {number}", name, [polygon], is_sound=True)
            number += 1


def _check_values(values: Values, source: Source) -> None:
    table = source.options.mask_classes
    present = np.flatnonzero(np.bincount(values.reshape(-1), minlength=1)).tolist()
    strange = [value for value in present if value != 0 and value not in table]
    if strange:
        shown = ", ".join(map(str, strange[:10]))
        more = ", …" if len(strange) > 10 else ""
        raise source.error(
            f"it has the values {shown}{more}, which mask_classes does not name; a mask that was "
            "averaged or saved as JPEG has such values"
        )


def _values(source: Source) -> Values:
    """The class numbers, uint8 or uint16 (h, w)."""
    try:
        with open(source.file, "rb") as opened:
            is_png = opened.read(len(_PNG)) == _PNG
        picture = _picture(source.file)
    except Exception as error:  # Pillow raises what its parsing happens to meet
        raise source.error(f"the picture cannot be read: {error}") from error
    if picture is not None:
        return _numbers(*picture, source)
    if not is_png:
        return _of_pyramid(source)
    raise source.error(
        f"it has more than {MOST_PIXELS} pixels, and is not read: give a smaller one, or a TIFF "
        "pyramid"
    )


def _picture(file: str) -> tuple[str, npt.NDArray[Any]] | None:
    """Pillow's mode, and the pixels; None: it is too large."""
    # Pillow warns of large sizes, and of what it passes over in a TIFF.
    with warnings.catch_warnings(action="ignore"):
        try:
            image = Image.open(file, formats=["PNG", "TIFF"])
        except Image.DecompressionBombError:
            return None
        with image:
            if image.width * image.height > MOST_PIXELS:
                return None
            # Colours are refused, and need not be decoded for that.
            pixels = np.asarray(image) if image.mode in _ONE_SAMPLE else np.empty(0)
            return image.mode, pixels


def _numbers(mode: str, values: npt.NDArray[Any], source: Source) -> Values:
    if mode not in _ONE_SAMPLE:
        raise source.error(
            f"its pixels are {mode}, and a mask has one number a pixel: save it as greyscale "
            "without an alpha channel, or with a palette"
        )
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if values.dtype.kind not in "ui" or values.min() < 0 or values.max() >= 2**16:
        raise source.error(f"its numbers are {values.dtype}, and must be from 0 to 65535")
    return values.astype(np.uint8 if values.dtype == np.uint8 else np.uint16)


def _of_pyramid(source: Source) -> Values:
    try:
        slide = open_slide(os.fspath(source.file), "tiff")
    except SlideError as error:
        raise source.error(f"the TIFF cannot be read: {error}") from error
    try:
        levels = list(enumerate(slide.info.levels))
        fitting = [at for at, level in levels if level.width * level.height <= MOST_PIXELS // 3]
        if not fitting:
            raise source.error(
                f"its smallest level has more than {MOST_PIXELS // 3} pixels: give a smaller mask"
            )
        level = slide.info.levels[fitting[0]]
        pixels = np.empty((level.height, level.width, 3), np.uint8)
        slide.read_into(pixels, fitting[0], 0, 0)
        if fitting[0] > 0 and _is_averaged(slide, level, pixels[..., 0]):
            raise source.error(
                "its reduced level was averaged, which makes wrong classes between others: make "
                "its levels by nearest neighbour, or give a smaller mask"
            )
    except SlideError as error:
        raise source.error(f"the TIFF cannot be read: {error}") from error
    finally:
        slide.close()
    if (pixels[..., 0] != pixels[..., 1]).any() or (pixels[..., 0] != pixels[..., 2]).any():
        raise source.error("its pixels have colours, and a mask has one number a pixel")
    return np.ascontiguousarray(pixels[..., 0])


def _is_averaged(slide: Slide, level: Level, values: Values) -> bool:
    """Whether a level has, at borders of classes, a value that level 0 does not have there."""
    ys, xs = np.nonzero(values[:, 1:] != values[:, :-1])
    whole = slide.info.levels[0]
    across, down = whole.width / level.width, whole.height / level.height
    for at in np.unique(np.linspace(0, len(ys) - 1, _LOOKED_AT).astype(int)) if len(ys) else ():
        y, x = int(ys[at]), int(xs[at])
        # A pixel more all around, wherever the writer has put the centre.
        left, top = max(0, int(x * across) - 1), max(0, int(y * down) - 1)
        right = min(whole.width, int((x + 1) * across) + 2)
        bottom = min(whole.height, int((y + 1) * down) + 2)
        block = np.empty((bottom - top, right - left, 3), np.uint8)
        slide.read_into(block, 0, left, top)
        if not (block[..., 0] == values[y, x]).any():
            return True
    return False
