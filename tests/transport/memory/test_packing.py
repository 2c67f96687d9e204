"""Objects in shared memory: whole, uncopied, inside their slot, and never from damaged bytes."""

from __future__ import annotations

import pickle
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from chunkdl.errors import MemoryLimitError, PackingError
from chunkdl.transport.memory.packing import HEADER_BYTES, Packer, dump, load, unpack

GUARD, UNTOUCHED = 256, 0xA5
HEADER, ENTRY = struct.Struct("<8sQQQQ"), struct.Struct("<QQ")


def new_slot(size: int = 1 << 16) -> npt.NDArray[np.uint8]:
    """A slot between guard bytes; it starts 3 bytes past a cache line."""
    whole = np.full(size + 2 * GUARD + 64, UNTOUCHED, np.uint8)
    start = GUARD + (3 - GUARD - whole.ctypes.data) % 64
    return whole[start : start + size]


def guards_are_whole(slot: npt.NDArray[np.uint8]) -> bool:
    """Whether nothing was written before or behind the slot."""
    whole = slot.base
    assert isinstance(whole, np.ndarray)
    start = slot.ctypes.data - whole.ctypes.data
    guards = np.concatenate([whole[:start], whole[start + slot.size :]])
    return bool((guards == UNTOUCHED).all())


def there_and_back(value: Any, size: int = 1 << 16) -> Any:
    """What arrives when `value` goes through a slot."""
    slot = new_slot(size)
    Packer(slot).pack(value)
    return unpack(slot)


@dataclass
class Piece:
    """An object that has an array, as users write them."""

    image: npt.NDArray[Any]
    name: str
    inner: Piece | None = None


BIG = np.arange(100 * 120 * 3, dtype=np.uint8).reshape(100, 120, 3)
PLAIN = [("a", np.uint8), ("b", np.float64, (2,))]
FROZEN = np.arange(6)
FROZEN.flags.writeable = False

ARRAYS = {
    "plain": BIG[:10],
    "one number": np.array(3.5),
    "no element": np.zeros((0, 3), np.float32),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "crop": BIG[10:20, 30:40],
    "channels first": BIG.transpose(2, 0, 1),
    "crop, channels first": BIG[10:20, 30:40].transpose(2, 0, 1),
    "backwards": BIG[::-2, ::-1],
    "spread": np.broadcast_to(np.arange(4, dtype=np.int16), (3, 4)),
    "structured": np.array([(1, (2, 3)), (4, (5, 6))], PLAIN),
    "field": np.array([(1, (2, 3)), (4, (5, 6))], PLAIN)["b"],
    "other byte order": np.arange(5, dtype=">i4"),
    "times": np.array(["2024-02-29", "NaT"], "datetime64[D]"),
    "every other time": np.arange(10).astype("datetime64[s]")[::2],
    "texts": np.array(["one", "three"]),
    "long numbers": np.arange(3, dtype=np.clongdouble),
    "nothing each": np.zeros(3, np.dtype([])),
    "python objects": np.array([1, "two", None, BIG[:2]], object)[::-1],
    "records": np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "read-only": FROZEN,
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_an_array_arrives_as_it_was(array: npt.NDArray[Any]) -> None:
    """Type, shape, every element and the order in memory; by both ways."""
    out = new_slot(1 << 17)
    dump(array, out)
    for again in (there_and_back(array, 1 << 17), load(out)):
        assert type(again) is type(array)
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert again.flags.f_contiguous == array.flags.f_contiguous or not array.flags.forc
        assert pickle.dumps(again.tolist()) == pickle.dumps(array.tolist())


@given(st.data())
def test_any_array_arrives_as_it_was(data: st.DataObject) -> None:
    """Of any dtype, shape and strides, next to another one."""
    dtype = arrays_of.scalar_dtypes() | arrays_of.array_dtypes()
    shape = arrays_of.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=6)
    whole = data.draw(arrays_of.arrays(dtype, shape))
    array = whole[data.draw(arrays_of.basic_indices(whole.shape))] if whole.ndim else whole
    array = array.transpose(data.draw(st.permutations(range(array.ndim))))
    first, again = there_and_back([BIG[:2], array])
    assert (first == BIG[:2]).all()
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()


def test_an_object_with_arrays_at_any_depth_arrives_as_it_was() -> None:
    """Lists, tuples, dicts and objects of the user's classes, arrays in each of them."""
    value = {
        "list": [BIG, BIG[5:, 5:], "text", 3.5],
        7: (None, {"deep": [[BIG[0]]]}),
        "object": Piece(BIG[:1], "outer", Piece(BIG[1:2].copy(), "inner")),
    }
    again = there_and_back(value, 1 << 18)
    assert again["list"][2:] == ["text", 3.5]
    for there, here in zip(again["list"][:2], (BIG, BIG[5:, 5:]), strict=True):
        assert (there == here).all()
    assert (again[7][1]["deep"][0][0] == BIG[0]).all()
    assert type(again["object"]) is Piece
    assert (again["object"].image == BIG[:1]).all()
    assert type(again["object"].inner) is Piece
    assert again["object"].inner.name == "inner"
    assert (again["object"].inner.image == BIG[1:2]).all()


@pytest.mark.parametrize(
    "value", [None, 7, "text", b"bytes", {"a": (1, 2)}, bytearray(9), [], Piece, len, type(None)]
)
def test_an_object_without_arrays_arrives_too(value: object) -> None:
    """By both ways; the memory may be written again at once."""
    slot = new_slot()
    for put, take in ((Packer(slot).pack, unpack), (lambda v: dump(v, slot), load)):
        used = put(value)
        again = take(slot)
        slot[:used] = 0
        assert again == value
        assert type(again) is type(value)


def test_tensors_inside_an_object_arrive() -> None:
    """They are pickled as torch does it."""
    torch = pytest.importorskip("torch")
    again = there_and_back({"x": torch.arange(5), "y": BIG[:2]})
    assert again["x"].tolist() == list(range(5))
    assert (again["y"] == BIG[:2]).all()


def test_arrays_of_the_packer_are_filled_in_place_and_not_copied() -> None:
    """Nor are views of them, also of axes in another order; only the pickle is added."""
    slot = new_slot()
    packer = Packer(slot)
    image = packer.empty((40, 50, 3))
    times = packer.empty((100,), "datetime64[s]")
    before = packer.free_bytes
    assert np.shares_memory(image, slot)
    image[:] = 7
    times[:] = 9
    value = {"a": image, "b": image[3:9], "c": image.transpose(2, 0, 1), "d": Piece(times, "t")}
    used = packer.pack(value)
    assert before - (slot.size - used) < 1000
    again = unpack(slot)
    for name in ("a", "b", "c"):
        assert again[name].ctypes.data == value[name].ctypes.data  # type: ignore[attr-defined]
        assert again[name].strides == value[name].strides  # type: ignore[attr-defined]
    assert again["d"].image.ctypes.data == times.ctypes.data
    image[3, 0, 0] = 8
    assert again["a"][3, 0, 0] == again["b"][0, 0, 0] == again["c"][0, 3, 0] == 8


@pytest.mark.parametrize("name", [name for name in ARRAYS if name not in {"no element"}])
def test_arrays_that_arrive_are_views_of_the_slot(name: str) -> None:
    """Of every kind but those of Python objects, of records, and those without any bytes."""
    slot = new_slot(1 << 17)
    Packer(slot).pack([ARRAYS[name]])
    (again,) = unpack(slot)
    in_slot = name not in {"python objects", "records", "nothing each"}
    assert np.shares_memory(again, slot) == in_slot


@pytest.mark.parametrize("place", [slice(0, 70), slice(64, 3000), slice(2000, 2100)])
def test_what_lies_in_the_slot_but_not_in_an_array_of_the_packer_is_copied(place: slice) -> None:
    """Such bytes are somebody else's, and will be written over."""
    slot = new_slot()
    packer = Packer(slot)
    packer.empty((1000,))
    slot[place] = 7
    packer.pack(slot[place])
    again = unpack(slot)
    assert (again == 7).all()
    assert again.ctypes.data >= slot.ctypes.data + HEADER_BYTES + 1000


@pytest.mark.parametrize("array", [BIG, BIG[10:90, 20:100], BIG[::-1], BIG.transpose(1, 0, 2)])
def test_an_array_takes_its_size_once(array: npt.NDArray[np.uint8]) -> None:
    """Contiguous or not: there is no second copy of it in the pickle."""
    slot = new_slot(1 << 18)
    used = Packer(slot).pack({"image": array})
    assert array.nbytes < used < array.nbytes + 1000


def test_views_of_the_slot_may_be_written_unless_the_reader_or_the_array_forbids_it() -> None:
    """A reader that shares the slot with others takes everything read-only."""
    slot = new_slot()
    packer = Packer(slot)
    inside = packer.empty((3,))
    frozen = packer.empty((3,))
    frozen.flags.writeable = False
    packer.pack([inside, BIG[:1], BIG[:1, ::2], frozen, FROZEN, FROZEN[::2]])
    assert [array.flags.writeable for array in unpack(slot)] == [True] * 3 + [False] * 3
    assert not any(array.flags.writeable for array in unpack(slot, writable=False))


def test_arrays_that_arrived_keep_the_memory_of_the_slot() -> None:
    """Whoever holds one needs to hold nothing else."""
    slot = new_slot()
    Packer(slot).pack(BIG[:5])
    again = unpack(slot)
    del slot
    assert (again == BIG[:5]).all()


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), max_size=3).map(tuple),
            st.sampled_from(["u1", "f4", "f8", "c16", "c32", "U3", "U5"]),
        )
    )
)
def test_arrays_of_the_packer_lie_where_their_rows_are_fast(
    wanted: list[tuple[tuple[int, ...], str]],
) -> None:
    """16 bytes past a cache line, or on one for large elements; apart from each other."""
    slot = new_slot()
    packer = Packer(slot)
    end = slot.ctypes.data + HEADER_BYTES
    for shape, dtype in wanted:
        array = packer.empty(shape, dtype)
        assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
        assert array.flags.c_contiguous
        assert array.ctypes.data % 64 == (0 if array.itemsize > 16 else 16)
        assert end <= array.ctypes.data
        end = array.ctypes.data + array.nbytes
        assert packer.free_bytes == slot.ctypes.data + slot.size - end
        array[...] = np.zeros((), dtype)
    assert guards_are_whole(slot)


def test_an_array_without_room_is_refused_with_what_it_wants_and_what_is_free() -> None:
    """As text and as numbers; a smaller one still finds its place."""
    packer = Packer(new_slot(1000))
    free = packer.free_bytes
    with pytest.raises(PackingError, match=rf"\(20, 50\) .*uint8 takes 10\d\d .* {free} free") as e:
        packer.empty((20, 50))
    assert e.value.available_bytes == packer.free_bytes == free
    assert e.value.wanted_bytes is not None
    assert 1000 <= e.value.wanted_bytes <= 1063
    assert packer.empty((20, 40)).nbytes == 800


def test_an_array_of_python_objects_cannot_lie_in_shared_memory() -> None:
    """Nor one that has a field of them: another process cannot follow the pointers."""
    for dtype in (object, [("a", "u1"), ("b", object)]):
        with pytest.raises(PackingError, match="holds Python objects"):
            Packer(new_slot()).empty((3,), dtype)


TOO_LARGE = {
    "array": BIG,
    "crop": BIG[:90, ::2],
    "many": [BIG[:9], BIG[5:, ::2], BIG[:9], np.zeros(0)],
    "pickle": bytes(20_000),
    "times": np.zeros(2000, "datetime64[s]"),
}


@pytest.mark.parametrize("value", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_is_too_large_is_refused_and_nothing_is_written(value: object) -> None:
    """The error has both sizes; a slot of the size that it asks for is enough."""
    slot = new_slot(10_000)
    packer = Packer(slot, lambda first, end: pytest.fail("nothing is to be written"))
    pattern = rf"{type(value).__name__} is too large: .* 0\.\d\d MiB .* 0\.01 MiB"
    for _ in range(2):
        with pytest.raises(PackingError, match=pattern) as caught:
            packer.pack(value)
        assert caught.value.available_bytes == 10_000
    assert (slot == UNTOUCHED).all()
    assert guards_are_whole(slot)
    wanted = caught.value.wanted_bytes
    assert wanted is not None
    enough = new_slot(wanted)
    assert 10_000 < Packer(enough).pack(value) <= wanted
    assert guards_are_whole(enough)


@given(st.integers(0, 1500))
def test_a_slot_of_any_size_takes_an_object_or_refuses_it(size: int) -> None:
    """Nothing is written outside, also where the slot has no room for a header."""
    slot = new_slot(size)
    value = {"a": BIG[:1, :100], "b": [FROZEN, BIG[:4, :4, 0]]}
    try:
        used = Packer(slot).pack(value)
    except PackingError:
        assert size < 1000
        assert (slot == UNTOUCHED).all()
    else:
        assert used <= size
        assert (unpack(slot)["b"][1] == BIG[:4, :4, 0]).all()
    assert guards_are_whole(slot)


def test_a_small_object_that_has_no_room_is_refused() -> None:
    """By `dump`, with both sizes, and nothing is written outside."""
    out = new_slot(100)
    with pytest.raises(PackingError, match="bytes is too large") as caught:
        dump(bytes(200), out)
    assert caught.value.available_bytes == 100
    enough = new_slot(caught.value.wanted_bytes or 0)
    assert dump(bytes(200), enough) == enough.size
    assert load(enough) == bytes(200)
    almost = new_slot(enough.size - 1)
    with pytest.raises(PackingError, match="bytes is too large"):
        dump(bytes(200), almost)
    for refused in (out, almost):
        assert (refused == UNTOUCHED).all()
    assert all(map(guards_are_whole, (out, almost, enough)))


class Bad:
    """Its author made a mistake."""

    def __getstate__(self) -> object:
        raise RuntimeError("the state is not ready")


def test_what_cannot_be_pickled_is_refused_by_name() -> None:
    """The class of the object and the cause; the packer can still take another object."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with socket.socket() as open_socket:
        wrong = {
            "^lock cannot be pickled: TypeError": threading.Lock(),
            "^dict cannot be pickled: .*lock.* leave out": {"a": [BIG, threading.Lock()]},
            "^socket cannot be pickled: TypeError": open_socket,
            "^Bad cannot be pickled: RuntimeError: the state is not ready": Bad(),
            "^list cannot be pickled: .*recursion": deep,
        }
        slot = new_slot()
        packer = Packer(slot)
        free = packer.free_bytes
        for pattern, value in wrong.items():
            for put in (packer.pack, lambda v: dump(v, new_slot())):
                with pytest.raises(PackingError, match=pattern) as caught:
                    put(value)
                assert caught.value.wanted_bytes is caught.value.available_bytes is None
                assert caught.value.__cause__ is not None
    assert packer.free_bytes == free
    packer.pack(Piece(BIG[:2], "good"))
    assert unpack(slot).name == "good"


@given(
    st.lists(st.integers(0, 3000), max_size=4),
    st.lists(st.sampled_from([BIG[:3], BIG[:3, ::2], FROZEN, np.zeros(0), b"x" * 500])),
)
def test_every_byte_is_announced_before_it_is_written(sizes: list[int], rest: list[object]) -> None:
    """By `commit`, in the slot; what is not announced stays untouched."""
    slot = new_slot(1 << 16)
    original = slot.copy()
    announced = np.zeros(slot.size, bool)

    def commit(first: int, end: int) -> None:
        assert 0 <= first < end <= slot.size
        assert (slot == original)[~announced].all()
        announced[first:end] = True

    packer = Packer(slot, commit)
    own = [packer.empty((size,)) for size in sizes]
    for array in own:
        offset = array.ctypes.data - slot.ctypes.data
        assert announced[offset : offset + array.size].all()
        array[:] = 1
    used = packer.pack([own, rest])
    assert (slot == original)[~announced].all()
    assert not announced[used:].any()


def test_memory_that_cannot_be_had_leaves_the_packer_as_it_was() -> None:
    """The error of `commit` comes through; nothing was written."""

    def refuse(first: int, end: int) -> None:
        raise MemoryLimitError("no pages")

    slot = new_slot()
    packer = Packer(slot, refuse)
    free = packer.free_bytes
    for attempt in (lambda: packer.empty((5,)), lambda: packer.pack(BIG)):
        with pytest.raises(MemoryLimitError):
            attempt()
        assert packer.free_bytes == free
    assert (slot == UNTOUCHED).all()


def packed() -> tuple[npt.NDArray[np.uint8], list[int]]:
    """A slot with an object, and what its header says."""
    slot = new_slot(2000)
    Packer(slot).pack([FROZEN, np.arange(50)])
    return slot, list(HEADER.unpack_from(slot.data)[1:])


def sealed(slot: npt.NDArray[np.uint8], numbers: list[int]) -> None:
    """Give the slot a header of `numbers` and the checksum that belongs to it."""
    HEADER.pack_into(slot.data, 0, b"chunkdl1", *numbers)
    table = slot[numbers[0] : numbers[0] + numbers[1] * ENTRY.size].tobytes()
    checksum = zlib.crc32(table, zlib.crc32(slot[: HEADER.size].tobytes()))
    struct.pack_into("<I", slot.data, HEADER.size, checksum)


@given(st.dictionaries(st.integers(0, 95), st.integers(1, 255), min_size=1, max_size=20))
def test_a_damaged_header_or_table_is_an_error(changes: dict[int, int]) -> None:
    """Whatever bytes were changed; those that nothing lies in do not matter."""
    slot, (table, count, _, _) = packed()
    at = [*range(64), *range(table, table + count * ENTRY.size)]
    assert len(at) == 96
    for place, change in changes.items():
        slot[at[place]] ^= change
    if all(HEADER.size + 4 <= place < 64 for place in changes):
        assert (unpack(slot)[0] == FROZEN).all()
        return
    with pytest.raises(PackingError, match=r"damaged|holds no object"):
        unpack(slot)


@given(st.integers(0, 3), st.integers(2001, 2**64 - 1) | st.sampled_from([2001, 2**63, 2**64 - 24]))
def test_nothing_outside_the_slot_is_read_whatever_the_header_says(which: int, size: int) -> None:
    """The checksum alone is not trusted."""
    slot, numbers = packed()
    numbers[which] = size
    sealed(slot, numbers)
    with pytest.raises(PackingError, match="damaged"):
        unpack(slot)


@given(st.integers(0, 1), st.integers(0, 1), st.integers(2001, 2**64 - 1))
def test_nothing_outside_the_slot_is_read_whatever_the_table_says(
    entry: int, which: int, size: int
) -> None:
    """Neither where a buffer starts nor how long it is is trusted."""
    slot, numbers = packed()
    place = numbers[0] + entry * ENTRY.size + which * 8
    struct.pack_into("<Q", slot.data, place, size)
    sealed(slot, numbers)
    with pytest.raises(PackingError, match="damaged"):
        unpack(slot)


@given(st.integers(0, 1000))
def test_a_slot_that_is_cut_off_is_an_error(size: int) -> None:
    """Wherever it was cut."""
    slot, (_, _, stream, stream_bytes) = packed()
    assert stream + stream_bytes > 600
    with pytest.raises(PackingError, match=r"damaged|holds no object"):
        unpack(slot[: min(size, stream + stream_bytes - 1)])


@pytest.mark.parametrize("size", [0, 7, 63, 64, 4096])
def test_a_slot_that_was_never_packed_holds_no_object(size: int) -> None:
    """Zeros, as new memory has them; nor was anything dumped there."""
    slot = np.zeros(size, np.uint8)
    with pytest.raises(PackingError, match="holds no object"):
        unpack(slot)
    with pytest.raises(PackingError, match=r"hold no object|cannot be rebuilt"):
        load(slot)


@given(st.integers(0, 200))
def test_a_small_object_that_is_cut_off_is_an_error(size: int) -> None:
    """Wherever it was cut."""
    out = new_slot()
    used = dump({"a": list(range(50)), "b": "text" * 20}, out)
    assert used > 200
    with pytest.raises(PackingError, match="hold no object"):
        load(out[:size])


def test_an_object_that_cannot_be_rebuilt_here_is_an_error_that_says_why() -> None:
    """Its class is not here, or fewer buffers are than it needs."""
    slot, numbers = packed()
    numbers[1] = 1
    sealed(slot, numbers)
    with pytest.raises(PackingError, match="cannot be rebuilt in this process: UnpicklingError"):
        unpack(slot)
    out = new_slot()
    used = dump(Piece, out)
    out[:used] = np.frombuffer(out[:used].tobytes().replace(b"Piece", b"Peace"), np.uint8)
    with pytest.raises(PackingError, match=r"AttributeError: .*Peace"):
        load(out)


def test_an_object_that_the_reader_has_too_travels_as_its_number() -> None:
    """Wherever in the value it is; what arrives is the reader's own, even if it has a lock."""
    ours, theirs = [threading.Lock(), Piece(BIG, "ours")], [threading.Lock(), Piece(BIG, "theirs")]
    slot = new_slot()
    numbers = {id(one): number for number, one in enumerate(ours)}
    used = Packer(slot, shared=numbers).pack([ours[1], {"lock": ours[0]}, Piece(BIG[:1], "own")])
    assert used < 2000
    first, second, own = unpack(slot, shared=theirs)
    assert first is theirs[1]
    assert second["lock"] is theirs[0]
    assert own.name == "own"
    assert np.shares_memory(own.image, slot)
    for others in ([], theirs[:1]):
        with pytest.raises(PackingError, match="cannot be rebuilt in this process"):
            unpack(slot, shared=others)


def test_functions_and_classes_that_have_no_name_arrive() -> None:
    """By value; both objects of a class are of one class on the other side."""

    class Local:
        def __init__(self, scale: Callable[[int], int]) -> None:
            self.scale = scale

    slot = new_slot()
    Packer(slot).pack([Local(lambda x: 3 * x), Local(lambda x: 4 * x)])
    first, second = unpack(slot)
    assert (first.scale(5), second.scale(5)) == (15, 20)
    assert type(first) is type(second) is Local


WORKER = """
import pickle, sys
import numpy as np
from chunkdl.transport.memory.arena import Arena
from chunkdl.transport.memory.packing import Packer, dump, load, unpack

class Chunk:
    '''Another class of the same name.'''

todo, memory, blob = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
theirs = pickle.loads(blob)["class"]
assert theirs is not Chunk
arena = Arena(memory, 4, 1 << 16)
if todo == "pack":
    class Own(theirs):
        '''A class that only this process has.'''
    Packer(arena.slot(0)).pack([theirs(np.arange(6)), theirs(np.arange(7))])
    Packer(arena.slot(1)).pack(theirs(np.arange(8)))
    dump(theirs(np.arange(9)), arena.slot(2))
    Packer(arena.slot(3)).pack([Own(np.arange(2)), Own])
else:
    theirs.seen = 42
    method = theirs.total
    chunks = [*unpack(arena.slot(0)), unpack(arena.slot(1)), load(arena.slot(2))]
    assert [type(chunk) for chunk in chunks] == [theirs] * 4
    assert [chunk.total() for chunk in chunks] == [15, 21, 28, 36]
    assert theirs.seen == 42 and theirs.total is method
    own, kind = unpack(arena.slot(3))
    assert type(own) is kind is unpack(arena.slot(3))[1] is not theirs
    assert isinstance(own, theirs) and own.total() == 1
"""

TRAINER = f"""
import os, subprocess, sys
import cloudpickle
from chunkdl.transport.memory.arena import Arena, create_memory
from chunkdl.transport.memory.packing import load, unpack

OFFSET = 0

class Chunk:
    seen = 0
    def __init__(self, image):
        self.image = image
    def total(self):
        return int(self.image.sum()) + OFFSET

memory = create_memory("chunkdl-test", 4 << 16)
blob = cloudpickle.dumps({{"class": Chunk}}).hex()
for todo in ("pack", "unpack"):
    subprocess.run(
        [sys.executable, "-c", {WORKER!r}, todo, str(memory), blob], pass_fds=[memory], check=True
    )
OFFSET, Chunk.seen, method = 100, 43, Chunk.total
arena = Arena(memory, 4, 1 << 16)
chunks = [*unpack(arena.slot(0)), unpack(arena.slot(1)), load(arena.slot(2))]
assert [type(chunk) for chunk in chunks] == [Chunk] * 4
assert [chunk.total() for chunk in chunks] == [115, 121, 128, 136]
assert Chunk.seen == 43 and Chunk.total is method
own, kind = unpack(arena.slot(3))
assert isinstance(own, Chunk) and type(own) is kind
"""


def test_an_object_of_a_class_of_the_users_script_is_of_that_class_in_every_process() -> None:
    """Packed in one worker, unpacked in another and in the script, whose classes stay as they are.

    The workers have the class from one blob, and another one of that name in their main module.
    """
    done = subprocess.run(
        [sys.executable, "-c", TRAINER],
        cwd=Path(__file__).parents[3],
        timeout=100,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_memory_map_arrives_as_an_array_of_the_slot(tmp_path: Path) -> None:
    """Copied once, into the slot; the reader needs no file."""
    np.save(tmp_path / "map.npy", BIG)
    mapped = np.load(tmp_path / "map.npy", mmap_mode="r")
    slot = new_slot()
    Packer(slot).pack({"all": mapped, "part": mapped[10:20, 5:9]})
    back = unpack(slot)
    del mapped
    (tmp_path / "map.npy").unlink()

    assert type(back["all"]) is np.ndarray
    assert np.array_equal(back["all"], BIG)
    assert np.array_equal(back["part"], BIG[10:20, 5:9])
    assert all(np.shares_memory(array, slot) for array in back.values())
    assert not back["all"].flags.writeable
