"""Messages and descriptors over a private Unix socket pair between parent and child.

The pair keeps message boundaries, ends with the peer (the kernel reports its death as an end of
file), has no name that could be left behind or reached by anybody else, and can carry descriptors
(SCM_RIGHTS).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from chunkdl.errors import ProtocolError
from chunkdl.system.awake_clock import AwakeClock
from chunkdl.transport.memory.arena import create_memory
from chunkdl.transport.protocol.codec import MAX_MESSAGE_BYTES

PIECE_S = 0.5
"""A wait is counted in pieces of that, seconds."""


def channel() -> tuple[socket.socket, socket.socket]:
    """Two connected ends that keep message boundaries."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one message; blocks while the peer's queue is full.

    Raises:
        ProtocolError: the message is too large.
        OSError: the peer is gone.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f"a message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are allowed"
        )
    if descriptors:
        socket.send_fds(end, [data], list(descriptors))
    else:
        end.send(data)


def receive(end: socket.socket, descriptors: int = 0) -> tuple[bytes, list[int]]:
    """The next message and its descriptors; b"" when the peer is gone."""
    if not descriptors:
        return end.recv(MAX_MESSAGE_BYTES), []
    data, received, _, _ = socket.recv_fds(end, MAX_MESSAGE_BYTES, descriptors)
    return data, list(received)


def first_message(
    end: socket.socket, clock: AwakeClock, timeout_s: float, descriptors: int = 0
) -> tuple[bytes, list[int]] | None:
    """What `receive` gives, of a peer that is just starting; None: nothing came in that time.

    Args:
        end: ours; it blocks afterwards.
        clock: by which the time counts; it is looked at every `PIECE_S`.
        timeout_s: longest wait, seconds.
        descriptors: that may come with it.
    """
    until_s = clock.now() + timeout_s
    end.settimeout(min(PIECE_S, timeout_s))
    try:
        while True:
            with contextlib.suppress(TimeoutError, BlockingIOError):
                return receive(end, descriptors)
            if clock.now() >= until_s:
                return None
    finally:
        end.settimeout(None)


def descriptor_of(data: bytes) -> int:
    """An anonymous file with `data` in it, for a child to inherit; the caller closes it."""
    descriptor = create_memory("chunkdl-specification", max(1, len(data)))
    os.pwrite(descriptor, data, 0)
    return descriptor


def content_of(descriptor: int) -> bytes:
    """What `descriptor_of` put there; the place in the file is shared and stays as it is."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def private_address(place: int) -> str:
    """The address of a socket without a name, of which this process has a descriptor (O_PATH)."""
    return f"ipc:///proc/self/fd/{place}"
