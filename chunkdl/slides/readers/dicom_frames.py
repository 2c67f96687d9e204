"""Where the frames of one DICOM file lie: in its offset tables, or found from item to item.

The pixel data of a coded picture are items, each with a header of 8 bytes. A table says where the
item of each frame begins; many files have none, and then only the items themselves tell. What
had to be sought is kept on disk, so that 180,000 items are walked once and not by every process.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chunkdl.slides.readers.dicom_frame_cache import keep_frames, kept_frames
from chunkdl.slides.readers.dicom_header import PER_FRAME_GROUPS, Instance
from chunkdl.slides.readers.dicom_tags import EXPLICIT_LITTLE_ENDIAN, LONG_VRS
from chunkdl.slides.readers.refusals import NotTaken

Numbers = npt.NDArray[np.int64]

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA, EXTENDED_OFFSETS, EXTENDED_LENGTHS = 0x7FE00010, 0x7FE00001, 0x7FE00002
COLUMN_POSITION, ROW_POSITION = 0x0048021E, 0x0048021F
UNDEFINED = 0xFFFFFFFF
BLOCK = 2**16
SMALL_ITEM = 2**11
"""Items that are larger on average are not worth reading to find the next one."""
MOST_FRAGMENTS = 2**16
"""Items beyond one for each frame, after which a walk ends."""
KEPT_FROM_FRAMES = 256
"""Fewer frames are found sooner than a file of the cache."""
MOST_GROUP_BYTES = 2**29
"""Of the groups of single frames; some hundred bytes a frame are usual."""


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The frames of a file in their stored order.

    Attributes:
        offsets: first byte of each; of coded frames this is the header of the first item.
        byte_counts: bytes up to the end of its last item.
        columns, rows: of the first pixel of each in the total pixel matrix, counted from 0; empty
            where the file does not say.
    """

    offsets: Numbers
    byte_counts: Numbers
    columns: Numbers
    rows: Numbers


def frames_of(instance: Instance) -> Frames:
    """Where the frames of a file are.

    Raises:
        NotTaken: they are stored in a way that is not read.
        ValueError, OSError: the file is damaged or cut short.
    """
    kept = kept_frames(instance.path, instance.frames)
    if kept is not None:
        frames = Frames(*kept)
        _check(instance, frames)
        return frames
    with open(instance.path, "rb", buffering=0) as file:
        tail = _read_tail(file.fileno(), instance)
        found = _located(file.fileno(), instance, tail)
    offsets, byte_counts = found
    if instance.syntax != EXPLICIT_LITTLE_ENDIAN:
        # An item without a byte stands for a frame that was not stored.
        byte_counts = np.where(byte_counts <= 8, 0, byte_counts)
    frames = Frames(offsets, byte_counts, tail.columns, tail.rows)
    _check(instance, frames)
    if instance.frames >= KEPT_FROM_FRAMES:
        keep_frames(instance.path, (offsets, byte_counts, frames.columns, frames.rows))
    return frames


def item_data(stream: bytes) -> bytes:
    """The coded picture in the items of one frame.

    Raises:
        ValueError: these bytes are no items, so the table of the file points to the wrong place.
    """
    parts = []
    at = 0
    while at + 8 <= len(stream):
        tag, size = _tag_and_size(stream, at)
        if tag != ITEM or size > len(stream) - at - 8:
            raise ValueError("the table of frames does not point at frames: the file is damaged")
        parts.append(stream[at + 8 : at + 8 + size])
        at += 8 + size
    if at != len(stream) or not parts:
        raise ValueError("the table of frames does not point at frames: the file is damaged")
    return parts[0] if len(parts) == 1 else b"".join(parts)


# ---- The end of the header


@dataclass(frozen=True, slots=True, eq=False)
class _Tail:
    """What follows the header proper.

    Attributes:
        columns, rows: positions of the frames, counted from 0; empty where there are none.
        extended_offsets, extended_lengths: values of the extended tables, None where absent.
        data_at: first byte of the value of the pixel data.
        data_bytes: length of that value, None for items.
    """

    columns: Numbers
    rows: Numbers
    extended_offsets: bytes | None
    extended_lengths: bytes | None
    data_at: int
    data_bytes: int | None


def _read_tail(descriptor: int, instance: Instance) -> _Tail:
    """Read on from the groups of single frames to the pixel data."""
    scan = _Elements(descriptor, instance.rest, instance.file_bytes)
    places: dict[int, list[int]] = {COLUMN_POSITION: [], ROW_POSITION: []}
    tables: dict[int, bytes] = {}
    wanted = instance.organization != "TILED_FULL"
    depth = 0
    for tag, vr, size in scan:
        if tag == PIXEL_DATA and depth == 0 and not scan.inside:
            return _Tail(
                columns=np.asarray(places[COLUMN_POSITION], np.int64) - 1,
                rows=np.asarray(places[ROW_POSITION], np.int64) - 1,
                extended_offsets=tables.get(EXTENDED_OFFSETS),
                extended_lengths=tables.get(EXTENDED_LENGTHS),
                data_at=scan.at,
                data_bytes=None if size == UNDEFINED else size,
            )
        if tag in (ITEM, ITEM_END):
            if size != UNDEFINED and not wanted:
                scan.skip(size)
        elif tag == SEQUENCE_END:
            depth -= 1
        elif size == UNDEFINED:
            if vr != b"SQ":
                raise NotTaken(f"an element {tag:08X} of kind {vr!r} has no stated length")
            depth += 1
        elif vr == b"SQ" and wanted and (depth or tag == PER_FRAME_GROUPS or scan.inside):
            scan.enter(size)
        elif tag in places and wanted and size == 4:
            places[tag].append(int.from_bytes(scan.value(size), "little", signed=True))
            if len(places[tag]) > instance.frames:
                raise ValueError(f"more positions than its {instance.frames} frames")
        elif tag in (EXTENDED_OFFSETS, EXTENDED_LENGTHS) and depth == 0:
            if size != 8 * instance.frames:
                raise ValueError(f"{size} bytes of offsets for {instance.frames} frames")
            tables[tag] = scan.value(size)
        else:
            scan.skip(size)
    raise ValueError("it ends before its pixel data: it is cut short, copy it again")


class _Elements:
    """The elements of a file one after the other; sequences and items are entered by going on."""

    def __init__(self, descriptor: int, at: int, end: int) -> None:
        self.at = at
        self._descriptor = descriptor
        self._first = at
        self._end = end
        self._inside_until = at
        self._block = b""
        self._block_at = at

    @property
    def inside(self) -> bool:
        """Whether the next element lies in a sequence of stated length that was entered."""
        return self.at < self._inside_until

    def __iter__(self) -> Iterator[tuple[int, bytes, int]]:
        """Tag, kind and length; `at` is then the first byte of the value."""
        while self.at + 8 <= self._end:
            if self.at - self._first > MOST_GROUP_BYTES:
                raise ValueError(f"more than {MOST_GROUP_BYTES} bytes before its pixel data")
            header = self._peek(12)
            group, element, vr, size = _HEADER.unpack_from(header)
            if group == 0xFFFE:
                (size,) = _SIZE.unpack_from(header, 4)
                self.at += 8
            elif vr in LONG_VRS:
                if len(header) < 12:
                    return
                (size,) = _SIZE.unpack_from(header, 8)
                self.at += 12
            else:
                self.at += 8
            yield group << 16 | element, vr, size

    def enter(self, size: int) -> None:
        """Go on with what is in a sequence of that length."""
        self._inside_until = max(self._inside_until, self.at + size)

    def skip(self, size: int) -> None:
        """Go on after a value."""
        self.at += size

    def value(self, size: int) -> bytes:
        """The value at this place, which is then passed."""
        if size > self._end - self.at:
            raise ValueError("an element ends beyond the end of the file: it is cut short")
        data = self._peek(size) if size <= 12 else os.pread(self._descriptor, size, self.at)
        self.at += size
        return data[:size]

    def _peek(self, size: int) -> bytes:
        start = self.at - self._block_at
        if start < 0 or start + size > len(self._block):
            self._block = os.pread(self._descriptor, BLOCK, self.at)
            self._block_at = self.at
            start = 0
        return self._block[start : start + size]


_HEADER = struct.Struct("<HH2sH")
_SIZE = struct.Struct("<I")


# ---- The frames


def _located(descriptor: int, instance: Instance, tail: _Tail) -> tuple[Numbers, Numbers]:
    """Offsets and byte counts of the frames."""
    if instance.syntax == EXPLICIT_LITTLE_ENDIAN:
        return _uncompressed(instance, tail)
    if tail.data_bytes is not None:
        raise ValueError("its coded pixel data are not in items: the file is damaged")
    tag, size = _item_header(descriptor, tail.data_at)
    first = tail.data_at + 8 + size
    if tag != ITEM or first > instance.file_bytes:
        raise ValueError("its pixel data do not begin with an offset table: the file is damaged")
    if tail.extended_offsets is not None and tail.extended_lengths is not None:
        found = _extended(first, tail.extended_offsets, tail.extended_lengths)
        if _points_at_items(descriptor, found[0], instance.file_bytes):
            return found
    if size == 4 * instance.frames:
        table = os.pread(descriptor, size, tail.data_at + 8)
        offsets = first + np.frombuffer(table, "<u4").astype(np.int64)
        if _points_at_items(descriptor, offsets, instance.file_bytes):
            return offsets, _counts(descriptor, offsets, instance)
    return _walked(descriptor, first, instance)


def _uncompressed(instance: Instance, tail: _Tail) -> tuple[Numbers, Numbers]:
    count = instance.frame_width * instance.frame_height * instance.samples
    count *= instance.bits_allocated // 8
    needed = count * instance.frames
    if tail.data_bytes is None or not needed <= tail.data_bytes <= needed + 1:
        raise ValueError(f"{tail.data_bytes} bytes of pixels instead of {needed}")
    starts = tail.data_at + np.arange(instance.frames, dtype=np.int64) * count
    return starts, np.full(instance.frames, count, np.int64)


def _extended(first: int, offsets: bytes, lengths: bytes) -> tuple[Numbers, Numbers]:
    starts, sizes = np.frombuffer(offsets, "<u8"), np.frombuffer(lengths, "<u8")
    if max(int(starts.max()), int(sizes.max())) >= 2**48:
        raise ValueError("an extended offset table with impossible numbers")
    # An item has an even length, the table may have that of the frame.
    counts = 8 + sizes.astype(np.int64) + (sizes & np.uint64(1)).astype(np.int64)
    return first + starts.astype(np.int64), counts


def _points_at_items(descriptor: int, offsets: Numbers, end: int) -> bool:
    """Whether a table can be right: it rises, and some of its places are items."""
    # A basic table has 32 bits: beyond 4 GiB its numbers begin again at 0.
    if (np.diff(offsets) <= 0).any() or int(offsets[-1]) + 8 > end:
        return False
    probes = {0, len(offsets) // 2, len(offsets) - 1}
    return all(_item_header(descriptor, int(offsets[probe]))[0] == ITEM for probe in probes)


def _counts(descriptor: int, offsets: Numbers, instance: Instance) -> Numbers:
    """Bytes of each frame of a table that has only the first."""
    at = int(offsets[-1])
    for _ in range(MOST_FRAGMENTS):
        tag, size = _item_header(descriptor, at)
        if tag != ITEM:
            break
        at += 8 + size
    return np.diff(offsets, append=at)


def _walked(descriptor: int, at: int, instance: Instance) -> tuple[Numbers, Numbers]:
    """Offsets and byte counts by going from item to item."""
    first = at
    starts: list[int] = []
    block, block_at = b"", at
    while len(starts) <= instance.frames + MOST_FRAGMENTS:
        if at + 8 > block_at + len(block):
            large = at - first > SMALL_ITEM * max(1, len(starts))
            block, block_at = os.pread(descriptor, 8 if large else BLOCK, at), at
        if len(block) < 8:
            if at == instance.file_bytes and len(starts) == instance.frames:
                break  # only the end mark is missing
            raise ValueError(
                f"it ends after {len(starts)} of {instance.frames} frames: it is cut short, copy "
                "it again"
            )
        tag, size = _tag_and_size(block, at - block_at)
        if tag == SEQUENCE_END:
            break
        if tag != ITEM:
            raise ValueError(f"no item at byte {at} of its pixel data: the file is damaged")
        starts.append(at)
        at += 8 + size
    if instance.frames == 1 and starts:
        starts = starts[:1]
    if len(starts) > instance.frames:
        raise NotTaken(
            f"its {instance.frames} frames are stored in more items than frames, and no table "
            "says which items belong together"
        )
    if len(starts) < instance.frames:
        raise ValueError(f"{len(starts)} items for {instance.frames} frames: the file is damaged")
    offsets = np.asarray(starts, np.int64)
    return offsets, np.diff(offsets, append=at)


def _check(instance: Instance, frames: Frames) -> None:
    """Check that all frames lie in the file, and that none is larger than a frame can be."""
    if int((frames.offsets + frames.byte_counts).max()) > instance.file_bytes:
        raise ValueError("frames end beyond the end of the file: it is cut short, copy it again")
    # No coding makes a frame much larger than its pixels; beyond that the header is damaged.
    pixels = instance.frame_width * instance.frame_height
    if int(frames.byte_counts.max()) > 4 * 3 * pixels + 2**20:
        raise ValueError("its frames claim more bytes than the file has: the file is damaged")


def _item_header(descriptor: int, at: int) -> tuple[int, int]:
    data = os.pread(descriptor, 8, at)
    return _tag_and_size(data, 0) if len(data) == 8 else (0, 0)


def _tag_and_size(data: bytes, at: int) -> tuple[int, int]:
    group, element, size = _ITEM_HEADER.unpack_from(data, at)
    return group << 16 | element, size


_ITEM_HEADER = struct.Struct("<HHI")
