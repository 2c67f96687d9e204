"""A slide that says that it gets on: the same pixels, in pieces."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.slides.slide import Gaps, Level, Pixels, Scanned, Slide, SlideInfo
from chunkdl.slides.watched import PIECE_PX, WatchedSlide, _spans


@dataclass
class Counted:
    """A slide of one level whose pixels say where they are; remembers what was read."""

    level: Level
    regions: list[tuple[int, int, int, int]] = field(default_factory=list)
    decoded_px = 7
    icc_profile = b"profile"
    met: Gaps = field(default_factory=Gaps)
    is_closed = False

    @property
    def info(self) -> SlideInfo:
        return SlideInfo("a.tif", "none", (self.level,), None)

    @property
    def gaps(self) -> Gaps:
        return self.met

    @property
    def state(self) -> str:
        return "as it was"

    @property
    def nbytes(self) -> int:
        return 0

    def scanned(self) -> Scanned | None:
        return None

    def close(self) -> None:
        self.is_closed = True

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        height, width = out.shape[:2]
        self.regions.append((x, y, x + width, y + height))
        out[..., 0] = np.arange(x, x + width) % 251
        out[..., 1] = (np.arange(y, y + height) % 251)[:, None]
        out[..., 2] = level


@pytest.mark.parametrize("tile", [(256, 256), (5000, 1), (4096, 4096), (1000, 700)])
def test_a_long_read_gets_on_tile_by_tile(tile: tuple[int, int]) -> None:
    """Each piece is told, is short or one tile, begins at a tile, and the pixels are the same."""
    slide = Counted(Level(5000, 4500, 1.0, *tile))
    beats = [0]

    def beat() -> None:
        beats[0] += 1

    out = np.zeros((4300, 4900, 3), np.uint8)
    WatchedSlide(slide, beat).read_into(out, 0, 30, 40)
    whole = np.zeros_like(out)
    Counted(slide.level).read_into(whole, 0, 30, 40)

    np.testing.assert_array_equal(out, whole)
    assert beats[0] == len(slide.regions) > 3
    for left, top, right, bottom in slide.regions:
        assert (right - left) * (bottom - top) <= max(PIECE_PX, tile[0] * tile[1])
        assert left == 30 or left % tile[0] == 0
        assert top == 40 or top % tile[1] == 0


def test_a_short_read_is_one_piece() -> None:
    """Its memory is what was given, and what the progress raises ends it."""
    slide = Counted(Level(5000, 4500, 1.0, 256, 256))

    def enough() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WatchedSlide(slide, enough).read_into(np.zeros((10, 20, 3), np.uint8), 0, 5, 6)
    assert slide.regions == [(5, 6, 25, 16)]


def test_everything_else_is_the_slide_s_own() -> None:
    """Facts, counters and the end."""
    slide = Counted(Level(50, 40, 1.0, 16, 16))
    watched: Slide = WatchedSlide(slide, lambda: None)
    assert watched.info == slide.info
    assert (watched.decoded_px, watched.icc_profile) == (7, b"profile")
    assert (watched.gaps, watched.scanned()) == (slide.gaps, None)
    watched.close()
    assert slide.is_closed


@given(st.integers(0, 900), st.integers(1, 900), st.integers(1, 300), st.integers(0, 500))
def test_spans_cover_all_once(begin: int, length: int, tile: int, most: int) -> None:
    """In order, cut at tile borders only."""
    spans = list(_spans(begin, begin + length, tile, most))
    assert spans[0][0] == begin
    assert spans[-1][1] == begin + length
    for (_, end), (following, _) in itertools.pairwise(spans):
        assert end == following
        assert end % tile == 0
    assert all(0 < end - start <= max(tile, most) for start, end in spans)
