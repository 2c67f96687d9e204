"""The direct reader: TIFF slides of 8-bit RGB, without OpenSlide.

tifffile reads the structure once; no object of it is kept. What is not a plain pyramid of RGB
tiles is refused, so that another reader gets it.
"""

from __future__ import annotations

import os
import re

import numpy as np
import numpy.typing as npt
import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.readers.codecs import (
    ANY_JPEG2000,
    RAW,
    TileCoding,
    check_codestream,
    decoder_for,
)
from chunkdl.slides.readers.tiled import TiledLevel, TiledSlide, single
from chunkdl.slides.slide import Level, SlideInfo

MAX_TILE_PX = 64 * 2**20
MAX_LEVELS = 64
RAW_BLOCK_PX = 2**18
"""An uncompressed image in one strip is read in blocks of about so many pixels."""

MICRONS_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
"""Microns of the inch and the centimetre, by the value of the ResolutionUnit tag."""

MICRONS_PER_OME_UNIT = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
MAKE = 271


class _NotTaken(Exception):
    """The file may be sound, but it is not for this reader; the message says what is in it."""


def open_tiff(path: str | os.PathLike[str]) -> TiledSlide:
    """Open an Aperio SVS, a pyramidal TIFF or BigTIFF, or an OME-TIFF of 8-bit RGB pixels.

    Levels are those of OpenSlide, in its order, and in addition the SubIFDs of the first page.

    Args:
        path: the file.

    Raises:
        SlideError: no such file, not a TIFF, damaged, or not taken by this reader.
    """
    name = os.fspath(path)
    try:
        with tifffile.TiffFile(name) as tiff:
            pages = _level_pages(tiff)
            found = [_tiled_level(page, pages[0]) for page in pages]
            mpp = _mpp(pages[0])
    except _NotTaken as reason:
        raise SlideError(f"not taken by the reader 'tiff': {reason}", slide=name) from reason
    except Exception as error:  # tifffile raises what its parsing happens to meet
        raise SlideError(f"cannot read the structure of the TIFF: {error}", slide=name) from error
    info = SlideInfo(
        path=name, reader="tiff", levels=tuple(level.level for level in found), mpp=mpp
    )
    return TiledSlide(info, found)


def _level_pages(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The pages that are levels, finest first, by the rules of OpenSlide's Aperio and TIFF code."""
    first = tiff.pages[0]
    if not isinstance(first, tifffile.TiffPage):
        raise _NotTaken("its first page is not complete")
    _refuse_vendors(first)
    if first.is_svs and not first.is_tiled:
        raise _NotTaken("it says that it is an Aperio file, and its first page has no tiles")
    pages = [first]
    for page in tiff.pages[1:]:
        if not isinstance(page, tifffile.TiffPage) or page.is_tiled != first.is_tiled:
            continue
        # Aperio's thumbnail, label and macro are in strips; all that is in tiles is a level.
        if first.is_svs or page.is_reduced:
            pages.append(page)
    pages += [page for page in first.pages or () if isinstance(page, tifffile.TiffPage)]
    if len(pages) > MAX_LEVELS:
        raise _NotTaken(f"it has {len(pages)} levels; at most {MAX_LEVELS} are sensible")
    return sorted(pages, key=lambda page: -page.imagewidth)


def _refuse_vendors(page: tifffile.TiffPage) -> None:
    """Refuse the formats whose tiles overlap, move or lie in one stream."""
    vendor = {
        "Hamamatsu NDPI": page.is_ndpi,
        "Leica SCN": page.is_scn,
        "Ventana BIF": page.is_bif,
        "Philips TIFF": page.is_philips,
        "Trestle TIFF": page.software.startswith("MedScan"),
        "Huron TIFF": str(page.tags.valueof(MAKE, "")).startswith("Huron"),
        "Argos AVS": page.is_avs,
    }
    for name, found in vendor.items():
        if found:
            raise _NotTaken(f"it is a {name} file")


def _tiled_level(page: tifffile.TiffPage, base: tifffile.TiffPage) -> TiledLevel:
    """Check the page and make a level of it; `base` is the page of level 0."""
    _check_pixels(page)
    width, height = page.imagewidth, page.imagelength
    if page.is_tiled:
        tile_w, tile_h = page.tilewidth, page.tilelength
    else:
        tile_w, tile_h = width, min(page.rowsperstrip, height)
    offsets = np.asarray(page.dataoffsets, np.int64)
    byte_counts = np.asarray(page.databytecounts, np.int64)
    if not page.is_tiled and page.compression == RAW and len(offsets) == 1:
        tile_h, offsets, byte_counts = _cut_raw_strip(width, height, offsets, byte_counts)
    _check_grid((width, height), (tile_w, tile_h), offsets, byte_counts)
    coding = TileCoding(
        compression=int(page.compression),
        photometric=int(page.photometric),
        predictor=int(page.predictor),
        jpeg_tables=page.jpegtables,
    )
    decode = decoder_for(coding)
    if decode is None:
        raise _NotTaken(
            f"compression {coding.compression} with photometric interpretation "
            f"{coding.photometric} and predictor {coding.predictor}"
        )
    if coding.compression in ANY_JPEG2000:
        _check_first_codestream(page, tile_w, tile_h)
    downsample = (base.imagewidth / width + base.imagelength / height) / 2
    return TiledLevel(
        level=Level(width, height, downsample, tile_w, tile_h),
        tiles_across=-(-width // tile_w),
        offsets=offsets[None],
        byte_counts=byte_counts[None],
        full_height=page.is_tiled,
        make=single(decode),
        files=(page.parent.filehandle.path,),
    )


def _check_pixels(page: tifffile.TiffPage) -> None:
    kind = (page.samplesperpixel, page.bitspersample, int(page.sampleformat), page.planarconfig)
    if kind != (3, 8, 1, 1) or page.imagedepth != 1 or page.fillorder != 1:
        raise _NotTaken(
            f"its pixels are {page.samplesperpixel} samples of {page.bitspersample} bits "
            f"(sample format {int(page.sampleformat)}, planar configuration "
            f"{int(page.planarconfig)}), not interleaved 8-bit RGB"
        )


def _check_grid(
    size: tuple[int, int],
    tile: tuple[int, int],
    offsets: npt.NDArray[np.int64],
    byte_counts: npt.NDArray[np.int64],
) -> None:
    """Check a header before memory is taken for what it claims."""
    if min(*size, *tile) <= 0:
        raise ValueError(f"an image of {size} pixels in tiles of {tile}")
    if tile[0] * tile[1] > MAX_TILE_PX:
        raise _NotTaken(f"tiles of {tile[0]}x{tile[1]} pixels; at most {MAX_TILE_PX} pixels")
    tiles = -(-size[0] // tile[0]) * -(-size[1] // tile[1])
    if len(offsets) != tiles or len(byte_counts) != tiles:
        raise ValueError(
            f"an image of {size} pixels in tiles of {tile} has {tiles} tiles, but the header "
            f"has {len(offsets)} offsets and {len(byte_counts)} byte counts"
        )
    # No codec makes a tile much larger than its pixels; a count beyond that is a damaged header.
    limit = 4 * 3 * tile[0] * tile[1] + 2**20
    if offsets.min() < 0 or byte_counts.min() < 0 or byte_counts.max() > limit:
        raise ValueError("offsets or byte counts of tiles that cannot be")


def _cut_raw_strip(
    width: int, height: int, offsets: npt.NDArray[np.int64], byte_counts: npt.NDArray[np.int64]
) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut an uncompressed image in one strip, as many tools write it, into blocks of rows."""
    if width <= 0 or height <= 0 or byte_counts[0] < 3 * width * height:
        raise ValueError(f"{byte_counts[0]} bytes for an image of {width}x{height} pixels")
    rows = min(height, max(1, RAW_BLOCK_PX // width))
    tops = np.arange(0, height, rows, dtype=np.int64)
    return rows, offsets[0] + tops * 3 * width, np.minimum(rows, height - tops) * 3 * width


def _check_first_codestream(page: tifffile.TiffPage, tile_w: int, tile_h: int) -> None:
    file = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count:
            file.seek(offset)
            try:
                check_codestream(file.read(min(count, 64)), tile_h, tile_w)
            except ValueError as reason:
                raise _NotTaken(str(reason)) from reason
            return


# ---- Microns per pixel


def _mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Microns per pixel of level 0, as OpenSlide's properties mpp-x and mpp-y.

    Aperio files say it in their description. Others say it in the resolution tags; where those
    have no unit, an OME-TIFF says it in its XML (OME 2016-06, Pixels.PhysicalSizeX).
    """
    if page.is_svs:
        return _aperio_mpp(page.description)
    return _resolution_mpp(page) or _ome_mpp(page.description)


def _aperio_mpp(description: str) -> tuple[float, float] | None:
    for field in description.split("|")[1:]:
        name, _, value = field.partition("=")
        if name.strip() == "MPP":
            return _positive(value, value)
    return None


def _resolution_mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    unit = MICRONS_PER_UNIT.get(int(page.tags.valueof(RESOLUTION_UNIT, 2)))
    x, y = page.tags.valueof(X_RESOLUTION), page.tags.valueof(Y_RESOLUTION)
    if unit is None or x is None or y is None or 0 in (*x, *y):
        return None
    return _positive(str(unit * x[1] / x[0]), str(unit * y[1] / y[0]))


def _ome_mpp(description: str) -> tuple[float, float] | None:
    # Two attributes do not need an XML parser, and a parser can be made to expand a header.
    found = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", description)
    if found is None:
        return None
    attributes = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', found.group()))
    sizes = []
    for axis in "XY":
        factor = MICRONS_PER_OME_UNIT.get(attributes.get(f"PhysicalSize{axis}Unit", "µm"), 0)
        size = _positive(*[attributes.get(f"PhysicalSize{axis}", "")] * 2)
        sizes.append(size[0] * factor if size else 0.0)
    return (sizes[0], sizes[1]) if min(sizes) > 0 else None


def _positive(x: str, y: str) -> tuple[float, float] | None:
    """Both numbers, None unless both are positive; a decimal comma is read as OpenSlide does."""
    try:
        values = float(x.replace(",", ".")), float(y.replace(",", "."))
    except ValueError:
        return None
    return values if min(values) > 0 and max(values) < float("inf") else None
