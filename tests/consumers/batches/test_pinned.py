"""Memory of a copied batch is not written again before every copy out of it is over."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from chunkdl.consumers.batches.buffers import BufferPool
from chunkdl.consumers.batches.pinned import PinnedMemory, page_locked, tensor_on
from chunkdl.errors import ConfigError
from chunkdl.transport.memory.layouts import BatchLayout
from chunkdl.transport.row_format import RowFormat

LAYOUT = BatchLayout(4, RowFormat.of_crops(8))


class Gpu:
    """Stands in for a GPU whose copies are over when `finish` says so, and for torch's allocator.

    As torch's, the allocator knows a block by the storage of the tensor that is copied, gives a
    block out again when the tensor on it is gone, and not before the copies from it are over.
    """

    def __init__(self) -> None:
        self._blocks: list[Any] = []
        self._free: list[Any] = []
        self._copies: list[tuple[Any, int]] = []
        self.received: list[list[int]] = []

    def allocate(self, size: int) -> torch.Tensor:
        """A tensor on a block."""
        if not self._free:
            self._blocks.append(np.zeros(size, np.uint8))
            self._free.append(self._blocks[-1])
        block = self._free.pop()
        memory = np.frombuffer(block.data, np.uint8)
        weakref.finalize(memory, self._take_back, block)
        return torch.from_numpy(memory)

    def _take_back(self, block: Any) -> None:
        if all(storage != block.ctypes.data for _, storage in self._copies):
            self._free.append(block)

    def copy(self, tensor: torch.Tensor) -> None:
        """Begin to copy a tensor: its bytes are read later, and nothing refers to it."""
        (block,) = (
            block
            for block in self._blocks
            if 0 <= tensor.data_ptr() - block.ctypes.data < block.size
        )
        first = tensor.data_ptr() - block.ctypes.data
        source = block[first : first + tensor.nbytes]
        self._copies.append((source, tensor.untyped_storage().data_ptr()))

    def finish(self) -> None:
        """Read what is to be copied, as it is now; what nobody has is free."""
        self.received += [np.unique(source).tolist() for source, _ in self._copies]
        read = {storage for _, storage in self._copies}
        self._copies.clear()
        self._free += [block for block in self._blocks if block.ctypes.data in read]


def image_of(buffer: Any) -> torch.Tensor:
    """The images of a batch in a buffer, as the user gets them."""
    return tensor_on(LAYOUT.view(buffer).columns["image"]).permute(0, 3, 1, 2)


def filled(memory: PinnedMemory, value: int) -> torch.Tensor:
    """The images of a batch that was copied into a buffer."""
    buffer = memory.take()
    buffer[:] = value
    return image_of(buffer)


def test_memory_is_not_written_while_a_gpu_reads_it() -> None:
    """Not by the batch that comes when the tensor was dropped; then it comes again."""
    gpu = Gpu()
    memory = PinnedMemory(LAYOUT.slot_bytes, gpu.allocate)
    images = filled(memory, 1)
    place = images.data_ptr()
    gpu.copy(images)
    del images
    gc.collect()
    others = filled(memory, 2)
    assert others.data_ptr() != place

    gpu.finish()
    assert gpu.received == [[1]]
    # What was read belongs to nobody now.
    assert filled(memory, 3).data_ptr() == place


def test_a_tensor_of_a_batch_is_a_view_of_the_tensor_that_was_allocated() -> None:
    """By its storage torch finds the block that a copy reads; the rows lie behind the records."""
    whole = torch.zeros(LAYOUT.slot_bytes, dtype=torch.uint8)
    images = image_of(whole.numpy())
    assert images.untyped_storage().data_ptr() == whole.data_ptr()
    assert images.data_ptr() == whole.data_ptr() + LAYOUT.data_at
    images[2] = 7
    assert int(whole.sum()) == 7 * 8 * 8 * 3


@pytest.mark.parametrize("kind", ["float32", "int64", "float16", "bool", "complex64", "uint16"])
def test_rows_of_every_type_lie_where_they_lay(kind: str) -> None:
    """With the shape and the values that numpy sees there."""
    whole = torch.zeros(4096, dtype=torch.uint8)
    rows = whole.numpy()[64 : 64 + 4 * 3 * 2 * np.dtype(kind).itemsize].view(kind).reshape(4, 3, 2)
    rows[1] = 1
    tensor = tensor_on(rows[1:3])
    assert tensor.shape == (2, 3, 2)
    assert np.array_equal(tensor.numpy(), rows[1:3])
    assert tensor.untyped_storage().data_ptr() == whole.data_ptr()


def test_memory_without_a_gpu_comes_again_at_once() -> None:
    """When nothing refers to it; fresh pages would cost more than the copy."""
    pool = BufferPool(LAYOUT.slot_bytes)
    images = image_of(pool.take())
    place = images.data_ptr()
    other = image_of(pool.take())
    assert other.data_ptr() != place
    del images
    gc.collect()
    assert image_of(pool.take()).data_ptr() == place


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_page_locked_memory_without_a_gpu_is_refused() -> None:
    """With what to do."""
    with pytest.raises(ConfigError, match="leave pin_memory out"):
        PinnedMemory(64).take()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA")
def test_a_copy_to_a_real_gpu_reads_what_was_there_when_it_began() -> None:
    """On a stream of its own, behind work that takes long; the program goes on and drops all."""
    size = 64 * 2**20
    memory = PinnedMemory(size, page_locked)
    cuda: Any = torch.cuda
    stream = cuda.Stream()
    received = []
    with cuda.stream(stream):
        for value in range(8):
            cuda._sleep(100_000_000)
            buffer = memory.take()
            buffer[:] = value
            received.append(tensor_on(buffer[4096:]).to("cuda", non_blocking=True))
            del buffer
    cuda.synchronize()
    assert [(int(part.min()), int(part.max())) for part in received] == [(n, n) for n in range(8)]
