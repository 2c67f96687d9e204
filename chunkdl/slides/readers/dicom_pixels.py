"""How the bytes of a DICOM frame become RGB."""

from __future__ import annotations

from collections.abc import Sequence

import imagecodecs
import numpy as np

from chunkdl.slides.readers import dicom_tags as tags
from chunkdl.slides.readers.codecs import (
    APERIO_JPEG2000_YCBCR,
    JPEG,
    JPEG2000,
    RAW,
    RGB,
    YCBCR,
    Decoder,
    TileCoding,
    check_codestream,
    decoder_for,
    has_colour_transform,
)
from chunkdl.slides.readers.dicom_frames import item_data
from chunkdl.slides.readers.dicom_header import Instance
from chunkdl.slides.readers.tiled import TileMaker, single
from chunkdl.slides.slide import Pixels


def reason_against(instance: Instance) -> str:
    """Why the pixels of a file are not read, half a sentence; empty where they are."""
    if instance.focal_planes > 1:
        return f"it has {instance.focal_planes} focal planes"
    if instance.optical_paths > 1:
        return f"it has {instance.optical_paths} optical paths"
    if instance.photometric.startswith(("MONOCHROME", "PALETTE")) or instance.samples != 3:
        return (
            f"its pixels are {instance.photometric} with {instance.samples} samples, not RGB; "
            "write the channels that you want as an RGB image"
        )
    if (instance.bits_allocated, instance.bits_stored) != (8, 8):
        return (
            f"its samples have {instance.bits_stored} bits (in {instance.bits_allocated}), not 8; "
            "write it as an image of 8 bits"
        )
    if _decoder(instance) is None:
        return (
            f"its pixels are {tags.TRANSFER_SYNTAXES[instance.syntax]} with the photometric "
            f"interpretation {instance.photometric!r}"
        )
    return ""


def maker_of(instance: Instance) -> TileMaker:
    """Makes RGB of the frames of a file that there is no `reason_against`."""
    decode = _decoder(instance)
    assert decode is not None, "reason_against was asked before"
    if instance.syntax == tags.EXPLICIT_LITTLE_ENDIAN:
        return single(decode)

    def make(streams: Sequence[bytes], tile: Pixels) -> None:
        decode(item_data(streams[0]), tile)

    return make


def _decoder(instance: Instance) -> Decoder | None:
    """The decoder of such frames, None where there is none."""
    syntax, photometric = instance.syntax, instance.photometric
    if syntax == tags.EXPLICIT_LITTLE_ENDIAN:
        if photometric != "RGB":
            return None
        return _planes if instance.planar == 1 else _tile_decoder(RAW, RGB)
    if syntax == tags.RLE:
        return _rle if photometric == "RGB" else None
    if syntax in tags.JPEG and photometric in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        return _jpeg(photometric == "RGB")
    if syntax in tags.JPEG_2000 and photometric in ("RGB", "YBR_ICT", "YBR_RCT", "YBR_FULL"):
        return _jpeg_2000(photometric)
    if syntax in tags.JPEG_LS and photometric == "RGB":
        return _jpeg_ls
    if syntax in tags.JPEG_XL:
        return _jpeg_xl
    return None


def _tile_decoder(compression: int, photometric: int) -> Decoder:
    """The decoder of complete streams of that kind."""
    decode = decoder_for(TileCoding(compression=compression, photometric=photometric))
    assert decode is not None, "TIFF files have such tiles too"
    return decode


# ---- JPEG


def _jpeg(says_rgb: bool) -> Decoder:
    """What the stream says of its colours goes before the header; see `jpeg_stream`."""
    return _tile_decoder(JPEG, RGB if says_rgb else YCBCR)


# ---- JPEG 2000


def _jpeg_2000(photometric: str) -> Decoder:
    as_stored = _tile_decoder(JPEG2000, RGB)
    as_ycbcr = _tile_decoder(APERIO_JPEG2000_YCBCR, RGB)

    def decode(data: bytes, tile: Pixels) -> None:
        if has_colour_transform(data) or photometric == "RGB":
            as_stored(data, tile)
        elif photometric == "YBR_FULL":
            as_ycbcr(data, tile)
        else:
            raise ValueError(
                f"the header says {photometric}, the JPEG 2000 stream has no colour transform"
            )

    return decode


def check_first(instance: Instance, stream: bytes) -> None:
    """Check that a frame of a file is of the kind that its header says, before it is decoded.

    Raises:
        ValueError: it is not.
    """
    if instance.syntax in tags.JPEG_2000:
        data = item_data(stream)
        check_codestream(data, instance.frame_height, instance.frame_width)
        if instance.photometric in ("YBR_ICT", "YBR_RCT") and not has_colour_transform(data):
            raise ValueError(
                "its header names a colour transform that its JPEG 2000 stream does not have"
            )


# ---- Others


def _jpeg_ls(data: bytes, tile: Pixels) -> None:
    imagecodecs.jpegls_decode(data, out=tile)


def _jpeg_xl(data: bytes, tile: Pixels) -> None:
    imagecodecs.jpegxl_decode(data, out=tile)


def _rle(data: bytes, tile: Pixels) -> None:
    planes = np.empty(tile.nbytes, np.uint8)
    decoded = imagecodecs.dicomrle_decode(data, np.dtype(np.uint8), out=planes.data)
    if len(decoded) != tile.nbytes:
        raise ValueError(f"the data end after {len(decoded)} of {tile.nbytes} bytes")
    tile[...] = planes.reshape(3, *tile.shape[:2]).transpose(1, 2, 0)


def _planes(data: bytes, tile: Pixels) -> None:
    if len(data) < tile.nbytes:
        raise ValueError(f"{len(data)} bytes for a frame of {tile.nbytes}")
    planes = np.frombuffer(data, np.uint8, tile.nbytes).reshape(3, *tile.shape[:2])
    tile[...] = planes.transpose(1, 2, 0)
