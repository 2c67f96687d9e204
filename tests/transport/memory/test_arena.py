"""Anonymous memory: of fixed size, without a name, cut into slots."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.errors import Closed, MemoryLimitError
from chunkdl.transport.memory.arena import ALIGNMENT, Arena, aligned, create_memory

SLOTS, SLOT_BYTES = 3, ALIGNMENT


@pytest.fixture
def arena() -> Iterator[Arena]:
    """A small one; its descriptor is closed already."""
    descriptor = create_memory("chunkdl-test", SLOTS * SLOT_BYTES)
    with Arena(descriptor, SLOTS, SLOT_BYTES) as arena:
        os.close(descriptor)
        yield arena


@given(st.integers(0, 2**40), st.sampled_from([1, 64, ALIGNMENT]))
def test_a_rounded_size_is_the_next_multiple(size: int, to: int) -> None:
    """Not smaller, and less than one step larger."""
    assert aligned(size, to) % to == 0
    assert 0 <= aligned(size, to) - size < to


def test_no_holder_can_change_the_size() -> None:
    """Neither shrink it (the others would get a SIGBUS) nor make it grow."""
    descriptor = create_memory("chunkdl-test", 2 * ALIGNMENT)
    for size in (0, ALIGNMENT, 3 * ALIGNMENT):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"beyond", 2 * ALIGNMENT)
    assert os.fstat(descriptor).st_size == 2 * ALIGNMENT
    os.close(descriptor)


def test_every_page_is_there_from_the_start() -> None:
    """Lack of memory shows at the start, not in the middle of a run."""
    descriptor = create_memory("chunkdl-test", 64 * ALIGNMENT)
    assert os.fstat(descriptor).st_blocks * 512 >= 64 * ALIGNMENT
    os.close(descriptor)


def test_memory_has_no_name_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing under /dev/shm or in the folder of temporary files: nothing to be left behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Arena(descriptor := create_memory("chunkdl-test", 4 * ALIGNMENT), 4, ALIGNMENT) as arena:
        arena.slot(0)[:] = 1
        assert os.fstat(descriptor).st_nlink == 0
        assert not [name for name in os.listdir("/dev/shm") if "chunkdl-test" in name]
        assert list(tmp_path.iterdir()) == []
        assert os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:chunkdl-test")
    os.close(descriptor)


def test_a_descriptor_does_not_slip_into_other_programs() -> None:
    """Who shall have it is given it."""
    descriptor = create_memory("chunkdl-test", ALIGNMENT)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_slots_lie_side_by_side_and_share_nothing(arena: Arena) -> None:
    """Writing one whole slot leaves the others as they are; the descriptor is closed already."""
    for number in range(SLOTS):
        arena.slot(number)[:] = number + 1
    for number in range(SLOTS):
        slot = arena.slot(number)
        assert slot.dtype == np.uint8
        assert slot.shape == (SLOT_BYTES,)
        assert (slot == number + 1).all()
        assert slot.ctypes.data % ALIGNMENT == 0


def test_two_views_of_one_memory_show_the_same_bytes() -> None:
    """As two processes have them."""
    descriptor = create_memory("chunkdl-test", SLOTS * SLOT_BYTES)
    with (
        Arena(descriptor, SLOTS, SLOT_BYTES) as one,
        Arena(descriptor, SLOTS, SLOT_BYTES) as other,
    ):
        os.close(descriptor)
        one.slot(1)[7] = 99
        assert other.slot(1)[7] == 99
        assert other.slot(0)[7] == 0


@pytest.mark.parametrize("number", [-1, SLOTS])
def test_there_are_no_other_slots(arena: Arena, number: int) -> None:
    """Also not counted from the end."""
    with pytest.raises(IndexError, match=f"slot {number} of {SLOTS}"):
        arena.slot(number)


def test_arrays_outlive_the_arena_that_they_came_from(arena: Arena) -> None:
    """A tensor that a user still holds never becomes a segmentation fault."""
    slot = arena.slot(2)
    slot[:] = 7
    arena.close()
    arena.close()
    with pytest.raises(Closed):
        arena.slot(2)
    assert slot.sum() == 7 * SLOT_BYTES


LIMITED = f"""
import resource
from chunkdl.errors import MemoryLimitError
from chunkdl.transport.memory.arena import create_memory

resource.setrlimit(resource.RLIMIT_FSIZE, ({ALIGNMENT}, {ALIGNMENT}))
try:
    create_memory("chunkdl-batches", {2 * ALIGNMENT})
except MemoryLimitError as error:
    raise SystemExit(0 if "chunkdl-batches; lower num_bigchunks" in str(error) else str(error))
raise SystemExit("there was no error")
"""


def test_memory_that_the_system_refuses_is_an_error_that_says_what_to_lower() -> None:
    """Here by a limit on the size of files (ulimit -f), which holds for anonymous ones too."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=Path(__file__).parents[3], timeout=60
    )
    assert done.returncode == 0


UNMAPPABLE = f"""
import os
import resource
from chunkdl.errors import MemoryLimitError
from chunkdl.transport.memory.arena import Arena, create_memory

descriptor = create_memory("chunkdl-batches", 2**20 * {ALIGNMENT}, sparse=True)
before = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
try:
    Arena(descriptor, 2**20, {ALIGNMENT}, sparse=True)
except MemoryLimitError as error:
    assert "may not map 4096 MiB more; raise its limit of address space" in str(error), error
    assert len(os.listdir("/proc/self/fd")) == before
    raise SystemExit(0)
raise SystemExit("there was no error")
"""


def test_memory_that_a_process_may_not_map_is_an_error_that_says_what_to_do() -> None:
    """Here by a limit of its address space (ulimit -v); no descriptor stays open."""
    done = subprocess.run(
        [sys.executable, "-c", UNMAPPABLE], cwd=Path(__file__).parents[3], timeout=60
    )
    assert done.returncode == 0


def test_what_is_written_into_a_private_view_stays_there_until_it_is_forgotten() -> None:
    """Others neither see it nor change it; afterwards the slot shows what they have written."""
    descriptor = create_memory("chunkdl-test", SLOTS * SLOT_BYTES)
    reading = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    with (
        Arena(descriptor, SLOTS, SLOT_BYTES) as shared,
        Arena(reading, SLOTS, SLOT_BYTES, private=True) as private,
    ):
        os.close(descriptor)
        os.close(reading)
        private.slot(0)[:] = private.slot(1)[:] = 1
        assert not shared.slot(0).any()
        shared.slot(0)[:] = 2
        assert (private.slot(0) == 1).all()
        private.forget(0)
        assert (private.slot(0) == 2).all()
        assert (private.slot(1) == 1).all()


def test_a_failed_allocation_leaves_no_descriptor_open() -> None:
    """A size that is not a size: the error is the system's, the descriptor is closed."""
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError) as caught:
        create_memory("chunkdl-test", 0)
    assert caught.value.errno == errno.EINVAL
    assert set(os.listdir("/proc/self/fd")) == before


PAGES = 8


@pytest.fixture
def sparse() -> Iterator[tuple[Arena, int]]:
    """An arena whose memory is taken as it is reserved, and its descriptor."""
    descriptor = create_memory("chunkdl-test", 2 * PAGES * ALIGNMENT, sparse=True)
    with Arena(descriptor, 2, PAGES * ALIGNMENT, sparse=True) as arena:
        yield arena, descriptor
    os.close(descriptor)


def taken(descriptor: int) -> int:
    """Pages that the system has given."""
    return os.fstat(descriptor).st_blocks * 512 // ALIGNMENT


def test_sparse_memory_takes_nothing_until_it_is_reserved(sparse: tuple[Arena, int]) -> None:
    """Its size is there, and sealed, all the same."""
    _, descriptor = sparse
    assert taken(descriptor) == 0
    assert os.fstat(descriptor).st_size == 2 * PAGES * ALIGNMENT
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, PAGES * ALIGNMENT),
            st.integers(0, PAGES * ALIGNMENT),
        ),
        max_size=8,
    )
)
def test_reserving_takes_the_pages_that_are_named(parts: list[tuple[int, int, int]]) -> None:
    """At least those, and none outside the hull of what one slot was asked for; twice is once."""
    descriptor = create_memory("chunkdl-test", 2 * PAGES * ALIGNMENT, sparse=True)
    wanted: set[int] = set()
    allowed: set[int] = set()
    with Arena(descriptor, 2, PAGES * ALIGNMENT, sparse=True) as arena:
        for slot, one, other in parts:
            first, end = sorted((one, other))
            if first == end:
                continue
            for _ in range(2):
                arena.reserve(slot, first, end)
            pages = range(first // ALIGNMENT, -(-end // ALIGNMENT))
            wanted |= {slot * PAGES + page for page in pages}
            for number in range(2):
                mine = [page for page in wanted if page // PAGES == number]
                allowed |= set(range(min(mine, default=0), max(mine, default=-1) + 1))
            assert len(wanted) <= taken(descriptor) <= len(allowed)
            before = taken(descriptor)
            arena.slot(slot)[first:end] = 1
            assert taken(descriptor) == before
    os.close(descriptor)


def test_what_is_reserved_by_one_is_there_for_all(sparse: tuple[Arena, int]) -> None:
    """Another view reserves the same pages without taking more."""
    arena, descriptor = sparse
    arena.slot(0)[:3] = 7
    arena.reserve(0, 0, 100)
    with Arena(descriptor, 2, PAGES * ALIGNMENT, sparse=True) as other:
        other.reserve(0, 0, 100)
        assert taken(descriptor) == 1
        # Reserving loses nothing that was written before.
        assert other.slot(0)[:4].tolist() == [7, 7, 7, 0]


def test_an_arena_that_is_not_sparse_reserves_nothing(arena: Arena) -> None:
    """It is all there already."""
    arena.reserve(0, 0, SLOT_BYTES)


def test_memory_that_the_system_refuses_later_is_an_error_too(sparse: tuple[Arena, int]) -> None:
    """Before anything is written there, which would be a SIGBUS; here behind the sealed end."""
    arena, descriptor = sparse
    with pytest.raises(MemoryLimitError, match="lower num_bigchunks, batch_size or memory_limit"):
        arena.reserve(1, 0, (PAGES + 1) * ALIGNMENT)
    assert taken(descriptor) == 0
    arena.reserve(1, 0, PAGES * ALIGNMENT)
    assert taken(descriptor) == PAGES
