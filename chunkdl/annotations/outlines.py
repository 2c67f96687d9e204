"""From a picture of a class to the outlines of its regions, along the borders of the pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from chunkdl.annotations.shapes import Offsets, ranges

Cells = npt.NDArray[np.bool_]
Corners = npt.NDArray[np.int64]

MOST_CORNERS = 2**23
"""Of the outlines of a class: some hundred bytes each while they are followed."""


def regions_of(cells: Cells) -> list[list[Corners]]:
    """The regions of True pixels that are connected by their sides, in the order of first pixels.

    In a row of corners, every second span is a horizontal side of a region, and in a column a
    vertical one; following both in turns goes around.

    Args:
        cells: bool (h, w).

    Returns:
        For each region its rings, the outer one first: int64 (n, 2), x and y in pixels.

    Raises:
        ValueError: the outlines have more than 8,388,608 corners.
    """
    ys, xs, across, down = _corners(cells)
    if not len(ys):
        return []
    if len(ys) > MOST_CORNERS:
        raise ValueError(
            f"its outlines have {len(ys)} corners, and at most {MOST_CORNERS} are read"
        )
    by_row = np.lexsort((across, xs, ys))
    beside = _partners(by_row).tolist()
    below = _partners(np.lexsort((down, ys, xs))).tolist()
    at = np.stack([xs, ys], axis=1)
    runs = _Runs(cells)
    outers: dict[int, Corners] = {}
    holes: dict[int, list[Corners]] = {}
    seen = bytearray(len(ys))
    for start in by_row.tolist():
        if seen[start]:
            continue
        loop: list[int] = []
        here = start
        while not seen[here]:
            other = beside[here]
            seen[here] = seen[other] = 1
            loop += (here, other)
            here = below[other]
        # It starts at its topmost, leftmost corner. The pixel to the lower right of that is a part
        # of the region; in a hole that pixel is not, and the one above is.
        x, y = at[start].tolist()
        if y < cells.shape[0] and x < cells.shape[1] and cells[y, x]:
            outers[runs.region(y, x)] = at[loop]
        else:
            holes.setdefault(runs.region(y - 1, x), []).append(at[loop])
    return [[ring, *holes.get(region, [])] for region, ring in sorted(outers.items())]


def _corners(cells: Cells) -> tuple[Offsets, Offsets, Offsets, Offsets]:
    """Where outlines turn: y and x, and which is first of two in one place, in a row and a column.

    Where four pixels meet like a chessboard two outlines turn. Neither crosses to the other side,
    so that the two True pixels do not touch: one corner has the side above it, the other the one
    below.
    """
    height, width = cells.shape
    framed = np.zeros((height + 2, width + 2), np.bool_)
    framed[1:-1, 1:-1] = cells
    a, b, c, d = framed[:-1, :-1], framed[:-1, 1:], framed[1:, :-1], framed[1:, 1:]
    turns = a ^ b
    turns ^= c
    turns ^= d
    chess = (a == d) & (b == c) & (a != b)
    once_y, once_x = np.nonzero(turns)
    both_y, both_x = np.nonzero(chess)
    # With a and d True the upper corner has the side to the left, else the one to the right.
    falling = a[both_y, both_x].astype(np.int64)
    none = np.zeros(len(once_y), np.int64)
    zeros = np.zeros(len(both_y), np.int64)
    return (
        np.concatenate([once_y, both_y, both_y]),
        np.concatenate([once_x, both_x, both_x]),
        np.concatenate([none, 1 - falling, falling]),
        np.concatenate([none, zeros, zeros + 1]),
    )


def _partners(order: Offsets) -> Offsets:
    """Pairs of neighbours in an order, as the partner of each."""
    partner = np.empty(len(order), np.int64)
    partner[order[0::2]] = order[1::2]
    partner[order[1::2]] = order[0::2]
    return partner


class _Runs:
    """Spans of True pixels in rows, and to which region each belongs.

    Args:
        cells: bool (h, w).
    """

    def __init__(self, cells: Cells) -> None:
        self._row = cells.shape[1] + 2
        framed = np.zeros((cells.shape[0], self._row), np.int8)
        framed[:, 1:-1] = cells
        change = np.diff(framed.reshape(-1), prepend=np.int8(0))
        # Numbered as in the framed picture, one to the right of where they are.
        self._starts = np.flatnonzero(change == 1)
        stops = np.flatnonzero(change == -1)
        first = np.searchsorted(stops, self._starts + self._row, "right")
        last = np.searchsorted(self._starts, stops + self._row, "left")
        last = np.maximum(first, last)
        upper = np.repeat(np.arange(len(stops)), last - first)
        self._region = _connected(len(stops), upper, ranges(first, last))

    def region(self, y: int, x: int) -> int:
        """The region of a True pixel: the number of its first run."""
        place = y * self._row + x + 1
        return int(self._region[np.searchsorted(self._starts, place, "right") - 1])


def _connected(count: int, one: Offsets, other: Offsets) -> Offsets:
    """For each of `count` things the first one that it is connected with, by pairs."""
    root = np.arange(count)
    while True:
        a, b = root[one], root[other]
        apart = a != b
        if not apart.any():
            return root
        np.minimum.at(root, np.maximum(a[apart], b[apart]), np.minimum(a[apart], b[apart]))
        while (root[root] != root).any():
            root = root[root]
