"""Exact rasters of annotations: a pixel has the class of the feature that holds its centre.

Own code, because others draw the outline too: an image library's polygon of radius 5 has 28 % too
much area, which no label may have.

**The same bytes from any origin.** The centre of target pixel i is ``(i + 0.5) * downsample`` of
level 0, computed from i alone. A row of pixels crosses an edge from (x0, y0) to (x1, y1), with y0
below y1, if y0 <= y < y1; it does so at ``x0 + (y - y0) * (x1 - x0) / (y1 - y0)``, and a centre
there or to the right of it has one crossing more to its left. All of this depends on the edge and
the pixel, never on the rectangle. Neighbours that share an edge compute the same crossing, so no
pixel between them is in both or in none. In steps of 1/64 pixel all coordinates are whole numbers,
products stay below 2**53 for edges within 2**26 steps (a million pixels), and then a centre that
lies on an edge is found to lie there exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.annotations.shapes import UNCLASSIFIED, UNITS, Annotations, Objects, Offsets, ranges
from chunkdl.errors import ConfigError

Centres = npt.NDArray[np.float64]
Classes = npt.NDArray[np.uint8]

MOST_VERTICES = 2**19
"""Looked at together, unless one feature has more; about 150 bytes each."""
MOST_CROSSINGS = 2**20
"""Computed together, unless one row has more; about 100 bytes each."""
LARGE_RING = 2**11
"""Vertices from which on a ring is looked through by itself, for the edges near the rows."""
MOST_PIXELS = 2**31


def rasterise(
    annotations: Annotations,
    *,
    downsample: float | tuple[float, float],
    origin: tuple[int, int],
    size: tuple[int, int],
    objects: Objects = "annotations",
    order: Sequence[str] = (),
    classes: Sequence[str] | None = None,
) -> Classes:
    """The classes in a rectangle of the slide.

    Where features overlap, the one on top wins. At the bottom lie unclassified ones, above them
    those of classes that `order` does not name, above them those of each class that it names. Of
    these the smaller lies on the larger, whatever their order in the file, for programs export
    what lies inside another before or behind it; of equal areas the later one is on top.

    Args:
        annotations: of the slide.
        downsample: level-0 pixels per target pixel, one number or (x, y).
        origin: x and y of the rectangle's first pixel, in target pixels; the rectangle may reach
            beyond the slide.
        size: width and height of the rectangle, target pixels.
        objects: annotations without what a program detected, detections only, or all.
        order: classes from bottom to top; those that no feature has are passed over.
        classes: features of other classes are passed over; None: of none.

    Returns:
        uint8 (height, width): 0 for none, else 1 + the index in ``annotations.classes``.

    Raises:
        ConfigError: an argument is not what it has to be.
    """
    across, down = _checked(downsample, origin, size)
    width, height = size
    xs = _centres(origin[0], width, across)
    ys = _centres(origin[1], height, down)
    out = np.zeros((height, width), np.uint8)
    counted = None
    if classes is not None:
        counted = np.array([name in classes for name in annotations.classes], np.bool_)
    chosen = _in_order(annotations, _looked_at(annotations, xs, ys, objects, counted), order)
    _paint(annotations, chosen, annotations.class_of[chosen] + np.uint8(1), (xs, ys), out)
    return out


def feature_numbers(
    annotations: Annotations,
    xs: Centres,
    ys: Centres,
    counted: npt.NDArray[np.bool_],
    objects: Objects = "annotations",
) -> npt.NDArray[np.int32]:
    """The feature on top at each of some places; what is on top is as of `rasterise`.

    Args:
        annotations: of the slide.
        xs, ys: columns and rows of the places, in level-0 pixels, rising.
        counted: by index of `annotations.classes`; features of other classes are passed over.
        objects: as of `rasterise`.

    Returns:
        int32 (rows, columns): index of the feature, -1 for none.
    """
    lines = xs * UNITS, ys * UNITS
    out = np.full((len(ys), len(xs)), -1, np.int32)
    chosen = _in_order(annotations, _looked_at(annotations, *lines, objects, counted), ())
    _paint(annotations, chosen, chosen.astype(np.int32), lines, out)
    return out


def _paint(
    annotations: Annotations,
    chosen: Offsets,
    values: npt.NDArray[Any],
    lines: tuple[Centres, Centres],
    out: npt.NDArray[Any],
) -> None:
    """Write the value of each of the chosen features where it is, the later over the earlier."""
    if not len(chosen):
        return
    first, last = annotations.features[chosen], annotations.features[chosen + 1]
    vertices = annotations.rings[last] - annotations.rings[first]
    # Later blocks are painted over earlier ones.
    block = np.cumsum(vertices) // MOST_VERTICES
    for start, stop in _runs(block):
        here = slice(start, stop)
        _Edges(annotations, chosen[here], values[here], *lines).paint(out)


def _checked(
    downsample: float | tuple[float, float], origin: tuple[int, int], size: tuple[int, int]
) -> tuple[float, float]:
    both = (downsample, downsample) if isinstance(downsample, int | float) else downsample
    if len(both) != 2 or not all(math.isfinite(one) and one > 0 for one in both):
        raise ConfigError(f"downsample={downsample} must be above 0, or (x, y) above 0")
    if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
        raise ConfigError(
            f"size={size} must be a width and height of at least 1, of at most {MOST_PIXELS} "
            "pixels together"
        )
    if any(abs(place) > 2**40 for place in origin):
        raise ConfigError(f"origin={origin} lies outside of every slide")
    return float(both[0]), float(both[1])


def _centres(first: int, count: int, downsample: float) -> Centres:
    """Where the centres of target pixels lie, steps."""
    centres: Centres = np.arange(first, first + count).astype(np.float64)
    centres += 0.5
    centres *= downsample * UNITS
    return centres


def _looked_at(
    annotations: Annotations,
    xs: Centres,
    ys: Centres,
    objects: Objects,
    counted: npt.NDArray[np.bool_] | None,
) -> Offsets:
    """The features whose box has a centre of the rectangle, as indices in their order."""
    found = _touching(annotations.boxes, xs, ys)
    if objects == "annotations":
        found &= ~annotations.detected
    elif objects == "detections":
        found &= annotations.detected
    elif objects != "all":
        raise ConfigError(f"objects={objects!r} must be 'annotations', 'detections' or 'all'")
    looked_at = np.flatnonzero(found & (annotations.features[1:] > annotations.features[:-1]))
    return looked_at if counted is None else looked_at[counted[annotations.class_of[looked_at]]]


def _touching(boxes: npt.NDArray[np.int32], xs: Centres, ys: Centres) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = boxes[:, 0] <= xs[-1]
    found &= boxes[:, 2] >= xs[0]
    found &= boxes[:, 1] <= ys[-1]
    found &= boxes[:, 3] >= ys[0]
    return found


def _in_order(annotations: Annotations, features: Offsets, order: Sequence[str]) -> Offsets:
    rank = np.ones(max(len(annotations.classes), 1), np.int64)
    for index, name in enumerate(annotations.classes):
        if name in order:
            rank[index] = 2 + order.index(name)
        elif name == UNCLASSIFIED:
            rank[index] = 0
    by = (features, -annotations.areas[features], rank[annotations.class_of[features]])
    return features[np.lexsort(by)]


def _runs(block: Offsets) -> list[tuple[int, int]]:
    cuts = (np.flatnonzero(np.diff(block)) + 1).tolist()
    return list(zip([0, *cuts], [*cuts, len(block)], strict=True))


class _Edges:
    """The edges of some features that a row of the rectangle crosses.

    Args:
        annotations: of the slide.
        chosen: the features, in the order in which they are painted.
        values: what is written for each.
        xs: centres of the columns, steps.
        ys: centres of the rows, steps.
    """

    def __init__(
        self,
        annotations: Annotations,
        chosen: Offsets,
        values: npt.NDArray[Any],
        xs: Centres,
        ys: Centres,
    ) -> None:
        self.values = values
        self.xs, self.ys = xs, ys
        first, last = annotations.features[chosen], annotations.features[chosen + 1]
        rings = ranges(first, last)
        owner = np.repeat(np.arange(len(chosen)), last - first)
        # A ring that lies whole on one side has no crossing, or two, to the left of any centre.
        near = _touching(annotations.ring_boxes[rings], xs, ys)
        here, after, owner = self._ends(annotations, rings[near], owner[near])
        top, bottom = annotations.vertices[here, 1], annotations.vertices[after, 1]
        # Always from the lower y to the higher, or two neighbours would round differently.
        here, after = np.where(top <= bottom, here, after), np.where(top <= bottom, after, here)
        first = np.searchsorted(ys, np.minimum(top, bottom).astype(np.float64), "left")
        last = np.searchsorted(ys, np.maximum(top, bottom).astype(np.float64), "left")
        crossed = first < last
        self.owner, self.first, self.last = owner[crossed], first[crossed], last[crossed]
        low = annotations.vertices[here[crossed]].astype(np.float64)
        high = annotations.vertices[after[crossed]].astype(np.float64)
        self.x, self.y = low[:, 0], low[:, 1]
        self.right, self.down = high[:, 0] - low[:, 0], high[:, 1] - low[:, 1]

    def _ends(
        self, annotations: Annotations, rings: Offsets, owner: Offsets
    ) -> tuple[Offsets, Offsets, Offsets]:
        """Both vertices of every edge, and whose it is; of large rings those near the rows."""
        starts, stops = annotations.rings[rings], annotations.rings[rings + 1]
        small = stops - starts <= LARGE_RING
        here = ranges(starts[small], stops[small])
        after = here + 1
        after[np.cumsum((stops - starts)[small]) - 1] = starts[small]
        parts = [(here, after, np.repeat(owner[small], (stops - starts)[small]))]
        for ring in np.flatnonzero(~small).tolist():
            start, stop = int(starts[ring]), int(stops[ring])
            here = start + self._near_rows(annotations.vertices[start:stop, 1])
            after = here + 1
            after[after == stop] = start
            parts.append((here, after, np.full(len(here), owner[ring])))
        here, after, owner = (np.concatenate(part) for part in zip(*parts, strict=True))
        return here, after, owner

    def _near_rows(self, y: npt.NDArray[np.int32]) -> Offsets:
        """The edges of a ring, by their first vertices, that do not lie whole above or below."""
        above, below = y <= self.ys[0], y > self.ys[-1]
        return np.flatnonzero(~(above & np.roll(above, -1) | below & np.roll(below, -1)))

    def paint(self, out: npt.NDArray[Any]) -> None:
        """Write the values of these features over what is there."""
        self._paint_rows(out, 0, len(self.ys))

    def _paint_rows(self, out: npt.NDArray[Any], top: int, bottom: int) -> None:
        first, last = np.maximum(self.first, top), np.minimum(self.last, bottom)
        edges = np.flatnonzero(first < last)
        first, last = first[edges], last[edges]
        if int((last - first).sum()) > MOST_CROSSINGS and bottom - top > 1:
            middle = (top + bottom) // 2
            self._paint_rows(out, top, middle)
            self._paint_rows(out, middle, bottom)
            return
        rows = ranges(first, last)
        edge = np.repeat(edges, last - first)
        x = self.x[edge] + (self.ys[rows] - self.y[edge]) * self.right[edge] / self.down[edge]
        columns = np.searchsorted(self.xs, x, "left")
        height, width = out.shape
        key = (self.owner[edge] * height + rows) * (width + 1) + columns
        key.sort()
        # Every ring crosses a row an even number of times.
        begin, length = key[0::2], key[1::2] - key[0::2]
        some = length > 0
        begin, length = begin[some], length[some]
        line = begin // (width + 1)
        values = self.values[line // height]
        place = line % height * width + begin % (width + 1)
        _fill(out.reshape(-1), place, length, values)


def _fill(
    flat: npt.NDArray[Any], place: Offsets, length: Offsets, values: npt.NDArray[Any]
) -> None:
    """Write each value `length` times from its place on, one after the other."""
    stops = place + length
    for start, stop, value in zip(place.tolist(), stops.tolist(), values.tolist(), strict=True):
        flat[start:stop] = value
