"""What is annotated on an open slide, as the stream sees it: where it draws, and what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.annotations.centres import Centres, centres_of
from chunkdl.annotations.rasterise import rasterise
from chunkdl.annotations.shapes import Annotations
from chunkdl.annotations.use import AnnotationUse
from chunkdl.engine.work.slide_spots import SlideSpots
from chunkdl.errors import NoTissueError, SlideError
from chunkdl.sampling.positions import CELLS_PER_SMALLCHUNK, Area, PositionSet
from chunkdl.sampling.spots import Spots
from chunkdl.sampling.windows import Draws, Window
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.slide import SlideInfo
from chunkdl.slides.tissue.mask import TissueMask

Classes = npt.NDArray[np.uint8]
"""0: nothing is annotated there, or nothing that counts; else 1 + the index of the class."""

MOST_CELLS = 2**26
"""Of the raster of a slide, a byte each."""


class SlideRegions:
    """The annotations of one slide.

    Args:
        annotations: of the slide; None: it has none.
        use: what the stream makes of them.
        info: of the slide.
        smallchunk0: side of a SmallChunk at the finest resolution that is read, level-0 pixels.
    """

    def __init__(
        self,
        annotations: Annotations | None,
        use: AnnotationUse,
        info: SlideInfo,
        smallchunk0: float,
    ) -> None:
        self._annotations = annotations
        self._use = use
        self._info = info
        self._smallchunk0 = smallchunk0
        self._masks: dict[frozenset[int], TissueMask] = {}
        names = () if annotations is None else annotations.classes
        self._stream_class = np.array([0, *(1 + use.named(name) for name in names)], np.uint8)
        self._with_area = frozenset[int]()
        if annotations is not None:
            has_area = (
                annotations.features[1:] > annotations.features[:-1]
            ) & ~annotations.detected
            of = np.unique(annotations.class_of[has_area]).astype(np.int64)
            self._with_area = frozenset(self._stream_class[1 + of].tolist()) - {0}

    @property
    def nbytes(self) -> int:
        """Memory of what was made so far, bytes; the shapes themselves are mapped from a file."""
        raster = self._raster.nbytes if "_raster" in self.__dict__ else 0
        if "_centres" in self.__dict__:
            raster += self._centres.places.nbytes + self._centres.class_of.nbytes
        return raster + sum(mask.nbytes for mask in self._masks.values())

    def has(self, region: int) -> bool:
        """Whether anything of a class is annotated on the slide."""
        return region + 1 in self._stream_class

    @property
    def raster(self) -> Classes:
        """Classes of cells of about an eighth of a SmallChunk, over the whole slide."""
        return self._raster

    def areas(self, region: int) -> tuple[Area, ...]:
        """Of what a SmallChunk must have a share, beside tissue.

        Args:
            region: index of the class that is drawn; -1: none is.

        Raises:
            NoTissueError: nothing is annotated where it has to be.
            SlideError: the raster would be too large.
        """
        found = []
        roi, regions = self._use.roi, self._use.regions
        if roi.where != "ignore":
            counted = self._indices(roi.classes)
            if roi.where == "outside":
                found.append(Area(self._mask(counted, outside=True), roi.share))
            elif counted:
                found.append(Area(self._mask(counted), roi.share))
            elif roi.where == "inside":
                raise self._nothing(f"nothing of {_listed(roi.classes)} is annotated")
        if region >= 0 and regions is not None:
            name = self._use.names[region]
            if not self.has(region):
                raise self._nothing(f"no {name!r} is annotated")
            if regions.draw == "places":
                found.append(Area(self._mask(frozenset((region + 1,))), regions.share))
        return tuple(found)

    def by_annotation(self, region: int) -> bool:
        """Whether a class is drawn annotation by annotation."""
        return region >= 0 and self._use.regions is not None and self._use.regions.draw != "places"

    def spots(
        self, region: int, positions: PositionSet, on_progress: Callable[[], None]
    ) -> Spots | None:
        """Where the annotations of a class are drawn from; None: none has a place.

        Args:
            region: index of the class, which the slide has.
            positions: of the slide, whatever class they are of.
            on_progress: called again and again; what it raises ends the work.

        Raises:
            SlideError: they are too many.
        """
        regions, annotations = self._use.regions, self._annotations
        if regions is None or annotations is None:
            return None
        of = self._stream_class[1:]
        finder = SlideSpots(annotations, of > 0, of == region + 1, regions, positions, on_progress)
        try:
            return finder.spots()
        except SlideError as error:
            raise SlideError(str(error), slide=self._info.path) from error

    def window_classes(self, grid: TargetGrid, window: Window) -> Classes:
        """The class of each target pixel of a window, by its centre; shape (side, side)."""
        size = window.side_px, window.side_px
        found = self._classes(grid.downsample, (window.x, window.y), size)
        right, bottom = grid.width - window.x, grid.height - window.y
        if min(window.x, window.y) >= 0 and right >= size[0] and bottom >= size[1]:
            return found
        # Beyond the slide there is nothing, whatever was drawn there.
        inside = np.zeros_like(found)
        rows, columns = slice(max(0, -window.y), bottom), slice(max(0, -window.x), right)
        inside[rows, columns] = found[rows, columns]
        return inside

    def columns(
        self, classes: Classes, window: Window, draws: Draws, grid: TargetGrid, side_px: int
    ) -> dict[str, npt.NDArray[Any]]:
        """What is said of each SmallChunk of a window.

        Args:
            classes: of the target pixels of the window.
            window: which.
            draws: corners of the SmallChunks.
            grid: the target frame.
            side_px: of a SmallChunk, target pixels.

        Returns:
            "region", int64 (n,): the index of a class, -1 for none. "region_shares", float32 (n,
            classes): of its pixels; where the stream asks for shares, or for the largest class.
            "cells", float32 (n, most, 2), "cell_class", int64 (n, most), and "cell_count", int64
            (n,), where the stream asks for them: x and y in the pixels of the SmallChunk, class,
            and number of the objects in it, in the order of their file; behind the last of them
            NaN and -1.
        """
        found = {} if self._use.cells is None else self._cells(draws, grid.downsample, side_px)
        region = at_centres(classes, window, draws, side_px)
        if not self._use.shares and self._use.label == "centre":
            return {**found, "region": region}
        left, top = draws.x - window.x, draws.y - window.y
        counts = np.empty((len(draws.x), 1 + len(self._use.names)), np.int64)
        for row, (x, y) in enumerate(zip(left.tolist(), top.tolist(), strict=True)):
            of_row = classes[y : y + side_px, x : x + side_px]
            counts[row] = np.bincount(of_row.ravel(), minlength=counts.shape[1])
        if self._use.label == "largest":
            # Of equal shares the first; what is not annotated counts as a class.
            region = counts.argmax(axis=1) - 1
        return {
            **found,
            "region": region,
            "region_shares": (counts[:, 1:] / side_px**2).astype(np.float32),
        }

    def _cells(self, draws: Draws, downsample: float, side_px: int) -> dict[str, npt.NDArray[Any]]:
        calls, most = len(draws.x), self._use.most_cells
        cells = np.full((calls, most, 2), np.nan, np.float32)
        class_of = np.full((calls, most), -1, np.int64)
        count = np.zeros(calls, np.int64)
        last = np.nextafter(np.float32(side_px), np.float32(0))
        places = self._centres.places / downsample
        corners = np.stack((draws.x, draws.y), axis=1)
        near = (places >= corners.min(axis=0)) & (places < corners.max(axis=0) + side_px)
        some = np.flatnonzero(near.all(axis=1))
        for call, corner in enumerate(corners):
            relative = places[some] - corner
            inside = ((relative >= 0) & (relative < side_px)).all(axis=1)
            count[call] = number = int(inside.sum())
            # Rounded to 32 bits none may come to lie on the edge, which is outside.
            cells[call, :number] = np.minimum(relative[inside].astype(np.float32), last)
            class_of[call, :number] = self._centres.class_of[some[inside]].astype(np.int64) - 1
        return {"cells": cells, "cell_class": class_of, "cell_count": count}

    @cached_property
    def _centres(self) -> Centres:
        """Of the objects that rows have, with 1 + the index of their class in the stream."""
        if self._annotations is None or self._use.cells is None:
            return Centres(np.empty((0, 2)), np.empty(0, np.uint8))
        every = centres_of(self._annotations, self._use.cells)
        class_of = self._stream_class[1 + every.class_of.astype(np.int64)]
        level0 = self._info.levels[0]
        inside = (every.places >= 0) & (every.places < (level0.width, level0.height))
        kept = (class_of > 0) & inside.all(axis=1)
        return Centres(every.places[kept], class_of[kept])

    def _classes(
        self,
        downsample: float | tuple[float, float],
        origin: tuple[int, int],
        size: tuple[int, int],
    ) -> Classes:
        if self._annotations is None:
            return np.zeros(size[::-1], np.uint8)
        found = rasterise(
            self._annotations,
            downsample=downsample,
            origin=origin,
            size=size,
            classes=self._counted,
        )
        # Most often a class has the same number in the file.
        same = np.array_equal(self._stream_class, np.arange(len(self._stream_class)))
        return found if same else self._stream_class[found]

    @cached_property
    def _counted(self) -> tuple[str, ...]:
        names = () if self._annotations is None else self._annotations.classes
        return tuple(name for name in names if self._use.named(name) >= 0)

    def _indices(self, names: Iterable[str]) -> frozenset[int]:
        """The classes that count for the ROI and are on the slide, as the raster has them."""
        here = self._with_area
        wanted = frozenset(
            1 + self._use.names.index(name) for name in names if name in self._use.names
        )
        return here & wanted if names else here

    def _mask(self, of: frozenset[int], *, outside: bool = False) -> TissueMask:
        key = of | {-1} if outside else of
        if key not in self._masks:
            cells = np.isin(self._raster, list(of), invert=outside)
            level0 = self._info.levels[0]
            self._masks[key] = TissueMask(cells, level0.width, level0.height)
        return self._masks[key]

    @cached_property
    def _raster(self) -> Classes:
        """Classes of cells of an eighth of a SmallChunk."""
        level0 = self._info.levels[0]
        cell0 = max(1.0, self._smallchunk0 / CELLS_PER_SMALLCHUNK)
        width, height = (max(1, round(side / cell0)) for side in (level0.width, level0.height))
        if width * height > MOST_CELLS:
            raise SlideError(
                f"SmallChunks of {self._smallchunk0:.0f} level-0 pixels need a raster of its "
                f"annotations of {width}x{height} cells, and at most {MOST_CELLS:,} are possible; "
                "raise smallchunk_size, or ask for a coarser resolution",
                slide=self._info.path,
            )
        scale = level0.width / width, level0.height / height
        return self._classes(scale, (0, 0), (width, height))

    def _nothing(self, what: str) -> NoTissueError:
        return NoTissueError(
            f"{what} on the slide (change roi or regions, or leave the slide out)",
            slide=self._info.path,
        )


def at_centres(
    classes: Classes, window: Window, draws: Draws, side_px: int
) -> npt.NDArray[np.int64]:
    """The class at the centre of each SmallChunk of a window, as an index; -1: none.

    The centre of 2n pixels is that of the pixel with the number n, as of 2n + 1.

    Args:
        classes: of the target pixels of the window.
        window: which.
        draws: corners of the SmallChunks.
        side_px: of a SmallChunk, target pixels.
    """
    middle = side_px // 2
    found = classes[draws.y - window.y + middle, draws.x - window.x + middle]
    return found.astype(np.int64) - 1


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "any class"
