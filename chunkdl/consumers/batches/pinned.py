"""Page-locked memory for batches, from torch's own allocator.

A GPU copies out of page-locked memory while the program goes on, so memory that nothing refers to
any more may still be read. torch knows: of each block it notes the streams on which copies from it
were begun, and gives the block out again when these have got past them. It finds the block by the
storage of the tensor that is copied, and by nothing else. A tensor made of a numpy array has a
storage of its own, so what the user gets has to be a view of the tensor that was allocated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from chunkdl.errors import ConfigError
from chunkdl.transport.memory.layouts import Array, Bytes


def page_locked(size: int) -> torch.Tensor:
    """Page-locked memory, uint8 (size,), from torch's allocator.

    Raises:
        ConfigError: there is no GPU for which memory could be locked.
    """
    try:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    except RuntimeError as error:
        raise ConfigError(
            f"pin_memory=True, and torch can lock no memory here: {error}; leave pin_memory out, "
            "or see whether torch.cuda.is_available()"
        ) from error


class PinnedMemory:
    """Page-locked memory for copied batches; torch's allocator is the pool.

    Args:
        size: bytes of one buffer.
        allocate: gives a tensor uint8 (bytes,), and sees to it that its memory is not given out
            again before copies from its storage are over.
    """

    def __init__(self, size: int, allocate: Callable[[int], torch.Tensor] = page_locked) -> None:
        self._size = size
        self._allocate = allocate

    def take(self) -> Bytes:
        """A buffer of `size` bytes; make tensors on it with `tensor_on` alone."""
        buffer: Bytes = self._allocate(self._size).numpy()
        return buffer


def tensor_on(rows: Array) -> torch.Tensor:
    """A tensor on the memory of an array; a view of the tensor whose memory it is, if it is one's.

    Args:
        rows: of any shape and type that torch has, C-contiguous if it is a part of a tensor.
    """
    owner = _owner_of(rows)
    if owner is None:
        return torch.from_numpy(rows)
    first = rows.ctypes.data - owner.data_ptr()
    kind = torch.from_numpy(np.empty(0, rows.dtype)).dtype
    return owner[first : first + rows.nbytes].view(kind).view(rows.shape)


def _owner_of(rows: Array) -> torch.Tensor | None:
    """The tensor uint8 (bytes,) that an array is a part of; None: its memory is nobody's tensor."""
    owner: Any = rows
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return owner if isinstance(owner, torch.Tensor) else None
