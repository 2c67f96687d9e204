"""Hamamatsu NDPI: what the directories are, and tiles out of JPEGs with restart markers.

A level is one JPEG of any size. The file has a table of its restart intervals, which are decoded
without their neighbours: a tile is some intervals that lie under each other, joined into a small
JPEG of their own. Between intervals of one row nothing is joined, so that pixels equal those of
readers that decode intervals one by one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import imagecodecs
import numpy as np
import numpy.typing as npt

from chunkdl.slides.microns import believed
from chunkdl.slides.readers.directories import Directory, pixels_text, resolution_claims
from chunkdl.slides.readers.refusals import NotTaken, Refused
from chunkdl.slides.readers.tiled import TiledLevel, TileMaker
from chunkdl.slides.slide import AS_STORED, Level, PixelRule, Pixels
from chunkdl.slides.structure import Page, Role, SlideImage, Structure, downsamples, same_aspect

FORMAT, SOURCE_LENS, Z_OFFSET, FILTER_SET = 65420, 65421, 65424, 65434
JPEG, YCBCR = 7, 6
MACRO_LENS, MAP_LENS = -1, -2

TILE_PX = 2**16
"""A tile is made of about so many pixels or more: what a decode costs before its first pixel is
then lost in it. Measured with intervals of 512x8: 100 Mpx/s one by one, 150 for 64 rows, 200 for
128 to 512 rows."""
FEWEST_INTERVALS, MOST_TILE_ROWS = 8, 256
"""Of a tile, above each other: taller tiles cost more at the borders of a window."""
MOST_TILE_PX = 16 * 2**20
"""Largest level without restart intervals, or tile of joined ones, that is decoded at once."""
PROBES = 8
"""Intervals of a level whose place is checked when the file is opened."""
HEAD_BYTES = 64 * 2**10
JPEG_END = b"\xff\xd9"
RESTARTS = tuple(bytes((0xFF, 0xD0 + number)) for number in range(8))


def is_kind(directories: Sequence[Directory]) -> bool:
    """Whether the file is a Hamamatsu NDPI: it has their private tag, as OpenSlide decides."""
    return bool(directories) and FORMAT in directories[0].tags


def structure_of(
    path: str, directories: Sequence[Directory]
) -> tuple[Structure, tuple[tuple[Directory, ...], ...]]:
    """What the directories are, by the source lens and the focal plane that each states.

    Args:
        path: the file, for the model.
        directories: all of the file.

    Returns:
        The model, and for its image the directories of the levels, finest first.
    """
    pages = []
    levels: list[Directory] = []
    planes = 0
    for directory in directories:
        role, why = _role(directory)
        planes += role == "focal plane"
        if role == "level" and levels and not _is_reduced(directory, levels[-1], levels[0]):
            role, why = "unknown", f"it is not a reduced {levels[0].name}, though {why}"
        level = None
        if role == "level":
            level = len(levels)
            levels.append(directory)
        pages.append(
            Page(
                name=directory.name,
                width=directory.width,
                height=directory.height,
                pixels=pixels_text(directory),
                role=role,
                why=why,
                image=None if level is None else 0,
                level=level,
            )
        )
    images: tuple[SlideImage, ...] = ()
    if levels:
        images = (_image(levels, planes),)
    notes: tuple[str, ...] = ()
    if planes and not levels:
        notes = (
            f"The file has {planes} pictures of focal planes and none of the plane at offset 0, "
            "which is the one that is read.",
        )
    structure = Structure(path, "Hamamatsu NDPI", tuple(pages), images, notes)
    return structure, ((tuple(levels),) if levels else ())


def _role(directory: Directory) -> tuple[Role, str]:
    lens, plane = _number(directory, SOURCE_LENS), _number(directory, Z_OFFSET)
    if lens is None:
        return "unknown", "it names no source lens"
    why = f"its source lens is {lens:g}"
    if lens == MACRO_LENS:
        return "macro", why
    if lens == MAP_LENS:
        return "map", why
    if lens <= 0:
        return "unknown", why
    if plane:
        return "focal plane", f"{why}, its focus {plane:g} nm from the slide's"
    return "level", why


def _is_reduced(directory: Directory, last: Directory, base: Directory) -> bool:
    return directory.width < last.width and same_aspect(directory.size, base.size)


def _image(levels: Sequence[Directory], planes: int) -> SlideImage:
    base = levels[0]
    lens = _number(base, SOURCE_LENS)
    microns = believed(resolution_claims(base), lens)
    notes = list(microns.notes)
    if planes:
        notes.append(
            f"The file has {planes} pictures of other focal planes; it is a stack, and is refused."
        )
    filters = _filter_set(base)
    if filters:
        notes.append(
            f"It is fluorescence (filter set {filters!r}), not a stain seen in white light: it is "
            "read only with channels=."
        )
    sizes = [directory.size for directory in levels]
    return SlideImage(
        number=0,
        name=_text(base, 65427),
        levels=tuple(
            Level(*directory.size, downsample, *_tile_size(directory))
            for directory, downsample in zip(levels, downsamples(sizes), strict=True)
        ),
        mpp=microns.mpp,
        mpp_source=microns.source,
        magnification=lens,
        notes=tuple(notes),
    )


def _number(directory: Directory, tag: int) -> float | None:
    value = directory.tags.get(tag)
    return float(value) if isinstance(value, int | float) else None


def _text(directory: Directory, tag: int) -> str:
    value = directory.tags.get(tag)
    return value.strip() if isinstance(value, str) else ""


def _filter_set(directory: Directory) -> str:
    return _text(directory, FILTER_SET)


# ---- Tiles


def ndpi_levels(
    path: str, directories: Sequence[Directory], rule: PixelRule = AS_STORED
) -> list[TiledLevel]:
    """Where the tiles of the levels are, and how they become pixels.

    Args:
        path: the file.
        directories: the levels, finest first, as `structure_of` gives them.
        rule: fluorescence is read only where it names channels.

    Raises:
        Refused: it is fluorescence and the rule names no channels, or others than 0 to 2.
        NotTaken: a level is no 8-bit JPEG of three samples, or it is large and the file has no
            table of its restart intervals, or one that is not true.
        OSError: the file cannot be read.
    """
    channels = _channels(directories[0], rule)
    sizes = [directory.size for directory in directories]
    with open(path, "rb", buffering=0) as file:
        return [
            _tiled_level(path, file.fileno(), directory, downsample, channels)
            for directory, downsample in zip(directories, downsamples(sizes), strict=True)
        ]


def _channels(base: Directory, rule: PixelRule) -> tuple[int, ...] | None:
    """Which stored samples become red, green and blue; None: as they are stored."""
    filters = _filter_set(base)
    if not filters:
        return None
    if rule.channels is None:
        raise Refused(
            f"it is fluorescence (filter set {filters!r}), whose colours are not those of a "
            "stain: give channels=(0, 1, 2) to read its colours as they are stored"
        )
    if not all(0 <= channel < 3 for channel in rule.channels) or len(rule.channels) not in (1, 3):
        raise Refused(
            f"channels={rule.channels} was given, but the file has the channels 0, 1 and 2; give "
            "one or three of them"
        )
    return None if rule.channels == (0, 1, 2) else rule.channels


def _tile_size(directory: Directory) -> tuple[int, int]:
    """Width and height of a tile of joined intervals, pixels."""
    if directory.jpeg_header is None:
        return directory.size
    width, interval = directory.tile_width, directory.tile_height
    rows = FEWEST_INTERVALS * interval
    while rows * width < TILE_PX and 2 * rows <= MOST_TILE_ROWS:
        rows *= 2
    return width, min(rows, -(-directory.height // interval) * interval)


def _tiled_level(
    path: str,
    descriptor: int,
    directory: Directory,
    downsample: float,
    channels: tuple[int, ...] | None,
) -> TiledLevel:
    stored = (directory.compression, directory.samples, directory.bits)
    if stored != (JPEG, 3, 8) or len(directory.offsets) == 0:
        raise NotTaken(f"{directory.name} of the NDPI file is stored as {pixels_text(directory)}")
    make: TileMaker
    tile_width, tile_height = _tile_size(directory)
    if tile_width * tile_height > MOST_TILE_PX:
        raise NotTaken(
            f"{directory.name} of the NDPI file is one JPEG of {directory.width}x"
            f"{directory.height} pixels without a table of its restart intervals"
            if directory.jpeg_header is None
            else f"its restart intervals have {tile_width} pixels"
        )
    level = Level(*directory.size, downsample, tile_width, tile_height)
    ycbcr = directory.photometric == YCBCR
    if directory.jpeg_header is None:
        offsets, byte_counts = directory.offsets[:1, None], directory.byte_counts[:1, None]
        head = os.pread(descriptor, min(int(byte_counts[0, 0]), HEAD_BYTES), int(offsets[0, 0]))
        frame = _frame_of(head)
        if (frame.width, frame.height) != directory.size:
            raise NotTaken(
                f"{directory.name} of the NDPI file says {directory.width}x{directory.height} "
                f"pixels, and its JPEG {frame.width}x{frame.height}"
            )
        make = partial(_make_whole, ycbcr, channels)
    else:
        _check_table(descriptor, directory)
        offsets, byte_counts = _joined(directory, tile_height // directory.tile_height)
        intervals = _Intervals(directory.jpeg_header, directory.tile_height, ycbcr, channels)
        make = intervals.make
    return TiledLevel(
        level=level,
        tiles_across=-(-directory.width // tile_width),
        offsets=offsets,
        byte_counts=byte_counts,
        full_height=False,
        make=make,
        files=(path,),
    )


def _check_table(descriptor: int, directory: Directory) -> None:
    """Check that the table of intervals fits the image, and some of its places."""
    frame = _frame_of(directory.jpeg_header or b"")
    across = -(-directory.width // directory.tile_width)
    down = -(-directory.height // directory.tile_height)
    in_a_row = -(-directory.width // frame.mcu_width)
    if in_a_row % across or in_a_row // across * frame.mcu_width != directory.tile_width:
        raise NotTaken(f"restart intervals of {directory.name} continue in the next row of blocks")
    if len(directory.offsets) != across * down or len(directory.byte_counts) != across * down:
        raise NotTaken(
            f"the table of {directory.name} has {len(directory.offsets)} restart intervals, but "
            f"its image needs {across * down}"
        )
    size = os.fstat(descriptor).st_size
    ends = directory.offsets + directory.byte_counts
    if directory.offsets.min() < 0 or directory.byte_counts.min() < 2 or ends.max() > size:
        raise NotTaken(f"the table of {directory.name} has impossible restart intervals")
    for index in np.linspace(0, len(ends) - 2, PROBES, dtype=np.int64) if len(ends) > 1 else ():
        mark = os.pread(descriptor, 2, int(ends[index]) - 2)
        if mark != RESTARTS[index % 8]:
            raise NotTaken(
                f"the table of {directory.name} is wrong: there is no restart marker after "
                f"interval {index}"
            )


def _joined(directory: Directory, rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Offsets and byte counts of `rows` intervals for each tile, shape (rows, tiles).

    Where the last tiles have fewer, their last interval is named again; it is not decoded twice.
    """
    across = -(-directory.width // directory.tile_width)
    down = len(directory.offsets) // across
    tops = np.arange(0, down, rows)
    row = np.minimum(tops[None, :] + np.arange(rows)[:, None], down - 1)
    index = (row[:, :, None] * across + np.arange(across)).reshape(rows, -1)
    return directory.offsets[index], directory.byte_counts[index]


@dataclass(frozen=True, slots=True)
class _Intervals:
    """Makes tiles of joined restart intervals.

    Attributes:
        header: the JPEG up to its first interval.
        rows: pixels, of an interval.
        ycbcr: whether the JPEG is YCbCr, else RGB.
        channels: which samples become red, green and blue; None: as stored.
    """

    header: bytes
    rows: int
    ycbcr: bool
    channels: tuple[int, ...] | None

    def make(self, streams: Sequence[bytes], tile: Pixels) -> None:
        """Fill the tile with the intervals, the upper first."""
        count = -(-tile.shape[0] // self.rows)
        parts = [_with_size(self.header, tile.shape[0], tile.shape[1])]
        for number, stream in enumerate(streams[:count]):
            if stream[-2:] not in (*RESTARTS, JPEG_END):
                raise ValueError("a restart interval has no marker after it: it is overwritten")
            # The markers count from 0 in every JPEG; these have the numbers of the large one.
            parts += (stream[:-2], RESTARTS[number % 8])
        parts[-1] = JPEG_END
        _decode(b"".join(parts), tile, self.ycbcr, self.channels)


def _make_whole(
    ycbcr: bool, channels: tuple[int, ...] | None, streams: Sequence[bytes], tile: Pixels
) -> None:
    """Fill the tile with a JPEG that has no restart intervals."""
    data = streams[0].rstrip(b"\0")
    if data[-2:] != JPEG_END:
        raise ValueError("the stream has no end marker: it is cut short or overwritten")
    _decode(data, tile, ycbcr, channels)


def _decode(data: bytes, tile: Pixels, ycbcr: bool, channels: tuple[int, ...] | None) -> None:
    imagecodecs.jpeg8_decode(
        data, colorspace="YCBCR" if ycbcr else "RGB", outcolorspace="RGB", out=tile
    )
    if channels is not None:
        tile[...] = tile[..., channels if len(channels) == 3 else channels * 3]


# ---- The header of a JPEG (ITU-T T.81, annex B)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the start of frame says; `size_at` is where its height and width are, in bytes."""

    size_at: int
    height: int
    width: int
    mcu_width: int


@lru_cache(maxsize=16)
def _frame_of(header: bytes) -> _Frame:
    at = 2
    while len(header) >= at + 10 and header[at] == 0xFF:
        marker, length = header[at + 1], struct.unpack_from(">H", header, at + 2)[0]
        if marker in (0xC0, 0xC1):
            height, width, components = struct.unpack_from(">HHB", header, at + 5)
            factors = header[at + 11 : at + 10 + 3 * components : 3]
            across = max((factor >> 4 for factor in factors), default=0)
            if not 1 <= across <= 4:
                break
            return _Frame(at + 5, height, width, 8 * across)
        at += 2 + length
    raise NotTaken("a level of the NDPI file is not a baseline JPEG")


@lru_cache(maxsize=64)
def _with_size(header: bytes, height: int, width: int) -> bytes:
    """The header for a picture of that size."""
    at = _frame_of(header).size_at
    return header[:at] + struct.pack(">HH", height, width) + header[at + 4 :]
