"""The coordinator of an embedded service, as a process: started, heard over its channel, ended.

The private channel carries what must not come from a socket, and its end of file is the death of
whoever is at the other end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections import deque

import cloudpickle

from chunkdl.engine.config import EngineConfig
from chunkdl.errors import ChunkdlError, ProtocolError, ServiceDied
from chunkdl.system.awake_clock import AwakeClock
from chunkdl.transport.channel import PIECE_S, channel, descriptor_of, first_message
from chunkdl.transport.programs import ChildProgram
from chunkdl.transport.protocol.codec import MAX_MESSAGE_BYTES, decode, encode
from chunkdl.transport.protocol.engine_messages import (
    PROTOCOL_VERSION,
    Message,
    ServiceUp,
    StreamFailed,
)

STOP_TIMEOUT_S = 5.0
"""For the service to end when it is told to, before it is killed."""


class CoordinatorProcess:
    """A coordinator that is started, as a program of its own: the training is never forked.

    Args:
        config: of its service.
    """

    def __init__(self, config: EngineConfig) -> None:
        ours, theirs = channel()
        # The version can be read without the rest, which another version could not unpickle.
        specification = descriptor_of(b"%d\n" % PROTOCOL_VERSION + cloudpickle.dumps(config))
        try:
            self._process = ChildProgram(
                "chunkdl_workers.coordinator",
                [os.getpid()],
                [theirs.fileno(), specification],
                leads=True,
            )
        except OSError as error:
            ours.close()
            raise ServiceDied(f"the coordinator cannot be started: {error}") from error
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(specification)
        self.channel = ours
        self._unsent: deque[bytes] = deque()
        self._killed = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def wait_until_up(self, timeout_s: float) -> tuple[int, int] | None:
        """Descriptors of its batch arena and of the place of its socket; None: not in that time.

        Raises:
            ChunkdlError: it could not start; the cause is told.
        """
        first = first_message(self.channel, AwakeClock(2 * PIECE_S), timeout_s, descriptors=2)
        if first is None:
            return None
        data, descriptors = first
        if not data:
            raise self.died()
        message = decode(data)
        if isinstance(message, StreamFailed):
            raise message.failure.to_error()
        if not isinstance(message, ServiceUp):
            raise ProtocolError(f"the coordinator began with {type(message).__name__}")
        if len(descriptors) < 2:
            for descriptor in descriptors:
                os.close(descriptor)
            raise ServiceDied("the memory of the batches could not be taken: too few descriptors")
        return descriptors[0], descriptors[1]

    def tell(self, message: Message) -> None:
        """Say something over the channel; what one that stands still does not take is kept.

        Raises:
            ChunkdlError: it is gone, and why.
        """
        self._unsent.append(encode(message))
        self.flush()

    def flush(self) -> None:
        """Send what was kept, as far as it is taken.

        Raises:
            ChunkdlError: it is gone, and why.
        """
        while self._unsent:
            try:
                self.channel.send(self._unsent[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                raise (self.last_words() or self.died()) from None
            self._unsent.popleft()

    def last_words(self) -> ChunkdlError | None:
        """What it said before it ended; None: it has not, and somebody else has heard what came."""
        try:
            data = self.channel.recv(MAX_MESSAGE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if data and isinstance(message := decode(data), StreamFailed):
            return message.failure.to_error()
        return self.died()

    def died(self) -> ServiceDied:
        """How it has ended."""
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return ServiceDied("the coordinator closed its channel but still runs")
        how = self._process.ended_how() + self._process.last_lines()
        return ServiceDied(f"the coordinator (pid {self.pid}) {how}")

    def kill(self) -> None:
        """End it at once; the kernel ends its workers."""
        self._killed = True
        self._process.kill()

    def stop(self) -> None:
        """Have it end, and wait until it and its workers are gone."""
        # It sees the end of the channel, also where a fork of this process has that too.
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        self.channel.close()
        try:
            self._process.wait(0.0 if self._killed else STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.end()
