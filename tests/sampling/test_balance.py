"""Weights of slides: the shares that a balance means, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.errors import ConfigError
from chunkdl.sampling.balance import Balance, BalancedSlides, checked_balance
from chunkdl.sampling.strata import StratumSchedule

PATIENTS = (0, 0, 0, 1, 2, 2)
GRADES = ("high", "high", "low", "low", "low", "mid")
"""Patient 0 has slides of two grades, patient 2 too."""


def shares_of(
    balance: Any, patients: Sequence[int] = PATIENTS, **labels: Sequence[Any]
) -> list[float]:
    """The probability of each slide."""
    labels = {"grade": GRADES, **labels}
    of_slides = [{name: values[n] for name, values in labels.items()} for n in range(len(patients))]
    names = [f"slide {number}" for number in range(len(patients))]
    balanced = BalancedSlides(checked_balance("balance", balance), patients, of_slides, names)
    found = [0.0] * len(patients)
    for group in balanced.groups(range(len(patients))):
        for slide, share in group.shares.items():
            found[slide] += group.weight * share / sum(group.shares.values())
    return found


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        ("patient", [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6]),
        ("slide", [1 / 6] * 6),
        (["grade"], [1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9, 1 / 3]),
        (["grade", "slide"], [1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9, 1 / 3]),
        (["grade", "patient", "slide"], [1 / 6, 1 / 6, 1 / 9, 1 / 9, 1 / 9, 1 / 3]),
        ({"category": "grade", "weights": {"high": 2, "mid": 1, "low": 1}}, None),
        ({"category": ["grade"], "weights": {"high": 1, "mid": 0, "low": 1}}, None),
        ({"slide_weights": "own"}, [0.1, 0, 0.2, 0.3, 0.4, 0]),
    ],
)
def test_slides_have_the_shares_of_the_formulas(balance: Any, expected: list[float] | None) -> None:
    """Of `chunkdl.sampling.balance`; weights of categories hold whatever their slides are."""
    found = shares_of(balance, own=[1, 0, 2, 3.0, 4, 0])
    assert sum(found) == pytest.approx(1)
    if expected is not None:
        assert found == pytest.approx(expected)
    else:
        weights = balance["weights"]
        for grade, weight in weights.items():
            together = sum(one for one, of in zip(found, GRADES, strict=True) if of == grade)
            assert together == pytest.approx(weight / sum(weights.values()))


def test_patients_of_a_category_are_alike_whatever_slides_they_have() -> None:
    """A patient counts in each category that it has a slide of."""
    found = shares_of(["grade", "patient"], (0, 0, 0, 1, 2, 2), grade=list("aaabbb"))
    assert found == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 8, 1 / 8])


def test_joint_categories_are_those_that_occur() -> None:
    """Three of the four combinations."""
    sites = ["x", "y", "x", "x", "y", "y"]
    grades = ["a", "a", "b", "b", "a", "a"]
    found = shares_of(["grade", "site"], grade=grades, site=sites)
    assert found == pytest.approx([1 / 3, 1 / 9, 1 / 6, 1 / 6, 1 / 9, 1 / 9])
    weighed = {"category": ["grade", "site"], "weights": {"a / x": 1, "a / y": 1, "b / x": 2}}
    assert shares_of(weighed, grade=grades, site=sites)[0] == pytest.approx(1 / 4)


def test_numbers_are_cut_at_their_quantiles() -> None:
    """So each category has as many slides; whole numbers are categories as they are."""
    ages = [30.5, 31.0, 33.0, 60.0, 61.0, 90.0]
    assert shares_of({"category": "age", "bins": 3}, age=ages) == pytest.approx([1 / 6] * 6)
    assert shares_of(["age"], age=[1, 1.0, 1, 2, 2, 1]) == pytest.approx(
        [1 / 8, 1 / 8, 1 / 8, 1 / 4, 1 / 4, 1 / 8]
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), min_size=1, max_size=40))
def test_every_round_has_each_category_as_often_as_the_others(
    slides: list[tuple[int, str]],
) -> None:
    """Rounded up or down, and substitutes are of the same category."""
    slides = sorted(slides)
    patients, grades = [one for one, _ in slides], [one for _, one in slides]
    labels = [{"grade": one} for one in grades]
    balanced = BalancedSlides(Balance(("grade",), "patient"), patients, labels, grades)
    schedule = StratumSchedule(3, balanced.groups(range(len(slides))))
    size = max(64, len(slides))
    for round_ in (0, 7):
        drawn = [schedule.stratum(round_ * size + place) for place in range(size)]
        counts = Counter(grades[one.slide] for one in drawn)
        wished = size / len(set(grades))
        assert all(np.floor(wished) <= count <= np.ceil(wished) for count in counts.values())
        for place, one in enumerate(drawn):
            other = schedule.stratum(round_ * size + place, 2)
            assert grades[other.slide] == grades[one.slide]


@pytest.mark.parametrize(
    ("balance", "labels", "message"),
    [
        ("slides", {}, 'must be "patient", "slide", a list such as'),
        (["patient", "grade"], {}, 'must be labels and then "patient" and "slide"'),
        ({"grade": "x"}, {}, "or a table of category, alike, weights, bins and slide_weights"),
        ({"category": "grade", "alike": "tile"}, {}, "alike='tile' must be"),
        ({"category": "grade", "weights": {"high": 1}}, {}, r"are \['high', 'low', 'mid'\]; give"),
        ({"category": "grade", "weights": {"high": -1}}, {}, "weight of 'high' must be 0 or more"),
        ({"weights": {"high": 1}}, {}, "give category="),
        (
            ["age"],
            {"age": [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]},
            "each a category of its own; give bins=",
        ),
        (["age"], {"age": [1.5, "x", 3.5, 4.5, 5.5, 6.5]}, "numbers for some slides and texts"),
        (["age"], {"age": [1, 2, None, 4, 5, 6]}, "slide 2 has no value of 'age'"),
        ({"slide_weights": "own"}, {"own": [1, 2, -3, 1, 1, 1]}, "weight of slide slide 2 is -3"),
        ({"slide_weights": "own", "category": "grade"}, {}, "without category"),
        ({"category": "grade", "bins": 1}, {}, "bins=1 must be 0, or from 2"),
    ],
)
def test_what_has_no_meaning_is_refused(balance: Any, labels: Any, message: str) -> None:
    """By the setting, with what to do."""
    with pytest.raises(ConfigError, match=message.replace("bins and slide", "bins, slide")):
        shares_of(balance, **labels)
