"""The functions on arrays that numpy and torch call by different names, or compute differently.

An `Array` is numpy's or a tensor; the operators, slices, ``reshape``, ``sum(axis)`` and comparisons
that both have are used as they are. All results of a row depend on that row alone: sums are exact,
so that neither the number of rows nor the device sets their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = Any
"""numpy's array or a tensor of torch."""
Planes = Any
"""Images as both libraries compute with them: float32 (B, 3, H, W), 0 to 1."""
Rows = npt.NDArray[np.intp]
"""Indices of rows of a batch."""

SUM_STEP = 2.0**-24
"""What is summed is rounded to whole steps, whose sum has no order. Values up to 2**14 and 2**24 of
them fit."""


class Maths(Protocol):
    """numpy or torch on one device."""

    uint8: Any
    """The dtype of levels."""
    floats: Any
    """The dtype of planes."""

    def array(self, values: npt.NDArray[Any]) -> Array:
        """A copy of numpy's array on the device."""

    def exp(self, x: Array) -> Array:
        """e to the power of each."""

    def log(self, x: Array) -> Array:
        """The natural logarithm of each."""

    def sqrt(self, x: Array) -> Array:
        """The square root of each."""

    def cos(self, x: Array) -> Array:
        """The cosine of each, in radians."""

    def sin(self, x: Array) -> Array:
        """The sine of each, in radians."""

    def arctan2(self, y: Array, x: Array) -> Array:
        """The angle of each (x, y), in radians."""

    def power(self, x: Array, exponent: float) -> Array:
        """Each, at least 0, to a power."""

    def floor(self, x: Array) -> Array:
        """Each rounded down."""

    def round(self, x: Array) -> Array:
        """Each rounded to the nearest whole number, halves to the even one."""

    def clip(self, x: Array, least: float | None, most: float | None) -> Array:
        """Each within bounds."""

    def where(self, flags: Array, yes: Array | float, no: Array | float) -> Array:
        """One or the other."""

    def maximum(self, x: Array, y: Array) -> Array:
        """The larger of two arrays, each."""

    def minimum(self, x: Array, y: Array) -> Array:
        """The smaller of two arrays, each."""

    def stack(self, arrays: Sequence[Array], axis: int) -> Array:
        """Arrays of one shape along a new axis."""

    def joined(self, arrays: Sequence[Array], axis: int) -> Array:
        """Arrays behind each other along an axis."""

    def flipped(self, x: Array, axis: int) -> Array:
        """The other way round along an axis."""

    def swapped(self, x: Array, one: int, other: int) -> Array:
        """With two axes swapped."""

    def sorted(self, x: Array) -> Array:
        """Along the last axis, smallest first."""

    def pick(self, x: Array, index: Array) -> Array:
        """Of x (B, N) the elements (B, k) of these indices, each row its own."""

    def take(self, x: Array, index: npt.NDArray[np.intp], axis: int) -> Array:
        """The elements of these indices along an axis."""

    def total(self, x: Array) -> Array:
        """The exact sum along the last axis, float64, after rounding to `SUM_STEP`."""

    def eigen(self, x: Array) -> tuple[Array, Array]:
        """Eigenvalues, smallest first, and eigenvectors as columns, of symmetric (B, n, n)."""

    def float32(self, x: Array) -> Array:
        """As float32."""

    def float64(self, x: Array) -> Array:
        """As float64."""

    def int64(self, x: Array) -> Array:
        """As int64; cuts what is behind the point."""

    def span(self, count: int) -> Array:
        """0, 1, … up to `count`, int64."""

    def rows(self, x: Array, rows: Rows) -> Array:
        """A copy of some rows."""

    def put(self, x: Array, rows: Rows, values: Array) -> Array:
        """The array with other values in some rows."""


def percentile(maths: Maths, ordered: Array, count: Array, per_cent: float) -> Array:
    """The percentile of the first `count` of `ordered` (B, N), between neighbours as numpy's.

    Args:
        maths: of the arrays.
        ordered: each row sorted.
        count: (B,) float64, at least 1.
        per_cent: 0 to 100.

    Returns:
        (B,) float64.
    """
    place = (count - 1) * (per_cent / 100)
    low = maths.floor(place)
    high = maths.minimum(low + 1, count - 1)
    index = maths.int64(maths.stack([low, high], 1))
    ends = maths.float64(maths.pick(ordered, index))
    return ends[:, 0] + (ends[:, 1] - ends[:, 0]) * (place - low)
