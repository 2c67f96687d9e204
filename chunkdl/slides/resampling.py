"""Target pixels out of level pixels: reading at a resolution that no level has.

The filter is the triangle of Pillow's ``Image.resize(..., BILINEAR)`` with its support scaled to
the reduction, so that it blurs what the coarser grid cannot hold. Target pixel X of a level
reduced by f is

    sum over i of w(i) · level[i] / sum over i of w(i),
    w(i) = max(0, 1 - |i + 1/2 - (X + 1/2)·f| / f),

in x and in y, over the pixels i inside the level.

A target pixel has the same bytes whatever region it is read with. Pillow takes the place of the
region in its image as 32-bit floats, which round differently for different regions. So the target
frame is cut into fixed cells, f and the place of a cell are rounded down to a binary fraction so
short that all places in the cell are exact in 24 bits, and no image is larger than a cell. The
rounding moves a pixel by less than 0.001 of its width. Which of its two passes Pillow runs first
depends on the region as well, so each pass is a call of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from PIL import Image

from chunkdl.errors import SlideError
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.slide import Pixels, Slide

MIN_WINDOW_PX = 256
"""Level pixels along a cell with its margins; more where the factor is large."""
SLAB_PX = 4 * 2**20
"""Level pixels read at once, about; bounds the memory beside the output."""
FLOAT32_BITS = 24


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of a target frame, cut into cells.

    Attributes:
        length: target pixels of the frame.
        limit: level pixels of the level.
        exact: level pixels per target pixel.
        factor: the same, rounded to a multiple of 1 / steps.
        steps: steps of a place in a level pixel.
        cell: target pixels of a cell.
        margin: level pixels that the filter needs beside a target area.
    """

    length: int
    limit: int
    exact: float
    factor: float
    steps: int
    cell: int
    margin: int

    @classmethod
    def of(cls, length: int, limit: int, factor: float) -> Self:
        """The axis with cells that fit the factor."""
        # The filter of the outermost pixel reaches half a target pixel beyond it.
        margin = math.ceil(factor / 2) + 1
        # A power of two, because places below it are counted in bits; room for eight pixels.
        window = max(MIN_WINDOW_PX, 1 << math.ceil(8 * factor + 2 * margin + 2).bit_length())
        steps = 2**FLOAT32_BITS // window
        cell = int((window - 2 * margin - 2) / factor)
        return cls(length, limit, factor, round(factor * steps) / steps, steps, cell, margin)

    def span(self, start: int, stop: int) -> tuple[float, float]:
        """The level area of the target pixels [start, stop), which lie in one cell."""
        first = start // self.cell * self.cell
        middle = self.cell / 2
        place = (first + middle) * self.exact - middle * self.factor
        # The cells at the borders stay in the level, whatever the rounding does.
        last = self.limit - (min(first + self.cell, self.length) - first) * self.factor
        anchor = max(0.0, min(round(place * self.steps), math.floor(last * self.steps)))
        anchor /= self.steps
        return anchor + (start - first) * self.factor, anchor + (stop - first) * self.factor

    def window(self, start: int, stop: int) -> tuple[int, int]:
        """The level pixels that [start, stop) in one cell is made of."""
        first, last = self.span(start, stop)
        return (
            max(0, math.floor(first) - self.margin),
            min(self.limit, math.ceil(last) + self.margin),
        )

    def cuts(self, start: int, stop: int) -> list[tuple[int, int]]:
        """[start, stop) cut at the borders of the cells."""
        borders = range((start // self.cell + 1) * self.cell, stop, self.cell)
        return list(pairwise([start, *borders, stop]))


def read_target_into(slide: Slide, grid: TargetGrid, out: Pixels, x: int, y: int) -> None:
    """Fill `out` with the target pixels whose top-left corner is (x, y).

    Args:
        slide: the open slide that `grid` was made for.
        grid: the target frame.
        out: shape (height, width, 3), uint8; any strides with contiguous pixels.
        x, y: target pixels; the region must lie inside the grid.

    Raises:
        SlideError: the file is damaged there, or the region is outside the grid.
    """
    height, width = out.shape[:2]
    if x < 0 or y < 0 or x + width > grid.width or y + height > grid.height:
        raise SlideError(
            f"the region, in target pixels, is not inside the grid of {grid.width}x{grid.height}",
            slide=slide.info.path,
            level=grid.level,
            region=(x, y, width, height),
        )
    if grid.factor == 1.0:
        slide.read_into(out, grid.level, x, y)
        return
    level = slide.info.levels[grid.level]
    across = _Axis.of(grid.width, level.width, grid.factor)
    down = _Axis.of(grid.height, level.height, grid.factor)
    columns, rows = across.cuts(x, x + width), down.cuts(y, y + height)
    together = max(1, int(SLAB_PX / (width * down.cell * grid.factor**2)))
    for index in range(0, len(rows), together):
        slab = rows[index : index + together]
        part = out[slab[0][0] - y : slab[-1][1] - y]
        _reduce_slab(slide, grid.level, (across, columns), (down, slab), part)


_Cuts = tuple[_Axis, list[tuple[int, int]]]
"""An axis, and the parts of its cells that are wanted."""


def _reduce_slab(slide: Slide, level: int, x_cuts: _Cuts, y_cuts: _Cuts, out: Pixels) -> None:
    """Read the level pixels of some rows of cells at once, and reduce them cell by cell."""
    across, columns = x_cuts
    down, rows = y_cuts
    left, top = across.window(*columns[0])[0], down.window(*rows[0])[0]
    right, bottom = across.window(*columns[-1])[1], down.window(*rows[-1])[1]
    source = np.empty((bottom - top, right - left, 3), np.uint8)
    slide.read_into(source, level, left, top)
    image = Image.fromarray(source)
    x, y = columns[0][0], rows[0][0]
    for row in rows:
        y0, y1 = down.window(*row)
        box_top, box_bottom = down.span(*row)
        for column in columns:
            x0, x1 = across.window(*column)
            box_left, box_right = across.span(*column)
            cell = image.crop((x0 - left, y0 - top, x1 - left, y1 - top))
            low = cell.resize(
                (cell.width, row[1] - row[0]),
                Image.Resampling.BILINEAR,
                box=(0, box_top - y0, cell.width, box_bottom - y0),
            )
            reduced = low.resize(
                (column[1] - column[0], low.height),
                Image.Resampling.BILINEAR,
                box=(box_left - x0, 0, box_right - x0, low.height),
            )
            out[row[0] - y : row[1] - y, column[0] - x : column[1] - x] = np.asarray(reduced)
