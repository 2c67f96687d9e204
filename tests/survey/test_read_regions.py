"""The regions that are read lie in the slide, each in one tile, and where damage is likely."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.slides.slide import Level, SlideInfo
from chunkdl.slides.tissue.mask import TissueMask
from chunkdl.survey.read_regions import IN_TISSUE, MOST_SIDE_PX, regions_to_read

SIDES = st.integers(1, 5_000)
TILES = st.integers(1, 3_000)


@given(SIDES, SIDES, TILES, TILES, st.lists(st.integers(2, 40), max_size=3), st.integers(0, 2**16))
def test_regions_lie_in_one_tile_of_their_level(
    width: int, height: int, across: int, down: int, factors: list[int], seed: int
) -> None:
    """Of every level the first, the middle and the last tile are among them, none twice."""
    levels = tuple(
        Level(max(1, width // factor), max(1, height // factor), float(factor), across, down)
        for factor in (1, *sorted(factors))
    )
    cells = np.random.default_rng(seed).random((7, 9)) < 0.3
    mask = TissueMask(cells, width, height)
    regions = regions_to_read(SlideInfo("", "tiff", levels, None), mask)
    assert len(set(regions)) == len(regions) <= 3 * len(levels) + IN_TISSUE
    for level, x, y, w, h in regions:
        size = levels[level]
        assert 0 < w <= MOST_SIDE_PX
        assert 0 < h <= MOST_SIDE_PX
        assert 0 <= x <= x + w <= size.width
        assert 0 <= y <= y + h <= size.height
        assert x // across == (x + w - 1) // across
        assert y // down == (y + h - 1) // down
    for index, size in enumerate(levels):
        tiles = {(r.x // across, r.y // down) for r in regions if r.level == index}
        last = (size.width - 1) // across, (size.height - 1) // down
        assert {(0, 0), last} <= tiles


def test_regions_of_tissue_are_spread_over_it() -> None:
    """Whatever is not tissue gets no more than the corners and the middle."""
    cells = np.zeros((10, 10), np.bool_)
    cells[6:, :5] = True
    level = Level(10_000, 10_000, 1.0, 100, 100)
    info = SlideInfo("", "tiff", (level,), None)
    regions = regions_to_read(info, TissueMask(cells, 10_000, 10_000))
    in_tissue = [r for r in regions if r.y >= 6_000 and r.x < 5_000]
    assert len(in_tissue) == IN_TISSUE
    assert len({r.y // 1_000 for r in in_tissue}) == 4
    assert len(regions_to_read(info, None)) == 3
