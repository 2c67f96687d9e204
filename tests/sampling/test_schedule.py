"""The schedule: every patient once a round, and nothing that depends on the order of questions."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from chunkdl.sampling.schedule import UniformSchedule
from tests.sampling.small_plans import EXAMPLES

DATASETS = st.lists(st.integers(1, 4), min_size=1, max_size=12)
"""How many slides each patient has."""


def slides_of(counts: list[int]) -> list[list[int]]:
    ends = np.cumsum(counts).tolist()
    return [list(range(end - count, end)) for end, count in zip(ends, counts, strict=True)]


def patients(schedule: UniformSchedule, counts: list[int], rounds: range) -> list[list[int]]:
    """The patient of each BigChunk, a list per round."""
    owner = np.repeat(np.arange(len(counts)), counts).tolist()
    size = len(counts)
    return [[owner[schedule.slide(t * size + place)] for place in range(size)] for t in rounds]


@EXAMPLES
@given(counts=DATASETS, seed=st.integers(0, 2**64 - 1), first=st.integers(0, 10**9))
def test_every_patient_comes_exactly_once_a_round(counts: list[int], seed: int, first: int) -> None:
    """However many slides a patient has, and however far the stream is."""
    schedule = UniformSchedule(seed, slides_of(counts))
    for order in patients(schedule, counts, range(first, first + 3)):
        assert sorted(order) == list(range(len(counts)))


def test_the_order_is_another_in_every_round_and_with_every_seed() -> None:
    """No two of twenty rounds of twelve patients are alike."""
    counts = [1] * 12
    rounds = patients(UniformSchedule(0, slides_of(counts)), counts, range(20))
    assert len({tuple(order) for order in rounds}) == 20
    assert patients(UniformSchedule(1, slides_of(counts)), counts, range(20)) != rounds


def test_every_order_of_a_round_is_equally_likely() -> None:
    """All six orders of three patients, over 3,000 rounds."""
    counts = [1, 1, 1]
    rounds = patients(UniformSchedule(2, slides_of(counts)), counts, range(3_000))
    orders = [tuple(order) for order in rounds]
    assert stats.chisquare([orders.count(order) for order in set(orders)]).pvalue > 0.01
    assert len(set(orders)) == 6


@settings(EXAMPLES, max_examples=25)
@given(counts=DATASETS, seed=st.integers(0, 2**64 - 1), shuffle=st.integers(0, 2**32))
def test_the_answer_does_not_depend_on_what_was_asked_before(
    counts: list[int], seed: int, shuffle: int
) -> None:
    """BigChunks and substitutes are looked up in any order, again and by fresh schedules."""
    asked = [(ordinal, attempt) for ordinal in range(40) for attempt in range(4)]
    schedule = UniformSchedule(seed, slides_of(counts))
    answers = {question: schedule.slide(*question) for question in asked}
    random.Random(shuffle).shuffle(asked)
    other = UniformSchedule(seed, slides_of(counts))
    for question in asked:
        assert other.slide(*question) == schedule.slide(*question) == answers[question]


def test_substitutes_are_drawn_uniformly_from_all_patients() -> None:
    """Over ordinals and over attempts; patients with many slides are not favoured."""
    counts = [1, 5, 1, 3]
    schedule = UniformSchedule(5, slides_of(counts))
    owner = np.repeat(np.arange(4), counts)
    by_ordinal = [owner[schedule.slide(ordinal, 1)] for ordinal in range(2_000)]
    by_attempt = [owner[schedule.slide(3, attempt)] for attempt in range(1, 2_001)]
    for found in (by_ordinal, by_attempt):
        assert stats.chisquare(np.bincount(found, minlength=4)).pvalue > 0.01


@pytest.mark.parametrize("attempt", [0, 2])
def test_the_slides_of_a_patient_are_equally_likely(attempt: int) -> None:
    """For BigChunks of the plan and for substitutes, and not in a fixed turn."""
    schedule = UniformSchedule(6, [[4, 7, 9]])
    found = [schedule.slide(ordinal, attempt) for ordinal in range(3_000)]
    counts = [found.count(slide) for slide in (4, 7, 9)]
    assert sum(counts) == 3_000
    assert stats.chisquare(counts).pvalue > 0.01
    pairs = set(pairwise(found))
    assert len(pairs) == 9
