"""The spots of one class of annotations on a slide: where each annotation is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from chunkdl.annotations.rasterise import feature_numbers
from chunkdl.annotations.shapes import UNITS, Annotations, ranges
from chunkdl.annotations.use import Regions
from chunkdl.errors import SlideError
from chunkdl.sampling.positions import Ints, PositionSet
from chunkdl.sampling.spots import Spots

MOST_SPOTS = 2**23
"""Of a slide; 40 bytes each."""
CELLS_AT_ONCE = 2**20
FINER = 32
"""Places along a side of the box of an annotation that holds the middle of no cell."""

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int32]


class _Boxes(NamedTuple):
    """Spots, and whose they are: (n,) each."""

    left: Ints
    top: Ints
    right: Ints
    bottom: Ints
    owner: Ints

    @classmethod
    def together(cls, parts: list[_Boxes]) -> _Boxes:
        return cls(*(np.concatenate(of_all) for of_all in zip(*parts, strict=True)))


class SlideSpots:
    """Finds the spots of one class.

    Args:
        annotations: of the slide.
        counted: bool by index of `annotations.classes`: what hides what lies under it.
        drawn: the same: what is drawn.
        regions: how it is drawn; by annotations or centroids.
        positions: of the slide, whatever class they are of.
        on_progress: called again and again; what it raises ends that.
    """

    def __init__(
        self,
        annotations: Annotations,
        counted: npt.NDArray[np.bool_],
        drawn: npt.NDArray[np.bool_],
        regions: Regions,
        positions: PositionSet,
        on_progress: Callable[[], None],
    ) -> None:
        self._annotations = annotations
        self._counted = counted
        self._drawn = drawn
        self._regions = regions
        self._positions = positions
        self._on_progress = on_progress

    def spots(self) -> Spots | None:
        """All spots; None: no annotation of the class has a place for a SmallChunk.

        Raises:
            SlideError: there are more than is possible.
        """
        annotations, regions = self._annotations, self._regions
        chosen = self._drawn[annotations.class_of]
        if regions.objects != "all":
            chosen &= annotations.detected == (regions.objects == "detections")
        with_area = annotations.features[1:] > annotations.features[:-1]
        shapes, points = np.flatnonzero(chosen & with_area), np.flatnonzero(chosen & ~with_area)
        weights = [annotations.areas[shapes] ** regions.area_power]
        parts = []
        if regions.draw == "annotations":
            parts.append(self._inside(shapes))
        else:
            every = np.arange(len(shapes))
            parts.append(self._around(annotations.centroids[shapes], every))
        first, last = annotations.feature_points[points], annotations.feature_points[points + 1]
        centres = annotations.points[ranges(first, last)] / UNITS
        if len(centres) and regions.area_power == 0:
            parts.append(self._around(centres, len(shapes) + np.arange(len(centres))))
            weights.append(np.ones(len(centres)))
        boxes, of_all = _Boxes.together(parts), np.concatenate(weights)
        if not len(boxes.owner):
            return None
        return Spots.of(self._positions, boxes[:4], boxes.owner, of_all)

    def _around(self, centres: Floats, owner: Ints) -> _Boxes:
        """The accepted corners around centres, (n, 2) in level-0 pixels, cell by cell."""
        across, down = self._positions.across, self._positions.down
        jitter, side = self._regions.jitter_px, across.smallchunk_px
        corners = np.floor(centres / across.downsample - side / 2 + 0.5).astype(np.int64)
        low, high = corners - jitter, corners + jitter + 1
        low = np.maximum(low, 0)
        high = np.minimum(high, (across.extent, down.extent))
        some = (low < high).all(axis=1)
        low, high, owner = low[some], high[some], owner[some]
        cell_px = np.array((across.cell_px, down.cell_px))
        first, last = low // cell_px, (high - 1) // cell_px + 1
        count = last - first
        total = int(count.prod(axis=1).sum())
        self._check(total)
        # All rows of cells of each, then all cells of each row.
        row = ranges(first[:, 1], last[:, 1])
        of_row = np.repeat(np.arange(len(owner)), count[:, 1])
        column = ranges(first[of_row, 0], last[of_row, 0])
        row = np.repeat(row, count[of_row, 0])
        which = np.repeat(of_row, count[of_row, 0])
        accepted = self._accepted(row, column)
        row, column, which = row[accepted], column[accepted], which[accepted]
        return _Boxes(
            np.maximum(column * across.cell_px, low[which, 0]),
            np.maximum(row * down.cell_px, low[which, 1]),
            np.minimum((column + 1) * across.cell_px, high[which, 0]),
            np.minimum((row + 1) * down.cell_px, high[which, 1]),
            owner[which],
        )

    def _accepted(self, row: Ints, column: Ints) -> npt.NDArray[np.bool_]:
        across, down = self._positions.across, self._positions.down
        return self._positions.hold(column * across.cell_px, row * down.cell_px)

    def _inside(self, shapes: Ints) -> _Boxes:
        """Runs of accepted cells whose middle SmallChunk has its centre in each shape."""
        index = np.full(len(self._annotations), -1, np.int64)
        index[shapes] = np.arange(len(shapes))
        columns, rows = self._cells_around(shapes)
        parts = [self._runs(np.empty((0, 0), np.int64), 0, 0)]
        found = np.zeros(len(shapes), np.bool_)
        step = max(1, CELLS_AT_ONCE // max(1, len(columns)))
        total = 0
        for top in range(rows.start, rows.stop if columns else rows.start, step):
            strip = range(top, min(top + step, rows.stop))
            numbers = self._numbers(strip, columns)
            owner = np.where(numbers < 0, -1, index[numbers])
            found[owner[owner >= 0]] = True
            owner[~self._positions.accepted(strip, columns)] = -1
            parts.append(self._runs(owner, top, columns.start))
            total += len(parts[-1].owner)
            self._check(total)
            self._on_progress()
        parts.append(self._small(shapes, np.flatnonzero(~found)))
        return _Boxes.together(parts)

    def _numbers(self, rows: range, columns: range) -> Numbers:
        """The feature on top at the centre of the middle SmallChunk of each cell; -1: none."""
        return self._at(
            self._middles(np.asarray(columns, np.int64), across=True),
            self._middles(np.asarray(rows, np.int64), across=False),
        )

    def _at(self, xs: Floats, ys: Floats) -> Numbers:
        objects = self._regions.objects
        return feature_numbers(self._annotations, xs, ys, self._counted, objects)

    def _middles(self, cells: Ints, *, across: bool) -> Floats:
        axis = self._positions.across if across else self._positions.down
        begin, end = axis.ends(cells)
        return (begin + end) / 2

    def _cells_around(self, shapes: Ints) -> tuple[range, range]:
        positions, boxes = self._positions, self._annotations.boxes[shapes] / UNITS
        if not len(shapes):
            return range(0), range(0)
        across = positions.across.around(boxes[:, 0].min(), boxes[:, 2].max())
        down = positions.down.around(boxes[:, 1].min(), boxes[:, 3].max())
        return _common(across, positions.columns), _common(down, positions.rows)

    def _runs(self, owner: Ints, top: int, left: int) -> _Boxes:
        """Neighbours in a row that are of one shape, as one spot."""
        across, down = self._positions.across, self._positions.down
        row, column = np.nonzero(owner >= 0)
        of = owner[row, column]
        begins = np.ones(len(of), np.bool_)
        begins[1:] = (row[1:] != row[:-1]) | (column[1:] != column[:-1] + 1) | (of[1:] != of[:-1])
        starts = np.flatnonzero(begins)
        stops = np.append(starts[1:], len(of)) - 1 if len(starts) else starts
        first, last, row = column[starts] + left, column[stops] + left + 1, row[starts] + top
        return _Boxes(
            first * across.cell_px,
            row * down.cell_px,
            np.minimum(last * across.cell_px, across.extent),
            np.minimum((row + 1) * down.cell_px, down.extent),
            of[starts],
        )

    def _small(self, shapes: Ints, missed: Ints) -> _Boxes:
        """The cell of each shape that holds the middle of none, around a place in the shape.

        Of a shape that is smaller than a cell it is the centroid, without a closer look.
        """
        across, down = self._positions.across, self._positions.down
        cell0 = across.cell_px * across.downsample
        boxes = self._annotations.boxes[shapes[missed]] / UNITS
        tiny = (boxes[:, 2:] - boxes[:, :2] < cell0).all(axis=1)
        places = self._annotations.centroids[shapes[missed]].copy()
        kept: npt.NDArray[np.bool_] = np.array(tiny)
        for which in np.flatnonzero(~tiny).tolist():
            place = self._place_in(int(shapes[missed[which]]))
            if place is not None:
                places[which], kept[which] = place, True
            self._on_progress()
        middles = places[kept] / across.downsample
        corners = np.floor(middles - across.smallchunk_px / 2 + 0.5).astype(np.int64)
        inside = ((corners >= 0) & (corners < (across.extent, down.extent))).all(axis=1)
        column, row = corners[inside, 0] // across.cell_px, corners[inside, 1] // down.cell_px
        accepted = self._accepted(row, column)
        column, row, owner = column[accepted], row[accepted], missed[kept][inside][accepted]
        return _Boxes(
            column * across.cell_px,
            row * down.cell_px,
            np.minimum((column + 1) * across.cell_px, across.extent),
            np.minimum((row + 1) * down.cell_px, down.extent),
            owner,
        )

    def _place_in(self, shape: int) -> tuple[float, float] | None:
        """A place in a shape, level-0 pixels, where nothing lies on top; None: none was found."""
        left, top, right, bottom = (self._annotations.boxes[shape] / UNITS).tolist()
        steps = (np.arange(FINER) + 0.5) / FINER
        xs, ys = left + steps * (right - left), top + steps * (bottom - top)
        row, column = np.nonzero(self._at(xs, ys) == shape)
        if not len(row):
            return None
        middle = len(row) // 2
        return float(xs[column[middle]]), float(ys[row[middle]])

    def _check(self, spots: int) -> None:
        if spots > MOST_SPOTS:
            raise SlideError(
                f"its annotations need more than {MOST_SPOTS:,} places at this resolution; ask "
                "for a coarser one, lower jitter_px, or draw='places'"
            )


def _common(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))
