"""What comes in from a service: each batch is handed over once, in order, whatever was repeated.

A service that lost the connection sends again what it cannot know to have arrived. Epoch and step
say what is next; the numbers of the deliveries that are here say what is not.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from chunkdl.errors import ChunkdlError, ProtocolError
from chunkdl.service.client.sockets import Wire
from chunkdl.transport.memory.layouts import BatchLayout, Bytes
from chunkdl.transport.protocol.service_checks import check_delivered, check_row_format
from chunkdl.transport.protocol.service_messages import (
    Delivered,
    Joined,
    PassEnded,
    Released,
)
from chunkdl.transport.row_format import RowFormat

Answer = TypeVar("Answer")
Answers = queue.SimpleQueue[Answer | ChunkdlError]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A batch that has come in.

    Attributes:
        message: what the service said about it.
        memory: of a local service the bytes of each piece's slot; else one buffer with its rows.
        session: which session of this connection it belongs to, counted from 0.
    """

    message: Delivered
    memory: tuple[Bytes, ...]
    session: int


class Arrivals:
    """Takes batches off a wire; used by the thread of the connection.

    All fields are that thread's own. Others empty `inbox`, and read `layout`, which is set once.

    Args:
        epoch, step: of the batch that is wanted first.
        allocate: memory for a batch of so many bytes that comes from another machine.
    """

    def __init__(self, epoch: int, step: int, allocate: Callable[[int], Bytes]) -> None:
        self.epoch, self.step = epoch, step
        """Of the batch that comes next."""
        self._allocate = allocate
        self.inbox: Answers[Arrived | PassEnded] = queue.SimpleQueue()
        self.joined: Joined | None = None
        self.layout: BatchLayout | None = None
        """Of a slot of the service; None while nobody knows the columns of a row."""
        self.session = -1
        self.held: set[int] = set()
        """Numbers of the deliveries of this session that are here and were not given back."""
        self._lie: dict[int, tuple[int, frozenset[int]]] = {}
        """Engine and slots of those that lie in its memory."""
        self._end: PassEnded | None = None
        self._ended_told = -1

    def welcomed(self, joined: Joined) -> bool:
        """The session is open; whether it is another one than before."""
        again = self.joined is not None and joined.session == self.joined.session
        self.joined = joined
        if joined.row_format is not None:
            self.layout = BatchLayout(joined.stream_rows, joined.row_format)
        if not again:
            self.held = set()
            self._lie.clear()
            self.session += 1
            # Where the service says it is; to a position of ours it may give other numbers.
            self.epoch, self.step = joined.position.left.epoch, joined.step
        return not again

    def know_format(self, row_format: RowFormat) -> None:
        """The service has found out the columns of the rows that a transform makes."""
        if self.joined is None:
            raise ProtocolError("the service spoke of rows before the session was open")
        check_row_format(row_format, self.joined)
        layout = BatchLayout(self.joined.stream_rows, row_format)
        if self.layout not in (None, layout):
            raise ProtocolError("the service has rows with other columns than before")
        self.layout = layout

    def take_reference(self, wire: Wire, message: Delivered) -> None:
        """A batch that lies in the memory of a service on this machine."""
        joined, layout = self.joined, self.layout
        if joined is None or layout is None:
            raise ProtocolError("a batch came before anybody said what columns its rows have")
        if self._is_expected(wire, message, joined):
            slots = wire.slots(message, layout.slot_bytes)
            places = frozenset(piece.slot for piece in message.pieces)
            self._lie[message.number] = message.engine, places
            self.inbox.put(Arrived(message, slots, self.session))
            self._tell_end()

    def given_back(self, wire: Wire, number: int) -> None:
        """A batch of this session is not in use any more; the service may be told so then."""
        self.held.discard(number)
        engine, slots = self._lie.pop(number, (0, frozenset[int]()))
        for slot in slots:
            # What lies beside it in the slot may still be in use, with what was written there.
            if not any(e == engine and slot in others for e, others in self._lie.values()):
                wire.forget(engine, slot)

    def take_rows(self, wire: Wire) -> None:
        """The batches on the connection for bytes, each into one buffer."""
        joined, layout = self.joined, self.layout
        if joined is None or layout is None:
            return
        while (message := wire.header()) is not None:
            if not self._is_expected(wire, message, joined):
                wire.skip()
                continue
            own = BatchLayout(joined.batch_rows, layout.format)
            buffer = self._allocate(own.slot_bytes)
            first = 0
            for piece in message.pieces:
                for part in own.parts(buffer, first, piece.rows):
                    wire.into(part)
                first += piece.rows
            wire.end_of_frames()
            self.inbox.put(Arrived(message, (buffer,), self.session))
            self._tell_end()

    def _is_expected(self, wire: Wire, message: Delivered, joined: Joined) -> bool:
        check_delivered(message, joined)
        if (message.epoch, message.step) == (self.epoch, self.step):
            self.held.add(message.number)
            self.step += 1
            return True
        if message.number in self.held:
            # Sent again, and already here.
            return False
        if (message.epoch, message.step) > (self.epoch, self.step):
            raise ProtocolError(
                f"step {message.step} of pass {message.epoch} came where {self.step} of "
                f"{self.epoch} was expected"
            )
        wire.say(Released((message.number,)))
        return False

    def pass_ended(self, message: PassEnded) -> None:
        """A pass is over; that may overtake its last batches, which come by another connection."""
        self._end = message
        self._tell_end()

    def _tell_end(self) -> None:
        """Hand the end of the pass over, once everything before it was."""
        end = self._end
        if end is not None and (end.epoch, end.steps) == (self.epoch, self.step):
            self._end = None
            if self._ended_told != end.epoch:
                self._ended_told = end.epoch
                self.inbox.put(end)
