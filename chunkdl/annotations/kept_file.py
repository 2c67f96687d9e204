"""How the annotations of one slide lie in a file, and are mapped from it.

Whoever only looks at them needs none of what reads and mends the files of other programs.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from chunkdl.annotations.shapes import ARRAYS, Annotations
from chunkdl.errors import AnnotationError

VERSION = b"chunkdl shapes 1"
_HEADER = struct.Struct("<16s32s32sQ")
"""Version, key, SHA-256 of all behind it, length of the facts; then the facts, then the arrays."""
_CHECKED_FROM = len(VERSION) + 64
_ALIGNED = 64


class _Facts(msgspec.Struct):
    """What a file says before its arrays; `lengths` is empty where there are no annotations."""

    classes: list[str]
    notes: list[str]
    lengths: dict[str, int]


_FACTS = msgspec.msgpack.Decoder(_Facts)


def kept_annotations(kept_in: str) -> Annotations | None:
    """What another process has kept in a file, mapped.

    Raises:
        AnnotationError: it is not there any more, or damaged.
    """
    file = Path(kept_in)
    try:
        return mapped(file, bytes.fromhex(file.stem))
    except (OSError, ValueError) as error:
        raise AnnotationError(
            f"annotations were kept there and cannot be read any more ({error}); do not empty the "
            "cache folder during a run",
            file=kept_in,
        ) from error


def encoded(annotations: Annotations | None, key: bytes) -> bytes:
    """The bytes of a file that is known by that key; None: the slide has no annotations."""
    arrays = {} if annotations is None else annotations.arrays()
    facts = msgspec.msgpack.encode(
        _Facts(
            list(annotations.classes) if annotations else [],
            list(annotations.notes) if annotations else [],
            {name: len(array) for name, array in arrays.items()},
        )
    )
    parts = [struct.pack("<Q", len(facts)), facts]
    at = _HEADER.size + len(facts)
    for name, array in arrays.items():
        parts.append(bytes(-at % _ALIGNED))
        parts.append(np.ascontiguousarray(array, ARRAYS[name][0]).tobytes())
        at += len(parts[-2]) + len(parts[-1])
    checksum = hashlib.sha256()
    for part in parts:
        checksum.update(part)
    return b"".join([VERSION, key, checksum.digest(), *parts])


def mapped(file: Path, key: bytes) -> Annotations | None:
    """The annotations in a file; its pages are shared with all who map it.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: what is wrong with it.
    """
    with file.open("rb") as opened:
        if os.fstat(opened.fileno()).st_size < _HEADER.size:
            raise ValueError("it is truncated")
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    version, kept_key, checksum, length = _HEADER.unpack_from(data)
    if version != VERSION or kept_key != key:
        raise ValueError("it is not of these annotations")
    with memoryview(data) as whole, whole[_CHECKED_FROM:] as checked:
        if hashlib.sha256(checked).digest() != checksum:
            raise ValueError("it is damaged")
    facts = _FACTS.decode(data[_HEADER.size : _HEADER.size + length])
    if not facts.lengths:
        return None
    at = _HEADER.size + length
    arrays: dict[str, Any] = {}
    for name, (dtype, behind) in ARRAYS.items():
        at += -at % _ALIGNED
        shape = (facts.lengths[name], *behind)
        count = int(np.prod(shape))
        # Of no bytes numpy makes no view.
        flat = np.frombuffer(data, dtype, count, at) if count else np.empty(0, dtype)
        arrays[name] = flat.reshape(shape)
        at += flat.nbytes
    return Annotations(
        classes=tuple(facts.classes), notes=tuple(facts.notes), kept_in=str(file), **arrays
    )
