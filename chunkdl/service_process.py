"""A service that a training starts for itself: a program of its own, which ends after its starter.

When the starter has ended, however it ended, the service stays for the consumers that it still has
and ends with the last of them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import weakref

import cloudpickle

from chunkdl.errors import ProtocolError, ServiceDied
from chunkdl.memory.passing import channel, descriptor_of, receive
from chunkdl.protocol.codec import decode
from chunkdl.protocol.messages import ServiceUp, StreamFailed
from chunkdl.service_spec import ServiceSpec

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
        descriptors = [specification, theirs.fileno()]
        environment = dict(os.environ)
        # The child must find the same packages.
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chunkdl_workers.server", *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                env=environment,
                # Ctrl-C of the terminal is for the training process; the service follows it.
                process_group=0,
            )
        finally:
            theirs.close()
            os.close(specification)
        self._channel = ours
        self._let_go = weakref.finalize(self, ours.close)
        try:
            self._wait_until_up()
        except BaseException:
            self.close()
            raise

    def _wait_until_up(self) -> None:
        self._channel.settimeout(START_TIMEOUT_S)
        try:
            data, _ = receive(self._channel)
        except TimeoutError:
            raise ServiceDied(
                f"the service did not come up within {START_TIMEOUT_S:.0f} s"
            ) from None
        if not data:
            raise ServiceDied(
                f"the service ended with {self.process.wait(STOP_TIMEOUT_S)} before it was up; "
                "what it wrote to stderr says more"
            )
        message = decode(data)
        if isinstance(message, StreamFailed):
            raise message.failure.to_error()
        if not isinstance(message, ServiceUp):
            raise ProtocolError(f"the service began with {type(message).__name__}")

    def let_go(self, wait_s: float = 2.0) -> None:
        """Have the service end with the last of its consumers, who may stay for longer.

        Args:
            wait_s: for it to end, where nobody stays, seconds.
        """
        self._let_go()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(wait_s)

    def close(self) -> None:
        """Let go of the service and wait until it has ended; closing twice is no error."""
        self._let_go()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_TIMEOUT_S)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
