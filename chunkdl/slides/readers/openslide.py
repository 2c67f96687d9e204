"""The reader for everything else: OpenSlide, composited on the slide's background.

The low-level functions of openslide-python are used, because they read into given memory. The
way over Pillow images copies every pixel three times more.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide.lowlevel as library

from chunkdl.errors import SlideError
from chunkdl.slides.address import parse_address
from chunkdl.slides.microns import Claim, Microns, believed, number_in
from chunkdl.slides.readers.argb import byte_of, composite
from chunkdl.slides.readers.dicom_series import dicom_files_in
from chunkdl.slides.readers.known_to_us import known_of
from chunkdl.slides.readers.refusals import NotTaken, Refused, refuse_other_channels
from chunkdl.slides.readers.tiff_levels import check_tile_px
from chunkdl.slides.slide import AS_STORED, Gaps, Level, PixelRule, Pixels, Scanned, SlideInfo
from chunkdl.slides.structure import Page, Role, SlideImage, Structure

CACHE_BYTES = 32 * 2**20
"""Decoded tiles that OpenSlide holds in one process, for all its slides together."""
BLOCK_PX = 4 * 2**20
"""Pixels read at once; bounds the memory beside the output."""
UNKNOWN_TILE = 256
MOST_PROFILE_BYTES = 16 * 2**20
MOST_REGIONS = 1024
MOST_CELLS_A_SIDE = 4096
MOST_SCANNED_PX = 2**24
"""The largest level, in pixels, that is read to find transparent parts."""

_OPENSLIDE_ERRORS = (library.OpenSlideError, OSError, ValueError, ctypes.ArgumentError)


class OpenSlideSlide:
    """A slide that OpenSlide reads.

    OpenSlide takes places in level-0 pixels, whole ones. Where the downsample of a level is not
    an integer, the pixels of a reduced level come interpolated, up to half a level-0 pixel off.

    Args:
        path: the file; for DICOM one file of the series, or the folder of its files.
        rule: OpenSlide gives 8-bit RGB, so it has nothing to change here.

    Raises:
        NotTaken: OpenSlide does not know the file.
        Refused: OpenSlide would narrow its samples, or take the wrong picture for the slide; or the
            rule names other channels than red, green and blue.
        SlideError: the file is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], rule: PixelRule = AS_STORED) -> None:
        self._path = os.fspath(path)
        address = parse_address(self._path)
        known = known_of(address, rule)
        self._present = known.present
        self._file = _dicom_member(address.path) if os.path.isdir(address.path) else address.path
        self._handle: Any = None
        self._closed = False
        self._decoded_px = 0
        self._gaps = Gaps()
        try:
            self._levels, self._info = _read_info(self._path, self._open(), known.levels)
            refuse_other_channels(rule, "openslide")
        except _OPENSLIDE_ERRORS as error:
            self.close()
            raise NotTaken(f"OpenSlide does not open it: {error}") from error
        except Refused:
            self.close()
            raise

    @property
    def info(self) -> SlideInfo:
        """The facts of the slide."""
        return self._info

    @property
    def decoded_px(self) -> int:
        """Pixels of the tiles that were touched; tiles that OpenSlide still held count again."""
        return self._decoded_px

    @property
    def gaps(self) -> Gaps:
        """What was met from outside; OpenSlide does not tell what it mends."""
        return self._gaps

    @property
    def icc_profile(self) -> bytes | None:
        """The colour profile of the slide, None where it has none."""
        size = library.get_icc_profile_size(self._open())
        if not 0 < size <= MOST_PROFILE_BYTES:
            return None
        profile: bytes | None = library.read_icc_profile(self._open())
        return profile

    @property
    def state(self) -> str:
        """Nothing: which files OpenSlide reads beside the one that is named is its own affair."""
        return ""

    @property
    def nbytes(self) -> int:
        """What OpenSlide needs to keep of a file: an offset and a length for each tile."""
        tiles = (
            (level.width // level.tile_width + 1) * (level.height // level.tile_height + 1)
            for level in self._info.levels
        )
        return 16 * sum(tiles)

    def scanned(self) -> Scanned | None:
        """Which parts of level 0 are in the file or opaque; None: all, or nobody knows.

        Where the tables of the file do not say it, the finest small level does.

        Raises:
            SlideError: the file is damaged.
        """
        if self._present is not None:
            return self._present
        small = [
            (index, level)
            for index, level in enumerate(self._info.levels)
            if level.width * level.height <= MOST_SCANNED_PX
        ]
        if not small:
            return self._regions()
        index, level = small[0]
        cells = np.empty((level.height, level.width), np.bool_)
        rows = max(1, BLOCK_PX // level.width)
        try:
            for top in range(0, level.height, rows):
                part = cells[top : top + rows]
                argb = self._read_argb(index, 0, top, level.width, part.shape[0])
                part[...] = byte_of(argb, 24) >= 128
        except _OPENSLIDE_ERRORS as error:
            self._drop()
            raise SlideError(
                f"OpenSlide cannot read it: {error}", slide=self._path, level=index
            ) from error
        if cells.all():
            return None
        first = self._info.levels[0]
        return Scanned(cells, first.width / level.width, first.height / level.height)

    def _regions(self) -> Scanned | None:
        """The areas of level 0 that OpenSlide names, None where it names none."""
        properties = _properties(self._open())
        level = self._info.levels[0]
        side = -(-max(level.width, level.height) // MOST_CELLS_A_SIDE)
        cells = np.zeros((-(-level.height // side), -(-level.width // side)), np.bool_)
        for number in range(MOST_REGIONS):
            names = (f"openslide.region[{number}].{name}" for name in ("x", "y", "width", "height"))
            texts = [properties.get(name, "") for name in names]
            if not all(text.isdecimal() for text in texts):
                break
            x, y, width, height = map(int, texts)
            cells[y // side : -(-(y + height) // side), x // side : -(-(x + width) // side)] = True
        return Scanned(cells, side, side) if cells.any() and not cells.all() else None

    def close(self) -> None:
        """Give the file back; closing twice is not an error."""
        self._closed = True
        self._drop()

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        """Fill `out` with the pixels of `level` from (x, y) on; see `Slide.read_into`."""
        height, width = out.shape[:2]
        size = self._info.levels[level]
        region = (x, y, width, height)
        if x < 0 or y < 0 or x + width > size.width or y + height > size.height:
            raise SlideError(
                f"the region is not inside the level of {size.width}x{size.height} pixels",
                slide=self._path,
                level=level,
                region=region,
            )
        rows = max(1, BLOCK_PX // max(1, width))
        try:
            for top in range(0, height, rows):
                self._read_rows(out[top : top + rows], level, x, y + top)
        except _OPENSLIDE_ERRORS as error:
            # After an error OpenSlide's handle gives nothing but that error; the next read opens
            # the file again.
            self._drop()
            raise SlideError(
                f"OpenSlide cannot read it: {error}", slide=self._path, level=level, region=region
            ) from error

    def _read_rows(self, out: Pixels, level: int, x: int, y: int) -> None:
        height, width = out.shape[:2]
        argb = self._read_argb(level, x, y, width, height)
        composite(argb, self._info.background, out)
        self._decoded_px += _tiles_px(self._info.levels[level], x, y, width, height)

    def _read_argb(
        self, level: int, x: int, y: int, width: int, height: int
    ) -> npt.NDArray[np.uint32]:
        argb = np.empty((height, width), np.uint32)
        buffer = argb.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))
        number, downsample = self._levels[level]
        x0, y0 = round(x * downsample), round(y * downsample)
        library._read_region(self._open(), buffer, x0, y0, number, width, height)
        return argb

    def _open(self) -> Any:
        if self._closed:
            raise ValueError("the slide was closed")
        if self._handle is None:
            self._handle = library.open(self._file)
            library.set_cache(self._handle, _process_cache())
        return self._handle

    def _drop(self) -> None:
        if self._handle is not None:
            library.close(self._handle)
            self._handle = None


@cache
def _process_cache() -> Any:
    return library.cache_create(CACHE_BYTES)


def _dicom_member(folder: str) -> str:
    """One file of the DICOM series in the folder; OpenSlide finds the others."""
    files = dicom_files_in(folder)
    if not files:
        raise NotTaken("a folder without .dcm files is not a slide")
    return files[0]


def _read_info(
    path: str, handle: Any, known: tuple[Level, ...] | None
) -> tuple[list[tuple[int, float]], SlideInfo]:
    """For each level its number and downsample at OpenSlide, and the facts."""
    properties = _properties(handle)
    numbers: list[tuple[int, float]] = []
    levels: list[Level] = []
    for index, level in enumerate(_levels(handle, properties)):
        ours = level
        if known is not None:
            same = [one for one in known if _holds(level, one)]
            if not same:
                continue
            ours = dataclasses.replace(
                level, width=same[0].width, height=same[0].height, downsample=same[0].downsample
            )
        numbers.append((index, level.downsample))
        levels.append(ours)
    if not levels or min(min(level.width, level.height) for level in levels) <= 0:
        raise ValueError("it has no level with pixels")
    for level in levels:
        # OpenSlide ends the process where it cannot have the memory for a tile.
        check_tile_px(level.tile_width, level.tile_height)
    colour = properties.get("openslide.background-color", "FFFFFF")
    microns = _microns(properties)
    return numbers, SlideInfo(
        path=path,
        reader="openslide",
        levels=tuple(levels),
        mpp=microns.mpp,
        background=(int(colour[0:2], 16), int(colour[2:4], 16), int(colour[4:6], 16)),
        mpp_source=microns.source,
        magnification=_power(properties),
        notes=microns.notes,
        icc="in the file, not used" if library.get_icc_profile_size(handle) > 0 else "",
        scanned_from=_scanned_from(properties),
    )


def _scanned_from(properties: dict[str, str]) -> tuple[int, int]:
    corner = [properties.get(f"openslide.bounds-{axis}", "0") for axis in "xy"]
    x, y = (int(text) if text.isdecimal() else 0 for text in corner)
    return x, y


def _holds(stored: Level, ours: Level) -> bool:
    """Whether a level of OpenSlide's is one of ours, which may be without the padding."""
    across, down = stored.width - ours.width, stored.height - ours.height
    return 0 <= across < max(1, stored.tile_width) and 0 <= down < max(1, stored.tile_height)


def _properties(handle: Any) -> dict[str, str]:
    return {
        name: library.get_property_value(handle, name)
        for name in library.get_property_names(handle)
    }


def _levels(handle: Any, properties: dict[str, str]) -> list[Level]:
    levels = []
    for index in range(library.get_level_count(handle)):
        width, height = library.get_level_dimensions(handle, index)
        prefix = f"openslide.level[{index}].tile-"
        levels.append(
            Level(
                width,
                height,
                library.get_level_downsample(handle, index),
                int(properties.get(prefix + "width", UNKNOWN_TILE)),
                int(properties.get(prefix + "height", UNKNOWN_TILE)),
            )
        )
    return levels


def _power(properties: dict[str, str]) -> float | None:
    return number_in(properties.get("openslide.objective-power", ""))


def _microns(properties: dict[str, str]) -> Microns:
    x = number_in(properties.get("openslide.mpp-x", ""))
    y = number_in(properties.get("openslide.mpp-y", ""))
    claims = [Claim(x, y, "OpenSlide's property openslide.mpp-x")] if x and y else []
    return believed(claims, _power(properties))


def openslide_structure(path: str) -> Structure:
    """What OpenSlide says is in a file.

    Raises:
        NotTaken: OpenSlide does not know the file.
    """
    file = _dicom_member(path) if os.path.isdir(path) else path
    try:
        handle = library.open(file)
    except _OPENSLIDE_ERRORS as error:
        raise NotTaken(f"OpenSlide does not open it: {error}") from error
    try:
        properties = _properties(handle)
        vendor = properties.get("openslide.vendor", "unknown")
        levels = _levels(handle, properties)
        pages = [
            Page(
                name=f"level {index}",
                width=level.width,
                height=level.height,
                pixels=f"tiles of {level.tile_width}x{level.tile_height}",
                role="level",
                why="OpenSlide says so",
                image=0,
                level=index,
            )
            for index, level in enumerate(levels)
        ]
        for name in library.get_associated_image_names(handle):
            width, height = library.get_associated_image_dimensions(handle, name)
            known: dict[str, Role] = {"label": "label", "macro": "macro", "thumbnail": "thumbnail"}
            pages.append(
                Page(
                    name=f"associated image {name!r}",
                    width=width,
                    height=height,
                    pixels="RGB",
                    role=known.get(name, "unknown"),
                    why="OpenSlide says so",
                )
            )
        microns = _microns(properties)
        image = SlideImage(
            number=0,
            name="",
            levels=tuple(levels),
            mpp=microns.mpp,
            mpp_source=microns.source,
            magnification=_power(properties),
            notes=microns.notes,
        )
    except _OPENSLIDE_ERRORS as error:
        raise NotTaken(f"OpenSlide cannot read its properties: {error}") from error
    finally:
        library.close(handle)
    return Structure(path, f"{vendor} (by OpenSlide)", tuple(pages), (image,))


def _tiles_px(level: Level, x: int, y: int, width: int, height: int) -> int:
    """Pixels of the tiles that a region touches."""
    across = -(-(x + width) // level.tile_width) - x // level.tile_width
    down = -(-(y + height) // level.tile_height) - y // level.tile_height
    return across * down * level.tile_width * level.tile_height
