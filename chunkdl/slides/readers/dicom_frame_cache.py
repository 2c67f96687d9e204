"""Where frames lie, kept on disk: what was walked once is not walked again.

A file of the cache is named by the DICOM file that it is about, holds its own checksum and appears
whole or not at all. Whatever goes wrong with it costs time, never a run.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from chunkdl.system.kept_files import cache_folder, key_of, read_at_most, state_of, write_whole
from chunkdl.system.steady_log import steady_logger

_LOG = steady_logger(__name__)

# Part of every key: a change of the file format or of the search for frames raises it.
_VERSION = b"chunkdl frames 1"
_HEADER = struct.Struct("<16s32s32sQQ")
"""Version, key, sha256 of what follows it, frames, positions; then zlib of the arrays."""
_CHECKED_FROM = len(_VERSION) + 64
BYTES_A_FRAME, SPARE_BYTES = 40, 2**16
"""The most that a file has for each frame and beside, where compression makes it longer."""

Arrays = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]
]
"""Offsets, byte counts, columns, rows; the last two have as many numbers each."""


def kept_frames(path: str, frames: int) -> Arrays | None:
    """What was kept of a file, None where nothing sound was.

    A file counts as the same while its resolved path, size and time of change (ns) are the same.

    Args:
        path: the DICOM file.
        frames: how many it has.
    """
    key = _key(path)
    file = _file_of(key)
    try:
        most_bytes = _HEADER.size + BYTES_A_FRAME * frames + SPARE_BYTES
        return _decoded(read_at_most(file, most_bytes), key, frames)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _LOG.warning(
            "the kept table of frames %s cannot be used, and is made again: %s", file, error
        )
        return None


def keep_frames(path: str, arrays: Arrays) -> None:
    """Keep where the frames of a file lie.

    Args:
        path: the DICOM file.
        arrays: offsets, byte counts, columns, rows.
    """
    key = _key(path)
    file = _file_of(key)
    # Offsets rise by little more than the counts: differences make the file a third.
    steps = [np.diff(array, prepend=0).astype("<i8").tobytes() for array in arrays]
    body = zlib.compress(b"".join(steps), 3)
    facts = _HEADER.pack(_VERSION, key, bytes(32), len(arrays[0]), len(arrays[2]))
    checked = facts[_CHECKED_FROM:] + body
    data = _VERSION + key + hashlib.sha256(checked).digest() + checked
    try:
        write_whole(file, data)
    except OSError as error:
        _LOG.warning(
            "the places of the frames of %s cannot be kept (%s), so every process searches for "
            "them again; set XDG_CACHE_HOME to a writable folder",
            path,
            error,
        )


def _file_of(key: bytes) -> Path:
    return cache_folder("frames") / f"{key.hex()}.frames"


def _key(path: str) -> bytes:
    return key_of((_VERSION, os.fsencode(os.path.realpath(path)), state_of(path)))


def _decoded(data: bytes, key: bytes, frames: int) -> Arrays:
    """The arrays in a file; ValueError says what is wrong with it."""
    if len(data) < _HEADER.size:
        raise ValueError("it is truncated")
    version, kept_key, checksum, kept, positions = _HEADER.unpack_from(data)
    if version != _VERSION or kept_key != key:
        raise ValueError("it is about another file")
    if hashlib.sha256(data[_CHECKED_FROM:]).digest() != checksum:
        raise ValueError("it is damaged")
    if kept != frames or positions not in (0, frames):
        raise ValueError(f"it has {kept} frames and {positions} positions, the file {frames}")
    length = 16 * (kept + positions)
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(data[_HEADER.size :], length + 1)
    except zlib.error as error:
        raise ValueError(f"it does not decompress: {error}") from error
    if len(body) != length or not inflater.eof:
        raise ValueError("its numbers do not fit its size")
    numbers = np.frombuffer(body, "<i8").astype(np.int64)
    bounds = kept, 2 * kept, 2 * kept + positions
    offsets, counts, columns, rows = (np.cumsum(part) for part in np.split(numbers, bounds))
    return offsets, counts, columns, rows
