"""From the directories of the levels of a TIFF to tiles that can be read."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from chunkdl.slides.readers.codecs import (
    ANY_JPEG2000,
    BLACK_IS_ZERO,
    RAW,
    RGB,
    YCBCR,
    TileCoding,
    check_codestream,
    compression_name,
    decoder_for,
)
from chunkdl.slides.readers.described import ImageSource, Streams
from chunkdl.slides.readers.directories import Directory, whole_tag
from chunkdl.slides.readers.refusals import NotTaken, Refused
from chunkdl.slides.readers.samples import Alpha, StoredPixels, tile_maker
from chunkdl.slides.readers.tiled import TiledLevel
from chunkdl.slides.slide import Level, PixelRule, Scanned
from chunkdl.slides.structure import SlideImage

MAX_TILE_PX = 16 * 2**20
MAX_TILE_BYTES = 128 * 2**20
"""Of the samples of a tile: a header costs nothing, and memory is taken for what it says."""
MAX_LEVELS = 64
RAW_BLOCK_PX = 2**18
"""An uncompressed image in one strip is read in blocks of about so many pixels."""
LERC_PARAMETERS, FILL_ORDER, IMAGE_DEPTH = 50674, 266, 32997
BACKGROUND = (255, 255, 255)


def levels_of(
    path: str, image: SlideImage, source: ImageSource, rule: PixelRule
) -> list[TiledLevel]:
    """Where the tiles of the levels of an image are, and how they become pixels.

    Args:
        path: the file.
        image: of the model.
        source: the directories of its levels.
        rule: for pixels that are not 8-bit RGB.

    Raises:
        NotTaken: the tiles are coded in a way that OpenSlide may know.
        Refused: no rule covers its pixels, or the header contradicts itself.
    """
    if len(image.levels) > MAX_LEVELS:
        raise NotTaken(f"it has {len(image.levels)} levels; at most {MAX_LEVELS} are sensible")
    if source.tiles is not None:
        return source.tiles(path, [streams[0] for streams in source.levels], rule)
    return [
        _tiled_level(path, level, streams, source.channel_names, rule)
        for level, streams in zip(image.levels, source.levels, strict=True)
    ]


def _tiled_level(
    path: str, level: Level, streams: Streams, names: tuple[str, ...], rule: PixelRule
) -> TiledLevel:
    """Check the pages of a level and make one of them."""
    first = streams[0]
    for other in streams[1:]:
        if _layout(other) != _layout(first):
            raise Refused(
                f"{other.name} and {first.name} are channels of one slide and are stored in "
                "different ways: write all channels alike"
            )
    tile_w, tile_h = level.tile_width, level.tile_height
    parts = [_grid(one) for one in streams]
    if len({part[0].shape for part in parts}) > 1:
        raise Refused(f"the channels of {first.name} are cut into tiles in different ways")
    if first.compression == RAW and not first.tile_width and len(parts) == 1:
        tile_h, parts[0] = _cut_raw_strip(path, first, parts[0])
        level = Level(level.width, level.height, level.downsample, tile_w, tile_h)
    offsets = np.concatenate([part[0] for part in parts])
    byte_counts = np.concatenate([part[1] for part in parts])
    across = -(-first.width // tile_w)
    tiles = across * -(-first.height // tile_h)
    _check_grid(first, (tile_w, tile_h), tiles, offsets, byte_counts)
    pixels = stored_pixels(streams, names)
    codings = [_coding(one) for one in streams for _ in range(len(offsets) // len(streams))]
    decoders = []
    for coding in codings:
        decoder = decoder_for(coding)
        if decoder is None:
            colours = " YCbCr" if coding.photometric == YCBCR else ""
            kind = (
                f"{compression_name(coding.compression)} of {coding.samples} x {coding.bits} bit"
                f"{colours} with predictor {coding.predictor} is not decoded"
            )
            if not pixels.is_plain:
                raise Refused(f"{kind}: convert the file, for example to deflate or JPEG")
            raise NotTaken(kind)
        decoders.append(decoder)
    make = tile_maker(pixels, decoders, rule, BACKGROUND)
    found = TiledLevel(
        level=level,
        tiles_across=across,
        offsets=offsets,
        byte_counts=byte_counts,
        full_height=bool(first.tile_width),
        make=make,
        files=(path,),
    )
    if first.compression in ANY_JPEG2000:
        _check_first_codestream(found, codings[0])
    return found


def stored_pixels(streams: Streams, names: tuple[str, ...]) -> StoredPixels:
    """How the pixels of a level are stored.

    Raises:
        Refused: they are of a kind that no rule covers.
    """
    first = streams[0]
    if first.sample_format != 1:
        kinds = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
        kind = kinds.get(first.sample_format, f"sample format {first.sample_format}")
        raise Refused(f"its samples are {kind} numbers: convert the file to unsigned 8 or 16 bits")
    if first.bits not in (8, 16):
        raise Refused(f"its samples have {first.bits} bits: convert the file to 8 or 16 bits")
    if whole_tag(first, FILL_ORDER, 1) != 1 or whole_tag(first, IMAGE_DEPTH, 1) != 1:
        raise NotTaken("its bits are in reverse order, or it has volumes for tiles")
    if first.planar == 2 and first.samples > 1:
        per_stream: tuple[int, ...] = (1,) * (first.samples * len(streams))
    else:
        per_stream = tuple(one.samples for one in streams)
    alpha, unexplained = _extra(first, len(streams))
    return StoredPixels(
        photometric=first.photometric,
        bits=first.bits,
        per_stream=per_stream,
        alpha=alpha,
        unexplained=unexplained,
        colour_map=first.colour_map,
        names=names,
    )


def tiles_present(directory: Directory) -> Scanned | None:
    """Which tiles of a page are in the file; None: all, or it has none.

    Raises:
        Refused: its tables contradict each other.
    """
    if not directory.tile_width:
        return None
    present = np.asarray((_grid(directory)[1] > 0).all(axis=0))
    across = -(-directory.width // directory.tile_width)
    if present.all() or len(present) % across:
        return None
    return Scanned(present.reshape(-1, across), directory.tile_width, directory.tile_height)


def _extra(first: Directory, pages: int) -> tuple[Alpha | None, int]:
    """The kind of the alpha channel, and how many samples nothing explains."""
    if pages > 1:
        return None, 0
    extra = first.extra_samples
    if extra in ((1,), (2,)):
        return ("associated" if extra == (1,) else "unassociated"), 0
    explained = {RGB: 3, 6: 3, 5: 4}.get(first.photometric, 1)
    if first.photometric == BLACK_IS_ZERO and not extra:
        return None, 0
    return None, max(0, first.samples - explained)


def _coding(directory: Directory) -> TileCoding:
    apart = directory.planar == 2
    lerc = directory.tags.get(LERC_PARAMETERS)
    return TileCoding(
        compression=directory.compression,
        photometric=directory.photometric,
        predictor=directory.predictor,
        jpeg_tables=directory.jpeg_tables,
        samples=1 if apart else directory.samples,
        bits=directory.bits,
        big_endian=directory.big_endian,
        lerc_packing=lerc[1] if isinstance(lerc, tuple) and len(lerc) > 1 else 0,
    )


def _layout(directory: Directory) -> tuple[object, ...]:
    """What all channels of a level have to have in common."""
    kind = directory.bits, directory.sample_format, directory.planar, directory.big_endian
    return directory.size, directory.block, bool(directory.tile_width), *kind


def _grid(directory: Directory) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Offsets and byte counts, shape (planes, tiles)."""
    planes = directory.samples if directory.planar == 2 else 1
    offsets, byte_counts = directory.offsets, directory.byte_counts
    if len(offsets) != len(byte_counts) or len(offsets) % planes:
        raise _contradiction(directory, f"{planes} planes of tiles")
    counts = np.where(offsets == 0, 0, byte_counts)
    return offsets.reshape(planes, -1), counts.reshape(planes, -1)


def _contradiction(directory: Directory, what: str) -> Refused:
    return Refused(
        f"{directory.name} is damaged: an image of {directory.width}x{directory.height} pixels "
        f"has {what}, but the header has {len(directory.offsets)} offsets and "
        f"{len(directory.byte_counts)} byte counts"
    )


def _check_grid(
    directory: Directory,
    tile: tuple[int, int],
    tiles: int,
    offsets: npt.NDArray[np.int64],
    byte_counts: npt.NDArray[np.int64],
) -> None:
    """Check a header before memory is taken for what it claims."""
    _check_tile(directory, tile)
    if offsets.shape[1] != tiles or byte_counts.shape != offsets.shape:
        raise _contradiction(directory, f"{tiles} tiles of {tile[0]}x{tile[1]} pixels")
    if offsets.min() < 0 or byte_counts.min() < 0 or byte_counts.max() > _most_bytes(tile):
        raise Refused(f"{directory.name} is damaged: a tile of {byte_counts.max()} bytes")


def check_tile_px(width: int, height: int) -> None:
    """Check that a tile or strip is not too large to be decoded at once.

    Raises:
        Refused: it is.
    """
    if width * height > MAX_TILE_PX:
        raise Refused(
            f"its tiles or strips have {width}x{height} pixels, and at most {MAX_TILE_PX} "
            "pixels are read at once: convert it to a file of small tiles"
        )


def _check_tile(directory: Directory, tile: tuple[int, int]) -> None:
    check_tile_px(*tile)
    tile_bytes = tile[0] * tile[1] * directory.samples * -(-directory.bits // 8)
    if tile_bytes > MAX_TILE_BYTES:
        raise Refused(
            f"its tiles or strips have {tile_bytes} bytes, and at most {MAX_TILE_BYTES} are read "
            "at once: convert it to a file of small tiles"
        )


def _most_bytes(tile: tuple[int, int]) -> int:
    # No codec makes a tile much larger than its pixels; a count beyond that is a damaged header.
    return 8 * 4 * tile[0] * tile[1] + 2**20


def check_tiles(path: str, directories: Sequence[Directory]) -> None:
    """Check that no tile of any page asks for more memory than a slide needs.

    For OpenSlide, which takes memory for what the header says and ends the process where there is
    not so much.

    Raises:
        Refused: a tile has more pixels, or more bytes, than can be.
    """
    size = os.path.getsize(path)
    for directory in directories:
        tile = directory.tile_width, directory.tile_height
        if not directory.tile_width or directory.jpeg_header is not None:
            continue
        _check_tile(directory, tile)
        largest = int(directory.byte_counts.max(initial=0))
        if largest > min(size, _most_bytes(tile)):
            raise Refused(f"{directory.name} is damaged: a tile of {largest} bytes")


def _cut_raw_strip(
    path: str,
    directory: Directory,
    grid: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
) -> tuple[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Cut uncompressed strips that lie behind each other into blocks of about `RAW_BLOCK_PX`.

    Many tools write an image in one strip, and others in strips of one row.
    """
    offsets, byte_counts = grid
    width, height, rows = directory.width, directory.height, directory.rows_per_strip
    row_bytes = width * (1 if directory.planar == 2 else directory.samples) * directory.bits // 8
    strips = offsets.shape[1]
    if height * row_bytes >= 2**62:
        raise Refused(f"{directory.name} is damaged: it has {height} rows of {row_bytes} bytes")
    expected = np.full(strips, rows * row_bytes, np.int64)
    expected[-1] = (height - rows * (strips - 1)) * row_bytes
    if strips != -(-height // rows) or expected[-1] <= 0:
        return rows, grid
    if (byte_counts < expected).any() or (np.diff(offsets) != expected[:-1]).any():
        return rows, grid
    if int((offsets[:, -1] + expected[-1]).max()) > os.path.getsize(path):
        raise Refused(
            f"its pixels end at byte {int((offsets[:, -1] + expected[-1]).max())} and the file at "
            f"byte {os.path.getsize(path)}: it is cut short, copy it again"
        )
    block = min(height, max(1, RAW_BLOCK_PX // width))
    tops = np.arange(0, height, block, dtype=np.int64)
    starts = offsets[:, :1] + tops * row_bytes
    counts = np.broadcast_to(np.minimum(block, height - tops) * row_bytes, starts.shape)
    return block, (starts, counts.copy())


def _check_first_codestream(level: TiledLevel, coding: TileCoding) -> None:
    """Refuse JPEG 2000 of another kind than the header says, before the first read."""
    present = np.flatnonzero(level.byte_counts[0])
    if not len(present):
        return
    with open(level.files[0], "rb") as file:
        file.seek(int(level.offsets[0, present[0]]))
        head = file.read(min(int(level.byte_counts[0, present[0]]), 128))
    try:
        check_codestream(
            head, level.level.tile_height, level.level.tile_width, coding.samples, coding.bits
        )
    except ValueError as reason:
        raise NotTaken(str(reason)) from reason
