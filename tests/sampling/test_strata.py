"""Weights of classes over a stream: how often each slide and class is drawn from."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from chunkdl.sampling.balance import BalancedSlides
from chunkdl.sampling.strata import ROUND, Group, StratumSchedule

PATIENTS = (0, 1), (2,), (), (3, 4, 5), (6,)
HAVING = (0,), (0, 1), (1,), (0, 1), (1,), (), (0, 1)
"""Of seven slides, four have the class 0 and five the class 1."""


def groups(*weights: float) -> list[Group]:
    """The two classes as groups, patients alike."""
    of_slide = {slide: number for number, slides in enumerate(PATIENTS) for slide in slides}
    patients = [of_slide[slide] for slide in range(len(HAVING))]
    balanced = BalancedSlides(None, patients, [{}] * len(HAVING), ["s"] * len(HAVING))
    return [
        Group("", region, weight, group.shares)
        for region, weight in enumerate(weights)
        for group in balanced.groups([s for s, classes in enumerate(HAVING) if region in classes])
    ]


@settings(max_examples=60)
@given(
    weights=st.lists(st.floats(0.01, 100), min_size=2, max_size=2),
    seed=st.integers(0, 2**64 - 1),
    round_=st.integers(0, 2**40),
)
def test_every_round_has_each_class_as_often_as_its_weight_says(
    weights: list[float], seed: int, round_: int
) -> None:
    """Rounded up or down."""
    schedule = StratumSchedule(seed, groups(*weights))
    ordinals = range(round_ * ROUND, (round_ + 1) * ROUND)
    counts = Counter(schedule.stratum(ordinal).region for ordinal in ordinals)
    for region in range(2):
        wished = ROUND * weights[region] / sum(weights)
        assert np.floor(wished - 1e-9) <= counts[region] <= np.ceil(wished + 1e-9)


def test_patients_that_have_a_class_share_it_equally_and_so_do_their_slides() -> None:
    """In 100,000 BigChunks, half of the slides without one of the classes; substitutes too."""
    schedule = StratumSchedule(5, groups(1.0, 3.0))
    expected = {
        # Class 0 has a quarter: patients 0, 3 and 6 of slide, by turns with two, one and one.
        (0, 0): 1 / 24,
        (1, 0): 1 / 24,
        (3, 0): 1 / 12,
        (6, 0): 1 / 12,
        (1, 1): 3 / 16,
        (2, 1): 3 / 16,
        (3, 1): 3 / 32,
        (4, 1): 3 / 32,
        (6, 1): 3 / 16,
    }
    for attempt in (0, 3):
        counts = Counter(schedule.stratum(ordinal, attempt) for ordinal in range(100_000))
        assert {one[:2] for one in counts} == expected.keys()
        observed = [counts[stratum] for stratum in sorted(counts)]
        wished = [100_000 * expected[stratum[0], stratum[1]] for stratum in sorted(counts)]
        # Drawn in strata they vary less than independent draws would.
        assert chisquare(observed, wished).pvalue > 0.001


def test_a_substitute_has_the_class_of_what_it_replaces() -> None:
    """For any attempt, so that weights hold whatever cannot be read."""
    schedule = StratumSchedule(9, groups(2.0, 1.0))
    for ordinal in range(500):
        region = schedule.stratum(ordinal).region
        assert {schedule.stratum(ordinal, attempt).region for attempt in range(6)} == {region}


def test_equal_schedules_give_equal_strata_in_any_order() -> None:
    """Nothing is kept between calls that another order would change."""
    one, other = (StratumSchedule(2, groups(1.0, 1.0)) for _ in range(2))
    forwards = [one.stratum(ordinal) for ordinal in range(400)]
    assert [other.stratum(ordinal) for ordinal in reversed(range(400))] == forwards[::-1]
    different = StratumSchedule(3, groups(1.0, 1.0))
    assert [different.stratum(ordinal) for ordinal in range(400)] != forwards


def test_the_strata_of_a_class_are_the_slides_that_have_it() -> None:
    """And no others are ever drawn."""
    schedule = StratumSchedule(2, groups(1.0, 1.0))
    assert [one.slide for one in schedule.strata_of(0)] == [0, 1, 3, 6]
    assert [one.slide for one in schedule.strata_of(1)] == [1, 2, 3, 4, 6]
    assert [group.region for group in schedule.groups] == [0, 1]
