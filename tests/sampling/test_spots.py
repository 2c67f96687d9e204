"""Draws around annotations have exactly the density that was asked for, whatever the windows."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from chunkdl.sampling.positions import positions_of
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.spots import Spots
from chunkdl.sampling.windows import Axis, Lattice, Window
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.tissue.mask import TissueMask
from tests.sampling.small_plans import SmallSlide, accepted, lattices, small_slides

Ints = npt.NDArray[np.int64]
Boxes = tuple[Ints, Ints, Ints, Ints]


@st.composite
def spots_in(draw: st.DrawFn, slide: SmallSlide) -> tuple[Spots, dict[tuple[int, int], float]]:
    """Spots in accepted cells, some of them over others, and the chance of each corner."""
    positions = slide.positions
    corners = np.argwhere(accepted(positions)).tolist()
    assume(corners)
    owners = draw(st.integers(1, 4))
    weights = np.array(draw(st.lists(st.integers(1, 5), min_size=owners, max_size=owners)), float)
    boxes, owner = [], []
    for _ in range(draw(st.integers(1, 6))):
        y, x = draw(st.sampled_from(corners))
        right = min(
            (x // positions.across.cell_px + 1) * positions.across.cell_px, positions.across.extent
        )
        bottom = min(
            (y // positions.down.cell_px + 1) * positions.down.cell_px, positions.down.extent
        )
        boxes.append((x, y, draw(st.integers(x + 1, right)), draw(st.integers(y + 1, bottom))))
        owner.append(draw(st.integers(0, owners - 1)))
    area: dict[int, float] = defaultdict(float)
    for (x, y, right, bottom), who in zip(boxes, owner, strict=True):
        area[who] += (right - x) * (bottom - y)
    total = sum(weights[who] for who in area)
    chances: dict[tuple[int, int], float] = defaultdict(float)
    for (x0, y0, right, bottom), who in zip(boxes, owner, strict=True):
        for x in range(x0, right):
            for y in range(y0, bottom):
                chances[x, y] += weights[who] / total / area[who]
    left, top, right_, bottom_ = np.array(boxes).T
    made = Spots.of(positions, (left, top, right_, bottom_), np.array(owner), weights)
    return made, dict(chances)


@settings(max_examples=150)
@given(small_slides(), st.data())
def test_every_corner_has_its_density_whatever_the_lattice(
    slide: SmallSlide, data: st.DataObject
) -> None:
    """Summed over all anchors, windows and draws; and what a window holds is what it can show."""
    spots, chances = data.draw(spots_in(slide))
    lattice = data.draw(lattices(slide.smallchunk_px))
    windows: dict[Window, float] = defaultdict(float)
    for (x, y), chance in chances.items():
        columns, rows = int(lattice.across.count(x)), int(lattice.down.count(y))
        for column in range(columns):
            for row in range(rows):
                window = Window(
                    (int(lattice.across.first(x)) + column) * lattice.across.stride_px,
                    (int(lattice.down.first(y)) + row) * lattice.down.stride_px,
                    lattice.across.window_px,
                )
                windows[window] += chance / columns / rows
    found: dict[tuple[int, int], float] = defaultdict(float)
    for window, chance in windows.items():
        content = spots.content(lattice, window)
        masses = np.diff(content.until, prepend=0.0) / content.until[-1]
        for mass, x0, y0, right, bottom in zip(masses, *content.boxes, strict=True):
            xs, ys = np.arange(x0, right), np.arange(y0, bottom)
            across, down = lattice.across.weights(xs), lattice.down.weights(ys)
            for x, of_x in zip(xs.tolist(), across / across.sum(), strict=True):
                for y, of_y in zip(ys.tolist(), down / down.sum(), strict=True):
                    found[x, y] += chance * mass * of_x * of_y
    assert found.keys() == chances.keys()
    assert all(found[corner] == pytest.approx(chance) for corner, chance in chances.items())


@settings(max_examples=60)
@given(small_slides(), st.data())
def test_draws_lie_in_window_and_spots(slide: SmallSlide, data: st.DataObject) -> None:
    """Also the anchor; and the blocks that are useful are those that some draw may touch."""
    spots, chances = data.draw(spots_in(slide))
    lattice = data.draw(lattices(slide.smallchunk_px))
    rng = generator(data.draw(st.integers(0, 99)), Purpose.WINDOW)
    x, y = spots.draw(rng)
    assert (x, y) in chances
    window = lattice.window_around(x, y, rng)
    content = spots.content(lattice, window)
    draws = content.draw(20, rng)
    side = slide.smallchunk_px
    for corner in zip(draws.x.tolist(), draws.y.tolist(), strict=True):
        assert corner in chances
        assert window.x <= corner[0] <= window.x + window.side_px - side
        assert window.y <= corner[1] <= window.y + window.side_px - side
    seen = np.zeros((slide.grid.height, slide.grid.width), np.bool_)
    for x, y in chances:
        inside = window.x <= x <= window.x + window.side_px - side
        if inside and window.y <= y <= window.y + window.side_px - side:
            first_x, first_y = (
                (at - start) // axis.stride_px
                for at, start, axis in _ends(lattice, window, x, y, 0)
            )
            last_x, last_y = (
                (at - start) // axis.stride_px
                for at, start, axis in _ends(lattice, window, x, y, side - 1)
            )
            stride_x, stride_y = lattice.across.stride_px, lattice.down.stride_px
            left, top = window.x + first_x * stride_x, window.y + first_y * stride_y
            right = min(window.x + (last_x + 1) * stride_x, window.x + window.side_px)
            bottom = min(window.y + (last_y + 1) * stride_y, window.y + window.side_px)
            seen[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    assert content.useful_px() == seen.sum()


def _ends(
    lattice: Lattice, window: Window, x: int, y: int, beyond: int
) -> list[tuple[int, int, Axis]]:
    return [(x + beyond, window.x, lattice.across), (y + beyond, window.y, lattice.down)]


def test_spots_come_as_often_as_they_weigh() -> None:
    """Chi-square over one draw a window, 20,000 windows: a large spot and a small one, 1 to 3."""
    mask = TissueMask(np.ones((4, 4), np.bool_), 640, 640)
    positions = positions_of(TargetGrid(0, 1.0, 640, 640, 1.0, None), mask, 64, 0.5)
    boxes = np.array([(0, 8, 480, 16), (500, 300, 503, 302)]).T
    left, top, right, bottom = boxes
    spots = Spots.of(positions, (left, top, right, bottom), np.array([0, 1]), np.array([1.0, 3.0]))
    lattice = Lattice(Axis(96, 256, 64), Axis(64, 256, 64))
    small, columns = 0, np.zeros(8, np.int64)
    for ordinal in range(20_000):
        rng = generator(5, Purpose.WINDOW, ordinal)
        window = lattice.window_around(*spots.draw(rng), rng)
        draws = spots.content(lattice, window).draw(1, rng)
        if draws.x[0] >= 480:
            small += 1
        else:
            columns[draws.x[0] // 60] += 1
    assert stats.binomtest(small, 20_000, 0.75).pvalue > 1e-3
    assert stats.chisquare(columns).pvalue > 1e-3
