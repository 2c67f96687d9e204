"""In which library the columns of a batch are arrays: torch's tensors, or numpy's arrays.

Everything before the batch is numpy; only the kind that was asked for is imported, so that
``arrays="numpy"`` needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from chunkdl.consumers.batches.buffers import BufferPool
from chunkdl.transport.memory.layouts import Array, Bytes

ArraysName = Literal["torch", "numpy"]


class Buffers(Protocol):
    """Memory for batches that are copied."""

    def take(self) -> Bytes:
        """A buffer; it may come again when nothing refers to it any more."""


class ArrayKind(Protocol):
    """What the rest has to know of a library of arrays."""

    @property
    def pins(self) -> bool:
        """Whether copies go to page-locked memory."""

    def know(self, loader: type[Any]) -> None:
        """Have the library take loaders of this class for what it calls datasets."""

    def buffers(self, size: int) -> Buffers:
        """Memory for copies of batches of so many bytes."""

    def rows(self, rows: Array, *, images: bool) -> Any:
        """The rows of a batch, on the same memory; images (B, H, W, C) in the library's order."""

    def pixels(self, images: Any) -> Array:
        """The rows of an untransformed column "image" as numpy sees them, (B, H, W, C)."""

    def numbers(self, values: npt.NDArray[Any]) -> Any:
        """A column of numbers; copies where they do not lie side by side."""

    def stacked(self, rows: Sequence[Any]) -> Any:
        """What a transform has made of each row as one array; None: they make none."""

    def together(self, parts: Sequence[Any]) -> Any:
        """The rows of several batches in one column: an array where all parts are, else a list."""

    def repeated(self, numbers: Sequence[int], counts: Sequence[int]) -> Any:
        """Each number as often as it is counted."""


class NumpyArrays:
    """numpy; images stay (B, H, W, C)."""

    pins = False

    def know(self, loader: type[Any]) -> None:
        """There is nothing to know."""

    def buffers(self, size: int) -> Buffers:
        """See `ArrayKind`."""
        return BufferPool(size)

    def rows(self, rows: Array, *, images: bool) -> Any:
        """See `ArrayKind`."""
        return rows

    def pixels(self, images: Any) -> Array:
        """See `ArrayKind`."""
        return np.asarray(images)

    def numbers(self, values: npt.NDArray[Any]) -> Any:
        """See `ArrayKind`."""
        return np.array(values)

    def stacked(self, rows: Sequence[Any]) -> Any:
        """See `ArrayKind`."""
        arrays = [np.asarray(row) for row in rows]
        same = len({(array.shape, array.dtype) for array in arrays}) == 1
        return np.stack(arrays) if same and arrays[0].dtype.kind in "biufc" else None

    def together(self, parts: Sequence[Any]) -> Any:
        """See `ArrayKind`."""
        if len(parts) == 1:
            return parts[0]
        if all(isinstance(part, np.ndarray) for part in parts):
            return np.concatenate(list(parts))
        return joined(parts)

    def repeated(self, numbers: Sequence[int], counts: Sequence[int]) -> Any:
        """See `ArrayKind`."""
        return np.repeat(np.asarray(numbers), np.asarray(counts))


def joined(parts: Sequence[Any]) -> list[Any]:
    """The values of several columns, some of which are lists."""
    return [
        value for part in parts for value in (part.tolist() if hasattr(part, "tolist") else part)
    ]
