"""A slide that reports progress: long reads are done in pieces, with a report after each.

A loader that reports nothing for too long is replaced. A read of a whole level may take minutes,
and the readers need not know about this limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from chunkdl.slides.slide import Pixels, Slide
from chunkdl.slides.wrapped import WrappedSlide

PIECE_PX = 4 * 2**20
"""Pixels of a level that are read at once, or one tile where it is larger: a fraction of a second
even where decoding is slow."""


class Recalled(BaseException):
    """The result of the current work is no longer wanted; this is not an error of the slide.

    It passes through all code that handles or reports an `Exception`.
    """


class WatchedSlide(WrappedSlide):
    """A slide whose reads report progress.

    Args:
        slide: the slide; closed with this one.
        on_progress: called after every piece that was read; what it raises ends the read.
    """

    def __init__(self, slide: Slide, on_progress: Callable[[], None]) -> None:
        super().__init__(slide)
        self._on_progress = on_progress

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        """Fill `out` with the pixels of `level` from (x, y) on; see `Slide.read_into`.

        What is longer than `PIECE_PX` is read in pieces along the tiles, so that no tile is decoded
        twice. Where the downsample of a level is not an integer, OpenSlide interpolates each piece
        by itself.
        """
        height, width = out.shape[:2]
        if height * width <= PIECE_PX:
            self._slide.read_into(out, level, x, y)
            self._on_progress()
            return
        size = self._slide.info.levels[level]
        across = max(size.tile_width, PIECE_PX // size.tile_height)
        for left, right in _spans(x, x + width, size.tile_width, across):
            down = PIECE_PX // (right - left)
            for top, bottom in _spans(y, y + height, size.tile_height, down):
                part = out[top - y : bottom - y, left - x : right - x]
                self._slide.read_into(part, level, left, top)
                self._on_progress()


def _spans(begin: int, end: int, tile: int, most: int) -> Iterator[tuple[int, int]]:
    """[begin, end) cut at tile borders into spans of at most `most`, or of one tile."""
    step = max(1, most // tile) * tile
    while begin < end:
        stop = min(end, (begin // tile) * tile + step)
        yield begin, stop
        begin = stop
