"""torch's functions under the names of `Maths`, on the device of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from chunkdl.patches.arithmetic.maths import SUM_STEP, Array, Rows


class TorchMaths:
    """See `Maths`.

    Args:
        device: of the arrays.
    """

    uint8: Any = torch.uint8
    floats: Any = torch.float32

    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)
    sqrt = staticmethod(torch.sqrt)
    cos = staticmethod(torch.cos)
    sin = staticmethod(torch.sin)
    arctan2 = staticmethod(torch.atan2)
    floor = staticmethod(torch.floor)
    round = staticmethod(torch.round)
    maximum = staticmethod(torch.maximum)
    minimum = staticmethod(torch.minimum)

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def array(self, values: npt.NDArray[Any]) -> Array:
        """See `Maths`."""
        return torch.from_numpy(np.array(values)).to(self._device, non_blocking=True)

    def power(self, x: Array, exponent: float) -> Array:
        """See `Maths`."""
        return torch.pow(x, exponent)

    def clip(self, x: Array, least: float | None, most: float | None) -> Array:
        """See `Maths`."""
        return torch.clamp(x, least, most)

    def where(self, flags: Array, yes: Array | float, no: Array | float) -> Array:
        """See `Maths`."""
        return torch.where(flags, yes, no)

    def stack(self, arrays: Sequence[Array], axis: int) -> Array:
        """See `Maths`."""
        return torch.stack(list(arrays), axis)

    def joined(self, arrays: Sequence[Array], axis: int) -> Array:
        """See `Maths`."""
        return torch.cat(list(arrays), axis)

    def flipped(self, x: Array, axis: int) -> Array:
        """See `Maths`."""
        return torch.flip(x, (axis,))

    def swapped(self, x: Array, one: int, other: int) -> Array:
        """See `Maths`."""
        return torch.transpose(x, one, other)

    def sorted(self, x: Array) -> Array:
        """See `Maths`."""
        return torch.sort(x, dim=-1).values

    def pick(self, x: Array, index: Array) -> Array:
        """See `Maths`."""
        return torch.gather(x, -1, index)

    def take(self, x: Array, index: npt.NDArray[np.intp], axis: int) -> Array:
        """See `Maths`."""
        return torch.index_select(x, axis, self.array(index))

    def total(self, x: Array) -> Array:
        """See `Maths`."""
        steps = torch.round(x / SUM_STEP).to(torch.int64).sum(dim=-1)
        return steps.to(torch.float64) * SUM_STEP

    def eigen(self, x: Array) -> tuple[Array, Array]:
        """See `Maths`."""
        values, vectors = torch.linalg.eigh(x)
        return values, vectors

    def float32(self, x: Array) -> Array:
        """See `Maths`."""
        return x.to(torch.float32)

    def float64(self, x: Array) -> Array:
        """See `Maths`."""
        return x.to(torch.float64)

    def int64(self, x: Array) -> Array:
        """See `Maths`."""
        return x.to(torch.int64)

    def span(self, count: int) -> Array:
        """See `Maths`."""
        return torch.arange(count, device=self._device)

    def rows(self, x: Array, rows: Rows) -> Array:
        """See `Maths`."""
        return torch.index_select(x, 0, self.array(rows))

    def put(self, x: Array, rows: Rows, values: Array) -> Array:
        """See `Maths`."""
        return x.index_copy(0, self.array(rows), values)
