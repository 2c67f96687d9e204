"""A service that a training starts for itself: a program of its own, which ends after its starter.

When the starter has ended, however it ended, the service stays for the consumers that it still has
and ends with the last of them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import weakref

import cloudpickle

from chunkdl.errors import ProtocolError, ServiceDied
from chunkdl.service.spec import ServiceSpec
from chunkdl.system.awake_clock import AwakeClock
from chunkdl.transport.channel import PIECE_S, channel, descriptor_of, first_message
from chunkdl.transport.programs import ChildProgram
from chunkdl.transport.protocol.codec import decode
from chunkdl.transport.protocol.engine_messages import ServiceUp, StreamFailed

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


class ServiceProcess:
    """A running service.

    Args:
        spec: of the service.

    Raises:
        ChunkdlError: it could not start; the cause is told.
    """

    def __init__(self, spec: ServiceSpec) -> None:
        ours, theirs = channel()
        specification = descriptor_of(cloudpickle.dumps(spec))
        try:
            self.process = ChildProgram(
                "chunkdl_workers.server",
                [os.getpid()],
                [specification, theirs.fileno()],
                leads=True,
            )
        except OSError as error:
            ours.close()
            raise ServiceDied(f"the service cannot be started: {error}") from error
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(specification)
        self._channel = ours
        self._let_go = weakref.finalize(self, _hang_up, os.getpid(), ours)
        try:
            self._wait_until_up()
        except BaseException:
            self.close()
            raise

    def _wait_until_up(self) -> None:
        first = first_message(self._channel, AwakeClock(2 * PIECE_S), START_TIMEOUT_S)
        if first is None:
            raise ServiceDied(f"the service did not come up within {START_TIMEOUT_S:.0f} s")
        data, _ = first
        if not data:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_TIMEOUT_S)
            how = self.process.ended_how() + self.process.last_lines()
            raise ServiceDied(f"the service (pid {self.process.pid}) {how}, before it was up")
        message = decode(data)
        if isinstance(message, StreamFailed):
            raise message.failure.to_error()
        if not isinstance(message, ServiceUp):
            raise ProtocolError(f"the service began with {type(message).__name__}")

    def detach(self, wait_s: float = 2.0) -> None:
        """Have the service end with the last of its consumers, who may stay for longer.

        Args:
            wait_s: for it to end, where nobody stays, seconds.
        """
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        first = first_message(self._channel, AwakeClock(2 * PIECE_S), wait_s)
        self._let_go()
        stays = first is None or bool(first[0])
        try:
            self.process.wait(0.0 if stays else wait_s)
        except subprocess.TimeoutExpired:
            self.process.leave()

    def close(self) -> None:
        """Let go of the service and wait until it has ended; closing twice is not an error."""
        self._let_go()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.end()


def _hang_up(owner: int, channel: socket.socket) -> None:
    """Tell the service that its starter is done with it; also at collection and exit."""
    if os.getpid() == owner:
        # A fork of this process may have the channel too.
        with contextlib.suppress(OSError):
            channel.shutdown(socket.SHUT_RDWR)
    channel.close()
