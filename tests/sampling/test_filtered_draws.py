"""Under a pixel filter every accepted position is equally likely, whatever windows have of them.

The filter here is a function of the position: what it says of pixels is tested with slides. One
BigChunk gives one row, of each call in turn, so that all rows are independent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from chunkdl.errors import SlideError
from chunkdl.sampling import filtered_draws as rule
from chunkdl.sampling import windows
from chunkdl.sampling.anchors import Anchors
from chunkdl.sampling.filtered_draws import FilteredDraws, filtered_draws, probes, probes_at_each
from chunkdl.sampling.positions import PositionSet, positions_of
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.windows import Axis, Draws, Lattice, Window
from chunkdl.slides.resolution import TargetGrid
from tests.sampling.small_plans import (
    Flags,
    SmallSlide,
    accepted,
    lattices,
    ragged_mask,
    small_slides,
)

Ints = npt.NDArray[np.int64]

SEED = 12
SMALLCHUNK, WINDOW = 24, 96
WIDTH, HEIGHT = 900, 760
BIN = 90
"""Side of a cell of the chi-square, target pixels: smaller than a window."""


@dataclass(frozen=True)
class ListedAnchors:
    """Takes the place of `Anchors`, which are as uniform and slower: see `test_anchors`."""

    positions: PositionSet
    corners: Ints

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        y, x = self.corners[rng.integers(len(self.corners))].tolist()
        return x, y

    def content(self, lattice: Lattice, window: Window) -> windows.Content:
        return lattice.content(self.positions, window)


@pytest.fixture(autouse=True)
def many_bigchunks_take_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a window holds is a pure function, and there are a few hundred windows; the share of
    tissue of a draw is not looked at here."""
    monkeypatch.setattr(windows.Content, "of", cache(windows.Content.of))
    monkeypatch.setattr(PositionSet, "fractions", lambda _, row, __: np.zeros(len(row), "f4"))


def undamaged(error: SlideError) -> None:
    """Everything can be read."""
    raise error


@dataclass(frozen=True)
class Filtered:
    """A slide with ragged tissue under a filter that is known at each of its corners.

    Attributes:
        passing: whether a corner passes, shape (height, width); what is no position does not count.
    """

    passing: Flags

    @cached_property
    def positions(self) -> PositionSet:
        grid = TargetGrid(0, 1.0, WIDTH, HEIGHT, 1.0, None)
        return positions_of(grid, ragged_mask(WIDTH, HEIGHT, 1), SMALLCHUNK, 0.1)

    @cached_property
    def anchors(self) -> Anchors:
        return cast(Anchors, ListedAnchors(self.positions, np.argwhere(accepted(self.positions))))

    @cached_property
    def lattice(self) -> Lattice:
        return Lattice(Axis(40, WINDOW, SMALLCHUNK), Axis(36, WINDOW, SMALLCHUNK))

    @cached_property
    def accepted(self) -> Flags:
        """The corners that are positions and pass."""
        return accepted(self.positions) & self.passing

    def passes(self, window: Window, draws: Draws) -> Flags:
        return np.asarray(self.passing[draws.y, draws.x])

    def drawn(self, ordinal: int, calls: int, seed: int = SEED) -> FilteredDraws:
        def named(purpose: Purpose, trial: int) -> np.random.Generator:
            return generator(seed, purpose, ordinal, 0, trial)

        return filtered_draws(
            self.lattice, self.anchors, self.positions, calls, named, self.passes, undamaged
        )

    def filtered_after(self, ordinal: int, calls: int) -> Draws:
        """The usual recipe: draw as without a filter, and draw again in the window what fails."""
        for attempt in range(100):
            rng = generator(SEED, Purpose.WINDOW, ordinal, attempt)
            window = self.lattice.draw_window(self.anchors, rng)
            draws = self.lattice.content(self.positions, window).draw(200, rng)
            good = draws.taken(self.passes(window, draws))
            if len(good.x) >= calls:
                return good
        raise AssertionError("a filter that accepts a tenth should have been met")


def corners_with(share: npt.NDArray[np.float64] | float) -> Filtered:
    """A filter that passes that share of the corners, each for itself: windows have very different
    numbers, and never all or nothing."""
    chance = np.random.default_rng(4).random((HEIGHT - SMALLCHUNK + 1, WIDTH - SMALLCHUNK + 1))
    return Filtered(chance < share)


@cache
def uneven() -> Filtered:
    """Acceptance goes from 0.08 to 0.8 and back within a few windows."""
    y, x = np.mgrid[: HEIGHT - SMALLCHUNK + 1, : WIDTH - SMALLCHUNK + 1]
    return corners_with(0.08 * 10 ** (0.5 + 0.5 * np.sin(x / 41) * np.cos(y / 53)))


def p_of(rows: Sequence[Ints], allowed: Flags) -> float:
    """Chi-square of independent rows against equal chances of the allowed corners."""
    x, y = rows
    across = -(-allowed.shape[1] // BIN)
    assert allowed[y, x].all()
    down, right = np.nonzero(allowed)
    share = np.bincount(down // BIN * across + right // BIN)
    seen = np.bincount(y // BIN * across + x // BIN, minlength=len(share))
    wanted = share / share.sum() * len(x)
    few = wanted < 8
    wanted = np.append(wanted[~few], wanted[few].sum())
    seen = np.append(seen[~few], seen[few].sum())
    return float(stats.chisquare(seen[wanted > 0], wanted[wanted > 0]).pvalue)


def one_row_each(drawn: Callable[[int], Draws | None], bigchunks: int, calls: int) -> list[Ints]:
    """One row of each BigChunk that has one, of each call in turn; their x and y."""
    found = []
    for ordinal in range(bigchunks):
        draws, call = drawn(ordinal), ordinal % calls
        if draws is not None:
            found.append((int(draws.x[call]), int(draws.y[call])))
    return list(np.array(found).T)


@dataclass
class ScriptedNumbers:
    """Takes the place of the generators of a BigChunk: follows a script, remembers the bounds."""

    script: list[int]
    bounds: list[int] = field(default_factory=list)

    def integers(self, high: int, size: int | None = None) -> Any:
        if size is not None:
            return np.array([self.integers(high) for _ in range(size)])
        self.bounds.append(int(high))
        if len(self.bounds) > len(self.script):
            self.script.append(0)
        return self.script[len(self.bounds) - 1]

    def permutation(self, count: int) -> Ints:
        # Of one anchor, or nobody looks at it.
        return np.arange(count)


def every_outcome(
    drawn: Callable[[ScriptedNumbers], FilteredDraws],
) -> Iterator[tuple[FilteredDraws, Fraction]]:
    """What is drawn for every outcome of the random numbers, with its probability."""
    script: list[int] = []
    while True:
        numbers = ScriptedNumbers(script)
        found, probability = drawn(numbers), Fraction(1)
        for bound in numbers.bounds:
            probability /= bound
        yield found, probability
        while script and script[-1] + 1 == numbers.bounds[len(script) - 1]:
            script.pop()
        if not script:
            return
        script[-1] += 1


@settings(max_examples=25, deadline=None)
@given(slide=small_slides(most_positions=4), data=st.data())
def test_both_calls_have_exactly_equal_chances_whatever_passes(
    slide: SmallSlide, data: st.DataObject
) -> None:
    """In exact fractions, for any set of accepted positions; a call that repeats another too."""
    every = np.argwhere(accepted(slide.positions)).tolist()
    assume(every)
    passing = set(
        map(tuple, data.draw(st.lists(st.sampled_from(every), min_size=1, unique_by=tuple)))
    )
    lattice = data.draw(lattices(slide.smallchunk_px))
    anchors = cast(Anchors, ListedAnchors(slide.positions, np.array(every)))

    def passes(window: Window, draws: Draws) -> Flags:
        return np.array([corner in passing for corner in zip(draws.y, draws.x, strict=True)])

    def drawn(numbers: ScriptedNumbers) -> FilteredDraws:
        def named(purpose: Purpose, trial: int) -> np.random.Generator:
            return cast(np.random.Generator, numbers)

        return filtered_draws(lattice, anchors, slide.positions, 2, named, passes, undamaged)

    chances: list[dict[tuple[int, int], Fraction]] = [defaultdict(Fraction) for _ in range(2)]
    # One trial, whose refusals are what the next begins with; one draw, and then the anchor again.
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("MOST_TRIALS", 1), ("FEWEST_DRAWS", 1), ("DRAWS_PER_CALL", 0)):
            patch.setattr(rule, name, value)
        for found, probability in every_outcome(drawn):
            if found.draws is not None:
                corners = zip(found.draws.y.tolist(), found.draws.x.tolist(), strict=True)
                for call, corner in enumerate(corners):
                    chances[call][corner] += probability
    expected = dict.fromkeys(passing, Fraction(1, len(every)))
    assert chances == [expected, expected]


@pytest.mark.slow
def test_every_accepted_position_is_equally_likely_where_windows_differ_tenfold() -> None:
    """40,000 BigChunks; to filter what was drawn in a window fails the same test."""
    slide = uneven()
    rows = one_row_each(lambda n: slide.drawn(n, 1 + n % 2).draws, 40_000, 2)
    assert p_of(rows, slide.accepted) > 1e-3
    naive = one_row_each(lambda n: slide.filtered_after(n, 1 + n % 2), 20_000, 2)
    assert p_of(naive, slide.accepted) < 1e-9


@pytest.mark.slow
def test_calls_that_repeat_others_are_as_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last call of each BigChunk, with so few draws that two thirds of them are repeats."""
    monkeypatch.setattr(rule, "FEWEST_DRAWS", 1)
    monkeypatch.setattr(rule, "DRAWS_PER_CALL", 1)
    slide, repeated = uneven(), 0
    corners = []
    for ordinal in range(8_000):
        draws = slide.drawn(ordinal, 4).draws
        assert draws is not None
        every = list(zip(draws.x.tolist(), draws.y.tolist(), strict=True))
        repeated += every[-1] in every[:-1]
        corners.append(every[-1])
    assert 0.5 < repeated / len(corners) < 0.95
    assert p_of(list(np.array(corners).T), slide.accepted) > 1e-3


def test_calls_that_are_missing_repeat_accepted_ones_equally_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All are accepted, the anchor is the first, and none comes twice more than another."""
    monkeypatch.setattr(rule, "FEWEST_DRAWS", 40)
    monkeypatch.setattr(rule, "DRAWS_PER_CALL", 1)
    slide, some = uneven(), 0
    for ordinal in range(100):
        draws = slide.drawn(ordinal, 30).draws
        anchor = slide.drawn(ordinal, 1).draws
        assert draws is not None
        assert anchor is not None
        assert slide.accepted[draws.y, draws.x].all()
        assert (draws.x[0], draws.y[0]) == (anchor.x[0], anchor.y[0])
        places, times = np.unique(np.stack([draws.x, draws.y]), axis=1, return_counts=True)
        if places.shape[1] < 15:
            some += 1
            # A position that was drawn twice of itself is repeated twice as often.
            assert len(draws.x) == 30
            assert times.max() <= 2 * (times.min() + 1)
    assert some > 10


@pytest.mark.slow
def test_rows_are_uniform_where_one_position_in_a_hundred_passes() -> None:
    """Each BigChunk takes a hundred trials in the mean, and none uses them up."""
    slide = corners_with(0.01)
    trials = []

    def drawn(ordinal: int) -> Draws | None:
        found = slide.drawn(ordinal, 1)
        trials.append(found.trials)
        return found.draws

    rows = one_row_each(drawn, 2_000, 1)
    assert len(rows[0]) == 2_000
    assert np.mean(trials) == pytest.approx(100, rel=0.15)
    assert p_of(rows, slide.accepted) > 1e-3


@pytest.mark.slow
def test_where_one_position_in_ten_thousand_passes_trials_are_used_up_as_often_as_they_must() -> (
    None
):
    """The others have an accepted anchor, and calls that repeat it rather than nothing."""
    slide = corners_with(1e-4)
    share = slide.accepted.sum() / accepted(slide.positions).sum()
    none_passes, used_up = (1 - share) ** rule.MOST_TRIALS, 0
    for ordinal in range(40):
        found = slide.drawn(ordinal, 3)
        if found.draws is None:
            used_up += 1
            assert found.trials == rule.MOST_TRIALS
        else:
            assert slide.accepted[found.draws.y, found.draws.x].all()
            assert len(found.draws.x) == 3
    assert stats.binomtest(used_up, 40, none_passes).pvalue > 1e-3


def test_a_filter_that_refuses_everything_ends_after_all_trials() -> None:
    """Only anchors were looked at, each once."""
    slide, asked = corners_with(0.0), 0

    def passes(window: Window, draws: Draws) -> Flags:
        nonlocal asked
        asked += len(draws.x)
        return slide.passes(window, draws)

    found = filtered_draws(
        slide.lattice,
        slide.anchors,
        slide.positions,
        7,
        lambda purpose, trial: generator(SEED, purpose, 0, 0, trial),
        passes,
        undamaged,
    )
    assert found.draws is None
    assert found.trials == asked == rule.MOST_TRIALS


def test_what_is_drawn_depends_on_the_name_of_the_bigchunk_only() -> None:
    """Whatever was drawn before, and in another order."""
    slide = uneven()

    def plain(found: FilteredDraws) -> tuple[Any, ...]:
        assert found.draws is not None
        return found.window, found.trials, found.draws.x.tolist(), found.draws.y.tolist()

    first = [plain(slide.drawn(ordinal, 6)) for ordinal in range(20)]
    again = [plain(slide.drawn(ordinal, 6)) for ordinal in reversed(range(20))]
    assert again[::-1] == first
    assert plain(slide.drawn(0, 6, seed=SEED + 1)) != first[0]


def test_a_filter_that_passes_everything_leaves_the_windows_as_they_are() -> None:
    """Trial 0 has the key of a stream without a filter."""
    slide = corners_with(2.0)
    for ordinal in range(50):
        window = slide.lattice.draw_window(slide.anchors, generator(SEED, Purpose.WINDOW, ordinal))
        found = slide.drawn(ordinal, 4)
        assert (found.window, found.trials) == (window, 1)


def test_probes_are_the_same_for_every_bigchunk_and_others_for_another_slide() -> None:
    """And for another resolution or seed; each is a position."""
    slide = uneven()

    def found(seed: int, index: int, value: float) -> list[tuple[int, int]]:
        return list(probes(slide.anchors, seed, index, value, 50))

    first = found(1, 0, 0.5)
    assert first == found(1, 0, 0.5)
    assert all(accepted(slide.positions)[y, x] for x, y in first)
    others = [found(1, 1, 0.5), found(1, 0, 0.25), found(2, 0, 0.5)]
    assert all(not set(first) & set(other) for other in others)


def test_a_stream_of_many_resolutions_looks_at_fewer_places_at_each() -> None:
    """So that a slide which gives nothing is found out in about the same time."""
    assert [probes_at_each(count) for count in (1, 4, 33)] == [4096, 1024, 128]


def test_a_damaged_anchor_is_no_place_and_costs_no_bigchunk() -> None:
    """Else a slide with one damaged spot would give fewer BigChunks, the more a filter refuses; a
    file that may come back is waited for."""
    slide = corners_with(0.1)
    told: list[SlideError] = []

    def drawn(error: SlideError) -> FilteredDraws:
        def passes(window: Window, draws: Draws) -> Flags:
            if len(draws.x) == 1 and not slide.passes(window, draws)[0]:
                raise error
            return slide.passes(window, draws)

        def named(purpose: Purpose, trial: int) -> np.random.Generator:
            return generator(SEED, purpose, 3, 0, trial)

        return filtered_draws(
            slide.lattice, slide.anchors, slide.positions, 1, named, passes, told.append
        )

    found, same = drawn(SlideError("damaged", level=0)), slide.drawn(3, 1)
    assert found.trials == same.trials > 1
    assert len(told) == found.trials - 1
    assert found.draws is not None
    assert same.draws is not None
    assert np.array_equal(found.draws.x, same.draws.x)
    away = SlideError("away")
    away.__cause__ = FileNotFoundError(2, "no such file")
    with pytest.raises(SlideError, match="away"):
        drawn(away)
