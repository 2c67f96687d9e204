"""Positions: exactly the corners with enough tissue, each with one number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from chunkdl.sampling.anchors import Anchors
from chunkdl.sampling.positions import CELLS_PER_SMALLCHUNK, PositionSet, positions_of
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.tissue.mask import TissueMask
from tests.sampling.small_plans import EXAMPLES, SmallSlide, small_slides

ALL_TISSUE = np.ones((1, 1), dtype=np.bool_)


def anchors_of(positions: PositionSet) -> Anchors:
    """What counts and numbers them."""
    return Anchors(positions, lambda: None)


def expected_corners(slide: SmallSlide) -> dict[tuple[int, int], float]:
    """Every corner of the slide with enough tissue, looked at one by one, with its share."""
    cell = max(1, slide.smallchunk_px // CELLS_PER_SMALLCHUNK)
    corners = {}
    extents = (slide.grid.width, slide.grid.height)
    widest, highest = (extent - slide.smallchunk_px for extent in extents)
    for y in range(highest + 1):
        for x in range(widest + 1):
            first_x, first_y = x - x % cell, y - y % cell
            last_x = min(first_x + cell - 1, widest)
            last_y = min(first_y + cell - 1, highest)
            middle = np.array([first_x + last_x]), np.array([first_y + last_y])
            share = float(slide.share(*middle)[0, 0])
            if np.float32(share) >= np.float32(slide.threshold):
                corners[x, y] = share
    return corners


@EXAMPLES
@given(slide=small_slides())
def test_positions_are_the_corners_whose_cell_has_enough_tissue_at_its_middle(
    slide: SmallSlide,
) -> None:
    """Against every pixel of small slides, also where the last cells are cut, or there is none."""
    anchors = slide.anchors
    expected = expected_corners(slide)
    numbered = [anchors.at(index) for index in range(anchors.count)]
    assert len(numbered) == len(expected)
    assert set(numbered) == set(expected)


@EXAMPLES
@given(slide=small_slides())
def test_each_cell_keeps_the_share_by_which_it_was_accepted(slide: SmallSlide) -> None:
    """The delivered tissue fraction is that of the footprint at the middle of the cell."""
    positions = slide.positions
    expected = expected_corners(slide)
    corners = np.array(list(expected), dtype=np.int64).reshape(-1, 2)
    x, y = corners.T
    assert positions.hold(x, y).all()
    own = positions.fractions(y // positions.down.cell_px, x // positions.across.cell_px)
    assert own == pytest.approx(list(expected.values()), rel=1e-6)


@pytest.mark.parametrize(
    ("width", "height", "cells"),
    [
        pytest.param(20, 200, ALL_TISSUE, id="narrower than a SmallChunk"),
        pytest.param(200, 20, ALL_TISSUE, id="lower than a SmallChunk"),
        pytest.param(10, 10, ALL_TISSUE, id="smaller both ways"),
        pytest.param(200, 200, ~ALL_TISSUE, id="no tissue"),
    ],
)
def test_a_slide_without_a_place_for_a_smallchunk_has_no_positions(
    width: int, height: int, cells: np.ndarray[tuple[int, int], np.dtype[np.bool_]]
) -> None:
    """Nothing is raised; the set is empty and says so."""
    grid = TargetGrid(0, 1.0, width, height, 1.0, None)
    anchors = anchors_of(positions_of(grid, TissueMask(cells, width, height), 64, 0.1))
    assert not anchors.exist()
    assert anchors.count == 0


def test_a_slide_as_large_as_one_smallchunk_has_the_one_position() -> None:
    """The only corner is (0, 0)."""
    grid = TargetGrid(0, 1.0, 64, 64, 1.0, None)
    anchors = anchors_of(positions_of(grid, TissueMask(ALL_TISSUE, 64, 64), 64, 1.0))
    assert anchors.exist()
    assert anchors.count == 1
    assert anchors.at(0) == (0, 0)


def test_a_threshold_of_zero_accepts_the_slide_without_tissue() -> None:
    """Every corner inside the slide is a position then, the last row and column included."""
    grid = TargetGrid(0, 1.0, 100, 90, 1.0, None)
    anchors = anchors_of(positions_of(grid, TissueMask(~ALL_TISSUE, 100, 90), 64, 0.0))
    assert anchors.exist()
    assert anchors.count == 37 * 27
    assert anchors.at(anchors.count - 1) == (36, 26)


def test_positions_are_counted_beyond_32_bits() -> None:
    """A gigapixel slide of nothing but tissue: counted exactly, numbered to the last corner."""
    side = 100_000
    grid = TargetGrid(0, 1.0, side, side, 1.0, None)
    positions = positions_of(grid, TissueMask(ALL_TISSUE, side, side), 4096, 0.5)
    anchors = anchors_of(positions)
    corners = side - 4096 + 1
    assert anchors.count == corners**2
    assert anchors.at(anchors.count - 1) == (corners - 1, corners - 1)
    assert positions.nbytes + anchors.nbytes < 2**20
