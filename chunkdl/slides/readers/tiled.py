"""Slides that are grids of independently coded tiles in one or several files."""

from __future__ import annotations

import errno
import io
import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from chunkdl.errors import SlideError
from chunkdl.slides.readers.tile_cache import TileCache
from chunkdl.slides.slide import Gaps, Level, Pixels, Scanned, SlideInfo

TILE_CACHE_BYTES = 32 * 2**20
"""Decoded tiles that a process holds, of all its slides together."""
SCRATCH_OFFSET = 16
"""Bytes past a cache line at which scratch tiles begin. libjpeg-turbo writes rows that begin on 32
bytes past the cache (vmovntdq), and copying the tile out would fetch them from memory again: 14 to
30 % of the decoding speed of 256 and 512 pixel tiles."""
FILL_SIDE_PX = 2048
"""Pixels along a region that is read at once to fill an absent tile of a coarser level."""
MOST_FILL_PX = 2**28
"""Pixels of the finer level that are read to fill the part of a tile; decoding more takes longer
than a reader may wait."""


TileMaker = Callable[[Sequence[bytes], Pixels], object]
"""Makes RGB of the stored streams of a tile, in a C-contiguous array of the tile's shape.

Raises ValueError or RuntimeError (all imagecodecs errors are) where the bytes do not fill it.
"""


@dataclass(frozen=True, slots=True, eq=False)
class TiledLevel:
    """Where the tiles of one level are, and how they become pixels.

    Attributes:
        level: size of the level and of its tiles.
        tiles_across: stored tiles in a row of the grid; rows follow each other in the arrays below.
        offsets, byte_counts: int64, shape (streams, tiles). A tile has one stream, or one for each
            plane or channel that is stored apart. A byte count of 0 is a tile that is absent.
        full_height: tiles of the last row are stored in full (TIFF tiles) and not cut off at the
            end of the image (TIFF strips).
        make: makes pixels of the streams of a tile.
        files: paths that the tiles lie in.
        file_of_tile: for each tile the index of its file, shape (tiles,); None: all in the first.
    """

    level: Level
    tiles_across: int
    offsets: npt.NDArray[np.int64]
    byte_counts: npt.NDArray[np.int64]
    full_height: bool
    make: TileMaker
    files: tuple[str, ...]
    file_of_tile: npt.NDArray[np.int32] | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        files = 0 if self.file_of_tile is None else self.file_of_tile.nbytes
        return self.offsets.nbytes + self.byte_counts.nbytes + files

    def absent(self) -> npt.NDArray[np.bool_]:
        """For each tile whether the file has no data for it, or not for all of its streams."""
        return np.asarray((self.byte_counts == 0).any(axis=0))


def single(decode: Callable[[bytes, Pixels], object]) -> TileMaker:
    """Makes the pixels of tiles that have one stream each."""

    def make(streams: Sequence[bytes], tile: Pixels) -> None:
        decode(streams[0], tile)

    return make


_CACHE = TileCache(TILE_CACHE_BYTES)
_NUMBERS = itertools.count()


class TiledSlide:
    """A slide whose tiles are read with one `pread` each and decoded without a detour.

    Args:
        info: the facts of the slide; `levels` in the order of `info.levels`.
        levels: where the tiles are.
        cache: holds decoded tiles of which only a part was asked for, so that the neighbouring
            read does not decode them again; whole tiles are never held.
        icc_profile: the colour profile in the file.

    A file that is written to while it is open is an error that may pass: opened anew, the slide is
    what it is now.

    Raises:
        SlideError: a file cannot be opened.
    """

    def __init__(
        self,
        info: SlideInfo,
        levels: Sequence[TiledLevel],
        cache: TileCache = _CACHE,
        icc_profile: bytes | None = None,
    ) -> None:
        self._info = info
        self._levels = tuple(levels)
        self._cache = cache
        self._icc_profile = icc_profile
        self._number = next(_NUMBERS)
        self._scratch: dict[tuple[int, int], Pixels] = {}
        self._decoded_px = 0
        self._gaps = Gaps()
        self._absent = [level.absent() for level in self._levels]
        self._absent_seen = [np.zeros_like(absent) for absent in self._absent]
        self._tables_bytes = 2 * sum(absent.nbytes for absent in self._absent) + sum(
            level.nbytes for level in self._levels
        )
        self._files: dict[str, io.FileIO] = {}
        self._closed = False
        try:
            # Of all files now: those of other levels are opened when they are first read.
            self._states = {
                path: _state(os.stat(path)) for level in self._levels for path in level.files
            }
            self._file(self._levels[0].files[0])
        except OSError as error:
            raise SlideError(f"cannot open the file: {error}", slide=info.path) from error

    @property
    def info(self) -> SlideInfo:
        """The facts of the slide."""
        return self._info

    @property
    def decoded_px(self) -> int:
        """Pixels decoded since opening: whole tiles, also where a part was asked for."""
        return self._decoded_px

    @property
    def gaps(self) -> Gaps:
        """Absent tiles that were met since opening, each counted once."""
        return self._gaps

    @property
    def icc_profile(self) -> bytes | None:
        """The colour profile in the file, None where there is none."""
        return self._icc_profile

    @property
    def state(self) -> str:
        """Sizes and times of change (ns) of the files, by their names."""
        files = sorted((os.path.basename(path), facts) for path, facts in self._states.items())
        return repr(files)

    @property
    def nbytes(self) -> int:
        """Memory of the tables of tiles, of scratch and of the colour profile, bytes."""
        scratch = sum(tile.nbytes for tile in self._scratch.values())
        return self._tables_bytes + scratch + len(self._icc_profile or b"")

    def scanned(self) -> Scanned | None:
        """Which tiles of level 0 are in the file; None: all."""
        first = self._levels[0]
        absent = self._absent[0]
        if not absent.any():
            return None
        cells = ~absent.reshape(-1, first.tiles_across)
        return Scanned(cells, first.level.tile_width, first.level.tile_height)

    def close(self) -> None:
        """Give the files back; closing twice is not an error."""
        self._closed = True
        while self._files:
            self._files.popitem()[1].close()
        self._cache.forget(self._number)

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        """Fill `out` with the pixels of `level` from (x, y) on; see `Slide.read_into`.

        A tile that is absent is made from the next finer level; one that is absent from level 0
        comes as the background.
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
            try:
                self._read_tiles(out, level, x, y)
            finally:
                # Behind the reads: what was written before them may lie at other places.
                self._check_unchanged()
        except (OSError, ValueError, RuntimeError) as error:
            raise SlideError(
                f"cannot read the tiles: {error}",
                slide=self._info.path,
                level=level,
                region=(x, y, width, height),
            ) from error

    def _check_unchanged(self) -> None:
        for path, file in self._files.items():
            if _state(os.fstat(file.fileno())) != self._states[path]:
                self._cache.forget(self._number)
                raise OSError(errno.ESTALE, "the file was changed while it was read; open it again")

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
            if self._absent[level][index]:
                self._fill(out, key, corner)
                return
            shape = (stored_height, source.level.tile_width, 3)
            direct = out.shape == shape and out.flags.c_contiguous
            tile = out if direct else self._buffer(shape, keep=not whole)
            source.make(self._streams(source, index), tile)
            self._decoded_px += shape[0] * shape[1]
            if direct:
                return
            if not whole:
                self._cache.put((self._number, *key), tile)
        x, y = corner
        out[...] = tile[y : y + out.shape[0], x : x + out.shape[1]]

    def _streams(self, source: TiledLevel, index: int) -> list[bytes]:
        """The stored bytes of a tile."""
        number = 0 if source.file_of_tile is None else int(source.file_of_tile[index])
        path = source.files[number]
        descriptor, (size, _) = self._file(path).fileno(), self._states[path]
        streams = []
        for stream in range(len(source.offsets)):
            offset, count = (
                int(source.offsets[stream, index]),
                int(source.byte_counts[stream, index]),
            )
            if offset + count > size:
                raise ValueError(
                    f"tile {index} ends at byte {offset + count} of a file of {size}: "
                    "the file is cut short, copy it again"
                )
            data = os.pread(descriptor, count, offset)
            if len(data) < count:
                raise OSError(f"the file gave {len(data)} of {count} bytes of tile {index}")
            streams.append(data)
        return streams

    def _file(self, path: str) -> io.FileIO:
        """A file, open."""
        if self._closed:
            raise ValueError("the slide was closed")
        held = self._files.get(path)
        if held is None:
            file = open(path, "rb", buffering=0)  # noqa: SIM115, close() closes it
            held = self._files[path] = file
        return held

    # ---- Tiles that are absent

    def _fill(self, out: Pixels, key: tuple[int, int], corner: tuple[int, int]) -> None:
        """Fill `out` with a part of an absent tile: the finer level reduced, or the background."""
        level, index = key
        if not self._absent_seen[level][index]:
            self._absent_seen[level][index] = True
            self._gaps.met(
                f"tiles of level {level} are absent: made from level {level - 1}"
                if level
                else "tiles of level 0 are absent: background, and no tissue"
            )
        if level == 0:
            out[...] = self._info.background
            return
        size, finer = self._levels[level].level, self._levels[level - 1].level
        factor = size.downsample / finer.downsample
        row, column = divmod(index, self._levels[level].tiles_across)
        left, top = column * size.tile_width + corner[0], row * size.tile_height + corner[1]
        if not self._has_data(level, (left, top, left + out.shape[1], top + out.shape[0])):
            out[...] = self._info.background
            return
        if out.shape[0] * out.shape[1] * factor**2 > MOST_FILL_PX:
            raise ValueError(
                f"tile {index} is absent, and level {level - 1}, from which it would be made, is "
                f"{factor:g} times finer: add the levels in between to the file"
            )
        step = max(1, int(FILL_SIDE_PX / factor))
        for y in range(0, out.shape[0], step):
            for x in range(0, out.shape[1], step):
                part = out[y : y + step, x : x + step]
                self._reduce(part, level - 1, left + x, top + y, factor)

    def _has_data(self, level: int, box: tuple[float, float, float, float]) -> bool:
        """Whether the file has a tile of any finer level under a box (left, top, right, bottom)."""
        for finer in range(level - 1, -1, -1):
            source = self._levels[finer]
            factor = self._levels[level].level.downsample / source.level.downsample
            tile_w, tile_h = source.level.tile_width, source.level.tile_height
            left, top, right, bottom = (side * factor for side in box)
            absent = self._absent[finer].reshape(-1, source.tiles_across)
            rows = slice(max(0, int(top / tile_h) - 1), math.ceil(bottom / tile_h) + 1)
            columns = slice(max(0, int(left / tile_w) - 1), math.ceil(right / tile_w) + 1)
            if not absent[rows, columns].all():
                return True
        return False

    def _reduce(self, out: Pixels, level: int, x: int, y: int, factor: float) -> None:
        """Fill `out` with the means of what its pixels, from (x, y) on, cover of `level`."""
        size = self._levels[level].level
        x_ends = min(x * factor, size.width - 1), min((x + out.shape[1]) * factor, size.width)
        y_ends = min(y * factor, size.height - 1), min((y + out.shape[0]) * factor, size.height)
        left, top = int(x_ends[0]), int(y_ends[0])
        finer = np.empty((math.ceil(y_ends[1]) - top, math.ceil(x_ends[1]) - left, 3), np.uint8)
        self._read_tiles(finer, level, left, top)
        box = (x_ends[0] - left, y_ends[0] - top, x_ends[1] - left, y_ends[1] - top)
        reduced = Image.fromarray(finer).resize(
            (out.shape[1], out.shape[0]), Image.Resampling.BOX, box=box
        )
        out[...] = np.asarray(reduced)

    def _buffer(self, shape: tuple[int, int, int], *, keep: bool) -> Pixels:
        if keep:
            return _unaligned(shape)
        # One tile that stays in the processor's cache is faster than a fresh one each time.
        scratch = self._scratch.get(shape[:2])
        if scratch is None:
            scratch = self._scratch[shape[:2]] = _unaligned(shape)
        return scratch


def _state(facts: os.stat_result) -> tuple[int, int]:
    """Size and time of change (ns) of a file: while they stay, its tiles lie where they lay."""
    return facts.st_size, facts.st_mtime_ns


def _unaligned(shape: tuple[int, int, int]) -> Pixels:
    """A fresh tile that begins `SCRATCH_OFFSET` bytes past a cache line."""
    size = shape[0] * shape[1] * shape[2]
    memory = np.empty(size + 64 + SCRATCH_OFFSET, np.uint8)
    start = -memory.ctypes.data % 64 + SCRATCH_OFFSET
    return memory[start : start + size].reshape(shape)
