"""What the coordinator's core is told, and what it answers. Facts in, commands out."""

from __future__ import annotations

from dataclasses import dataclass

from chunkdl.errors import Failure
from chunkdl.transport.protocol.engine_messages import AnyMessage, Message


@dataclass(frozen=True, slots=True)
class FromWorker:
    """A worker said something."""

    worker: int
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class Silence:
    """A worker was ended because it was silent.

    Attributes:
        since_s, until_s: its last sign of life, and its end; seconds on a clock of the caller's.
    """

    since_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The kernel confirmed that a worker is dead; everything it had said was handled before.

    A new process takes its number and says WorkerReady when it is there.
    """

    worker: int
    reason: str
    by_itself: bool = True
    """It crashed or hung over its work; False: it was killed from outside."""
    ordinal: int = -1
    """Of the BigChunk whose user code it was running, -1 where it was not."""
    failure: Failure | None = None
    """The user's code missed its deadline: no second try."""
    silence: Silence | None = None
    """It hung; None: it crashed, or was killed."""


@dataclass(frozen=True, slots=True)
class FromConsumer:
    """The consumer said something."""

    message: AnyMessage


Event = FromWorker | WorkerLost | FromConsumer


@dataclass(frozen=True, slots=True)
class ToWorker:
    """Send this to a worker."""

    worker: int
    message: Message


@dataclass(frozen=True, slots=True)
class ToConsumer:
    """Send this to the consumer."""

    message: Message


Action = ToWorker | ToConsumer
