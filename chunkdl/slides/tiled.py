"""Slides that are grids of independently coded tiles in one file."""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chunkdl.errors import SlideError
from chunkdl.slides.codecs import Decoder
from chunkdl.slides.slide import Level, Pixels, SlideInfo

TILE_CACHE_BYTES = 32 * 2**20
"""Decoded tiles that a process holds, of all its slides together."""
SCRATCH_OFFSET = 16
"""Bytes past a cache line at which scratch tiles begin. libjpeg-turbo writes rows that begin on 32
bytes past the cache (vmovntdq), and copying the tile out would fetch them from memory again: 14 to
30 % of the decoding speed of 256 and 512 pixel tiles."""


@dataclass(frozen=True, slots=True)
class TiledLevel:
    """Where the tiles of one level are, and how they become pixels.

    Attributes:
        level: size of the level and of its tiles.
        tiles_across: tiles in a row of the grid; rows follow each other in the arrays below.
        offsets, byte_counts: int64, one entry a tile; a byte count of 0 is a tile that the
            scanner left out.
        full_height: tiles of the last row are stored in full (TIFF tiles) and not cut off at the
            end of the image (TIFF strips).
        decode: makes pixels of the bytes of a tile.
    """

    level: Level
    tiles_across: int
    offsets: npt.NDArray[np.int64]
    byte_counts: npt.NDArray[np.int64]
    full_height: bool
    decode: Decoder


TileKey = tuple[int, int, int]
"""Number of the slide in this process, level, index of the tile."""


class TileCache:
    """The latest decoded tiles, at most `limit` bytes of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._tiles: OrderedDict[TileKey, Pixels] = OrderedDict()

    def get(self, key: TileKey) -> Pixels | None:
        """The tile with that key, None where it is not held."""
        tile = self._tiles.get(key)
        if tile is not None:
            self._tiles.move_to_end(key)
        return tile

    def put(self, key: TileKey, tile: Pixels) -> None:
        """Hold a tile that is not held; the ones that were not asked for longest go."""
        if tile.nbytes > self._limit:
            return
        self._tiles[key] = tile
        self._held += tile.nbytes
        while self._held > self._limit:
            _, dropped = self._tiles.popitem(last=False)
            self._held -= dropped.nbytes

    def forget(self, slide: int) -> None:
        """Drop the tiles of a slide."""
        for key in [key for key in self._tiles if key[0] == slide]:
            self._held -= self._tiles.pop(key).nbytes


_CACHE = TileCache(TILE_CACHE_BYTES)
_NUMBERS = itertools.count()


class TiledSlide:
    """A slide whose tiles are read with one `pread` each and decoded without a detour.

    Args:
        info: the facts of the slide; `levels` in the order of `info.levels`.
        levels: where the tiles are.
        cache: holds decoded tiles of which only a part was asked for, so that the neighbouring
            read does not decode them again; whole tiles are never held.

    Raises:
        SlideError: the file cannot be opened.
    """

    def __init__(
        self,
        info: SlideInfo,
        levels: Sequence[TiledLevel],
        cache: TileCache = _CACHE,
    ) -> None:
        self._info = info
        self._levels = tuple(levels)
        self._cache = cache
        self._number = next(_NUMBERS)
        self._scratch: dict[tuple[int, int], Pixels] = {}
        self._decoded_px = 0
        try:
            self._file = open(info.path, "rb", buffering=0)  # noqa: SIM115, close() closes it
        except OSError as error:
            raise SlideError(f"cannot open the file: {error}", slide=info.path) from error
        self._size = os.fstat(self._file.fileno()).st_size

    @property
    def info(self) -> SlideInfo:
        """The facts of the slide."""
        return self._info

    @property
    def decoded_px(self) -> int:
        """Pixels decoded since opening: whole tiles, also where a part was asked for."""
        return self._decoded_px

    def close(self) -> None:
        """Give the file back; closing twice is no error."""
        self._file.close()
        self._cache.forget(self._number)

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        """Fill `out` with the pixels of `level` from (x, y) on; see `Slide.read_into`.

        Tiles that the scanner left out come as the background.
        """
        height, width = out.shape[:2]
        size = self._levels[level].level
        if x < 0 or y < 0 or x + width > size.width or y + height > size.height:
            raise SlideError(
                f"the region is not inside the level of {size.width}x{size.height} pixels",
                slide=self._info.path,
                level=level,
                region=(x, y, width, height),
            )
        try:
            self._read_tiles(out, level, x, y)
        except (OSError, ValueError, RuntimeError) as error:
            raise SlideError(
                f"cannot read the tiles: {error}",
                slide=self._info.path,
                level=level,
                region=(x, y, width, height),
            ) from error

    def _read_tiles(self, out: Pixels, level: int, x: int, y: int) -> None:
        source = self._levels[level]
        size = source.level
        tile_w, tile_h = size.tile_width, size.tile_height
        x_end, y_end = x + out.shape[1], y + out.shape[0]
        for row in range(y // tile_h, -(-y_end // tile_h)):
            top = row * tile_h
            bottom = min(top + tile_h, size.height)
            stored_h = tile_h if source.full_height else bottom - top
            y0, y1 = max(y, top), min(y_end, bottom)
            for column in range(x // tile_w, -(-x_end // tile_w)):
                left = column * tile_w
                right = min(left + tile_w, size.width)
                x0, x1 = max(x, left), min(x_end, right)
                self._read_tile(
                    out[y0 - y : y1 - y, x0 - x : x1 - x],
                    (level, row * source.tiles_across + column),
                    stored_h,
                    (x0 - left, y0 - top),
                    whole=x0 == left and x1 == right and y0 == top and y1 == bottom,
                )

    def _read_tile(
        self,
        out: Pixels,
        key: tuple[int, int],
        stored_height: int,
        corner: tuple[int, int],
        *,
        whole: bool,
    ) -> None:
        """Fill `out` with the part of a tile that begins at `corner`, (x, y) in the tile."""
        tile = self._cache.get((self._number, *key))
        if tile is None:
            level, index = key
            source = self._levels[level]
            data = self._read_bytes(source, index)
            if not data:
                out[...] = self._info.background
                return
            shape = (stored_height, source.level.tile_width, 3)
            direct = out.shape == shape and out.flags.c_contiguous
            tile = out if direct else self._buffer(shape, keep=not whole)
            source.decode(data, tile)
            self._decoded_px += shape[0] * shape[1]
            if direct:
                return
            if not whole:
                self._cache.put((self._number, *key), tile)
        x, y = corner
        out[...] = tile[y : y + out.shape[0], x : x + out.shape[1]]

    def _read_bytes(self, source: TiledLevel, index: int) -> bytes:
        offset, count = int(source.offsets[index]), int(source.byte_counts[index])
        if offset + count > self._size:
            raise ValueError(
                f"tile {index} ends at byte {offset + count} of a file of {self._size}: "
                "the file is cut short, copy it again"
            )
        data = os.pread(self._file.fileno(), count, offset)
        if len(data) < count:
            raise OSError(f"the file gave {len(data)} of {count} bytes of tile {index}")
        return data

    def _buffer(self, shape: tuple[int, int, int], *, keep: bool) -> Pixels:
        if keep:
            return _unaligned(shape)
        # One tile that stays in the processor's cache is faster than a fresh one each time.
        scratch = self._scratch.get(shape[:2])
        if scratch is None:
            scratch = self._scratch[shape[:2]] = _unaligned(shape)
        return scratch


def _unaligned(shape: tuple[int, int, int]) -> Pixels:
    """A fresh tile that begins `SCRATCH_OFFSET` bytes past a cache line."""
    size = shape[0] * shape[1] * shape[2]
    memory = np.empty(size + 64 + SCRATCH_OFFSET, np.uint8)
    start = -memory.ctypes.data % 64 + SCRATCH_OFFSET
    return memory[start : start + size].reshape(shape)
