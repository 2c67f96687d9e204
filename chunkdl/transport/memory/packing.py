"""Any Python object into a slot of shared memory and out again, its arrays never copied on the way.

::

    ┌────────┬──────────────────────────────┬───────────────────────┬────────┐
    │ header │ arrays of `Packer.empty` ... │ copies of other ones  │ table  │ pickle
    └────────┴──────────────────────────────┴───────────────────────┴────────┘

The object is pickled (protocol 5) without the bytes of its arrays; the table says where in the slot
these are. What `unpack` gives are views of them.

Classes that can be imported go by name. Others, as those of a user's script, go by value, and in a
process that has such a class already its own one is taken: the instance is one of that class.
"""

from __future__ import annotations

import io
import math
import operator
import pickle
import struct
import sys
import types
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cloudpickle
import numpy as np
import numpy.typing as npt

from chunkdl.errors import PackingError

HEADER_BYTES = 64
"""Of the slot; nothing else lies in them."""

_MAGIC = b"chunkdl1"
_HEADER = struct.Struct("<8sQQQQ")
"""Magic, start of the table, its entries, start and length of the pickle; a checksum follows."""
_ENTRY = struct.Struct("<QQ")
"""Start and length of a buffer; whether it is read-only is in the pickle."""
_LENGTH = struct.Struct("<I")

_BLOCK_ROWS = 64
_CACHE_LINE = 64
_ROW_OFFSET = 16
"""Where on a cache line arrays begin; `chunkdl.slides.readers.tiled` says what is slow at 0, 32."""


class Packer:
    """Puts one object into a slot; arrays made by `empty` lie there already.

    Args:
        slot: uint8 of shape (slot_bytes,), writable, borrowed.
        commit: called with (first, end) before the bytes [first, end) of the slot are written.
        shared: objects that the reader has too, as their numbers by their `id`; they travel as
            these numbers.
    """

    def __init__(
        self,
        slot: npt.NDArray[np.uint8],
        commit: Callable[[int, int], None] | None = None,
        shared: Mapping[int, int] | None = None,
    ) -> None:
        self._slot = slot
        self.shared = shared or {}
        self._commit = commit
        self._address: int = slot.ctypes.data
        self._end = HEADER_BYTES
        self._copies: list[tuple[int, npt.NDArray[Any]]] = []
        self._table: list[tuple[int, int]] = []

    @property
    def free_bytes(self) -> int:
        """Bytes of the slot that nothing lies in; each array takes up to 63 more than its size."""
        return max(0, self._slot.size - self._end)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8) -> npt.NDArray[Any]:
        """An array in the slot, C-contiguous and not initialised; `pack` does not copy it.

        Args:
            shape: of the array.
            dtype: of the array; not Python objects.

        Raises:
            PackingError: the slot has no room for it, or it would hold Python objects.
        """
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise PackingError(f"an array of {dtype} holds Python objects; use numbers or bytes")
        size = math.prod(map(operator.index, shape)) * dtype.itemsize
        offset = self._aligned(0 if dtype.itemsize > _ROW_OFFSET else _ROW_OFFSET)
        wanted = offset + size - self._end
        if wanted > self.free_bytes:
            raise PackingError(
                f"an array of shape {shape} and dtype {dtype} takes {wanted} bytes, "
                f"the slot has {self.free_bytes} free",
                wanted_bytes=wanted,
                available_bytes=self.free_bytes,
            )
        array: npt.NDArray[Any] = np.ndarray(shape, dtype, self._slot, offset)
        self._prepare(offset, offset + size)
        self._end = offset + size
        return array

    def pack(self, value: object) -> int:
        """Put an object into the slot; after an error the packer is as it was before.

        Returns:
            Bytes of the slot that are used, counted from its start.

        Raises:
            PackingError: it cannot be pickled, or is too large.
        """
        before = self._end
        self._copies, self._table = [], []
        try:
            return self._packed(value, before)
        except BaseException:
            self._end = before
            raise
        finally:
            self._copies, self._table = [], []

    def _packed(self, value: object, before: int) -> int:
        # Nothing is written until all sizes are known: an object that is too large costs no copy.
        stream = _pickled(value, self)
        table = b"".join([_ENTRY.pack(*entry) for entry in self._table])
        table_start = self._end
        stream_start = table_start + len(table)
        self._end = stream_start + len(stream)
        if self._end > self._slot.size:
            raise _too_large(value, self._end, self._slot.size)
        header = _HEADER.pack(_MAGIC, table_start, len(self._table), stream_start, len(stream))
        self._prepare(0, HEADER_BYTES)
        self._prepare(before, self._end)
        for offset, source in self._copies:
            _copy(np.ndarray(source.shape, source.dtype, self._slot, offset), source)
        with self._slot.data as slot:
            slot[: _HEADER.size] = header
            _LENGTH.pack_into(slot, _HEADER.size, zlib.crc32(table, zlib.crc32(header)))
            slot[table_start:stream_start] = table
            slot[stream_start : self._end] = stream
        return self._end

    def refer(self, buffer: pickle.PickleBuffer) -> None:
        """Note where a buffer lies, or will lie, in the slot; the pickler calls it for each."""
        data = np.frombuffer(buffer.raw(), np.uint8)
        offset = data.ctypes.data - self._address
        if not HEADER_BYTES <= offset <= offset + data.size <= self._end:
            offset = self._reserve(data)
        self._table.append((offset, data.size))

    def reduce(self, array: npt.NDArray[Any]) -> Any:
        """What the pickler writes for an array: a buffer and its shape; the order is kept."""
        dtype = array.dtype
        if dtype.hasobject:
            return NotImplemented
        axes = None
        if not array.flags.c_contiguous:
            # Seen along its strides the array may well be contiguous: (3, height, width) often is.
            order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
            axes = tuple(sorted(range(array.ndim), key=order.__getitem__))
            array = array.transpose(order)
        if array.flags.c_contiguous:
            data = array.reshape(-1).view(np.uint8)
        else:
            offset = self._reserve(array)
            data = self._slot[offset : offset + array.nbytes]
            data.flags.writeable = array.flags.writeable
        # Text is several times cheaper to pickle than a dtype.
        kind = dtype.str if dtype.isbuiltin == 1 else dtype
        return _array, (pickle.PickleBuffer(data.data), kind, array.shape, axes)

    def _reserve(self, source: npt.NDArray[Any]) -> int:
        """Where `source` will be copied to; that may lie behind the end of the slot."""
        offset = self._aligned(_ROW_OFFSET)
        self._end = offset + source.nbytes
        self._copies.append((offset, source))
        return offset

    def _aligned(self, to: int) -> int:
        """The first free byte whose address is `to` bytes past the start of a cache line."""
        return self._end + (to - self._address - self._end) % _CACHE_LINE

    def _prepare(self, first: int, end: int) -> None:
        if self._commit is not None and first < end:
            self._commit(first, end)


def _copy(out: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
    """Copy an array; RGB out of RGBA, as many readers give it, three times as fast as numpy does.

    numpy copies three bytes at a time there. Channel by channel its inner loop is a whole row, and
    in blocks of rows the lines are still in the cache when the next channel comes.
    """
    if source.ndim != 3 or source.shape[2] > 4 or source.flags.c_contiguous:
        out[...] = source
        return
    for top in range(0, source.shape[0], _BLOCK_ROWS):
        rows = slice(top, top + _BLOCK_ROWS)
        for channel in range(source.shape[2]):
            out[rows, :, channel] = source[rows, :, channel]


def unpack(
    slot: npt.NDArray[np.uint8], *, shared: Sequence[Any] = (), writable: bool = True
) -> Any:
    """The object that was packed; its arrays are views of the slot and keep its memory alive.

    Args:
        slot: uint8 of shape (slot_bytes,), as it was packed.
        shared: the objects that the writer had too, by number.
        writable: whether these views may be written; those of read-only arrays never may.

    Raises:
        PackingError: the slot holds no object, or one that cannot be rebuilt in this process.
    """
    view = slot.data if writable else slot.data.toreadonly()
    stream, entries = _located(view)
    buffers = [view[start : start + length] for start, length in entries]
    return _rebuilt(stream, buffers, shared)


def dump(value: object, out: npt.NDArray[np.uint8]) -> int:
    """Put a small object, its arrays included, into `out`, uint8 of shape (bytes,).

    Returns:
        Bytes of `out` that are used.

    Raises:
        PackingError: it cannot be pickled, or is too large.
    """
    stream = _pickled(value)
    end = _LENGTH.size + len(stream)
    if end > out.size:
        raise _too_large(value, end, out.size)
    with out.data as view:
        _LENGTH.pack_into(view, 0, len(stream))
        view[_LENGTH.size : end] = stream
    return end


def load(data: npt.NDArray[np.uint8]) -> Any:
    """The object that `dump` put into `data`; it shares no memory with it.

    Raises:
        PackingError: there is no object, or one that cannot be rebuilt in this process.
    """
    with data.data as view:
        end = _LENGTH.size
        if view.nbytes >= end:
            end += _LENGTH.unpack_from(view)[0]
        if view.nbytes < end:
            raise PackingError(f"{view.nbytes} bytes hold no object: it would take {end}")
        return _rebuilt(view[_LENGTH.size : end], [])


def pickled_apart(
    value: object, instead: Callable[[npt.NDArray[Any]], object] | None = None
) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """An object's pickle without the bytes of its contiguous arrays, and these, not copied.

    ``pickle.loads(stream, buffers=...)`` makes the object again, with the arrays on any memory of
    these lengths.

    Args:
        value: the object.
        instead: what to write for an array, where the pickle is only to be compared with others.

    Raises:
        PackingError: it cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    try:
        _Pickler(file, None, buffers.append, instead).dump(value)
    except Exception as error:
        raise _unpicklable(value, error) from error
    return file.getvalue(), buffers


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles what plain pickle does, and what only this process can import."""

    def __init__(
        self,
        file: io.BytesIO,
        packer: Packer | None,
        refer: Callable[[pickle.PickleBuffer], None] | None = None,
        instead: Callable[[npt.NDArray[Any]], object] | None = None,
    ) -> None:
        super().__init__(file, 5, refer if packer is None else packer.refer)
        self._packer = packer
        self._instead = instead

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if self._instead is not None and kind is np.ndarray and not value.dtype.hasobject:
            return list, ((self._instead(value),),)
        if kind is np.ndarray or kind is np.memmap:
            # Whatever file it maps, the reader gets an array in the slot.
            plain = value.view(np.ndarray)
            return NotImplemented if self._packer is None else self._packer.reduce(plain)
        if kind is types.FunctionType:
            return NotImplemented if _importable(value) else super().reducer_override(value)
        if issubclass(kind, type):
            return NotImplemented if _importable(value) else _by_value(value)
        return NotImplemented


class _Sharing(_Pickler):
    """Also writes shared objects as numbers; apart, since it asks for every object there is."""

    def __init__(self, file: io.BytesIO, packer: Packer) -> None:
        super().__init__(file, packer)
        self._shared = packer.shared

    def persistent_id(self, value: Any) -> int | None:
        return self._shared.get(id(value))


def _importable(value: type | types.FunctionType) -> bool:
    """Whether other processes find `value` under its name; the main module is another there."""
    if value.__module__ == "__main__":
        return False
    found: object = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


_class_streams: weakref.WeakKeyDictionary[type, bytes] = weakref.WeakKeyDictionary()


def _by_value(kind: type) -> tuple[Callable[[str | None, bytes], type], tuple[str | None, bytes]]:
    """What the pickler writes for a class: its identity, and how it was when first packed.

    Cloudpickle alone would write the class anew with every instance, and reading it would each
    time set all attributes of the reader's class again: slow, and it loses what changed there.
    Only a class that the reader lacks brings the classes that it refers to along in that way.
    """
    stream = _class_streams.get(kind)
    if stream is None:
        stream = _class_streams[kind] = cloudpickle.dumps(kind)
    return _class, (cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(kind), stream)


def _class(identity: str | None, stream: bytes) -> type:
    """The class of that identity: this process's own, or else a new one."""
    known: type | None = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(identity)
    return pickle.loads(stream) if known is None else known  # noqa: S301


def _array(
    buffer: memoryview,
    dtype: str | np.dtype[Any],
    shape: tuple[int, ...],
    axes: tuple[int, ...] | None,
) -> npt.NDArray[Any]:
    """A view of a buffer."""
    array: npt.NDArray[Any] = np.ndarray(shape, dtype, buffer)
    return array if axes is None else array.transpose(axes)


def _pickled(value: object, packer: Packer | None = None) -> memoryview:
    stream = io.BytesIO()
    try:
        if packer is not None and packer.shared:
            _Sharing(stream, packer).dump(value)
        else:
            _Pickler(stream, packer).dump(value)
    except Exception as error:
        raise _unpicklable(value, error) from error
    return stream.getbuffer()


def _unpicklable(value: object, error: Exception) -> PackingError:
    return PackingError(
        f"{type(value).__name__} cannot be pickled: {type(error).__name__}: {error}; "
        "leave out what belongs to one process, such as locks, sockets and open files"
    )


def _too_large(value: object, wanted: int, available: int) -> PackingError:
    return PackingError(
        f"{type(value).__name__} is too large: it takes {wanted / 2**20:.2f} MiB of shared "
        f"memory, there are {available / 2**20:.2f} MiB",
        wanted_bytes=wanted,
        available_bytes=available,
    )


def _located(slot: memoryview) -> tuple[memoryview, list[tuple[int, int]]]:
    """The pickle in the slot and the entries of its table, all of which lie in the slot."""
    size = slot.nbytes
    if size < HEADER_BYTES or slot[: len(_MAGIC)] != _MAGIC:
        raise PackingError("the slot holds no object: it was not packed, or by another version")
    _, table, count, stream, stream_bytes = _HEADER.unpack_from(slot)
    table_end, stream_end = table + count * _ENTRY.size, stream + stream_bytes
    if table_end <= size and stream_end <= size:
        (checksum,) = _LENGTH.unpack_from(slot, _HEADER.size)
        if checksum == zlib.crc32(slot[table:table_end], zlib.crc32(slot[: _HEADER.size])):
            entries = list(_ENTRY.iter_unpack(slot[table:table_end]))
            if all(start + length <= size for start, length in entries):
                return slot[stream:stream_end], entries
    raise PackingError("the object in the slot is damaged: its header or its table is wrong")


class _Unpickler(pickle.Unpickler):
    """Finds shared objects by their numbers."""

    def __init__(self, stream: memoryview, buffers: list[memoryview], shared: Sequence[Any]):
        super().__init__(io.BytesIO(stream), buffers=buffers)
        self._shared = shared

    def persistent_load(self, number: Any) -> Any:
        return self._shared[number]


def _rebuilt(stream: memoryview, buffers: list[memoryview], shared: Sequence[Any] = ()) -> Any:
    try:
        if shared:
            return _Unpickler(stream, buffers, shared).load()
        return pickle.loads(stream, buffers=buffers)  # noqa: S301
    except Exception as error:
        raise PackingError(
            f"the object cannot be rebuilt in this process: {type(error).__name__}: {error}"
        ) from error
