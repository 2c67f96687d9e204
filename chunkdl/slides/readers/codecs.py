"""How the bytes of one stored stream become samples: a decoder per TIFF compression.

A stream is a tile, or one plane of it where planes are stored apart. What the samples mean as
colours is the business of `chunkdl.slides.readers.samples`.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from chunkdl.slides.readers.jpeg2000_stream import check_coding
from chunkdl.slides.readers.jpeg_stream import (
    JPEG_END,
    JpegFacts,
    check_jpeg_end,
    check_jpeg_scans,
    jpeg_facts,
)
from chunkdl.slides.slide import Pixels

RAW, LZW, JPEG, ADOBE_DEFLATE, DEFLATE = 1, 5, 7, 8, 32946
PACKBITS, LERC, LZMA, PNG = 32773, 34887, 34925, 34933
ZSTD, OLD_ZSTD, WEBP, OLD_WEBP = 50000, 34926, 50001, 34927
JPEGXL, DNG_JPEGXL, JPEGXR, NDPI_JPEGXR = 50002, 52546, 34934, 22610
JPEG2000, APERIO_JPEG2000_YCBCR, APERIO_JPEG2000_RGB = 34712, 33003, 33005
ANY_JPEG2000 = (JPEG2000, APERIO_JPEG2000_YCBCR, APERIO_JPEG2000_RGB)
CODING_STYLE = 0x52
"""Second byte of the marker of JPEG 2000 behind which the transforms are named."""
YCBCR_BLOCK_PX = 2**18
MOST_LZMA_BYTES = 128 * 2**20
"""Of the dictionary that a stream names; the largest setting of writers takes 64 MiB."""
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6

COMPRESSION_NAMES = {
    RAW: "uncompressed",
    LZW: "LZW",
    JPEG: "JPEG",
    ADOBE_DEFLATE: "deflate",
    DEFLATE: "deflate",
    PACKBITS: "PackBits",
    LERC: "LERC",
    LZMA: "LZMA",
    PNG: "PNG",
    ZSTD: "zstd",
    OLD_ZSTD: "zstd",
    WEBP: "WebP",
    OLD_WEBP: "WebP",
    JPEGXL: "JPEG XL",
    DNG_JPEGXL: "JPEG XL",
    JPEGXR: "JPEG XR",
    NDPI_JPEGXR: "JPEG XR",
    JPEG2000: "JPEG 2000",
    APERIO_JPEG2000_YCBCR: "JPEG 2000 YCbCr",
    APERIO_JPEG2000_RGB: "JPEG 2000 RGB",
    2: "CCITT run length",
    3: "CCITT fax 3",
    4: "CCITT fax 4",
    6: "old-style JPEG",
    34661: "JBIG",
    34676: "SGI LogLuv",
    33004: "lossy JPEG 2000",
    34892: "lossy DNG JPEG",
    48124: "Jetraw",
    32909: "PixarLog",
    65000: "EER",
    65001: "EER",
    65002: "EER",
}
"""What people call the values of the Compression tag."""

Samples = npt.NDArray[Any]
"""Samples of one stream, C-contiguous, shape (height, width, samples), uint8 or native uint16."""
Decoder = Callable[[bytes, Samples], object]
"""Decodes a stream into a given array.

Raises ValueError or RuntimeError (all imagecodecs errors are) where the bytes do not fill it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileCoding:
    """How all streams of a level are coded; the numbers are those of the TIFF tags.

    Attributes:
        compression: value of the Compression tag.
        photometric: value of the PhotometricInterpretation tag.
        predictor: value of the Predictor tag; 2 is horizontal differencing.
        jpeg_tables: the level's JPEGTables, None where every stream is a complete JPEG.
        samples: of a pixel in one stream.
        bits: of a sample, 8 or 16.
        big_endian: the byte order of samples of 16 bits.
        lerc_packing: second value of the LercParameters tag: 0 none, 1 deflate, 2 zstd.
    """

    compression: int
    photometric: int
    predictor: int = 1
    jpeg_tables: bytes | None = None
    samples: int = 3
    bits: int = 8
    big_endian: bool = False
    lerc_packing: int = 0


def compression_name(compression: int) -> str:
    """What people call a value of the Compression tag, the number beside it where it is rare."""
    name = COMPRESSION_NAMES.get(compression)
    return f"{name} (compression {compression})" if name else f"compression {compression}"


def decoder_for(coding: TileCoding) -> Decoder | None:
    """The decoder of such streams, None where there is none."""
    compression = coding.compression
    if coding.photometric == YCBCR and not _is_made_rgb(coding):
        return None
    if compression == JPEG and coding.bits == 8 and coding.samples in (1, 3):
        return _Jpeg(coding.jpeg_tables, coding.photometric == YCBCR)
    if compression == APERIO_JPEG2000_YCBCR and (coding.samples, coding.bits) == (3, 8):
        return _decode_jpeg2000_ycbcr
    if compression == JPEG2000 and coding.photometric == YCBCR:
        return _decode_jpeg2000_by_stream
    if compression in ANY_JPEG2000:
        return partial(_decode_jpeg2000, coding.bits)
    if compression == LERC:
        unpack = {0: None, 1: imagecodecs.deflate_decode, 2: _decode_zstd}
        if coding.lerc_packing not in unpack:
            return None
        return partial(_decode_lerc, unpack[coding.lerc_packing])
    if compression in _PICTURES:
        return partial(_decode_picture, _PICTURES[compression])
    if compression not in _PACKED or coding.predictor not in (1, 2):
        return None
    swapped = coding.bits == 16 and coding.big_endian != (np.dtype("=u2") == np.dtype(">u2"))
    return partial(_decode_packed, _PACKED[compression], coding.predictor == 2, swapped)


def _is_made_rgb(coding: TileCoding) -> bool:
    """Whether a decoder makes RGB of such YCbCr; the others give samples as they are stored."""
    known = coding.compression == JPEG or coding.compression in ANY_JPEG2000
    return known and (coding.samples, coding.bits) == (3, 8)


# ---- JPEG


class _Jpeg:
    """Decodes the JPEG streams of a level.

    Args:
        tables: that all streams share.
        ycbcr: what the tag says of three components.
    """

    def __init__(self, tables: bytes | None, ycbcr: bool) -> None:
        self._tables = tables
        self._ycbcr = ycbcr
        # The streams of a level begin alike, and reading their markers takes 3 % of a tile's time.
        self._known: tuple[bytes, JpegFacts] | None = None

    def __call__(self, data: bytes, out: Samples) -> None:
        check_jpeg_end(data)
        facts = self._facts(data)
        check_jpeg_scans(data, facts)
        height, width, samples = out.shape
        if facts.components == 1 and samples == 3:
            grey = np.empty((height, width), np.uint8)
            imagecodecs.jpeg8_decode(data, tables=self._tables, out=grey)
            out[...] = grey[..., None]
        elif samples == 1:
            if facts.components != 1:
                raise ValueError(f"JPEG stream of {facts.components} components for a grey tile")
            imagecodecs.jpeg8_decode(data, tables=self._tables, out=out.reshape(height, width))
        else:
            # What the stream says of itself goes before the tag: writers exist that leave the tag
            # at RGB over a JFIF stream, which is YCbCr by its standard, and the other way round.
            ycbcr = self._ycbcr if facts.ycbcr is None else facts.ycbcr
            imagecodecs.jpeg8_decode(
                data,
                tables=self._tables,
                colorspace="YCBCR" if ycbcr else "RGB",
                outcolorspace="RGB",
                out=out,
            )

    def _facts(self, data: bytes) -> JpegFacts:
        if self._known is not None and data.startswith(self._known[0]):
            return self._known[1]
        facts = jpeg_facts(data)
        self._known = data[: facts.said_by], facts
        return facts


# ---- JPEG 2000


def check_codestream(data: bytes, height: int, width: int, samples: int = 3, bits: int = 8) -> None:
    """Check that a JPEG 2000 codestream holds (height, width) pixels of plain samples.

    The SIZ marker (ISO/IEC 15444-1, A.5.1) is read before the decoder sees the data, because
    the decoder allocates what the marker says.

    Raises:
        ValueError: it holds something else.
    """
    if data[:4] != b"\xff\x4f\xff\x51" or len(data) < 42 + 3 * samples:
        raise ValueError("no JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    size = (bottom - top, right - left, components)
    if size != (height, width, samples):
        raise ValueError(
            f"JPEG 2000 stream of {size} pixels, the tile has {(height, width, samples)}"
        )
    if data[42 : 42 + 3 * samples] != bytes((bits - 1, 1, 1)) * samples:
        raise ValueError(f"JPEG 2000 stream with subsampled colour or not {bits} bits a sample")
    tile_w, tile_h = struct.unpack_from(">2I", data, 24)
    # A codestream may be cut into tiles of its own; a million of one pixel each takes gigabytes.
    if not tile_w or not tile_h or (size[0] // tile_h + 1) * (size[1] // tile_w + 1) > 4096:
        raise ValueError(f"JPEG 2000 stream cut into tiles of {tile_w}x{tile_h} pixels")


def _decode_jpeg2000(bits: int, data: bytes, out: Samples) -> None:
    height, width, samples = out.shape
    check_codestream(data, height, width, samples, bits)
    _check_codestream_end(data)
    check_coding(data)
    imagecodecs.jpeg2k_decode(data, out=out if samples > 1 else out.reshape(height, width))


def _decode_jpeg2000_ycbcr(data: bytes, out: Samples) -> None:
    _decode_jpeg2000(8, data, out)
    # In blocks, because the numbers on the way take twelve times the memory of the pixels.
    rows = max(1, YCBCR_BLOCK_PX // out.shape[1])
    for top in range(0, out.shape[0], rows):
        out[top : top + rows] = ycbcr_to_rgb(out[top : top + rows])


def _decode_jpeg2000_by_stream(data: bytes, out: Samples) -> None:
    """YCbCr, unless the stream has a transform of its own, which is undone while decoding."""
    if has_colour_transform(data):
        _decode_jpeg2000(8, data, out)
    else:
        _decode_jpeg2000_ycbcr(data, out)


def has_colour_transform(data: bytes) -> bool:
    """Whether a JPEG 2000 codestream has RGB behind its own transform (ISO/IEC 15444-1, A.6.1).

    Raises:
        ValueError: it does not say.
    """
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == CODING_STYLE:
            return data[at + 8] == 1
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("a JPEG 2000 stream that does not say how it is coded")


def _check_codestream_end(data: bytes) -> None:
    # In the data of a codestream no byte above 0x8F follows 0xFF (ISO/IEC 15444-1, B.10.1), so
    # the first end marker behind the first start of data is the end. Writers pad tiles.
    if data[-2:] == JPEG_END:
        return
    start = data.find(b"\xff\x93")
    if start < 0 or data.find(JPEG_END, start) < 0:
        raise ValueError("the stream has no end marker: it is cut short or overwritten")


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


# ---- Pictures: formats that know their own size; the libraries refuse an array of another one
# before they take memory.

_PICTURES: dict[int, Callable[..., Any]] = {
    PNG: imagecodecs.png_decode,
    WEBP: imagecodecs.webp_decode,
    OLD_WEBP: imagecodecs.webp_decode,
    JPEGXL: partial(imagecodecs.jpegxl_decode, numthreads=1),
    DNG_JPEGXL: partial(imagecodecs.jpegxl_decode, numthreads=1),
    JPEGXR: imagecodecs.jpegxr_decode,
    NDPI_JPEGXR: imagecodecs.jpegxr_decode,
}


def _decode_picture(decode: Callable[..., Any], data: bytes, out: Samples) -> None:
    height, width, samples = out.shape
    decode(data, out=out if samples > 1 else out.reshape(height, width))


def _decode_lerc(unpack: Callable[..., Any] | None, data: bytes, out: Samples) -> None:
    if unpack is not None:
        # LERC never needs more than the samples and a few bytes a block.
        data = bytes(unpack(data, out=2 * out.nbytes + 65536))
    _decode_picture(imagecodecs.lerc_decode, data, out)


# ---- Bytes that were packed without loss


def _unpack_lzma(data: bytes, out: memoryview) -> bytes:
    decoder = lzma.LZMADecompressor(memlimit=MOST_LZMA_BYTES)
    try:
        decoded = decoder.decompress(data, len(out))
    except lzma.LZMAError as error:
        raise ValueError(f"the LZMA stream cannot be decoded: {error}") from error
    out[: len(decoded)] = decoded
    return decoded


def _decode_zstd(data: bytes, out: Any) -> Any:
    # The library refuses bytes behind the frame, which every other codec here passes over.
    return imagecodecs.zstd_decode(data[: _zstd_frame_end(data)], out=out)


def _zstd_frame_end(data: bytes) -> int:
    """Where the first frame ends (RFC 8878, 3.1.1), or the data where it is cut short."""
    flags = data[4] if len(data) > 4 else 0
    single, checksum = flags >> 5 & 1, flags >> 2 & 1
    at = 6 - single + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
    last = False
    while not last and at + 3 <= len(data):
        block = int.from_bytes(data[at : at + 3], "little")
        last, repeated = bool(block & 1), block >> 1 & 3 == 1
        at += 3 + (1 if repeated else block >> 3)
    return min(len(data), at + 4 * checksum)


_PACKED: dict[int, Callable[..., Any] | None] = {
    RAW: None,
    LZW: imagecodecs.lzw_decode,
    DEFLATE: imagecodecs.deflate_decode,
    ADOBE_DEFLATE: imagecodecs.deflate_decode,
    PACKBITS: imagecodecs.packbits_decode,
    LZMA: _unpack_lzma,
    ZSTD: _decode_zstd,
    OLD_ZSTD: _decode_zstd,
}


def _decode_packed(
    unpack: Callable[..., Any] | None, differences: bool, swapped: bool, data: bytes, out: Samples
) -> None:
    flat = out.reshape(-1).view(np.uint8)
    if unpack is None:
        if len(data) < out.nbytes:
            raise ValueError(f"{len(data)} bytes for a tile of {out.nbytes}")
        flat[:] = np.frombuffer(data, np.uint8, out.nbytes)
    else:
        decoded = unpack(data, out=flat.data)
        if len(decoded) != out.nbytes:
            raise ValueError(f"the data end after {len(decoded)} of {out.nbytes} bytes")
    if swapped:
        out.byteswap(inplace=True)
    if differences:
        np.add.accumulate(out, axis=1, dtype=out.dtype, out=out)
