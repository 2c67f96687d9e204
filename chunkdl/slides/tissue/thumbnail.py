"""The small picture of a slide that tissue is looked for on: about 8 microns per pixel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError, SlideError
from chunkdl.slides.slide import Level, Pixels, Slide, SlideInfo

_CELL_MICRONS = 8.0
_CELL_PX = 16.0
# Levels come in powers of two: at 0.5044 mpp the one of downsample 16 has 8.07 microns per pixel,
# and reading the next finer one instead would cost 4 or 16 times as much.
_TOLERANCE = 1.25
MOST_CELLS_A_SIDE = 4096
# A wrong mpp in the file must not make a mask of three cells.
_COARSEST_CELL_PX = 256.0
_BLOCK_PX = 2**23
_ROWS_AT_ONCE = 32
MOST_READ_PX = 2**31
"""Pixels of a level that are read for one mask. A slide of one level of 150,000 pixels a side has
ten times as many; of such a level one tile in 4, 9, 16 ... is read."""


@dataclass(frozen=True, slots=True)
class ThumbnailPlan:
    """How a thumbnail is read.

    Attributes:
        level: that it is read from.
        side: of a cell, pixels of that level.
        stride: one tile in stride x stride is read.
    """

    level: int
    side: int
    stride: int


def thumbnail_plan(info: SlideInfo, mpp: float | tuple[float, float] | None) -> ThumbnailPlan:
    """How the thumbnail of a slide is read.

    Args:
        info: the slide.
        mpp: microns per level-0 pixel, instead of what the slide says.

    Raises:
        ConfigError: the mpp is not above 0.
    """
    wanted = _cell_size(info, info.mpp if mpp is None else mpp)
    fitting = [level for level in info.levels if level.downsample <= wanted * _TOLERANCE]
    index = info.levels.index(max(fitting, key=lambda level: level.downsample))
    level = info.levels[index]
    side = max(1, math.floor(wanted / level.downsample))
    side = max(side, math.ceil(max(level.width, level.height) / MOST_CELLS_A_SIDE))
    return ThumbnailPlan(index, side, _stride(level, MOST_READ_PX))


def picture_plan(
    info: SlideInfo, longest_px: int, most_read_px: int | None = None
) -> ThumbnailPlan:
    """How a picture of the whole slide is read that is at most `longest_px` on a side.

    Args:
        info: the slide.
        longest_px: of the picture.
        most_read_px: of a level with more pixels, one tile in 4, 9, 16 ... is read; None: as many
            as for a mask.
    """
    large = [level for level in info.levels if max(level.width, level.height) >= longest_px]
    index = info.levels.index(large[-1]) if large else 0
    level = info.levels[index]
    side = math.ceil(max(level.width, level.height) / longest_px)
    most = MOST_READ_PX if most_read_px is None else most_read_px
    return ThumbnailPlan(index, side, _stride(level, most))


def _stride(level: Level, most_read_px: int) -> int:
    return max(1, math.ceil(math.sqrt(level.width * level.height / most_read_px)))


def _cell_size(info: SlideInfo, mpp: float | tuple[float, float] | None) -> float:
    """The wished side of a cell in level-0 pixels."""
    if mpp is None:
        return _CELL_PX
    both = (mpp, mpp) if isinstance(mpp, int | float) else tuple(mpp)
    mean = sum(both) / 2
    if not (math.isfinite(mean) and min(both) > 0):
        raise ConfigError(f"mpp must be microns per pixel above 0, not {mpp} ({info.path})")
    return min(max(_CELL_MICRONS / mean, 1.0), _COARSEST_CELL_PX)


Box = tuple[int, int, int, int]
"""Left, top, right, bottom; pixels of a level."""


def read_thumbnail(slide: Slide, plan: ThumbnailPlan) -> tuple[Pixels, list[Box]]:
    """The thumbnail, and the boxes of the level that cannot be read.

    Raises:
        SlideError: nothing of the slide can be read.
    """
    reading = _Reading(slide, plan.level)
    if plan.stride > 1:
        thumbnail = _read_sampled(reading, plan)
        slide.gaps.met(
            f"tissue was detected on only one of {plan.stride**2} tiles, because the slide has no "
            "small level (for an exact mask, give tissue_mask)"
        )
    else:
        thumbnail = _read_reduced(reading, plan.side)
    if reading.unreadable == reading.tiles:
        raise SlideError("no tile of it can be read", slide=slide.info.path, level=plan.level)
    return thumbnail, reading.unknown


class _Reading:
    """Reads a level for a mask, which one bad tile does not end.

    Attributes:
        slide: the slide.
        index: of the level.
        level: its size.
        tiles: number of tiles that were read one by one.
        unreadable: number of tiles that could not be read.
        unknown: their boxes.
    """

    def __init__(self, slide: Slide, index: int) -> None:
        self.slide = slide
        self.index = index
        self.level = slide.info.levels[index]
        self.tiles = 0
        self.unreadable = 0
        self.unknown: list[Box] = []

    def into(self, block: Pixels, left: int, top: int) -> None:
        """Fill `block` with the pixels from (left, top) on."""
        try:
            self.slide.read_into(block, self.index, left, top)
            self.tiles += 1
        except SlideError as error:
            # A mask is kept on disk; what the system did not give now must not be missing for good.
            if error.may_pass:
                raise
            self._by_tile(block, left, top)

    def _by_tile(self, block: Pixels, left: int, top: int) -> None:
        for y0, y1 in _cuts(top, top + block.shape[0], self.level.tile_height):
            for x0, x1 in _cuts(left, left + block.shape[1], self.level.tile_width):
                self.tiles += 1
                part = block[y0 - top : y1 - top, x0 - left : x1 - left]
                try:
                    self.slide.read_into(part, self.index, x0, y0)
                except SlideError as error:
                    if error.may_pass:
                        raise
                    self._mend(part, (x0, y0, x1, y1))

    def _mend(self, part: Pixels, box: Box) -> None:
        """Make a part of a level from a finer one, or call it unknown."""
        for finer in range(self.index - 1, -1, -1):
            try:
                self._reduce(part, box, finer)
            except SlideError as error:
                if error.may_pass:
                    raise
                continue
            self.slide.gaps.met(
                f"tiles of level {self.index} cannot be read: there, tissue was detected on a "
                "finer level"
            )
            return
        part[...] = self.slide.info.background
        self.unknown.append(box)
        self.unreadable += 1
        self.slide.gaps.met(
            f"tiles of level {self.index} cannot be read: these places count as no tissue"
        )

    def _reduce(self, part: Pixels, box: Box, finer: int) -> None:
        # Imported here because few slides have a tile that cannot be read.
        from PIL import Image

        level = self.slide.info.levels[finer]
        factor = self.level.downsample / level.downsample
        left, top = int(box[0] * factor), int(box[1] * factor)
        right = min(level.width, math.ceil(box[2] * factor))
        bottom = min(level.height, math.ceil(box[3] * factor))
        if right <= left or bottom <= top or (right - left) * (bottom - top) > 8 * _BLOCK_PX:
            raise SlideError("the place is not on the finer level")
        pixels = np.empty((bottom - top, right - left, 3), np.uint8)
        self.slide.read_into(pixels, finer, left, top)
        size = part.shape[1], part.shape[0]
        part[...] = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _cuts(begin: int, end: int, step: int) -> Iterator[tuple[int, int]]:
    """[begin, end) cut at the multiples of `step`."""
    borders = range((begin // step + 1) * step, end, step)
    return itertools.pairwise([begin, *borders, end])


def cells_under(box: Box, level: Level, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The cells of a thumbnail of that shape that a box of its level touches."""
    (left, top, right, bottom), (rows, columns) = box, shape
    return (
        slice(top * rows // level.height, -(-bottom * rows // level.height)),
        slice(left * columns // level.width, -(-right * columns // level.width)),
    )


def _read_sampled(reading: _Reading, plan: ThumbnailPlan) -> Pixels:
    """The level, with only the middle tile of each stride x stride tiles read, for all of them."""
    level, stride = reading.level, plan.stride
    columns = math.ceil(level.width / plan.side)
    rows = math.ceil(level.height / plan.side)
    thumbnail = np.empty((rows, columns, 3), np.uint8)
    step_x, step_y = stride * level.tile_width, stride * level.tile_height
    for top, bottom in _cuts(0, level.height, step_y):
        for left, right in _cuts(0, level.width, step_x):
            x = left + _middle(right - left, level.tile_width)
            y = top + _middle(bottom - top, level.tile_height)
            tile = np.empty(
                (
                    min(level.tile_height, level.height - y),
                    min(level.tile_width, level.width - x),
                    3,
                ),
                np.uint8,
            )
            reading.into(tile, x, y)
            small = _mean_cells(tile, plan.side)
            cells = cells_under((left, top, right, bottom), level, thumbnail.shape[:2])
            part = thumbnail[cells]
            down, across = np.arange(part.shape[0]), np.arange(part.shape[1])
            part[...] = small[down[:, None] % small.shape[0], across % small.shape[1]]
    return thumbnail


def _middle(length: int, tile: int) -> int:
    """Where the tile in the middle of a span of tiles begins."""
    return (-(-length // tile) - 1) // 2 * tile


def _mean_cells(tile: Pixels, side: int) -> Pixels:
    """Means over cells of about side x side pixels, at least one."""
    rows, columns = max(1, tile.shape[0] // side), max(1, tile.shape[1] // side)
    down, across = _borders(tile.shape[0], rows), _borders(tile.shape[1], columns)
    sums = np.add.reduceat(_summed_rows(tile, down), across[:-1], axis=1)
    areas = (np.diff(down)[:, None] * np.diff(across)[None, :])[..., None]
    return np.asarray((sums + areas // 2) // areas, dtype=np.uint8)


def _read_reduced(reading: _Reading, side: int) -> Pixels:
    """A level averaged over cells of about `side` x `side` of its pixels.

    The cells are as equal as whole pixels allow: their borders are the rounded multiples of
    width / w and height / h, so that together they cover the level exactly.
    """
    level = reading.level
    columns, rows = math.ceil(level.width / side), math.ceil(level.height / side)
    thumbnail = np.empty((rows, columns, 3), dtype=np.uint8)
    if side == 1:
        reading.into(thumbnail, 0, 0)
        return thumbnail
    x_borders, y_borders = _borders(level.width, columns), _borders(level.height, rows)
    # The last row of cells of a band is finished by the next band.
    unfinished = np.zeros((columns, 3), dtype=np.uint32)
    for top, bottom in _spans(level.height, level.tile_height, _most_rows(level)):
        first, last = _cells_of(y_borders, top, bottom)
        sums = np.zeros((last - first + 1, columns, 3), dtype=np.uint32)
        sums[0] = unfinished
        for left, right in _spans(level.width, level.tile_width, _BLOCK_PX // (bottom - top)):
            block = np.empty((bottom - top, right - left, 3), dtype=np.uint8)
            reading.into(block, left, top)
            begin, end = _cells_of(x_borders, left, right)
            starts = np.maximum(x_borders[begin : end + 1] - left, 0)
            for some in range(first, last + 1, _ROWS_AT_ONCE):
                until = min(some + _ROWS_AT_ONCE, last + 1)
                by_row = _summed_rows(block, y_borders[some : until + 1] - top)
                part = sums[some - first : until - first, begin : end + 1]
                part += np.add.reduceat(by_row, starts, axis=1)
        done = last + 1 if bottom == y_borders[last + 1] else last
        for row in range(first, done):
            areas = ((y_borders[row + 1] - y_borders[row]) * np.diff(x_borders))[:, None]
            thumbnail[row] = (sums[row - first] + areas // 2) // areas
        unfinished = sums[-1] if done == last else np.zeros_like(unfinished)
    return thumbnail


def _most_rows(level: Level) -> int:
    """Rows of a band: whole tile rows where they fit, else what a block of one tile's width has."""
    if level.width * level.tile_height <= _BLOCK_PX:
        return _BLOCK_PX // level.width
    return min(level.tile_height, max(1, _BLOCK_PX // min(level.tile_width, level.width)))


def _spans(length: int, tile: int, most: int) -> Iterator[tuple[int, int]]:
    """`length` cut into spans of at most `most`, at tile borders where a tile fits into `most`."""
    step = max(1, most // tile * tile or most)
    for begin in range(0, length, step):
        yield begin, min(begin + step, length)


def _borders(length: int, cells: int) -> npt.NDArray[np.int64]:
    """Where cells begin and end, shape (cells + 1,): `length` shared out as evenly as it goes."""
    return (np.arange(cells + 1, dtype=np.int64) * length + cells // 2) // cells


def _cells_of(borders: npt.NDArray[np.int64], begin: int, end: int) -> tuple[int, int]:
    """The first and the last cell that have a part of [begin, end)."""
    first = int(np.searchsorted(borders, begin, side="right")) - 1
    return first, int(np.searchsorted(borders, end, side="left")) - 1


def _summed_rows(block: Pixels, borders: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Sums over the rows between borders; those that lie outside the block count as its ends."""
    # Not np.add.reduceat: along the first axis it is some twenty times slower than summing, and
    # slower than the tiles are decoded.
    ends = np.clip(borders, 0, len(block))
    return np.stack([block[a:b].sum(axis=0, dtype=np.uint32) for a, b in itertools.pairwise(ends)])
