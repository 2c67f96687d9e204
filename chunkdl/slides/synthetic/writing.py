"""Slides made of nothing: for tests, the demo and benchmarks where no real slide is at hand.

A *coordinate slide* has a different colour at every pixel, so that any delivered pixel says where
it comes from. A *tissue slide* looks like H&E from afar: ragged islands of two kinds of tissue.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import tifffile

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.synthetic.tissue_look import (
    BACKGROUND,
    STROMA,
    TEXTURE_PX,
    TUMOUR,
    TissueMap,
    textures,
)

COLOURS = 2**24


# ---- Coordinate slides


@dataclass(frozen=True, slots=True)
class CoordinateSlide:
    """The pixels of a coordinate slide.

    Slides of one size and different ids, up to `COLOURS` pixels in all, share no colour.

    Attributes:
        width, height: pixels of level 0.
        levels: downsample of every level, the first is 1.
        slide_id: tells slides of one size apart, at least 0.

    Raises:
        ConfigError: the slide has more pixels than there are colours.
    """

    width: int
    height: int
    levels: tuple[int, ...] = (1, 4)
    slide_id: int = 0

    def __post_init__(self) -> None:
        if (self.slide_id + 1) * self._pixels_per_slide() > COLOURS:
            raise ConfigError(
                f"a coordinate slide of {self.width}x{self.height} pixels with levels "
                f"{self.levels} and slide_id={self.slide_id} needs more than the {COLOURS} "
                "colours that exist; make it smaller, or use a lower slide_id"
            )

    def level_size(self, level: int) -> tuple[int, int]:
        """(width, height) of the level."""
        scale = self.levels[level]
        return max(1, self.width // scale), max(1, self.height // scale)

    def pixels(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """What a reader must deliver for a region, in pixels of the level; black outside."""
        level_w, level_h = self.level_size(level)
        columns, rows = np.arange(x, x + width), np.arange(y, y + height)
        number = self._first(level) + rows[:, None] * level_w + columns[None, :]
        outside = ((columns < 0) | (columns >= level_w))[None, :] | (
            (rows < 0) | (rows >= level_h)
        )[:, None]
        number[outside] = 0
        return np.stack([number >> 16, number >> 8 & 255, number & 255], -1).astype(np.uint8)

    def locate(self, pixel: Sequence[int] | Pixels) -> tuple[int, int, int, int]:
        """Where a pixel comes from, as (slide_id, level, x, y)."""
        red, green, blue = (int(value) for value in pixel)
        slide_id, number = divmod(red << 16 | green << 8 | blue, self._pixels_per_slide())
        level = 0
        while number >= (area := self._area(level)):
            number -= area
            level += 1
        y, x = divmod(number, self.level_size(level)[0])
        return slide_id, level, x, y

    def _first(self, level: int) -> int:
        before = sum(self._area(index) for index in range(level))
        return self.slide_id * self._pixels_per_slide() + before

    def _area(self, level: int) -> int:
        width, height = self.level_size(level)
        return width * height

    def _pixels_per_slide(self) -> int:
        return sum(self._area(index) for index in range(len(self.levels)))


def write_coordinate_slide(
    path: str | os.PathLike[str],
    width: int,
    height: int,
    *,
    slide_id: int = 0,
    tile: int = 256,
    levels: tuple[int, ...] = (1, 4),
    mpp: float = 0.5,
    compression: str | None = "deflate",
) -> CoordinateSlide:
    """Write a slide whose every pixel says where it is, without loss.

    Tissue detectors see noise in it; give a mask.

    Args:
        path: the TIFF to write.
        width, height: pixels of level 0; all levels together at most 2**24 pixels.
        slide_id: see `CoordinateSlide`.
        tile: pixels along a tile, a multiple of 16.
        levels: downsample of every level, the first is 1.
        mpp: microns per pixel of level 0.
        compression: "deflate", "lzw", or None.

    Returns:
        The pixels that a reader must deliver.

    Raises:
        ConfigError: more pixels than colours.
    """
    slide = CoordinateSlide(width, height, levels, slide_id)
    with tifffile.TiffWriter(path) as tiff:
        for level in range(len(levels)):
            level_w, level_h = slide.level_size(level)
            tiles = (
                slide.pixels(level, x, y, tile, tile)
                for y in range(0, level_h, tile)
                for x in range(0, level_w, tile)
            )
            _write_level(
                tiff, tiles, (level_w, level_h), tile, mpp * levels[level], level, compression
            )
    return slide


# ---- Tissue slides


def write_tissue_slide(
    path: str | os.PathLike[str],
    width: int,
    height: int,
    *,
    seed: int,
    mpp: float = 0.5,
    tile: int = 256,
    levels: tuple[int, ...] = (1, 4, 16),
    tumour_fraction: float = 0.8,
    quality: int = 80,
) -> TissueMap:
    """Write an H&E-like slide as a pyramidal TIFF of JPEG tiles.

    The same arguments give the same pixels. Level 0 is written tile by tile. The first reduced
    level is held in memory (1/16 of the slide's pixels with levels (1, 4, ...)).

    Args:
        path: the TIFF to write.
        width, height: pixels of level 0, at least 256.
        seed: of the tissue outlines and the texture.
        mpp: microns per pixel of level 0.
        tile: side of a tile in pixels, a multiple of 16 and of the second level's downsample.
        levels: downsample of each level; the first is 1, each other a multiple of the one before.
        tumour_fraction: share of the tissue that is TUMOUR.
        quality: of the JPEG tiles.

    Returns:
        The map that says where the tissue is.

    Raises:
        ConfigError: the sizes do not fit together.
    """
    chain = list(pairwise(levels))
    if levels[0] != 1 or any(fine >= coarse or coarse % fine for fine, coarse in chain):
        raise ConfigError(
            f"levels={levels}: the first must be 1, and each other a multiple of the one before"
        )
    if min(width, height) < 256 or tile % 16 or (chain and tile % levels[1]):
        raise ConfigError(
            f"width={width}, height={height}, tile={tile}: width and height must be at least 256 "
            "pixels, and tile a multiple of 16 and of the downsample of the second level"
        )
    tissue = TissueMap(width, height, seed=seed, tumour_fraction=tumour_fraction)
    reduced = np.zeros((0, 0, 3), np.uint8)
    with tifffile.TiffWriter(path, bigtiff=width * height > 2**31) as tiff:
        if chain:
            reduced = np.empty((height // levels[1], width // levels[1], 3), np.uint8)
        scale = levels[1] if chain else 1
        tiles = _tissue_tiles(tissue, seed, tile, scale, reduced)
        _write_level(tiff, tiles, (width, height), tile, mpp, 0, "jpeg", quality)
        for level in range(1, len(levels)):
            if level > 1:
                reduced = _mean_blocks(reduced, levels[level] // levels[level - 1])
            size = reduced.shape[1], reduced.shape[0]
            cut = _cut_tiles(reduced, tile)
            _write_level(tiff, cut, size, tile, mpp * levels[level], level, "jpeg", quality)
    return tissue


def _tissue_tiles(
    tissue: TissueMap, seed: int, tile: int, scale: int, reduced: Pixels
) -> Iterator[Pixels]:
    """The tiles of level 0 in file order; their means of `scale` pixels go into `reduced`."""
    looks = textures(seed)
    for y in range(0, tissue.height, tile):
        for x in range(0, tissue.width, tile):
            classes = tissue.classes(x, y, tile, tile)[..., None]
            rows = np.arange(y, y + tile) % TEXTURE_PX
            columns = np.arange(x, x + tile) % TEXTURE_PX
            pixels = looks[BACKGROUND][rows[:, None], columns]
            for kind in (STROMA, TUMOUR):
                here = classes == kind
                if here.any():
                    np.copyto(pixels, looks[kind][rows[:, None], columns], where=here)
            if reduced.size:
                part = reduced[y // scale : (y + tile) // scale, x // scale : (x + tile) // scale]
                part[...] = _mean_blocks(pixels, scale)[: part.shape[0], : part.shape[1]]
            yield pixels


# ---- Writing


def _mean_blocks(pixels: Pixels, scale: int) -> Pixels:
    """Means of scale x scale blocks, rounded; what does not fill a block is left out."""
    rows, columns = pixels.shape[0] // scale, pixels.shape[1] // scale
    total = np.zeros((rows, columns, 3), np.uint32)
    for y in range(scale):
        for x in range(scale):
            total += pixels[y : rows * scale : scale, x : columns * scale : scale]
    return ((total + scale * scale // 2) // (scale * scale)).astype(np.uint8)


def _cut_tiles(pixels: Pixels, tile: int) -> Iterator[Pixels]:
    """The tiles of an image in file order; beyond its border the last pixel goes on."""
    for y in range(0, pixels.shape[0], tile):
        for x in range(0, pixels.shape[1], tile):
            part = pixels[y : y + tile, x : x + tile]
            missing = ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0))
            yield np.pad(part, missing, mode="edge")


def _write_level(
    tiff: tifffile.TiffWriter,
    tiles: Iterator[Pixels],
    size: tuple[int, int],
    tile: int,
    mpp: float,
    level: int,
    compression: str | None,
    quality: int | None = None,
) -> None:
    """Write one page; reduced levels are marked as such, so that OpenSlide sees levels."""
    jpeg = compression == "jpeg"
    tiff.write(
        tiles,
        shape=(size[1], size[0], 3),
        dtype=np.uint8,
        tile=(tile, tile),
        photometric="rgb",
        compression=compression,
        compressionargs={"level": quality} if jpeg else None,
        subsampling=(2, 2) if jpeg else None,
        subfiletype=1 if level else 0,
        resolution=(1e4 / mpp, 1e4 / mpp),
        resolutionunit="CENTIMETER",
        metadata=None,
        maxworkers=1,
    )
