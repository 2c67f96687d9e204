"""What an operation is: a frozen value that changes rows by numbers of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.maths import Array, Maths, Planes, Rows
from chunkdl.patches.augmentation.random_numbers import Draws, Keys, uniforms


class Operation(ABC):
    """Changes a row by numbers that belong to the row."""

    name: ClassVar[str]
    """In a file, and in messages."""
    draws: ClassVar[int]
    """How many uniform numbers a row needs."""

    @property
    @abstractmethod
    def probability(self) -> float:
        """That a row is changed at all, 0 to 1."""

    @abstractmethod
    def apply(self, maths: Maths, planes: Planes, draws: Draws) -> Planes:
        """Planes after the operation; those that were given are left as they are.

        Args:
            maths: of the planes.
            planes: float32 (B, 3, H, W), 0 to 1.
            draws: (B, `draws`), of the rows.

        Raises:
            ConfigError: it cannot be done with images of that size.
        """


def step(
    operation: Operation, number: int, view: int, maths: Maths, planes: Planes, keys: Keys
) -> Planes:
    """Planes after an operation on those rows that it hits.

    Args:
        operation: what is done.
        number: of the operation in its list.
        view: which of several views of the row.
        maths: of the planes.
        planes: float32 (B, 3, H, W), 0 to 1.
        keys: of the rows.
    """
    draws = uniforms(keys, number, view, 1 + operation.draws)
    hit = np.flatnonzero(draws[:, 0] < operation.probability)
    if len(hit) == len(keys):
        return operation.apply(maths, planes, draws[:, 1:])
    if not len(hit):
        return planes
    return maths.put(planes, hit, operation.apply(maths, maths.rows(planes, hit), draws[hit, 1:]))


def by_groups(
    maths: Maths,
    planes: Planes,
    which: npt.NDArray[np.int64],
    change: Callable[[Planes, Rows, int], Planes],
) -> Planes:
    """Planes after the change of a number for each row; number 0 changes nothing.

    Args:
        maths: of the planes.
        planes: float32 (B, 3, H, W).
        which: a number for each row, at least 0.
        change: of some planes, which rows they are, and the number; keeps their shape.
    """
    groups = [(number, np.flatnonzero(which == number)) for number in np.unique(which).tolist()]
    if [number for number, _ in groups] == [0]:
        return planes
    parts = [
        change(maths.rows(planes, rows), rows, number) if number else maths.rows(planes, rows)
        for number, rows in groups
    ]
    order = np.concatenate([rows for _, rows in groups])
    return maths.rows(maths.joined(parts, 0), np.argsort(order))


def between(draws: Draws, index: int, ends: tuple[float, float]) -> Draws:
    """The uniform numbers of an index, stretched from one end to the other, (B,)."""
    return ends[0] + draws[:, index] * (ends[1] - ends[0])


def a_row(maths: Maths, values: Draws) -> Array:
    """One number a row, (B,), as float32 (B, 1, 1, 1) on the device."""
    return maths.array(values.astype(np.float32).reshape(-1, 1, 1, 1))


def set_number(operation: Operation, name: str, least: float, most: float) -> None:
    """Check a number of a frozen operation, and have it as a float.

    Raises:
        ConfigError: it does not lie in its bounds.
    """
    value = _number(operation, name, getattr(operation, name), least, most)
    object.__setattr__(operation, name, value)


def set_whole(operation: Operation, name: str, least: int, most: int) -> None:
    """The same for a whole number."""
    value = getattr(operation, name)
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(
            f"operation {operation.name}: {name} must be a whole number, not {value!r:.80}"
        )
    _number(operation, name, value, least, most)
    object.__setattr__(operation, name, int(value))


def set_ends(operation: Operation, name: str, least: float, most: float) -> None:
    """The same for a pair (low, high) between which a number is drawn."""
    given = getattr(operation, name)
    try:
        low, high = given
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"operation {operation.name}: {name} must be two numbers, not {given!r:.80}"
        ) from error
    pair = tuple(_number(operation, name, one, least, most) for one in (low, high))
    if pair[0] > pair[1]:
        raise ConfigError(f"operation {operation.name}: {name} must be (low, high), not {pair}")
    object.__setattr__(operation, name, pair)


def _number(operation: Operation, name: str, value: Any, least: float, most: float) -> float:
    right = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not right or not least <= float(value) <= most:
        raise ConfigError(
            f"operation {operation.name}: {name} must be a number from {least:g} to {most:g}, not "
            f"{value!r:.80}"
        )
    return float(value)
