"""A slide whose levels are arrays, and that remembers how it was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from chunkdl.slides.slide import Gaps, Level, Pixels, Scanned, SlideInfo


@dataclass
class MemorySlide:
    """A `Slide` over arrays; each level is an array (height, width, 3), the first is level 0."""

    levels: Sequence[Pixels]
    mpp: tuple[float, float] | None = None
    tile: int = 256
    reads: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    """(level, x, y, width, height) of every read."""
    met: Gaps = field(default_factory=Gaps)

    @property
    def info(self) -> SlideInfo:
        height0, width0 = self.levels[0].shape[:2]
        levels = tuple(
            Level(
                width=pixels.shape[1],
                height=pixels.shape[0],
                downsample=(width0 / pixels.shape[1] + height0 / pixels.shape[0]) / 2,
                tile_width=self.tile,
                tile_height=self.tile,
            )
            for pixels in self.levels
        )
        return SlideInfo("memory.svs", "memory", levels, self.mpp)

    @property
    def decoded_px(self) -> int:
        return sum(width * height for _, _, _, width, height in self.reads)

    @property
    def gaps(self) -> Gaps:
        return self.met

    @property
    def icc_profile(self) -> bytes | None:
        return None

    @property
    def state(self) -> str:
        return "as it was"

    @property
    def nbytes(self) -> int:
        return 0

    def scanned(self) -> Scanned | None:
        return None

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        height, width = out.shape[:2]
        pixels = self.levels[level]
        assert 0 <= x <= pixels.shape[1] - width
        assert 0 <= y <= pixels.shape[0] - height
        self.reads.append((level, x, y, width, height))
        out[...] = pixels[y : y + height, x : x + width]

    def close(self) -> None:
        pass


def virtual_level(width: int, height: int) -> Pixels:
    """A white level of any size that takes three bytes of memory."""
    return np.broadcast_to(np.full(3, 255, dtype=np.uint8), (height, width, 3))
