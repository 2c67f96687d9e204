"""Imports of the library's own that are made when they are needed, and not at the start.

The path that a program of chunkdl gets for the user's code begins with what the training has there,
also with a folder in which a `tifffile.py` happens to lie. What chunkdl imports itself is never
taken from such a folder, however late it is.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence

_path: tuple[str, ...] | None = None
_one_at_a_time = threading.RLock()


def remember_path(path: Sequence[str]) -> None:
    """What is imported by `importing_ours` from now on is found along this `sys.path`."""
    global _path
    _path = tuple(path)


@contextlib.contextmanager
def importing_ours() -> Iterator[None]:
    """Import modules of the library. In a process that is none of its programs nothing is changed.

    Any thread may do it. What another one imports meanwhile is found along the same path.
    """
    if _path is None:
        yield
        return
    with _one_at_a_time:
        before = sys.path[:]
        sys.path[:] = _path
        try:
            yield
        finally:
            sys.path[:] = before
