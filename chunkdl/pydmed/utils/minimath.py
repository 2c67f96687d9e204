"""PyDmed's arithmetic on lists."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from chunkdl.errors import ConfigError
from chunkdl.pydmed import star

__all__ = ["lcm", "multiminority", "multimode", *star.MINIMATH]

__getattr__ = star.importer(__name__, star.MINIMATH)


def lcm(list_numbers: Sequence[int]) -> int:
    """The least common multiple of integers, exact for any size; 1 for an empty list."""
    return math.lcm(*list_numbers)


def multimode(list_input: Sequence[Any]) -> Any:
    """The most frequent value; of several, the largest.

    Raises:
        ConfigError: the list is empty.
    """
    return max(_counted(list_input))[1]


def multiminority(list_input: Sequence[Any]) -> Any:
    """The least frequent value in the list; of several, the smallest.

    Raises:
        ConfigError: the list is empty.
    """
    return min(_counted(list_input))[1]


def _counted(values: Sequence[Any]) -> list[tuple[int, Any]]:
    """Each value once, behind how often it is there."""
    if not len(values):
        raise ConfigError("an empty list has no most or least frequent value")
    return [(count, value) for value, count in Counter(values).items()]
