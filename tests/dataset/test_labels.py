"""What becomes of the values of labels, and which names they can have."""

from __future__ import annotations

import enum
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from chunkdl.dataset.labels import MOST_NUMBERS, RESERVED, is_plain, plain, refusal, stacked
from chunkdl.transport.memory.layouts import COLUMNS

NAN = math.nan


class Grade(enum.IntEnum):
    """As people name their classes."""

    HIGH = 3


class Site(enum.StrEnum):
    """As people name their classes."""

    LUNG = "lung"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (np.bool_(True), True),
        (7, 7),
        (np.uint8(7), 7),
        (Grade.HIGH, 3),
        (0.5, 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 2), 0.5),
        (math.inf, math.inf),
        (NAN, None),
        (np.float32(NAN), None),
        (Decimal("NaN"), None),
        (pandas.NA, None),
        (pandas.NaT, None),
        (np.datetime64("NaT"), None),
        ("x", "x"),
        (np.str_("x"), "x"),
        (Site.LUNG, "lung"),
        (np.array(3), 3),
        (torch.tensor(3), 3),
        (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), 0.5),
        (torch.tensor([True, False]), [True, False]),
        ((0, np.int8(1)), [0, 1]),
        ([0.5, NAN], [0.5, None]),
        (np.array([[1.0, NAN]], dtype=np.longdouble), [[1.0, None]]),
        (np.array([1, None], dtype=object), [1, None]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_a_value_becomes_one_of_pythons_own(value: object, expected: object) -> None:
    """With the very type, so that tables, messages and comparisons know only a few."""
    got = plain(value)
    assert (got, type(got)) == (expected, type(expected))
    assert is_plain(got)
    assert plain(got) == got


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1},
        1j,
        np.complex64(1),
        b"x",
        np.datetime64("2024-01-01"),
        [1, {"a": 1}],
        np.zeros(MOST_NUMBERS + 1),
        list(range(MOST_NUMBERS + 1)),
        torch.zeros(MOST_NUMBERS + 1),
    ],
)
def test_anything_else_stays_itself(value: object) -> None:
    """What patients of the user's own classes carry is not copied, however large it is."""
    assert plain(value) is value
    column = stacked([value, value])
    assert isinstance(column.values, list)
    assert all(kept is value for kept in column.values)
    assert (column.remark, column.problem) == ("", "")


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 1], "int64", [0, 1]),
        ([np.uint8(0), np.int32(1)], "int64", [0, 1]),
        ([0, 1.5], "float64", [0.0, 1.5]),
        ([np.float32(1), np.float32(0)], "float64", [1.0, 0.0]),
        ([True, False], "bool", [True, False]),
        ([True, 2], "int64", [1, 2]),
        ([1, None], "float64", [1.0, NAN]),
        ([True, NAN], "float64", [1.0, NAN]),
        ([0.5, pandas.NA], "float64", [0.5, NAN]),
        ([None, None], "float64", [NAN, NAN]),
        ([2**63 - 1, -(2**63)], "int64", [2**63 - 1, -(2**63)]),
        ([torch.tensor(1), torch.tensor(0)], "int64", [1, 0]),
        ([[0, 1], (1, 0)], "int64", [[0, 1], [1, 0]]),
        ([np.array([0, 1]), torch.tensor([1, 0])], "int64", [[0, 1], [1, 0]]),
        ([[True, False], [False, True]], "bool", [[True, False], [False, True]]),
        ([[0, 1], None], "float64", [[0.0, 1.0], [NAN, NAN]]),
        ([[0, NAN], [1, 1]], "float64", [[0.0, NAN], [1.0, 1.0]]),
        ([[None, None], [1, 1]], "float64", [[NAN, NAN], [1.0, 1.0]]),
        ([[[1, 2]], [[3, 4]]], "int64", [[[1, 2]], [[3, 4]]]),
        ([[], []], "float64", [[], []]),
        ([[5], [6]], "int64", [[5], [6]]),
    ],
)
def test_numbers_of_one_shape_become_an_array(
    values: list[Any], dtype: str, expected: list[Any]
) -> None:
    """Missing ones are NaN: what is left of them in a loss is NaN, and no class of its own."""
    column = stacked(values)
    assert isinstance(column.values, np.ndarray)
    assert (column.values.dtype.name, column.remark, column.problem) == (dtype, "", "")
    np.testing.assert_array_equal(column.values, np.array(expected, dtype=dtype))


@pytest.mark.parametrize(
    ("values", "expected", "remark"),
    [
        (["tumor", "normal"], ["tumor", "normal"], ""),
        (["tumor", NAN], ["tumor", None], ""),
        ([["a"], ["b", "c"]], [["a"], ["b", "c"]], ""),
        ([1, "x"], [1, "x"], "is text for some rows and something else for others"),
        ([[1, 2], [1]], [[1, 2], [1]], "has values of different shapes"),
        ([[1, [2]], [1, [2]]], [[1, [2]], [1, [2]]], "has values of different shapes"),
        ([1, [1]], [1, [1]], "has values of different shapes"),
        ([[1], [[1]]], [[1], [[1]]], "has values of different shapes"),
    ],
)
def test_what_is_no_such_column_stays_a_list(
    values: list[Any], expected: list[Any], remark: str
) -> None:
    """With a remark where somebody may have meant a tensor."""
    column = stacked(values)
    assert (column.values, column.remark, column.problem) == (expected, remark, "")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([2**63, 1], "9223372036854775808 needs more than 64 bits; give it as text"),
        ([[1], [-(2**63) - 1]], "-9223372036854775809 needs more than 64 bits"),
        (
            [2**53 + 1, None],
            "9007199254740993 would lose digits, because missing values or fractions",
        ),
        ([2**53 + 1, 0.5], "9007199254740993 would lose digits"),
    ],
)
def test_a_number_that_no_tensor_holds_is_a_problem(values: list[Any], problem: str) -> None:
    """Rounded to a float, ids of cases would become ids of other cases."""
    column = stacked(values)
    assert column.problem.startswith(problem)
    assert column.values == values


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
labels = scalars | st.lists(scalars, max_size=3) | st.lists(st.lists(scalars, max_size=2))
# Around the last whole number that a float64 holds, and the last of 64 bits.
large = st.sampled_from(
    [sign * (2**bits + more) for sign in (-1, 1) for bits in (53, 63) for more in (-1, 0, 1)]
)


@given(st.lists(labels, max_size=6) | st.lists(st.none() | large | st.just(0.5), max_size=4))
@example([2**53 + 1, None])
def test_no_value_is_lost_or_changed(values: list[Any]) -> None:
    """Whatever the mixture: a column gives back what went in, or has a problem."""
    column = stacked(values)
    assert len(column.values) == len(values)
    if isinstance(column.values, list):
        assert column.values == [plain(value) for value in values]
        return
    for got, value in zip(column.values.tolist(), map(plain, values), strict=True):
        if value is None:
            assert plain(got) is None or set(_flat(plain(got))) <= {None}
        else:
            assert plain(got) == value


def _flat(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _flat(item)] if isinstance(value, list) else [value]


@given(st.lists(labels, max_size=6))
def test_plain_values_make_the_same_column(values: list[Any]) -> None:
    """A consumer on another machine is sent plain values, and has the same tensors."""
    here, there = stacked(values), stacked([plain(value) for value in values])
    assert repr(here) == repr(there)


def test_names_of_columns_are_reserved_with_a_proposal() -> None:
    """The numbers of every record among them; anything else that is text may be a label."""
    assert {name for name, _ in COLUMNS} <= RESERVED
    for name in RESERVED:
        assert f"cannot be named {name!r}" in refusal(name)
        assert f"rename it, e.g. to '{name}_label'" in refusal(name)
        assert refusal(f"{name}_label") == ""
    assert [refusal(name) for name in ("label", "grade", "Level", "x2", "")] == [""] * 5
    assert refusal(3) == "the name of the label 3 is not text; rename it, e.g. to 'label_3'"
