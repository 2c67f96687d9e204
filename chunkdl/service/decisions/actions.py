"""What the pure parts of a service want done: commands for the process around them."""

from __future__ import annotations

from dataclasses import dataclass

from chunkdl.sampling.cursor import Cursor
from chunkdl.transport.protocol.engine_messages import Message
from chunkdl.transport.protocol.service_messages import Delivered

Peer = tuple[int, bytes]
"""A connection: the number of the socket that it came in by, and its identity there."""


@dataclass(frozen=True, slots=True)
class Say:
    """Send a message to a connection; one that is gone is not an error."""

    peer: Peer
    message: Message


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send a batch to a session of a group."""

    group: str
    session: str
    message: Delivered


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to a session, wherever it is."""

    session: str
    message: Message


@dataclass(frozen=True, slots=True)
class StartEngine:
    """Have the engine of a group begin there; one that runs is ended.

    `remains` are the slots of engines before it, as (engine, slot), that somebody still reads.
    """

    group: str
    engine: int
    cursor: Cursor
    remains: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class FreeRemains:
    """Nobody reads a slot of an engine that is gone any more."""

    group: str
    engine: int
    slot: int


@dataclass(frozen=True, slots=True)
class FreeBatch:
    """Give a batch back to the engine that made it."""

    group: str
    engine: int
    epoch: int
    batch: int


@dataclass(frozen=True, slots=True)
class BeginPass:
    """Have the engine of a group begin the next pass of a finite stream."""

    group: str
    epoch: int


@dataclass(frozen=True, slots=True)
class PassArena:
    """Send the arena of a group's engine over a lease connection."""

    group: str
    lease: int


@dataclass(frozen=True, slots=True)
class CloseLease:
    """End a lease connection."""

    lease: int


@dataclass(frozen=True, slots=True)
class AskEngine:
    """Ask the engine of a group for its counters, for this session."""

    group: str
    session: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the log."""

    level: int
    text: str


ServiceAction = (
    Say
    | Deliver
    | Tell
    | StartEngine
    | FreeRemains
    | FreeBatch
    | BeginPass
    | PassArena
    | CloseLease
    | AskEngine
    | Note
)
