"""What labels are: the names that they cannot have, and what becomes of their values.

A label of a patient, of a slide or of a tile goes the same way: `plain` makes a value of Python's
own of whatever a user has, `stacked` makes one array of the values of a column where they are
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Scalar = int | float | str | bool | None
Label = Scalar | tuple[Scalar, ...]
"""A label that can travel to another machine."""

RESERVED = frozenset(
    (
        *("image", "data", "x", "y", "level", "mpp", "tissue_fraction", "bigchunk", "call"),
        *("slide", "patient", "node", "slide_index", "patient_index"),
        *("info_smallchunk", "info_bigchunk"),
        *("number", "state", "origin", "epoch", "rank", "weight"),
        *("region", "drawn_region", "region_shares", "label_mask"),
        *("cells", "cell_class", "cell_count"),
    )
)
"""Names of columns of a batch, also of some that are still to come: no label can have one."""

MOST_NUMBERS = 4096
"""Of one label; a larger array is not copied into tables, and stays what it is."""
_EXACT = 2**53
"""Whole numbers up to here are float64 without loss."""
_NO_VALUE = ("NAType", "NaTType")
"""What pandas has for missing values beside NaN, by the names of the types."""


def refusal(name: object) -> str:
    """Why a label cannot have this name, and which name would do; empty where it can."""
    if not isinstance(name, str):
        return f"the name of the label {name!r} is not text; rename it, e.g. to {f'label_{name}'!r}"
    if name in RESERVED:
        return (
            f"a label cannot be named {name!r}, because batches have a column of that name; "
            f"rename it, e.g. to {f'{name}_label'!r}"
        )
    return ""


def plain(value: Any) -> Any:
    """The value as Python's own: None, bool, int, float, str, or a list of these, nested.

    Numbers of numpy, arrays and tensors of at most `MOST_NUMBERS` numbers, tuples, enums of numbers
    or text, `Decimal` and `Fraction` become it. NaN, NaT and pandas' NA are None, inside lists as
    well. Anything else comes back as it is.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, np.floating | Decimal | Fraction | float):
        return None if value != value else float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if type(value).__name__ in _NO_VALUE:
        return None
    if isinstance(value, list | tuple):
        return _plain_list(value)
    if all(hasattr(value, name) for name in ("tolist", "dtype", "shape")):
        return _plain_array(value)
    return value


def is_plain(value: Any) -> bool:
    """Whether `plain` has understood the value."""
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def is_time(value: Any) -> bool:
    """Whether the value is a date or a time, which a table gives as text in ISO 8601."""
    return hasattr(value, "isoformat")


def _plain_list(value: Sequence[Any]) -> Any:
    if len(value) > MOST_NUMBERS:
        return value
    items = [plain(item) for item in value]
    return items if is_plain(items) else value


def _plain_array(value: Any) -> Any:
    if math.prod(value.shape) > MOST_NUMBERS:
        return value
    if isinstance(value, np.generic | np.ndarray):
        if value.dtype.kind in "mM" and value.ndim == 0 and np.isnat(value):
            return None
        if value.dtype.kind not in "biufUO":
            return value
        if value.dtype.kind == "f":
            # Long doubles stay what they are in tolist().
            value = value.astype(np.float64)
    listed = plain(value.tolist())
    return listed if is_plain(listed) else value


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """The values of a column.

    Attributes:
        values: an array of bool, int64 or float64, whose first axis is the column's, where all
            values are numbers, or lists of numbers of one shape; missing ones are NaN, which makes
            it float64. Else a list of the values, None for a missing one.
        remark: why it is a list, where that may not be what was meant; else empty.
        problem: why it should be refused: what number no tensor holds; else empty.
    """

    values: list[Any] | npt.NDArray[Any]
    remark: str = ""
    problem: str = ""


def stacked(given: Sequence[Any]) -> Stacked:
    """The column of these values, of which any may be missing (None or NaN)."""
    values = [plain(value) for value in given]
    known = [value for value in values if value is not None]
    shapes = {_shape(value) for value in known} or {()}
    if len(shapes) == 1 and None not in shapes:
        (shape,) = shapes
        large = math.prod(shape or ()) > MOST_NUMBERS
        return Stacked(values) if large else _numbers(values, known, shape or ())
    texts = sum(isinstance(value, str) for value in known)
    if 0 < texts < len(known):
        return Stacked(values, remark="is text for some rows and something else for others")
    if None not in shapes or any(isinstance(value, list) and _is_ragged(value) for value in known):
        return Stacked(values, remark="has values of different shapes")
    return Stacked(values)


def _numbers(values: list[Any], known: list[Any], shape: tuple[int, ...]) -> Stacked:
    numbers = list(_leaves(known))
    whole = [number for number in numbers if type(number) is int]
    missing = len(known) < len(values) or None in numbers
    if not missing and numbers and all(type(number) is bool for number in numbers):
        return Stacked(np.array(values, dtype=np.bool_))
    if not missing and numbers and not any(type(number) is float for number in numbers):
        wrong = next((n for n in whole if not -(2**63) <= n < 2**63), None)
        if wrong is not None:
            return Stacked(values, problem=f"{wrong} needs more than 64 bits; give it as text")
        return Stacked(np.array(values, dtype=np.int64))
    wrong = next((n for n in whole if abs(n) > _EXACT), None)
    if wrong is not None:
        return Stacked(
            values,
            problem=(
                f"{wrong} would lose digits, because missing values or fractions in the column "
                "make all its numbers float64; give it as text"
            ),
        )
    # numpy makes NaN of None, but not of a None where a list should be.
    none = np.full(shape, np.nan) if shape else None
    filled = [none if value is None else value for value in values]
    return Stacked(np.array(filled, dtype=np.float64).reshape(len(values), *shape))


def _shape(value: Any) -> tuple[int, ...] | None:
    """() of a number, (n, ...) of nested lists of numbers; None of everything else."""
    if type(value) in (bool, int, float):
        return ()
    if not isinstance(value, list):
        return None
    shapes = {_shape(item) if item is not None else () for item in value}
    if not shapes:
        return (0,)
    (first, *others) = shapes
    return None if others or first is None else (len(value), *first)


def _is_ragged(value: list[Any]) -> bool:
    return (
        is_plain(value)
        and _shape(value) is None
        and not any(isinstance(leaf, str) for leaf in _leaves(value))
    )


def _leaves(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _leaves(value)
        else:
            yield value
