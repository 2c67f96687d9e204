"""An arena: one piece of anonymous memory, cut into equal slots, shared by passing its descriptor.

It has no name, so nothing is left under /dev/shm whatever is killed, and the size of /dev/shm does
not matter. The creator allocates every page at the start (lack of memory shows then, not as a
SIGBUS in the middle of a run) and seals the size, so no holder can pull it from under the others.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import tempfile
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from chunkdl.errors import Closed, MemoryLimitError

ALIGNMENT = mmap.PAGESIZE
"""Slots start on pages."""
_PRESENT, _SWAPPED, _OF_FILE = np.uint64(1 << 63), np.uint64(1 << 62), np.uint64(1 << 61)
"""Bits of an entry of /proc/self/pagemap."""


def aligned(size: int, to: int = ALIGNMENT) -> int:
    """`size` rounded up to a multiple of `to`."""
    return -(-size // to) * to


def create_memory(label: str, size: int, *, sparse: bool = False) -> int:
    """Descriptor of `size` bytes of anonymous, sealed memory; the caller closes it.

    Args:
        label: for people who look at the memory of a process.
        size: bytes.
        sparse: allocate nothing now; who writes says `Arena.reserve` first.

    Raises:
        MemoryLimitError: the system does not give that much.
    """
    try:
        descriptor = _anonymous(label)
    except OSError as error:
        raise MemoryLimitError(f"no anonymous memory for {label}: {error}") from error
    try:
        os.ftruncate(descriptor, size)
        if not sparse:
            os.posix_fallocate(descriptor, 0, size)
        _seal(descriptor)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise MemoryLimitError(
                f"the system has no {size / 2**20:.0f} MiB for {label}; lower num_bigchunks, "
                "bigchunk_size or batch_size"
            ) from error
        raise
    return descriptor


def take_memory(descriptor: int, first: int, size: int) -> None:
    """Allocate `size` bytes of sparse memory, from byte `first` on.

    Raises:
        MemoryLimitError: the system does not give that much.
    """
    try:
        os.posix_fallocate(descriptor, first, size)
    except OSError as error:
        raise MemoryLimitError(
            f"the system has no {size / 2**20:.0f} MiB more for batches; lower num_bigchunks, "
            "bigchunk_size or batch_size"
        ) from error


def give_back_memory(descriptor: int, first: int, size: int) -> None:
    """Return whole pages to the system, for all who have the memory; they are zeros afterwards."""
    with mmap.mmap(descriptor, size, offset=first) as pages:
        pages.madvise(mmap.MADV_REMOVE)


def _anonymous(label: str) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    descriptor, path = tempfile.mkstemp(prefix="chunkdl-")
    os.unlink(path)
    return descriptor


def _seal(descriptor: int) -> None:
    """Fix the size for every holder, where the system can."""
    if hasattr(os, "memfd_create"):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)


class Arena:
    """A process's view of an arena; the descriptor may be closed once this exists.

    Args:
        descriptor: of the memory; of a private view it may be open for reading only.
        slots: number of slots.
        slot_bytes: size of each, a multiple of `ALIGNMENT`.
        sparse: the memory is not allocated yet; a copy of the descriptor is kept for `reserve`.
        private: what is written into the view stays in this process: the first write to a page
            gives it a copy of that page, until `forget`.

    """

    def __init__(
        self,
        descriptor: int,
        slots: int,
        slot_bytes: int,
        *,
        sparse: bool = False,
        private: bool = False,
    ) -> None:
        self._descriptor = os.dup(descriptor) if sparse else -1
        self._reserved: dict[int, set[int]] = {}
        self._map: mmap.mmap | None = None
        self.slots = slots
        self.slot_bytes = slot_bytes
        access = mmap.ACCESS_COPY if private else mmap.ACCESS_WRITE
        try:
            self._map = mmap.mmap(descriptor, slots * slot_bytes, access=access)
        except OSError as error:
            self.close()
            if error.errno != errno.ENOMEM:
                raise
            raise MemoryLimitError(
                f"this process may not map {slots * slot_bytes / 2**20:.0f} MiB more; raise its "
                "limit of address space (ulimit -v), or lower num_bigchunks, bigchunk_size or "
                "batch_size"
            ) from error

    def slot(self, number: int) -> npt.NDArray[np.uint8]:
        """The bytes of a slot, uint8 of shape (slot_bytes,); borrowed, valid until close()."""
        if not 0 <= number < self.slots:
            raise IndexError(f"slot {number} of {self.slots}")
        if self._map is None:
            raise Closed("the arena was closed")
        return np.frombuffer(
            self._map, dtype=np.uint8, count=self.slot_bytes, offset=number * self.slot_bytes
        )

    def reserve(self, number: int, first: int, end: int) -> None:
        """Allocate the memory of bytes [first, end) of a slot, so that writing there cannot fail.

        Raises:
            MemoryLimitError: the system does not give that much.
        """
        if self._descriptor < 0:
            return
        reserved = self._reserved.setdefault(number, set())
        pages = range(first // ALIGNMENT, -(-end // ALIGNMENT))
        missing = [page for page in pages if page not in reserved]
        if not missing:
            return
        low, high = missing[0] * ALIGNMENT, (missing[-1] + 1) * ALIGNMENT
        try:
            os.posix_fallocate(self._descriptor, number * self.slot_bytes + low, high - low)
        except OSError as error:
            raise MemoryLimitError(
                f"the system has no {(high - low) / 2**20:.1f} MiB more for what the user's code "
                "makes; lower num_bigchunks, batch_size or memory_limit"
            ) from error
        reserved.update(missing)

    def forget(self, number: int) -> None:
        """Drop what was written into a slot of a private view; it shows again what the others see.

        No array into the slot may be in use. After `close` there is nothing to be seen any more.
        """
        if self._map is not None and _has_own_pages(self.slot(number)):
            first = number * self.slot_bytes
            self._map.madvise(mmap.MADV_DONTNEED, first, self.slot_bytes)

    def close(self) -> None:
        """Unmap; memory that is still in use by arrays stays until the last of them is gone.

        Closing twice is not an error.
        """
        mapping, self._map = self._map, None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        # Where arrays into it are alive, the mapping goes with the last of them.
        with contextlib.suppress(BufferError):
            if mapping is not None:
                mapping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _has_own_pages(memory: npt.NDArray[np.uint8]) -> bool:
    """Whether a private view has copies of pages there; dropping them costs all others a fault."""
    first, count = memory.ctypes.data // mmap.PAGESIZE, -(-memory.nbytes // mmap.PAGESIZE)
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            found = os.pread(file.fileno(), 8 * count, 8 * first)
    except OSError:
        return True  # Not every sandbox has it.
    entries = np.frombuffer(found, dtype=np.uint64)
    return len(entries) < count or bool(
        ((entries & (_PRESENT | _SWAPPED) != 0) & (entries & _OF_FILE == 0)).any()
    )
