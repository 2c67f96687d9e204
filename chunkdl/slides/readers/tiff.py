"""The direct reader: TIFF slides of every vendor whose tiles lie on a grid, without OpenSlide.

A vendor's module says what each page of the file is; what is read follows from that alone.
tifffile reads the structure once, and no object of it is kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import numpy.typing as npt
import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.address import parse_address
from chunkdl.slides.readers import (
    aperio,
    generic_tiff,
    leica,
    ndpi,
    ome,
    philips,
    qptiff,
    ventana,
)
from chunkdl.slides.readers.codecs import (
    ANY_JPEG2000,
    BLACK_IS_ZERO,
    RAW,
    RGB,
    TileCoding,
    check_codestream,
    compression_name,
    decoder_for,
)
from chunkdl.slides.readers.described import Described, ImageSource, Streams
from chunkdl.slides.readers.directories import Directory, directories_of, whole_tag
from chunkdl.slides.readers.refusals import NotTaken, Refused
from chunkdl.slides.readers.samples import Alpha, StoredPixels, tile_maker
from chunkdl.slides.readers.tiff_header import Damaged, check_directories, is_tiff
from chunkdl.slides.readers.tiled import TiledLevel, TiledSlide
from chunkdl.slides.slide import AS_STORED, Level, PixelRule, SlideInfo
from chunkdl.slides.structure import SlideImage, Structure, chosen_image

MAX_TILE_PX = 64 * 2**20
MAX_LEVELS = 64
RAW_BLOCK_PX = 2**18
"""An uncompressed image in one strip is read in blocks of about so many pixels."""
LERC_PARAMETERS, FILL_ORDER, IMAGE_DEPTH, ARGOS = 50674, 266, 32997, 65000
BACKGROUND = (255, 255, 255)


def open_tiff(path: str | os.PathLike[str], rule: PixelRule = AS_STORED) -> TiledSlide:
    """Open a slide in a TIFF.

    Args:
        path: the file, with "#image=K" where one of several images is meant.
        rule: how samples that are not 8-bit RGB become it.

    Raises:
        SlideError: no such file, damaged, several images and none chosen, pixels that no rule
            covers, or a file that this reader does not take.
    """
    name = os.fspath(path)
    try:
        return tiff_slide(name, rule)
    except NotTaken as reason:
        raise SlideError(f"not taken by the reader 'tiff': {reason}", slide=name) from reason
    except Refused as reason:
        raise SlideError(str(reason), slide=name) from reason


def tiff_slide(name: str, rule: PixelRule) -> TiledSlide:
    """`open_tiff` for the registry.

    Raises:
        NotTaken: another reader has to take it.
        Refused: no reader may take it.
        SlideError: the file is damaged, or does not have the chosen image.
    """
    address = parse_address(name)
    file = describe_tiff(address.path)
    image = chosen_image(file.structure, address.image)
    source = file.sources[image.number]
    if source.refused:
        raise Refused(source.refused)
    if source.not_taken:
        raise NotTaken(source.not_taken)
    levels = _levels(address.path, image, source, rule)
    base = source.levels[0][0]
    notes = (*image.notes, *_missing(address.path, levels))
    info = SlideInfo(
        path=name,
        reader="tiff",
        levels=tuple(level.level for level in levels),
        mpp=image.mpp,
        background=BACKGROUND,
        mpp_source=image.mpp_source,
        magnification=image.magnification,
        notes=notes,
        icc="in the file, not used" if base.icc_profile else "",
    )
    return TiledSlide(info, levels, icc_profile=base.icc_profile)


def tiff_structure(path: str) -> Structure:
    """What is in a TIFF.

    Raises:
        NotTaken: its pages are not known here; OpenSlide may know it.
        Refused: the file contradicts itself.
        SlideError: the file is damaged.
    """
    return describe_tiff(path).structure


def describe_tiff(path: str) -> Described:
    """The pages of a TIFF and their roles; see `tiff_structure` for the errors."""
    if os.path.isdir(path):
        raise NotTaken("it is a folder")
    directories = _directories(path)
    _refuse_vendors(directories[0])
    if aperio.is_kind(directories):
        return aperio.describe(path, directories)
    for vendor in (ndpi, leica, philips, ventana, qptiff):
        if vendor.is_kind(directories):
            return _by_vendor(path, directories, vendor)
    if ome.is_kind(directories):
        return ome.describe(path, directories)
    return generic_tiff.describe(path, directories)


def _by_vendor(path: str, directories: tuple[Directory, ...], vendor: ModuleType) -> Described:
    try:
        structure, images = vendor.structure_of(path, directories)
    except ValueError as error:
        raise Refused(f"its description is damaged: {error}") from error
    not_taken = ""
    if vendor is ventana:
        try:
            ventana.check_readable(directories)
        except NotTaken as reason:
            not_taken = str(reason)
    sources = tuple(
        ImageSource(
            levels=tuple((directory,) for directory in levels),
            not_taken=not_taken,
            tiles=ndpi.ndpi_levels if vendor is ndpi else None,
        )
        for levels in images
    )
    return Described(structure, sources)


def _directories(path: str) -> tuple[Directory, ...]:
    try:
        with open(path, "rb") as file:
            if not is_tiff(file.read(8)):
                raise NotTaken("it is no TIFF")
        check_directories(path)
        with tifffile.TiffFile(path) as tiff:
            found = directories_of(tiff)
    except (Damaged, OSError) as error:
        raise SlideError(f"cannot read the structure of the TIFF: {error}", slide=path) from error
    except (SlideError, NotTaken):
        raise
    except Exception as error:  # tifffile raises what its parsing happens to meet
        raise SlideError(f"cannot read the structure of the TIFF: {error}", slide=path) from error
    whole = tuple(one for one in found if min(one.width, one.height) > 0 and len(one.offsets))
    if not whole:
        raise SlideError("the TIFF has no picture with pixels: it is damaged", slide=path)
    return whole


def _refuse_vendors(first: Directory) -> None:
    """Refuse the formats whose tiles overlap or move."""
    vendor = {
        "Trestle TIFF": first.software.startswith("MedScan"),
        "Huron TIFF": first.make.startswith("Huron"),
        "Argos AVS": str(first.tags.get(ARGOS, "")).startswith("<Argos"),
    }
    for name, found in vendor.items():
        if found:
            raise NotTaken(f"it is a {name} file")


# ---- Levels


def _levels(path: str, image: SlideImage, source: ImageSource, rule: PixelRule) -> list[TiledLevel]:
    if len(image.levels) > MAX_LEVELS:
        raise NotTaken(f"it has {len(image.levels)} levels; at most {MAX_LEVELS} are sensible")
    if source.tiles is not None:
        return source.tiles(path, [streams[0] for streams in source.levels], rule)
    return [
        _tiled_level(path, level, streams, source.channel_names, rule)
        for level, streams in zip(image.levels, source.levels, strict=True)
    ]


def _missing(path: str, levels: Sequence[TiledLevel]) -> list[str]:
    """What to tell of a file that ends before its tiles do."""
    size = os.path.getsize(path)
    tiles = sum(level.offsets.shape[1] for level in levels)
    ends = [level.offsets + level.byte_counts for level in levels]
    beyond = sum(int((end > size).any(axis=0).sum()) for end in ends)
    if not beyond:
        return []
    last = max(int(end.max()) for end in ends)
    return [
        f"the file is cut short at byte {size} of {last}: {beyond} of {tiles} tiles are missing; "
        "copy it again"
    ]


def _tiled_level(
    path: str, level: Level, streams: Streams, names: tuple[str, ...], rule: PixelRule
) -> TiledLevel:
    """Check the pages of a level and make one of them."""
    first = streams[0]
    tile_w, tile_h = level.tile_width, level.tile_height
    parts = [_grid(one) for one in streams]
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
            kind = (
                f"{compression_name(coding.compression)} of {coding.samples} x {coding.bits} bit "
                f"with predictor {coding.predictor} is not decoded"
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
        lerc_packing=int(lerc[1]) if isinstance(lerc, tuple) and len(lerc) > 1 else 0,
    )


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
    if tile[0] * tile[1] > MAX_TILE_PX:
        raise Refused(
            f"its tiles or strips have {tile[0]}x{tile[1]} pixels, and at most {MAX_TILE_PX} "
            "pixels are read at once: convert it to a file of small tiles"
        )
    if offsets.shape[1] != tiles or byte_counts.shape != offsets.shape:
        raise _contradiction(directory, f"{tiles} tiles of {tile[0]}x{tile[1]} pixels")
    # No codec makes a tile much larger than its pixels; a count beyond that is a damaged header.
    limit = 8 * 4 * tile[0] * tile[1] + 2**20
    if offsets.min() < 0 or byte_counts.min() < 0 or byte_counts.max() > limit:
        raise Refused(f"{directory.name} is damaged: a tile of {byte_counts.max()} bytes")


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
