"""Looks on a channel between parent and child, whose messages are smaller than some looks."""

from __future__ import annotations

import socket

from chunkdl.errors import ProtocolError
from chunkdl.transport.channel import send

PIECE_BYTES = 48 * 1024
MOST_BYTES = 2**22
"""Of a whole: a picture, and texts that are cut."""
_MORE, _LAST = b"+", b"."


def send_in_pieces(end: socket.socket, data: bytes) -> None:
    """Send bytes of any length; blocks while the peer's queue is full.

    Raises:
        OSError: the peer is gone.
    """
    for start in range(0, max(1, len(data)), PIECE_BYTES):
        is_last = start + PIECE_BYTES >= len(data)
        send(end, (_LAST if is_last else _MORE) + data[start : start + PIECE_BYTES])


class Pieces:
    """Puts together what came in pieces."""

    def __init__(self) -> None:
        self._data = bytearray()

    def take(self, piece: bytes) -> bytes | None:
        """The whole, once it is there.

        Raises:
            ProtocolError: it is too large.
        """
        self._data += piece[1:]
        if len(self._data) > MOST_BYTES:
            raise ProtocolError(f"a look of more than {MOST_BYTES} bytes")
        if piece[:1] == _MORE:
            return None
        whole = bytes(self._data)
        self._data.clear()
        return whole
