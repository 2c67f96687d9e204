"""How a grid lies on a slide: the distance of its positions, and how many fit."""

from __future__ import annotations

from dataclasses import dataclass

from chunkdl.slides.resolution import TargetGrid

MOST_POSITIONS = 100_000_000
"""Of a slide: more take minutes to count, and nobody reads them."""
MOST_WINDOWS = 4_000_000
"""Of a slide: a number of each is kept."""


@dataclass(frozen=True, slots=True)
class GridShape:
    """How a grid lies on a slide; lengths in target pixels.

    Attributes:
        smallchunk_px: side of a SmallChunk.
        window_px: side of a BigChunk, at least `smallchunk_px`.
        stride_px: distance of neighbours; less than a side: they overlap, more: there are gaps.
        pads: along each axis there is one position more where the last one does not reach the edge
            of the slide. Its footprint begins in the slide and overhangs.
    """

    smallchunk_px: int
    window_px: int
    stride_px: int
    pads: bool

    @property
    def along(self) -> int:
        """Positions along one side of a window."""
        return (self.window_px - self.smallchunk_px) // self.stride_px + 1

    def positions(self, length: int) -> int:
        """Positions along an axis of so many target pixels."""
        room = length - self.smallchunk_px
        inside = room // self.stride_px + 1 if room >= 0 else 0
        if not self.pads:
            return inside
        reaching = -(-max(0, room) // self.stride_px) + 1
        return min(reaching, (length - 1) // self.stride_px + 1)

    def excess(self, grid: TargetGrid) -> str:
        """Why a slide of that size has too much of it, and what to do; empty: it has not."""
        columns, rows = self.positions(grid.width), self.positions(grid.height)
        windows = -(-columns // self.along) * -(-rows // self.along)
        if columns * rows > MOST_POSITIONS:
            return (
                f"stride={self.stride_px} makes {columns * rows:,} positions of a slide of "
                f"{grid.width}x{grid.height} px, and at most {MOST_POSITIONS:,} are possible; "
                "raise stride, or ask for a coarser resolution"
            )
        if windows > MOST_WINDOWS:
            return (
                f"bigchunk_size={self.window_px} holds {self.along**2} positions, so a slide of "
                f"{grid.width}x{grid.height} px has {windows:,} BigChunks, and at most "
                f"{MOST_WINDOWS:,} are possible; raise bigchunk_size or stride"
            )
        return ""
