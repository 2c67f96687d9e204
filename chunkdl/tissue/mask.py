"""The tissue mask of a slide: made from a thumbnail or by the user, asked for box fractions."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError, SlideError
from chunkdl.slides.slide import Level, Pixels, Slide, SlideInfo
from chunkdl.tissue.detectors import Cells, TissueDetector

_CELL_MICRONS = 8.0
_CELL_PX = 16.0
# Levels come in powers of two: at 0.5044 mpp the one of downsample 16 has 8.07 microns per pixel,
# and reading the next finer one instead would cost 4 or 16 times as much.
_TOLERANCE = 1.25
_MOST_CELLS_A_SIDE = 4096
# A wrong mpp in the file must not make a mask of three cells.
_COARSEST_CELL_PX = 256.0
_BLOCK_PX = 2**23
_FRACTION_BLOCK = 2**20
_ASPECT_TOLERANCE = 0.05

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """Where the tissue of a slide is.

    Attributes:
        cells: shape (h, w), bool; True is tissue. All cells are of equal size.
        width0, height0: the level-0 pixels that the cells cover exactly, so a cell is width0 / w
            by height0 / h level-0 pixels.
    """

    cells: Cells
    width0: int
    height0: int

    def __post_init__(self) -> None:
        if self.cells.dtype != np.bool_ or self.cells.ndim != 2 or self.cells.size == 0:
            raise ConfigError(
                f"a tissue mask needs a 2-D bool array with cells, not {self.cells.dtype} of "
                f"shape {self.cells.shape}"
            )
        if self.width0 < 1 or self.height0 < 1:
            raise ConfigError(f"a tissue mask covers {self.width0}x{self.height0} level-0 pixels")

    def fraction(
        self,
        x0: npt.ArrayLike,
        y0: npt.ArrayLike,
        x1: npt.ArrayLike,
        y1: npt.ArrayLike,
    ) -> npt.NDArray[np.float32]:
        """The exact share of tissue, by area, in every box [x0, x1) x [y0, y1).

        Boxes are clipped to the slide first; one that is empty then has 0. The integral of the
        mask over [0, x) x [0, y) is bilinear inside each cell, so interpolating the summed-area
        table (Crow, "Summed-area tables for texture mapping", SIGGRAPH 1984) at fractional places
        is exact. Shares below 1e-7 are indistinguishable from rounding and given as 0.

        Args:
            x0, x1: left and right ends, shape (m,), level-0 pixels.
            y0, y1: upper and lower ends, shape (n,), level-0 pixels.

        Returns:
            Shape (n, m), float32, 0 to 1: entry (j, i) is of the box of y0[j], y1[j], x0[i],
            x1[i]. Besides it, memory is taken for a few million numbers and 4 bytes per cell.
        """
        rows, columns = self.cells.shape
        left, right = _ends(x0, x1, columns / self.width0, columns)
        upper, lower = _ends(y0, y1, rows / self.height0, rows)
        table = np.zeros((rows + 1, columns + 1), dtype=np.uint32)
        np.cumsum(self.cells, axis=0, dtype=np.uint32, out=table[1:, 1:])
        np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
        area_x, area_y = right - left, lower - upper
        share = np.empty((upper.size, left.size), dtype=np.float32)
        step = max(1, _FRACTION_BLOCK // (columns + 1 + left.size))
        for top in range(0, upper.size, step):
            part = slice(top, top + step)
            strips = _at(table, lower[part], 0) - _at(table, upper[part], 0)
            tissue = _at(strips, right, 1) - _at(strips, left, 1)
            area = area_y[part, None] * area_x[None, :]
            np.divide(tissue, area, out=tissue, where=area > 0)
            tissue[(area <= 0) | (tissue < 1e-7)] = 0
            share[part] = np.minimum(tissue, 1)
        return share


def compute_mask(
    slide: Slide,
    detector: TissueDetector,
    mpp: float | tuple[float, float] | None = None,
) -> TissueMask:
    """Detect the tissue of a slide on a thumbnail of about 8 microns per pixel.

    The thumbnail is read from the coarsest level that is at least that fine, and area-averaged
    from it where that level is finer; 16 level-0 pixels stand for 8 microns where the resolution
    is unknown. It has at most 4096 pixels on the longer side. Levels of any size are read in
    blocks along the file's tiles, so that memory stays at the thumbnail and some 100 MB.

    Args:
        slide: an open slide.
        detector: is called once, with the whole thumbnail.
        mpp: microns per level-0 pixel, instead of what the slide says.

    Raises:
        SlideError: the slide cannot be read.
        ConfigError: the detector gave no bool array of the thumbnail's shape.
    """
    info = slide.info
    wanted = _cell_size(info, info.mpp if mpp is None else mpp)
    fitting = [level for level in info.levels if level.downsample <= wanted * _TOLERANCE]
    index = info.levels.index(max(fitting, key=lambda level: level.downsample))
    level = info.levels[index]
    side = max(1, math.floor(wanted / level.downsample))
    side = max(side, math.ceil(max(level.width, level.height) / _MOST_CELLS_A_SIDE))
    thumbnail = _read_reduced(slide, index, side)
    tissue = detector(thumbnail)
    if not isinstance(tissue, np.ndarray) or tissue.dtype != np.bool_:
        raise ConfigError(f"tissue detector {detector.name!r} must return a bool array")
    if tissue.shape != thumbnail.shape[:2]:
        raise ConfigError(
            f"tissue detector {detector.name!r} returned shape {tissue.shape} for a thumbnail of "
            f"shape {thumbnail.shape}; it must be {thumbnail.shape[:2]}"
        )
    return TissueMask(tissue, info.levels[0].width, info.levels[0].height)


def mask_from(
    given: npt.NDArray[np.bool_] | npt.NDArray[np.uint8] | str | os.PathLike[str],
    info: SlideInfo,
) -> TissueMask:
    """The mask that the user gives for a slide; it covers the whole of level 0.

    Args:
        given: a 2-D array of bool or uint8, or the path of an image file; what is not 0 (in any
            colour channel; alpha does not count) is tissue.
        info: the slide.

    Raises:
        SlideError: it is no such array or image, the image is larger than Pillow's
            `Image.MAX_IMAGE_PIXELS`, or its aspect ratio is more than 5 % off the slide's.
    """
    source = "the given tissue mask"
    if isinstance(given, str | os.PathLike):
        source = f"tissue mask {os.fspath(given)}"
        values = _read_image(os.fspath(given), info)
    else:
        values = np.asarray(given)
    if values.ndim != 2 or values.size == 0 or values.dtype not in (np.bool_, np.uint8):
        raise SlideError(
            f"{source} must be a 2-D array of bool or uint8, not {values.dtype} of shape "
            f"{values.shape}",
            slide=info.path,
        )
    height, width = values.shape
    width0, height0 = info.levels[0].width, info.levels[0].height
    aspect = (width * height0) / (height * width0)
    if not 1 / (1 + _ASPECT_TOLERANCE) <= aspect <= 1 + _ASPECT_TOLERANCE:
        raise SlideError(
            f"{source} has {width}x{height} pixels and the slide {width0}x{height0}: the aspect "
            f"ratios differ by more than 5 %; a mask must cover the whole slide",
            slide=info.path,
        )
    return TissueMask(values != 0, width0, height0)


def whole_slide_mask(info: SlideInfo) -> TissueMask:
    """The mask of a slide that is all tissue, for those who want no detection."""
    return TissueMask(np.ones((1, 1), np.bool_), info.levels[0].width, info.levels[0].height)


def _ends(
    first: npt.ArrayLike, last: npt.ArrayLike, cells_per_px: float, cells: int
) -> tuple[Floats, Floats]:
    """Both ends of intervals in cells, clipped to the slide; the second is not before the first."""
    begin = np.clip(np.asarray(first, np.float64) * cells_per_px, 0, cells)
    end = np.clip(np.asarray(last, np.float64) * cells_per_px, 0, cells)
    return begin, np.maximum(begin, end)


def _at(table: npt.NDArray[np.generic], places: Floats, axis: int) -> Floats:
    """Rows (axis 0) or columns (axis 1) of a table, linearly interpolated at fractional places."""
    low = np.minimum(places.astype(np.intp), table.shape[axis] - 2)
    share = places - low
    if axis == 0:
        share = share[:, None]
    below, above = np.take(table, low, axis=axis), np.take(table, low + 1, axis=axis)
    return np.asarray(below * (1 - share) + above * share)


def _cell_size(info: SlideInfo, mpp: float | tuple[float, float] | None) -> float:
    """The wished side of a cell in level-0 pixels."""
    if mpp is None:
        return _CELL_PX
    both = (mpp, mpp) if isinstance(mpp, int | float) else tuple(mpp)
    mean = sum(both) / 2
    if not (math.isfinite(mean) and min(both) > 0):
        raise ConfigError(f"mpp must be microns per pixel above 0, not {mpp} ({info.path})")
    return min(max(_CELL_MICRONS / mean, 1.0), _COARSEST_CELL_PX)


def _read_reduced(slide: Slide, index: int, side: int) -> Pixels:
    """A level averaged over cells of about `side` x `side` of its pixels.

    The cells are as equal as whole pixels allow: their borders are the rounded multiples of
    width / w and height / h, so that together they cover the level exactly.
    """
    level = slide.info.levels[index]
    columns, rows = math.ceil(level.width / side), math.ceil(level.height / side)
    thumbnail = np.empty((rows, columns, 3), dtype=np.uint8)
    if side == 1:
        slide.read_into(thumbnail, index, 0, 0)
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
            slide.read_into(block, index, left, top)
            begin, end = _cells_of(x_borders, left, right)
            by_row = _summed_rows(block, y_borders[first : last + 2] - top)
            starts = np.maximum(x_borders[begin : end + 1] - left, 0)
            sums[:, begin : end + 1] += np.add.reduceat(by_row, starts, axis=1)
        done = last + 1 if bottom == y_borders[last + 1] else last
        areas = np.diff(y_borders)[first:done, None] * np.diff(x_borders)[None, :]
        thumbnail[first:done] = (sums[: done - first] + areas[..., None] / 2) // areas[..., None]
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


def _read_image(path: str, info: SlideInfo) -> npt.NDArray[np.bool_]:
    # Imported here because few processes ever read a mask from an image file.
    from PIL import Image

    try:
        with Image.open(path) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise SlideError(
                    f"tissue mask {path} has {image.width}x{image.height} pixels, more than the "
                    f"{limit} that Pillow allows; make it smaller, 8 microns per pixel are enough",
                    slide=info.path,
                )
            colours = [band for band in image.getbands() if band != "A"]
            values = np.asarray(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SlideError(
            f"tissue mask {path} has more pixels than Pillow allows ({error}); make it smaller, "
            f"8 microns per pixel are enough",
            slide=info.path,
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise SlideError(f"tissue mask {path} cannot be read: {error}", slide=info.path) from error
    if values.ndim == 3:
        return np.asarray(values[:, :, : len(colours)].any(axis=2))
    return np.asarray(values != 0)
