"""Memory for batches that are copied.

The default copies a slot once, in one piece, into memory that belongs to the user. That memory is
taken from a pool and goes back to it when the last array on it is gone: fresh pages would cost
more than the copy.
"""

from __future__ import annotations

import weakref

import numpy as np
import numpy.typing as npt

from chunkdl.transport.memory.layouts import Bytes

KEPT_BUFFERS = 4
"""Buffers kept for the next batches; more are freed."""


class BufferPool:
    """Memory for copied batches.

    Args:
        size: bytes of one buffer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[npt.NDArray[np.uint8]] = []

    def take(self) -> Bytes:
        """A buffer of `size` bytes; it returns to the pool when nothing refers to it any more."""
        memory = self._free.pop() if self._free else np.empty(self._size, dtype=np.uint8)
        # Views refer to the array that owns the memoryview, so its end is the end of the last view.
        buffer = np.frombuffer(memory.data, dtype=np.uint8)
        weakref.finalize(buffer, _give_back, self._free, memory)
        return buffer


def _give_back(free: list[npt.NDArray[np.uint8]], memory: npt.NDArray[np.uint8]) -> None:
    if len(free) < KEPT_BUFFERS:
        free.append(memory)
