"""numpy's functions under the names of `Maths`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.patches.arithmetic.maths import SUM_STEP, Array, Rows


class NumpyMaths:
    """See `Maths`."""

    uint8: Any = np.dtype(np.uint8)
    floats: Any = np.dtype(np.float32)

    exp = staticmethod(np.exp)
    log = staticmethod(np.log)
    sqrt = staticmethod(np.sqrt)
    cos = staticmethod(np.cos)
    sin = staticmethod(np.sin)
    arctan2 = staticmethod(np.arctan2)
    floor = staticmethod(np.floor)
    maximum = staticmethod(np.maximum)
    minimum = staticmethod(np.minimum)

    def array(self, values: npt.NDArray[Any]) -> Array:
        """See `Maths`."""
        return np.array(values)

    def power(self, x: Array, exponent: float) -> Array:
        """See `Maths`."""
        return np.power(x, x.dtype.type(exponent))

    def round(self, x: Array) -> Array:
        """See `Maths`."""
        return np.rint(x)

    def clip(self, x: Array, least: float | None, most: float | None) -> Array:
        """See `Maths`."""
        return np.clip(x, least, most)

    def where(self, flags: Array, yes: Array | float, no: Array | float) -> Array:
        """See `Maths`."""
        return np.where(flags, yes, no)

    def stack(self, arrays: Sequence[Array], axis: int) -> Array:
        """See `Maths`."""
        return np.stack(list(arrays), axis)

    def joined(self, arrays: Sequence[Array], axis: int) -> Array:
        """See `Maths`."""
        return np.concatenate(list(arrays), axis)

    def flipped(self, x: Array, axis: int) -> Array:
        """See `Maths`."""
        return np.flip(x, axis)

    def swapped(self, x: Array, one: int, other: int) -> Array:
        """See `Maths`."""
        return np.swapaxes(x, one, other)

    def sorted(self, x: Array) -> Array:
        """See `Maths`."""
        return np.sort(x, axis=-1)

    def pick(self, x: Array, index: Array) -> Array:
        """See `Maths`."""
        return np.take_along_axis(x, index, axis=-1)

    def take(self, x: Array, index: npt.NDArray[np.intp], axis: int) -> Array:
        """See `Maths`."""
        return np.take(x, index, axis=axis)

    def total(self, x: Array) -> Array:
        """See `Maths`."""
        return np.rint(x / SUM_STEP).astype(np.int64).sum(axis=-1) * SUM_STEP

    def eigen(self, x: Array) -> tuple[Array, Array]:
        """See `Maths`."""
        values, vectors = np.linalg.eigh(x)
        return values, vectors

    def float32(self, x: Array) -> Array:
        """See `Maths`."""
        return np.asarray(x, np.float32)

    def float64(self, x: Array) -> Array:
        """See `Maths`."""
        return np.asarray(x, np.float64)

    def int64(self, x: Array) -> Array:
        """See `Maths`."""
        return np.asarray(x).astype(np.int64)

    def span(self, count: int) -> Array:
        """See `Maths`."""
        return np.arange(count, dtype=np.int64)

    def rows(self, x: Array, rows: Rows) -> Array:
        """See `Maths`."""
        return x[rows]

    def put(self, x: Array, rows: Rows, values: Array) -> Array:
        """See `Maths`."""
        changed = x.copy()
        changed[rows] = values
        return changed
