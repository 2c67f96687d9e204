"""The order of windows without replacement: every position once a cycle, in the asked shares."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from chunkdl.sampling.cycles import Part, WindowOrder, patient_weights, positions_in_order
from tests.sampling.small_plans import EXAMPLES

COUNTS = st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=6)
"""Positions per window of each slide, some of none; a slide that cannot be used has no windows."""


def parts_of(
    order: WindowOrder, counts: Sequence[Sequence[int]], most: int | None = None
) -> list[Part]:
    """The BigChunks of an order, each slide being told when it is asked for."""
    parts: list[Part] = []
    while (slide := order.turn) is not None and len(parts) != most:
        if not order.knows(slide):
            order.know(slide, counts[slide])
        elif order.has_none(slide):
            order.leave_out(slide)
        else:
            parts.append(order.take())
    return parts


def positions(part: Part) -> list[tuple[int, int, int, int]]:
    """Slide, cycle, window and number of each position of a BigChunk."""
    numbers = range(part.first, part.first + part.rows)
    return [(part.slide, part.cycle, part.window, number) for number in numbers]


@EXAMPLES
@given(COUNTS, st.integers(1, 3), st.integers(0, 2), st.integers(0, 99))
def test_a_pass_has_every_position_once_in_each_of_its_cycles(
    counts: list[list[int]], cycles: int, epoch: int, seed: int
) -> None:
    """Of every slide, whatever its weight; the cycles of a later pass have other names."""
    weights = np.arange(1, len(counts) + 1, dtype=np.int64)
    order = WindowOrder(seed, weights, cycles, epoch)
    found = Counter(p for part in parts_of(order, counts) for p in positions(part))
    numbers = range(epoch * cycles, (epoch + 1) * cycles)
    assert found == {
        (slide, cycle, window, number): 1
        for slide, windows in enumerate(counts)
        for cycle in numbers
        for window, count in enumerate(windows)
        for number in range(count)
    }
    assert order.total == sum(map(sum, counts)) * cycles


@EXAMPLES
@given(COUNTS.filter(lambda counts: any(map(any, counts))), st.integers(0, 99))
def test_an_endless_order_has_every_position_once_in_each_cycle(
    counts: list[list[int]], seed: int
) -> None:
    """A window that the beginning of a cycle cuts comes in two parts."""
    order = WindowOrder(seed, np.ones(len(counts), np.int64), None)
    seen: defaultdict[tuple[int, int], Counter[tuple[int, int]]] = defaultdict(Counter)
    for part in parts_of(order, counts, 60):
        for slide, cycle, window, number in positions(part):
            seen[slide, cycle][window, number] += 1
    for (slide, cycle), found in seen.items():
        assert set(found.values()) == {1}
        if (slide, cycle + 1) in seen:
            assert found.total() == sum(counts[slide])


def deviations(
    order: WindowOrder, counts: Sequence[Sequence[int]], weights: npt.NDArray[np.int64], most: int
) -> tuple[float, float]:
    """By how many rows slides were ahead of their shares, and behind, at most."""
    given = np.zeros(len(counts))
    share = weights / weights.sum()
    ahead = behind = 0.0
    for part in parts_of(order, counts, most):
        given[part.slide] += part.rows
        away = given - share * given.sum()
        ahead, behind = max(ahead, away.max()), max(behind, -away.min())
    return ahead, behind


LARGEST = 81


@pytest.mark.parametrize("kind", ["patients", "halves", "any"])
@pytest.mark.parametrize("seed", range(3))
def test_slides_stay_within_one_window_of_their_shares(kind: str, seed: int) -> None:
    """At every prefix, however different their weights and the tissue in their windows are."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, size=40)
    edges = np.cumsum([0, *sizes])
    patients = [tuple(range(a, b)) for a, b in itertools.pairwise(edges)]
    slides = int(edges[-1])
    weights = {
        "patients": patient_weights(patients),
        "halves": np.array([slides - 1, *[1] * (slides - 1)], dtype=np.int64),
        "any": rng.integers(1, 1000, size=slides),
    }[kind]
    counts = [rng.integers(1, LARGEST + 1, size=rng.integers(1, 30)).tolist() for _ in weights]
    ahead, behind = deviations(WindowOrder(seed, weights, None), counts, weights, 6000)
    assert ahead <= LARGEST
    assert behind <= LARGEST


def test_slides_that_are_left_go_on_in_their_proportions() -> None:
    """After another has given all that it had."""
    weights = np.array([8, 3, 1], dtype=np.int64)
    counts = [[10] * 20, [10] * 400, [10] * 400]
    given = np.zeros(3)
    for part in parts_of(WindowOrder(1, weights, 1), counts, 200):
        given[part.slide] += part.rows
    assert given[0] == 200
    assert given[1] / 3 == pytest.approx(given[2], abs=20)


@EXAMPLES
@given(COUNTS, st.integers(0, 99), st.booleans())
def test_the_order_does_not_depend_on_when_slides_are_known(
    counts: list[list[int]], seed: int, endless: bool
) -> None:
    """All before it begins, or each when it is its turn; those without positions too."""
    weights = np.arange(1, len(counts) + 1, dtype=np.int64)
    cycles = None if endless else 2
    early, late = (WindowOrder(seed, weights, cycles) for _ in range(2))
    for slide in range(len(counts)):
        early.know(slide, counts[slide])
    assert parts_of(early, counts, 40) == parts_of(late, counts, 40)


@EXAMPLES
@given(COUNTS, st.integers(0, 99))
def test_the_slide_that_is_needed_is_the_first_that_is_asked_for(
    counts: list[list[int]], seed: int
) -> None:
    """And none is asked for twice."""
    order = WindowOrder(seed, np.ones(len(counts), np.int64), 1)
    while (slide := order.turn) is not None:
        if not order.knows(slide):
            assert order.unsurveyed[0] == slide
            order.add(counts[slide])
            assert slide not in order.unsurveyed
        elif order.has_none(slide):
            order.leave_out(slide)
        else:
            order.take()
    assert order.unsurveyed == ()


def places_of_row(row: int, cycles: int | None, trials: int) -> npt.NDArray[np.int64]:
    """How often each position of a slide with unlike windows is that row of its first cycle."""
    counts = [1, 2, 4, 8, 16]
    starts = np.cumsum([0, *counts])
    found = np.zeros(sum(counts), dtype=np.int64)
    for seed in range(trials):
        order = WindowOrder(seed, np.ones(1, np.int64), cycles)
        left = row
        for part in parts_of(order, [counts], 7):
            if left < part.rows:
                own = positions_in_order(seed, 0, part.cycle, part.window, counts[part.window])
                found[starts[part.window] + own[part.first + left]] += 1
                break
            left -= part.rows
    return found


@pytest.mark.parametrize("row", [0, 1, 10, 30])
def test_each_row_of_an_endless_stream_is_any_position_with_the_same_probability(row: int) -> None:
    """Though windows are unlike; chi-square over 6,200 seeds."""
    assert stats.chisquare(places_of_row(row, None, 6200)).pvalue > 0.001


def test_whole_windows_in_random_order_fail_the_same_test() -> None:
    """As a pass has them, whose first rows are too often of small windows."""
    assert stats.chisquare(places_of_row(0, 1, 6200)).pvalue < 1e-12


def test_weights_are_those_of_patients() -> None:
    """Shared by the slides of each; one without slides counts for nothing."""
    weights: Any = patient_weights([(0,), (1, 3), (), (2, 4, 5)])
    assert (weights / weights[0]).tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 2, 1 / 3, 1 / 3])
