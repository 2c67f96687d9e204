"""Every tissue position is equally likely: proved exactly on small slides, tested on ragged ones.

The anchors are taken as they are proved to be in `test_anchors`: each position with probability
one in N.

Draws of one window are not independent (they lie in one window), so counting them all in one
chi-square test would be wrong. One test takes one draw per window; the test with many draws per
window takes the windows as its sample.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from chunkdl.sampling.anchors import Anchors
from chunkdl.sampling.positions import PositionSet, positions_of
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.windows import Axis, Lattice, Window
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.slide import Level
from tests.sampling.small_plans import (
    EXAMPLES,
    Flags,
    SmallSlide,
    accepted,
    lattices,
    ragged_mask,
    small_slides,
)

Ints = npt.NDArray[np.int64]

# ---- Exactly: every outcome of every random number, instead of a sample.


@dataclass
class ScriptedNumbers:
    """Takes the place of a generator: follows a script, and remembers the bounds."""

    script: list[int]
    bounds: list[int] = field(default_factory=list)

    def integers(self, high: int) -> int:
        self.bounds.append(high)
        if len(self.bounds) > len(self.script):
            self.script.append(0)
        return self.script[len(self.bounds) - 1]


@dataclass
class EveryNumber:
    """Takes the place of a generator: gives each number below the bound exactly once."""

    high: int = 0

    def integers(self, high: int, size: int) -> Ints:
        self.high = int(high)
        return np.arange(self.high)


@dataclass(frozen=True)
class UniformAnchors:
    """Takes the place of `Anchors`: one number, and the position that has it."""

    anchors: Anchors

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        return self.anchors.at(int(rng.integers(self.anchors.count)))


def every_window(lattice: Lattice, anchors: Anchors) -> Iterator[tuple[Window, Fraction]]:
    """What `draw_window` gives for every outcome of its random numbers, with its probability."""
    script: list[int] = []
    while True:
        numbers = ScriptedNumbers(script)
        window = lattice.draw_window(
            cast(Anchors, UniformAnchors(anchors)), cast(np.random.Generator, numbers)
        )
        probability = Fraction(1)
        for bound in numbers.bounds:
            probability /= bound
        yield window, probability
        while script and script[-1] + 1 == numbers.bounds[len(script) - 1]:
            script.pop()
        if not script:
            return
        script[-1] += 1


def window_probabilities(lattice: Lattice, anchors: Anchors) -> dict[Window, Fraction]:
    """P(w) of the first stage, exactly."""
    found = defaultdict[Window, Fraction](Fraction)
    for window, probability in every_window(lattice, anchors):
        found[window] += probability
    return found


def positions_in(
    lattice: Lattice, positions: PositionSet, window: Window
) -> dict[tuple[int, int], Fraction]:
    """P(p | w) of the second stage, exactly."""
    numbers = EveryNumber()
    draws = lattice.content(positions, window).draw(1, cast(np.random.Generator, numbers))
    times = Counter(zip(draws.x.tolist(), draws.y.tolist(), strict=True))
    return {corner: Fraction(count, numbers.high) for corner, count in times.items()}


def windows_around(lattice: Lattice, x: int, y: int) -> int:
    """A(p), by trying every window."""
    around = 1
    for axis, place in ((lattice.across, x), (lattice.down, y)):
        around *= sum(
            index * axis.stride_px <= place
            and place + axis.smallchunk_px <= index * axis.stride_px + axis.window_px
            for index in range(-axis.window_px, place + 1)
        )
    return around


@EXAMPLES
@given(slide=small_slides(most_positions=11), data=st.data())
def test_every_position_has_exactly_the_probability_one_in_n(
    slide: SmallSlide, data: st.DataObject
) -> None:
    """Summed over all windows in exact fractions; no statistics, nothing is left to chance."""
    positions, anchors = slide.positions, slide.anchors
    assume(anchors.count)
    lattice = data.draw(lattices(slide.smallchunk_px))
    total = defaultdict[tuple[int, int], Fraction](Fraction)
    for window, chance in window_probabilities(lattice, anchors).items():
        for corner, share in positions_in(lattice, positions, window).items():
            total[corner] += chance * share
    places = {(int(x), int(y)) for y, x in np.argwhere(accepted(positions))}
    assert total == dict.fromkeys(places, Fraction(1, anchors.count))


@EXAMPLES
@given(slide=small_slides(most_positions=8), data=st.data())
def test_both_stages_have_the_probabilities_of_the_proof(
    slide: SmallSlide, data: st.DataObject
) -> None:
    """P(w) = Z(w)/N, and P(p | w) = (1/A(p))/Z(w), with A counted by trying every window."""
    positions, anchors = slide.positions, slide.anchors
    assume(anchors.count)
    lattice = data.draw(lattices(slide.smallchunk_px))
    for window, chance in window_probabilities(lattice, anchors).items():
        inside = positions_in(lattice, positions, window)
        weight = {corner: Fraction(1, windows_around(lattice, *corner)) for corner in inside}
        z = sum(weight.values())
        assert chance == z / anchors.count
        assert inside == {corner: share / z for corner, share in weight.items()}


# ---- Statistically: ragged tissue at all four edges, sizes as in use, and the naive recipe.

# A fixed seed passes or fails for good. Seed 7, tried first, gave p = 0.003 in one test of the last
# case; seeds 100 to 111 gave 0.04 to 0.82 there, and their 240,000 windows together 0.39. So it was
# chance, and the first of the fresh seeds is used for every case.
SEED = 100
WINDOWS = 8_000
DRAWS = 12
SMALLCHUNK, WINDOW = 56, 512
BINS = (11, 9)
"""Columns and rows into which a slide is cut for counting; the outer ones are edge positions."""


@dataclass(frozen=True)
class Case:
    """A slide with ragged tissue, and the lattice over it."""

    tile: tuple[int, int]
    factor: float = 1.0
    every_tile: bool = False
    """Windows at every tile, however small; the product takes several small ones together."""
    mask_seed: int = 0

    @property
    def grid(self) -> TargetGrid:
        return TargetGrid(0, self.factor, 1_540, 1_310, self.factor, None)

    @property
    def positions(self) -> PositionSet:
        width0, height0 = (round(side * self.factor) for side in (1_540, 1_310))
        mask = ragged_mask(width0, height0, self.mask_seed)
        return positions_of(self.grid, mask, SMALLCHUNK, 0.07)

    @property
    def lattice(self) -> Lattice:
        if self.every_tile:
            across, down = (Axis(tile, WINDOW, SMALLCHUNK) for tile in self.tile)
            return Lattice(across, down)
        level = Level(2_200, 2_000, 1.0, *self.tile)
        return Lattice.of(level, self.grid, WINDOW, SMALLCHUNK)


CASES = [
    pytest.param(Case((64, 64), every_tile=True), id="tile 64, many windows around a position"),
    pytest.param(Case((64, 240), mask_seed=1), id="four tiles of 64; 240 not dividing the window"),
    pytest.param(
        Case((1024, 100), 1.37, mask_seed=2), id="resampled, a tile wider than the window"
    ),
]


@cache
def chunkdl_draws(case: Case) -> tuple[Ints, Ints]:
    """Corners of `DRAWS` draws in each of `WINDOWS` windows, each of shape (windows, draws)."""
    positions, lattice = case.positions, case.lattice
    anchors = Anchors(positions, lambda: None)
    x, y = np.empty((2, WINDOWS, DRAWS), dtype=np.int64)
    for ordinal in range(WINDOWS):
        window = lattice.draw_window(anchors, generator(SEED, Purpose.WINDOW, ordinal))
        rng = generator(SEED, Purpose.POSITIONS, ordinal)
        draws = lattice.content(positions, window).draw(DRAWS, rng)
        x[ordinal], y[ordinal] = draws.x, draws.y
    return x, y


@cache
def naive_draws(case: Case) -> tuple[Ints, Ints]:
    """As `chunkdl_draws`, by the usual recipe: a uniform window inside the slide, uniform crops.

    A crop without enough tissue is drawn again; a window that gives none in many trials, too.
    """
    rng = np.random.default_rng(SEED)
    grid, allowed = case.grid, accepted(case.positions)
    found: list[Ints] = []
    windows = 0
    while windows < WINDOWS:
        left = rng.integers(grid.width - WINDOW + 1, size=4_000)
        top = rng.integers(grid.height - WINDOW + 1, size=4_000)
        # Of independent trials in the order of their drawing, the first accepted are kept.
        x = left[:, None] + rng.integers(WINDOW - SMALLCHUNK + 1, size=(4_000, 40 * DRAWS))
        y = top[:, None] + rng.integers(WINDOW - SMALLCHUNK + 1, size=(4_000, 40 * DRAWS))
        good = allowed[y, x]
        enough = good.sum(axis=1) >= DRAWS
        first = np.argsort(~good[enough], axis=1, kind="stable")[:, :DRAWS]
        kept = [np.take_along_axis(corner[enough], first, axis=1) for corner in (x, y)]
        found.append(np.stack(kept))
        windows += int(enough.sum())
    x, y = np.concatenate(found, axis=1)[:, :WINDOWS]
    return x, y


def bins_of(case: Case, x: Ints, y: Ints) -> Ints:
    """The bin of each corner."""
    width, height = case.grid.width - SMALLCHUNK + 1, case.grid.height - SMALLCHUNK + 1
    return x * BINS[0] // width + y * BINS[1] // height * BINS[0]


def share_of_bins(case: Case, allowed: Flags) -> npt.NDArray[np.float64]:
    """What share of all positions lies in each bin."""
    y, x = np.nonzero(allowed)
    counts = np.bincount(bins_of(case, x, y), minlength=BINS[0] * BINS[1])
    return np.asarray(counts / counts.sum())


def p_of_single_draws(case: Case, x: Ints, y: Ints) -> float:
    """Chi-square test of one draw per window, which are independent, against equal chances."""
    share = share_of_bins(case, accepted(case.positions))
    observed = np.bincount(bins_of(case, x[:, 0], y[:, 0]), minlength=len(share))
    assert observed[share == 0].sum() == 0
    expected = share[share > 0] * WINDOWS
    rare = expected < 5
    groups = np.where(rare, 0, np.arange(1, len(expected) + 1))
    seen = np.bincount(groups, observed[share > 0])
    wanted = np.bincount(groups, expected)
    return float(stats.chisquare(seen[wanted > 0], wanted[wanted > 0]).pvalue)


def p_of_clusters(case: Case, x: Ints, y: Ints) -> float:
    """Hotelling's test of the mean over windows, with the spread between windows as it is.

    The windows are independent and equally distributed, whatever their draws have in common; so
    W (m − s)ᵀ C⁻¹ (m − s), with the mean m and the covariance C of the shares of the bins in a
    window, is chi-square for many windows W if the mean is s.
    """
    share = share_of_bins(case, accepted(case.positions))
    bins = bins_of(case, x, y)
    counted = np.flatnonzero(share > 0.004)
    # The bins left out make one last category, which follows from the others.
    in_bin = np.stack([(bins == number).mean(axis=1) for number in counted], axis=1)
    away = in_bin.mean(axis=0) - share[counted]
    covariance = np.cov(in_bin, rowvar=False)
    statistic = len(x) * away @ np.linalg.solve(covariance, away)
    return float(stats.chi2.sf(statistic, len(counted)))


@pytest.mark.parametrize("case", CASES)
def test_the_tissue_of_the_tests_is_ragged_and_touches_all_four_edges(case: Case) -> None:
    """Else the tests below would prove little: positions in every border line, and holes."""
    allowed = accepted(case.positions)
    for border in (allowed[0], allowed[-1], allowed[:, 0], allowed[:, -1]):
        assert 0.05 < border.mean() < 0.95
    assert 0.2 < allowed.mean() < 0.8
    islands = np.diff(allowed.astype(np.int8), axis=1, prepend=0).clip(0).sum(axis=1)
    assert islands.max() >= 5


@pytest.mark.parametrize("case", CASES)
def test_one_draw_per_window_is_uniform_over_the_tissue(case: Case) -> None:
    """Chi-square over the parts of the slide, 8,000 windows; the naive recipe fails the same."""
    assert p_of_single_draws(case, *chunkdl_draws(case)) > 0.01
    assert p_of_single_draws(case, *naive_draws(case)) < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_many_draws_per_window_are_uniform_in_the_mean(case: Case) -> None:
    """With the spread between windows accounted for; the naive recipe fails the same."""
    assert p_of_clusters(case, *chunkdl_draws(case)) > 0.01
    assert p_of_clusters(case, *naive_draws(case)) < 1e-6


def test_the_test_for_clusters_takes_clusters_for_what_they_are() -> None:
    """Uniform windows whose draws all lie at one place pass it as often as they should.

    A test that took the draws for independent would refuse nearly all of them.
    """
    case = Case((64, 64), mask_seed=1)
    corners = np.argwhere(accepted(case.positions))
    rng = np.random.default_rng(3)
    found = []
    for _ in range(25):
        places = corners[rng.integers(len(corners), size=5_000)]
        y, x = (np.repeat(axis[:, None], 3, axis=1) for axis in places.T)
        found.append(p_of_clusters(case, x, y))
    assert stats.kstest(found, "uniform").pvalue > 0.01
