"""What a service may answer: a consumer looks at the numbers before it works with them. Pure."""

from __future__ import annotations

import math
import re

import numpy as np

from chunkdl.errors import ProtocolError, ServiceRefused
from chunkdl.transport.protocol.service_messages import Delivered, Joined, RowFormat

MOST_ROWS = 2**20
"""Of a batch."""
MOST_BATCH_BYTES = 2**36
MOST_PX = 2**16
MOST_SILENT_S = 1e6

_DTYPE = re.compile(r"[<>|=]?[biufc][0-9]{1,2}")
"""Plain numbers; an object dtype would take bytes for addresses."""


def check_joined(joined: Joined, before: Joined | None, *, local: bool) -> None:
    """See that a session can be what the service says.

    Args:
        joined: what it says.
        before: what it said before the connection was lost; None: it is the first time.
        local: memory can be passed.

    Raises:
        ProtocolError: it cannot.
        ServiceRefused: it is no longer the same service.
    """
    sound = (
        joined.local == local
        and 1 <= joined.batch_rows <= MOST_ROWS
        and 1 <= joined.stream_rows <= MOST_ROWS
        and 1 <= joined.smallchunk_px <= MOST_PX
        and joined.batch_rows * joined.smallchunk_px**2 * 3 <= MOST_BATCH_BYTES
        and joined.stream_rows * joined.smallchunk_px**2 * 3 <= MOST_BATCH_BYTES
        and min(joined.patients, joined.slides, joined.step) >= 0
        and joined.credit_batches >= 1
        and 0 < joined.silent_s <= MOST_SILENT_S
        and joined.position.left.is_sound()
    )
    if not sound:
        raise ProtocolError("the service opened a session whose numbers cannot be")
    if before is not None and _fixed(joined) != _fixed(before):
        raise ServiceRefused(
            "the service came back with another configuration; connect anew, from a state"
        )


def _fixed(joined: Joined) -> tuple[object, ...]:
    rows = joined.stream_rows, joined.batch_rows, joined.smallchunk_px, joined.plain
    return joined.rows_hash, joined.mode, *rows, joined.patients, joined.slides


def check_rows_lie(lie: RowFormat, joined: Joined) -> None:
    """See that rows can lie like this; raises as `check_joined`."""
    try:
        size = np.dtype(lie.dtype).itemsize if _DTYPE.fullmatch(lie.dtype) else 0
    except TypeError:
        size = 0
    row_bytes = size * math.prod(lie.shape)
    most_rows = max(joined.batch_rows, joined.stream_rows)
    if not size or min(lie.shape, default=0) < 0 or row_bytes * most_rows > MOST_BATCH_BYTES:
        raise ProtocolError(
            f"the service has rows of {lie.dtype[:20]!r} {lie.shape[:8]}, which cannot be"
        )


def check_delivered(message: Delivered, joined: Joined) -> None:
    """See that a batch has rows, which fit, of batches that have them; raises as `check_joined`."""
    rows = sum(piece.rows for piece in message.pieces)
    if not 1 <= rows <= joined.batch_rows:
        raise ProtocolError(f"a batch of {rows} rows, where 1 to {joined.batch_rows} fit")
    for piece in message.pieces:
        inside = 0 <= piece.first < piece.first + piece.rows <= joined.stream_rows
        if not inside or len(piece.dropped) % 4:
            raise ProtocolError(f"a batch with rows {piece.first} to {piece.first + piece.rows}")
        if not piece.dropped:
            continue
        dropped = np.frombuffer(piece.dropped, dtype=np.int32)
        if not 0 <= dropped.min() <= dropped.max() < piece.rows:
            raise ProtocolError("a batch without rows that it does not have")
    if not message.after.left.is_sound():
        raise ProtocolError("a batch came without the position behind it")
