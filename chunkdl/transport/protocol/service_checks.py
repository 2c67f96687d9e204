"""What a service may answer: a consumer looks at the numbers before it works with them. Pure."""

from __future__ import annotations

import re

import numpy as np

from chunkdl.errors import ProtocolError, ServiceRefused
from chunkdl.transport.protocol.service_messages import Delivered, Joined
from chunkdl.transport.row_format import (
    MOST_COLUMNS,
    OF_ANNOTATIONS,
    ColumnFormat,
    RowFormat,
    wrong_name,
)

MOST_CONSUMER_ROWS = 2**20
"""Of a batch that a consumer may ask for, or be told of: memory is taken for what it says."""
MOST_BATCH_BYTES = 2**36
MOST_SIDE = 2**31
MOST_AXES = 32
"""Of an array, which is what any numpy has."""
MOST_SILENT_S = 1e6
MOST_FOOTPRINT_PX = 2**15
"""As large as a BigChunk can be."""

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
        and 1 <= joined.batch_rows <= MOST_CONSUMER_ROWS
        and 1 <= joined.stream_rows <= MOST_CONSUMER_ROWS
        and min(joined.patients, joined.slides, joined.step) >= 0
        and joined.credit_batches >= 1
        and 0 < joined.silent_s <= MOST_SILENT_S
        and 0 <= joined.footprint_px <= MOST_FOOTPRINT_PX
        and len(joined.regions) <= MOST_REGIONS
        and joined.position.left.is_sound()
    )
    if not sound:
        raise ProtocolError("the service opened a session with impossible numbers")
    if joined.row_format is not None:
        check_row_format(joined.row_format, joined)
    if before is not None and _fixed(joined) != _fixed(before):
        raise ServiceRefused(
            "the service came back with another configuration; connect anew, from a state"
        )


def _fixed(joined: Joined) -> tuple[object, ...]:
    rows = joined.stream_rows, joined.batch_rows, joined.row_format
    return joined.rows_hash, joined.mode, *rows, joined.patients, joined.slides


MOST_REGIONS = 255


def check_row_format(row_format: RowFormat, joined: Joined) -> None:
    """See that rows can have these columns; raises as `check_joined`."""
    names = [column.name for column in row_format.columns]
    if not 1 <= len(names) <= MOST_COLUMNS or len(set(names)) < len(names) or row_format.packed:
        raise ProtocolError(f"the service has rows of {len(names)} columns, which is impossible")
    size = 0
    for column in row_format.columns:
        if not _can_be(column):
            raise ProtocolError(
                f"the service has rows of {column.name[:20]!r} {column.dtype[:20]!r} "
                f"{column.shape[:8]}, which is impossible"
            )
        size += column.row_bytes
    if size * max(joined.batch_rows, joined.stream_rows) > MOST_BATCH_BYTES:
        raise ProtocolError(f"the service has rows of {size} bytes, which is impossible")


def _can_be(column: ColumnFormat) -> bool:
    wrong = column.name not in OF_ANNOTATIONS and wrong_name(column.name)
    if not _DTYPE.fullmatch(column.dtype) or wrong:
        return False
    try:
        kind = np.dtype(column.dtype)
    except TypeError:
        return False
    if not kind.isnative or kind.itemsize > (16 if kind.kind == "c" else 8):
        return False
    image = not column.is_image or len(column.shape) == 3
    axes = all(0 <= side < MOST_SIDE for side in column.shape)
    return image and axes and len(column.shape) <= MOST_AXES


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
