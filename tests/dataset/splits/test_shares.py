"""Shares of patients become counts of patients, rounded in two directions at once."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.dataset.splits.shares import rounded, shares_of
from chunkdl.errors import DatasetError

weights = st.lists(st.integers(1, 30), min_size=2, max_size=6)


def shares_from(given: list[int]) -> list[Fraction]:
    return [Fraction(weight, sum(given)) for weight in given]


@given(weights, st.lists(st.integers(0, 60), min_size=1, max_size=8))
def test_every_class_and_every_part_is_rounded_up_or_down(
    weights: list[int], counts: list[int]
) -> None:
    """No class has a patient too many or too few in a part, and no part in all."""
    shares = shares_from(weights)
    table = rounded(shares, counts)
    assert [sum(row) for row in table] == counts
    for row, count in zip(table, counts, strict=True):
        for entry, share in zip(row, shares, strict=True):
            assert math.floor(share * count) <= entry <= math.ceil(share * count)
    for size, share in zip(map(sum, zip(*table, strict=True)), shares, strict=True):
        assert math.floor(share * sum(counts)) <= size <= math.ceil(share * sum(counts))


def test_a_greedy_choice_is_taken_back_where_it_leads_nowhere() -> None:
    """Sizes that are whole numbers are kept exactly, whatever the classes."""
    shares = [Fraction(size, 12) for size in (5, 4, 3)]
    table = rounded(shares, [1, 1, 2, 3, 5])
    assert [sum(column) for column in zip(*table, strict=True)] == [5, 4, 3]


@pytest.mark.parametrize(
    ("parts", "patients", "expected"),
    [
        ({"a": 0.7, "b": 0.15, "c": 0.15}, 40, (Fraction(7, 10), Fraction(3, 20), Fraction(3, 20))),
        ({"a": 0.1, "b": None}, 40, (Fraction(1, 10), Fraction(9, 10))),
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 9, (Fraction(1, 3),) * 3),
        ({"a": Fraction(1, 3), "b": None}, 9, (Fraction(1, 3), Fraction(2, 3))),
        ({"a": 3, "b": None}, 12, (Fraction(1, 4), Fraction(3, 4))),
        ({"a": 3, "b": 9}, 12, (Fraction(1, 4), Fraction(3, 4))),
    ],
)
def test_sizes_are_shares_or_numbers_of_patients(
    parts: dict[str, float | None], patients: int, expected: tuple[Fraction, ...]
) -> None:
    """Exactly: a tenth is a tenth, and three thirds are one."""
    assert tuple(shares_of(parts, patients).values()) == expected


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"a": 1.0}, "needs two parts or more"),
        ({"a": 0.5, "b": 0.4}, "a=0.5, b=0.4 do not sum to 1; give a part None"),
        ({"a": 0.5, "b": 0.6, "c": None}, "do not sum to 1"),
        ({"a": 5, "b": 4}, "do not sum to the 10 patients"),
        ({"a": 10, "b": None}, "do not sum to the 10 patients"),
        ({"a": 5, "b": 0.5}, "give shares for all parts, or numbers of patients for all"),
        ({"a": None, "b": None}, "only one part can be None"),
        ({"a": 0, "b": None}, "part 'a': 0 is neither a share"),
        ({"a": True, "b": None}, "part 'a': True is neither a share"),
        ({"a": math.nan, "b": None}, "part 'a': nan is neither a share"),
        ({"a": "x", "b": None}, "part 'a': 'x' is neither a share"),
        ({" a": 0.5, "b": None}, "part ' a': its name must be text without spaces around it"),
        ({"a": 0.09, "b": None}, r"part 'a' would have 0.9 of 10 patients; give it a larger share"),
    ],
)
def test_parts_that_mean_no_split_are_refused(parts: dict[str, float], message: str) -> None:
    """With what to write instead."""
    with pytest.raises(DatasetError, match=message):
        shares_of(parts, 10)


def test_no_patients_make_no_split() -> None:
    """Whatever the parts."""
    with pytest.raises(DatasetError, match="without patients cannot be split"):
        shares_of({"a": 0.5, "b": 0.5}, 0)
