"""A worker's side of its channel to the coordinator, and what it is given at the start."""

from __future__ import annotations

import pickle
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from chunkdl.engine.config import EngineConfig
from chunkdl.errors import Failure, OtherVersion
from chunkdl.system.printing import printable
from chunkdl.transport.channel import content_of, receive, send
from chunkdl.transport.flight_recorder import Recorder
from chunkdl.transport.protocol.codec import MAX_MESSAGE_BYTES, Parts, encode_parts
from chunkdl.transport.protocol.engine_messages import (
    PROTOCOL_VERSION,
    AnyMessage,
    Message,
    Recall,
    WorkerBroke,
    WorkerNote,
    WorkerReady,
)
from chunkdl_workers import process

NOTE_CHARACTERS = 8_000
"""Of a line for the log in one message; more are several."""

Kind = TypeVar("Kind", bound=Message)


class Link:
    """Messages to and from the coordinator; the channel ends when the coordinator does.

    Used by the main thread of a worker. The recorder's memory is shared with the coordinator.
    """

    def __init__(self, end: socket.socket, recorder: Recorder) -> None:
        self._end = end
        self.recorder = recorder
        """For what the worker is doing."""
        self._kept: deque[AnyMessage] = deque()
        self._recalled: set[int] = set()
        self._warned: set[str] = set()
        self._parts = Parts()

    def send(self, message: Message) -> None:
        """Send a message; blocks while the coordinator's queue is full."""
        for data in encode_parts(message):
            send(self._end, data)

    def ready(self) -> None:
        """Say that tickets can come; the user's code is imported."""
        process.stay_deaf()
        self.send(WorkerReady())

    def messages(self) -> Iterator[AnyMessage]:
        """What the coordinator says, until it is gone."""
        while True:
            message = self._kept.popleft() if self._kept else None
            if message is None:
                if not (data := receive(self._end)[0]):
                    return
                message = self._parts.take(data)
            if isinstance(message, Recall):
                self._recalled.add(message.slide)
            elif message is not None:
                yield message

    def is_recalled(self, slide: int) -> bool:
        """Whether nothing more is to be done for a slide; also looks at what has come since."""
        # The end of the channel is not for here: the kernel ends this process with its parent.
        while data := self._waiting():
            message = self._parts.take(data)
            if isinstance(message, Recall):
                self._recalled.add(message.slide)
            elif message is not None:
                self._kept.append(message)
        return slide in self._recalled

    def _waiting(self) -> bytes:
        """A message that is there already, empty for none."""
        try:
            return self._end.recv(MAX_MESSAGE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    def wait_for(self, kind: type[Kind]) -> Kind:
        """The next message of that kind; those before it are kept for `messages`.

        Raises:
            ConnectionResetError: the coordinator is gone.
        """
        while data := receive(self._end)[0]:
            message = self._parts.take(data)
            if isinstance(message, kind):
                return message
            if message is not None:
                self._kept.append(message)
        raise ConnectionResetError("the coordinator is gone")

    def warn(self, text: str) -> None:
        """Put a warning of ours into the log of the training process, once for all workers."""
        text = printable(text)[:NOTE_CHARACTERS]
        if text not in self._warned:
            self._warned.add(text)
            self.send(WorkerNote(text, warning=True))

    def log(self, text: str) -> None:
        """Put lines of the user's classes into the log of the training process."""
        text = printable(text)
        for start in range(0, max(1, len(text)), NOTE_CHARACTERS):
            self.send(WorkerNote(text[start : start + NOTE_CHARACTERS]))


def arguments() -> tuple[int, int, int, int, int]:
    """Number, parent's pid, and the descriptors of channel, specification and recorder."""
    number, parent, channel, specification, recorder = map(int, sys.argv[1:6])
    return number, parent, channel, specification, recorder


def read_config(descriptor: int) -> EngineConfig:
    """The specification that the parent put into anonymous memory for us, and nobody else can.

    Raises:
        OtherVersion: the parent is of another version of chunkdl.
    """
    version, _, pickled = content_of(descriptor).partition(b"\n")
    if version != b"%d" % PROTOCOL_VERSION:
        raise OtherVersion(
            f"this process speaks protocol {PROTOCOL_VERSION}, the one that has started it "
            f"{version[:20].decode(errors='replace')}: chunkdl was changed while it ran; start the "
            "training, or the service, again"
        )
    config: EngineConfig = pickle.loads(pickled)  # noqa: S301
    return config


def serve(name: str, work: Callable[[Link, EngineConfig, list[int]], None]) -> None:
    """Run a worker program: set up, work until the coordinator is gone.

    Args:
        name: of the kind of worker.
        work: gets the link, the configuration and the descriptors of the arenas; says that it is
            ready when the user's code is loaded, so that no ticket is blamed for what that takes.
    """
    number, parent, channel, specification, recorder = arguments()
    process.begin(f"chunkdl-{name}-{number}", recorder)
    process.die_with_parent(parent)
    link = Link(socket.socket(fileno=channel), Recorder(recorder))
    try:
        config = read_config(specification)
        process.pin(config.run.cpu_affinity)
        arenas = [int(argument) for argument in sys.argv[6:]]
        work(link, config, arenas)
    except (BrokenPipeError, ConnectionResetError):
        # The coordinator ended while we worked; there is nobody left to tell.
        return
    except Exception as error:
        link.send(WorkerBroke(Failure.of(error)))
        raise
