"""The reader for everything else: OpenSlide, composited on the slide's background.

The low-level functions of openslide-python are used, because they read into given memory. The
way over Pillow images copies every pixel three times more.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide.lowlevel as library

from chunkdl.errors import SlideError
from chunkdl.slides.slide import Level, Pixels, Scanned, SlideInfo

CACHE_BYTES = 32 * 2**20
"""Decoded tiles that OpenSlide holds in one process, for all its slides together."""
BLOCK_PX = 4 * 2**20
"""Pixels read at once; bounds the memory beside the output."""
UNKNOWN_TILE = 256
MOST_PROFILE_BYTES = 16 * 2**20
OPAQUE = np.uint32(0xFF000000)

_OPENSLIDE_ERRORS = (library.OpenSlideError, OSError, ValueError, ctypes.ArgumentError)


class OpenSlideSlide:
    """A slide that OpenSlide reads.

    OpenSlide takes places in level-0 pixels, whole ones. Where the downsample of a level is not
    an integer, the pixels of a reduced level come interpolated, up to half a level-0 pixel off.

    Args:
        path: the file; for DICOM one file of the series, or the folder of its files.

    Raises:
        SlideError: OpenSlide does not take the file, or it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._file = _dicom_member(self._path) if os.path.isdir(self._path) else self._path
        self._handle: Any = None
        self._closed = False
        self._decoded_px = 0
        try:
            self._info = _read_info(self._path, self._open())
        except _OPENSLIDE_ERRORS as error:
            self.close()
            raise SlideError(
                f"not taken by the reader 'openslide': {error}", slide=self._path
            ) from error

    @property
    def info(self) -> SlideInfo:
        """The facts of the slide."""
        return self._info

    @property
    def decoded_px(self) -> int:
        """Pixels of the tiles that were touched; tiles that OpenSlide still held count again."""
        return self._decoded_px

    @property
    def gaps(self) -> Mapping[str, int]:
        """Nothing: OpenSlide does not tell what it mends."""
        return {}

    @property
    def icc_profile(self) -> bytes | None:
        """The colour profile of the slide, None where it has none."""
        size = library.get_icc_profile_size(self._open())
        if not 0 < size <= MOST_PROFILE_BYTES:
            return None
        profile: bytes | None = library.read_icc_profile(self._open())
        return profile

    def scanned(self) -> Scanned | None:
        """None: nothing is known of it."""
        return None

    def close(self) -> None:
        """Give the file back; closing twice is no error."""
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
        size = self._info.levels[level]
        argb = np.empty((height, width), np.uint32)
        buffer = argb.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))
        x0, y0 = round(x * size.downsample), round(y * size.downsample)
        library._read_region(self._open(), buffer, x0, y0, level, width, height)
        composite(argb, self._info.background, out)
        self._decoded_px += _tiles_px(size, x, y, width, height)

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


def composite(argb: npt.NDArray[np.uint32], background: tuple[int, int, int], out: Pixels) -> None:
    """Lay premultiplied pixels on a background: colour + (1 - alpha) · background.

    Args:
        argb: shape (height, width), premultiplied native-endian ARGB, as OpenSlide gives it.
        background: RGB of the background.
        out: shape (height, width, 3), uint8; receives the result, rounded.
    """
    for channel, shift in enumerate((16, 8, 0)):
        out[..., channel] = _byte(argb, shift)
    if argb.min(initial=OPAQUE) >= OPAQUE:
        return
    shown = 255 - _byte(argb, 24).astype(np.uint16)
    for channel, value in enumerate(background):
        out[..., channel] += ((shown * value + 127) // 255).astype(np.uint8)


def _byte(argb: npt.NDArray[np.uint32], shift: int) -> npt.NDArray[np.uint8]:
    """One byte of every number, as a view; `shift` counts from the lowest bit."""
    position = shift // 8 if sys.byteorder == "little" else 3 - shift // 8
    return argb.view(np.uint8).reshape(*argb.shape, 4)[..., position]


@cache
def _process_cache() -> Any:
    return library.cache_create(CACHE_BYTES)


def _dicom_member(folder: str) -> str:
    """One file of the DICOM series in the folder; OpenSlide finds the others."""
    files = sorted(name for name in os.listdir(folder) if name.lower().endswith(".dcm"))
    if not files:
        raise SlideError("a folder without .dcm files is no slide", slide=folder)
    return os.path.join(folder, files[0])


def _read_info(path: str, handle: Any) -> SlideInfo:
    properties = {
        name: library.get_property_value(handle, name)
        for name in library.get_property_names(handle)
    }
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
    if not levels or min(min(level.width, level.height) for level in levels) <= 0:
        raise ValueError("it has no level with pixels")
    colour = properties.get("openslide.background-color", "FFFFFF")
    return SlideInfo(
        path=path,
        reader="openslide",
        levels=tuple(levels),
        mpp=_mpp(properties),
        background=(int(colour[0:2], 16), int(colour[2:4], 16), int(colour[4:6], 16)),
    )


def _mpp(properties: dict[str, str]) -> tuple[float, float] | None:
    x, y = properties.get("openslide.mpp-x"), properties.get("openslide.mpp-y")
    if x is None or y is None:
        return None
    mpp = float(x), float(y)
    return mpp if min(mpp) > 0 and max(mpp) < float("inf") else None


def _tiles_px(level: Level, x: int, y: int, width: int, height: int) -> int:
    """Pixels of the tiles that a region touches."""
    across = -(-(x + width) // level.tile_width) - x // level.tile_width
    down = -(-(y + height) // level.tile_height) - y // level.tile_height
    return across * down * level.tile_width * level.tile_height
