"""The process that has started a service for itself, as the service sees it."""

from __future__ import annotations

import contextlib
import os
import socket

from chunkdl.transport.channel import send
from chunkdl.transport.given import training_stderr
from chunkdl.transport.protocol.codec import encode
from chunkdl.transport.protocol.engine_messages import Message


class Starter:
    """Told that the service is up; its end is noticed, however it comes.

    Args:
        channel: private channel to it.
        pid: of it.
    """

    def __init__(self, channel: socket.socket, pid: int) -> None:
        self._channel = channel
        try:
            # A fork of it may have the channel too, and live on.
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = -1

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What becomes readable when it has ended, or has let go of the service."""
        line = self._channel.fileno()
        return (line, self._pidfd) if self._pidfd >= 0 else (line,)

    def tell(self, message: Message) -> None:
        """Say something to it, if it is still there."""
        with contextlib.suppress(OSError):
            send(self._channel, encode(message))

    def detach(self) -> None:
        """It has ended: nobody passes on any more what is written to stderr here."""
        stderr = training_stderr()
        os.dup2(stderr, 2)
        os.close(stderr)
        self._channel.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
