"""Where frames lie, kept on disk: what was walked once is not walked again.

A file of the cache is named by the DICOM file that it is about, holds its own checksum and appears
whole or not at all. Whatever goes wrong with it costs time, never a run.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from chunkdl.system.steady_log import steady_logger

_LOG = steady_logger(__name__)

# Part of every key: a change of the file format or of the search for frames raises it.
_VERSION = b"chunkdl frames 1"
_HEADER = struct.Struct("<16s32s32sQQ")
"""Version, key, sha256 of what follows it, frames, positions; then zlib of the arrays."""
_CHECKED_FROM = len(_VERSION) + 64

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
    file = _folder() / f"{key.hex()}.frames"
    try:
        with file.open("rb") as opened:
            if os.fstat(opened.fileno()).st_size > _HEADER.size + 40 * frames + 2**16:
                raise ValueError("it is too large")
            return _decoded(opened.read(), key, frames)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _LOG.warning("the table of frames %s is not usable and is made anew: %s", file, error)
        return None


def keep_frames(path: str, arrays: Arrays) -> None:
    """Keep where the frames of a file lie.

    Args:
        path: the DICOM file.
        arrays: offsets, byte counts, columns, rows.
    """
    key = _key(path)
    file = _folder() / f"{key.hex()}.frames"
    # Offsets rise by little more than the counts: differences make the file a third.
    steps = [np.diff(array, prepend=0).astype("<i8").tobytes() for array in arrays]
    body = zlib.compress(b"".join(steps), 3)
    facts = _HEADER.pack(_VERSION, key, bytes(32), len(arrays[0]), len(arrays[2]))
    checked = facts[_CHECKED_FROM:] + body
    data = _VERSION + key + hashlib.sha256(checked).digest() + checked
    # Never two writers in one file; a rename within a folder replaces the old one at once.
    unfinished = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(data)
            os.replace(unfinished, file)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        _LOG.warning(
            "where the frames of %s lie cannot be kept (%s); every process seeks them again unless "
            "XDG_CACHE_HOME names a folder that can be written",
            path,
            error,
        )


def _folder() -> Path:
    """`$XDG_CACHE_HOME/chunkdl/frames`, or `~/.cache/chunkdl/frames` where that is not set."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~/.cache"))
    return base / "chunkdl" / "frames"


def _key(path: str) -> bytes:
    facts = os.stat(path)
    name = os.fsencode(os.path.realpath(path))
    parts = _VERSION, name, f"{facts.st_size} {facts.st_mtime_ns}".encode()
    # The length before each part keeps different lists of parts different as bytes.
    return hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in parts)).digest()


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
