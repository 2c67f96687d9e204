"""How the bytes of one tile become pixels: a decoder per TIFF compression."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import imagecodecs
import numpy as np

from chunkdl.slides.slide import Pixels

RAW, LZW, JPEG, DEFLATE, ADOBE_DEFLATE = 1, 5, 7, 32946, 8
JPEG2000, APERIO_JPEG2000_YCBCR, APERIO_JPEG2000_RGB = 34712, 33003, 33005
ANY_JPEG2000 = (JPEG2000, APERIO_JPEG2000_YCBCR, APERIO_JPEG2000_RGB)
RGB, YCBCR = 2, 6

Decoder = Callable[[bytes, Pixels], object]
"""Decodes a tile's bytes into a C-contiguous array of the tile's shape.

Raises ValueError or RuntimeError (all imagecodecs errors are) where the bytes do not fill it.
"""


@dataclass(frozen=True, slots=True)
class TileCoding:
    """How all tiles of a level are coded; the numbers are those of the TIFF tags.

    Attributes:
        compression: value of the Compression tag.
        photometric: value of the PhotometricInterpretation tag.
        predictor: value of the Predictor tag; 2 is horizontal differencing.
        jpeg_tables: the level's JPEGTables, None where every tile is a complete JPEG.
    """

    compression: int
    photometric: int
    predictor: int
    jpeg_tables: bytes | None


def decoder_for(coding: TileCoding) -> Decoder | None:
    """The decoder of such tiles, None where there is none."""
    compression, photometric = coding.compression, coding.photometric
    if compression == JPEG and photometric in (RGB, YCBCR):
        decode = _decode_ycbcr_jpeg if photometric == YCBCR else _decode_rgb_jpeg
        return partial(decode, coding.jpeg_tables)
    if compression == APERIO_JPEG2000_YCBCR:
        return _decode_jpeg2000_ycbcr
    if compression == APERIO_JPEG2000_RGB or (compression == JPEG2000 and photometric == RGB):
        return _decode_jpeg2000
    plain = {
        RAW: _decode_raw,
        LZW: _decode_lzw,
        DEFLATE: _decode_deflate,
        ADOBE_DEFLATE: _decode_deflate,
    }.get(compression)
    if plain is None or photometric != RGB or coding.predictor not in (1, 2):
        return None
    return partial(_decode_differences, plain) if coding.predictor == 2 else plain


# ---- JPEG


def _check_end(data: bytes) -> None:
    """Check that a JPEG or JPEG 2000 stream has its end marker, 0xFFD9 in both."""
    # The libraries only warn when data run out, fill the rest of the tile with grey, and nobody
    # sees the warning. Some writers pad tiles.
    if data[-2:] != b"\xff\xd9" and not data.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise ValueError("the stream has no end marker: it is cut short or overwritten")


def _decode_ycbcr_jpeg(tables: bytes | None, data: bytes, tile: Pixels) -> None:
    _check_end(data)
    imagecodecs.jpeg8_decode(data, tables=tables, colorspace="YCBCR", outcolorspace="RGB", out=tile)


def _decode_rgb_jpeg(tables: bytes | None, data: bytes, tile: Pixels) -> None:
    _check_end(data)
    # Aperio stores RGB in the JPEG as the tag says. A JFIF stream is YCbCr by its own standard,
    # whatever the tag says, and writers exist that leave the tag at RGB.
    space = None if data[6:10] == b"JFIF" else "RGB"
    imagecodecs.jpeg8_decode(data, tables=tables, colorspace=space, outcolorspace="RGB", out=tile)


# ---- JPEG 2000


def check_codestream(data: bytes, height: int, width: int) -> None:
    """Check that a JPEG 2000 codestream holds (height, width) pixels of three plain bytes.

    The SIZ marker (ISO/IEC 15444-1, A.5.1) is read before the decoder sees the data, because
    the decoder allocates what the marker says.

    Raises:
        ValueError: it holds something else.
    """
    if data[:4] != b"\xff\x4f\xff\x51" or len(data) < 51:
        raise ValueError("no JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    size = (bottom - top, right - left, components)
    if size != (height, width, 3):
        raise ValueError(f"JPEG 2000 stream of {size} pixels, the tile has {(height, width, 3)}")
    if data[42:51] != b"\x07\x01\x01" * 3:
        raise ValueError("JPEG 2000 stream with subsampled colour or not 8 bits a sample")


def _decode_jpeg2000(data: bytes, tile: Pixels) -> None:
    check_codestream(data, tile.shape[0], tile.shape[1])
    _check_end(data)
    imagecodecs.jpeg2k_decode(data, out=tile)


def _decode_jpeg2000_ycbcr(data: bytes, tile: Pixels) -> None:
    _decode_jpeg2000(data, tile)
    tile[...] = ycbcr_to_rgb(tile)


def ycbcr_to_rgb(pixels: Pixels) -> Pixels:
    """RGB of full-range YCbCr pixels, (height, width, 3) uint8 (ITU-T T.871, section 7)."""
    luma = pixels[..., 0].astype(np.float32)
    blue = pixels[..., 1].astype(np.float32) - 128
    red = pixels[..., 2].astype(np.float32) - 128
    rgb = np.stack(
        [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1
    )
    whole: Pixels = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return whole


# ---- Lossless


def _decode_raw(data: bytes, tile: Pixels) -> None:
    if len(data) < tile.nbytes:
        raise ValueError(f"{len(data)} bytes for a tile of {tile.nbytes}")
    tile.reshape(-1)[:] = np.frombuffer(data, np.uint8, tile.nbytes)


def _decode_lzw(data: bytes, tile: Pixels) -> None:
    _check_filled(tile, imagecodecs.lzw_decode(data, out=tile.reshape(-1).data))


def _decode_deflate(data: bytes, tile: Pixels) -> None:
    _check_filled(tile, imagecodecs.deflate_decode(data, out=tile.reshape(-1).data))


def _check_filled(tile: Pixels, decoded: Pixels | bytes | bytearray) -> None:
    if len(decoded) != tile.nbytes:
        raise ValueError(f"the data end after {len(decoded)} of {tile.nbytes} bytes")


def _decode_differences(decode: Decoder, data: bytes, tile: Pixels) -> None:
    decode(data, tile)
    np.add.accumulate(tile, axis=1, dtype=np.uint8, out=tile)
