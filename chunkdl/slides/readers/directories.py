"""The directories of a TIFF as frozen facts; no object of tifffile is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.microns import Claim, is_measure

MAX_DIRECTORIES = 4096
MAX_TAG_BYTES = 64 * 2**10
"""Larger values are in `Directory.tags` only where they have a field of their own."""
MOST_SIDE_PX = 2**31 - 1
MAX_TEXT_BYTES = 64 * 2**20
"""Longest description or XMP that is read; Philips puts a few hundred kilobytes into one."""

SUBFILE_TYPE, DESCRIPTION, MAKE, X_RESOLUTION, Y_RESOLUTION = 254, 270, 271, 282, 283
RESOLUTION_UNIT, COLOUR_MAP, XMP, ICC_PROFILE = 296, 320, 700, 34675
NDPI_FORMAT = 65420
MICRONS_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}
"""Microns of the inch and the centimetre, by the value of the ResolutionUnit tag."""


@dataclass(frozen=True, slots=True, eq=False)
class Directory:
    """One directory (page) of a TIFF; numbers are the values of the tags.

    Attributes:
        name: "directory 2" or "directory 0, SubIFD 1".
        number: index of the directory, or of the one that a SubIFD hangs on.
        sub: index of the SubIFD, None for a directory of the main chain.
        width, height: stored pixels.
        tile_width, tile_height: of its tiles, pixels; 0 for strips. For NDPI the size of what lies
            between two restart markers.
        rows_per_strip: of its strips; `height` where the file says nothing.
        compression, photometric, predictor, samples, bits, sample_format, planar, subfile_type:
            the tags of these names, 0 or the default of TIFF 6.0 where they are absent.
        extra_samples: meaning of the samples beyond those of `photometric`.
        description, software, make: texts, empty where absent.
        resolution: pixels per `resolution_unit` as (x, y), None where absent or not positive.
        resolution_unit: 1 none, 2 inch, 3 centimetre.
        offsets, byte_counts: int64, shape (tiles or strips,); bytes from the start of the file.
        jpeg_tables: tables that all JPEG tiles share.
        jpeg_header: for NDPI the bytes of the JPEG before the first restart interval, its size
            set to one interval; None where the file has no table of intervals.
        colour_map: uint16, shape (3, entries).
        icc_profile: the colour profile.
        xmp: the XMLPacket, empty where absent.
        tags: values of at most 64 KiB by the number of the tag.
        big_endian: the byte order of samples of more than 8 bits.
    """

    name: str
    number: int
    sub: int | None
    width: int
    height: int
    tile_width: int
    tile_height: int
    rows_per_strip: int
    compression: int
    photometric: int
    predictor: int
    samples: int
    bits: int
    sample_format: int
    planar: int
    subfile_type: int
    extra_samples: tuple[int, ...]
    description: str
    software: str
    make: str
    resolution: tuple[float, float] | None
    resolution_unit: int
    offsets: npt.NDArray[np.int64]
    byte_counts: npt.NDArray[np.int64]
    jpeg_tables: bytes | None
    jpeg_header: bytes | None
    colour_map: npt.NDArray[np.uint16] | None
    icc_profile: bytes | None
    xmp: bytes
    tags: Mapping[int, object]
    big_endian: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Stored pixels as (width, height)."""
        return self.width, self.height

    @property
    def block(self) -> tuple[int, int]:
        """Width and height of a tile or strip, pixels."""
        if self.tile_width:
            return self.tile_width, self.tile_height
        return self.width, self.rows_per_strip

    @property
    def is_rgb(self) -> bool:
        """Whether a pixel is red, green and blue, however coded."""
        return self.photometric in (2, 6) and self.samples >= 3


def directories_of(tiff: tifffile.TiffFile) -> tuple[Directory, ...]:
    """All directories of an open TIFF, each followed by its SubIFDs.

    Raises:
        SlideError: there are more than 4096, one has no pixels, a text is longer than 64 MiB, or
            the file is an NDPI of 4 GiB or more under another name.
    """
    path = tiff.filehandle.path
    found: list[Directory] = []
    for number, page in enumerate(_pages(tiff.pages)):
        found.append(_directory(page, number, None))
        if page.pages is not None:
            found += (
                _directory(below, number, sub) for sub, below in enumerate(_pages(page.pages))
            )
        if len(found) > MAX_DIRECTORIES:
            raise SlideError(
                f"the TIFF has more than {MAX_DIRECTORIES} directories: it is damaged, "
                "copy it again",
                slide=path,
            )
    # Only the name tells tifffile that the offsets have 64 bits; without it they lose the high 32.
    renamed = bool(found) and NDPI_FORMAT in found[0].tags and not tiff.tiff.is_ndpi
    if renamed and tiff.filehandle.size >= 2**32:
        raise SlideError(
            "it is a Hamamatsu NDPI file of more than 4 GiB under another name: "
            "give it a name that ends in .ndpi",
            slide=path,
        )
    return tuple(found)


def whole_tag(directory: Directory, tag: int, default: int) -> int:
    """The value of a tag that is one whole number, `default` where it is absent or is none."""
    value = directory.tags.get(tag, default)
    return int(value) if isinstance(value, int | np.integer) else default


def _pages(pages: tifffile.TiffPages) -> Iterator[tifffile.TiffPage]:
    for number, page in enumerate(pages):
        if number > MAX_DIRECTORIES:
            return
        yield page if isinstance(page, tifffile.TiffPage) else page.aspage()


def _directory(page: tifffile.TiffPage, number: int, sub: int | None) -> Directory:
    name = f"directory {number}" if sub is None else f"directory {number}, SubIFD {sub}"
    tags = page.tags
    for code in (DESCRIPTION, XMP):
        tag = tags.get(code)
        if tag is not None and tag.valuebytecount > MAX_TEXT_BYTES:
            raise SlideError(
                f"the text of {name} has {tag.valuebytecount} bytes; at most {MAX_TEXT_BYTES} "
                "are read",
                slide=page.parent.filehandle.path,
            )
    picture, tile = (page.imagewidth, page.imagelength), (page.tilewidth, page.tilelength)
    for what, size in (("pixels", picture), ("pixels in a tile", tile)):
        # A picture without tiles says that they have 0x0 pixels.
        if (size != (0, 0) or size is picture) and not 0 < min(size) <= max(size) <= MOST_SIDE_PX:
            raise SlideError(
                f"{name} has {size[0]}x{size[1]} {what}: the file is damaged, copy it again",
                slide=page.parent.filehandle.path,
            )
    colour_map = tags.valueof(COLOUR_MAP)
    return Directory(
        name=name,
        number=number,
        sub=sub,
        width=index(page.imagewidth),
        height=index(page.imagelength),
        tile_width=index(page.tilewidth),
        tile_height=index(page.tilelength),
        rows_per_strip=min(index(page.rowsperstrip) or page.imagelength, page.imagelength),
        compression=index(page.compression),
        photometric=index(page.photometric),
        predictor=index(page.predictor),
        samples=index(page.samplesperpixel),
        bits=index(page.bitspersample),
        sample_format=index(page.sampleformat),
        planar=index(page.planarconfig),
        subfile_type=index(tags.valueof(SUBFILE_TYPE, 0)),
        extra_samples=tuple(int(extra) for extra in page.extrasamples),
        description=_text(page.description),
        software=_text(page.software),
        make=_text(tags.valueof(MAKE)),
        resolution=_resolution(tags.valueof(X_RESOLUTION), tags.valueof(Y_RESOLUTION)),
        resolution_unit=index(tags.valueof(RESOLUTION_UNIT, 2)),
        offsets=np.asarray(page.dataoffsets, np.int64),
        byte_counts=np.asarray(page.databytecounts, np.int64),
        jpeg_tables=_bytes(page.jpegtables) or None,
        jpeg_header=page.jpegheader,
        colour_map=None if colour_map is None else np.asarray(colour_map, np.uint16),
        icc_profile=_bytes(tags.valueof(ICC_PROFILE)) or None,
        xmp=_bytes(tags.valueof(XMP)),
        tags={tag.code: tag.value for tag in tags if tag.valuebytecount <= MAX_TAG_BYTES},
        big_endian=page.parent.byteorder == ">",
    )


def _resolution(x: Any, y: Any) -> tuple[float, float] | None:
    if not (isinstance(x, tuple) and isinstance(y, tuple)) or 0 in (*x, *y):
        return None
    found = x[0] / x[1], y[0] / y[1]
    return found if all(map(is_measure, found)) else None


def _bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else b""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def resolution_claims(directory: Directory) -> tuple[Claim, ...]:
    """What the resolution tags say; nothing where they have no unit of length."""
    unit = MICRONS_PER_RESOLUTION_UNIT.get(directory.resolution_unit)
    if unit is None or directory.resolution is None:
        return ()
    x, y = directory.resolution
    return (Claim(unit / x, unit / y, "the resolution tags"),)


def pixels_text(directory: Directory) -> str:
    """How the pixels are stored, for people, such as "JPEG, 3 x 8 bit, tiles of 256x256"."""
    try:
        coding = tifffile.COMPRESSION(directory.compression).name.replace("_", " ")
    except ValueError:
        coding = f"compression {directory.compression}"
    shape = f"strips of {directory.rows_per_strip} rows"
    if directory.jpeg_header is not None:
        shape = f"restart intervals of {directory.tile_width}x{directory.tile_height}"
    elif directory.tile_width:
        shape = f"tiles of {directory.tile_width}x{directory.tile_height}"
    return f"{coding}, {directory.samples} x {directory.bits} bit, {shape}"
