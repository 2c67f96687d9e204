"""Notes: the small objects of a user that travel in messages between loads and processes.

A message to a patient, a checkpoint, a status. They are pickled where they are made and unpickled
where the user's code is; nobody between looks into them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chunkdl.errors import PackingError
from chunkdl.transport.memory.packing import dump, load

MAX_NOTE_BYTES = 31 * 1024
"""So that two of them fit into one message."""


def note_of(value: Any, what: str) -> bytes:
    """The bytes of a note; none for None.

    Args:
        value: what the user's code gave.
        what: for the error, as in "a checkpoint".

    Raises:
        PackingError: it cannot be pickled, or is larger than `MAX_NOTE_BYTES`.
    """
    if value is None:
        return b""
    buffer = np.empty(MAX_NOTE_BYTES, dtype=np.uint8)
    try:
        used = dump(value, buffer)
    except PackingError as error:
        raise PackingError(
            f"{what} is pickled into at most {MAX_NOTE_BYTES // 1024} KiB; keep large things in a "
            f"file and its name in {what}: {error}"
        ) from error
    return buffer[:used].tobytes()


def value_of(note: bytes) -> Any:
    """What `note_of` was given."""
    return load(np.frombuffer(note, dtype=np.uint8)) if note else None
