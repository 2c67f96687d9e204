"""What our own readers know of a file that OpenSlide is to read, so that it is read right."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from chunkdl.slides.address import SlideAddress
from chunkdl.slides.readers.dicom import structure_of as dicom_structure
from chunkdl.slides.readers.dicom_magic import is_dicom
from chunkdl.slides.readers.refusals import NotTaken, Refused
from chunkdl.slides.readers.tiff import describe_tiff, tiff_directories
from chunkdl.slides.readers.tiff_header import is_tiff
from chunkdl.slides.readers.tiff_levels import check_tiles, stored_pixels, tiles_present
from chunkdl.slides.slide import Level, PixelRule, Scanned
from chunkdl.slides.structure import chosen_image

MISREAD_FORMATS = ("Aperio SVS", "OME-TIFF", "TIFF")
"""Formats in which OpenSlide takes every tiled, or every reduced, page for a level."""
SAME_FRAME = (*MISREAD_FORMATS, "Philips TIFF")
"""Formats whose level 0 is the same in OpenSlide, tile by tile."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known better of a file than OpenSlide knows it.

    Attributes:
        levels: None: those of OpenSlide are taken.
        present: which tiles of level 0 are in the file; None: all, or nobody knows.
    """

    levels: tuple[Level, ...] | None = None
    present: Scanned | None = None


def known_of(address: SlideAddress, rule: PixelRule) -> Known:
    """What our own readers know of a file.

    OpenSlide silently reduces 16 bits to 8, shows one channel of three as red, takes a label for a
    level, and shows one slide of several.

    Raises:
        NotTaken: it would show another slide than the one that is meant.
        Refused: it would narrow the samples, or our own reader refuses the file as well.
    """
    described = None
    if not os.path.isdir(address.path):
        with open(address.path, "rb") as file:
            head = file.read(8)
        if is_tiff(head):
            # Before anything else: OpenSlide ends the process over some damaged tables.
            check_tiles(address.path, tiff_directories(address.path))
    try:
        if os.path.isdir(address.path) or is_dicom(address.path):
            structure = dicom_structure(address.path)
        else:
            described = describe_tiff(address.path)
            structure = described.structure
    except NotTaken:
        if address.image:
            raise NotTaken("OpenSlide shows one slide of a file: leave out #image=K") from None
        return Known()
    image = chosen_image(structure, address.image)
    if len(structure.images) > 1:
        raise NotTaken(
            f"the file has {len(structure.images)} slides, and OpenSlide cannot show a single one "
            "of them: use the reader 'auto'"
        )
    if described is None:
        return Known()
    source = described.sources[image.number]
    if source.refused:
        raise Refused(source.refused)
    if source.tiles is not None:
        with suppress(NotTaken):
            source.tiles(address.path, [streams[0] for streams in source.levels], rule)
    pixels = stored_pixels(source.levels[0], source.channel_names)
    if not (pixels.is_plain or (pixels.bits == 8 and pixels.alpha is not None)):
        raise Refused(
            f"OpenSlide would silently reduce its {pixels.total} samples of {pixels.bits} bits: "
            "use the reader 'auto' or 'tiff', and give channels= and window= as that reader asks"
        )
    present = tiles_present(source.levels[0][0]) if structure.format in SAME_FRAME else None
    # Of the formats of other vendors OpenSlide knows what is what, and where their tiles lie.
    return Known(image.levels if structure.format in MISREAD_FORMATS else None, present)
