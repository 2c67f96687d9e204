"""Every message between a service and its consumers: small, frozen, typed.

Pixels travel beside them: as a reference to a slot to consumers on this machine, as frames after
a `Delivered` to others. Nothing here is ever pickled. What a consumer needs of a stream's own
messages (`End` and the like are the engine's) is said again here, in rows instead of batches.
"""

from __future__ import annotations

import msgspec

from chunkdl.dataset.labels import Label
from chunkdl.errors import Failure
from chunkdl.sampling.rules import Rules
from chunkdl.sampling.shares import Remainder
from chunkdl.transport.protocol.engine_messages import (
    Message,
    Notice,
    Ping,
    Pong,
    Refuse,
    Statistics,
)
from chunkdl.transport.row_format import RowFormat

SERVICE_PROTOCOL_VERSION = 5


class Position(msgspec.Struct, frozen=True):
    """Where a consumer stands, and what the service needs to go on exactly from there.

    Attributes:
        left: what is left to be delivered.
        smallchunks_per_bigchunk: n of the rotation; 0 where it is not known yet.
        substitutions: of BigChunks in use: the attempt with which each was read; without
            replacement: slides without a position, each with a 0.
    """

    left: Remainder = Remainder()
    smallchunks_per_bigchunk: int = 0
    substitutions: dict[int, int] = {}


# Consumer to service.


class Join(Message, frozen=True):
    """Open a session, or take one up again after the connection was lost.

    Attributes:
        version: of this protocol.
        token: that the lease socket has given, of consumers on this machine; else empty.
        session: of the session that is taken up again; empty for a new one.
        group: that is joined.
        rank, world_size: which of how many members, in a group that shares the rows.
        batch_rows: rows of a batch; 0: those of the stream.
        credit_batches, credit_bytes: that the consumer can hold at a time.
        rows_hash: of the rows that the consumer expects; empty: any.
        position: where it stood before its step 0; None: wherever the group is.
        step: that it wants next.
        held: numbers of the deliveries that it still has.
        consumer: the name that it has given itself, which nobody can guess; by it one is known
            again whose first `Joined` was lost. Empty: it has none.
        take_over: the rank is wanted though somebody has it who is well; for operators.
    """

    version: int
    token: str
    session: str
    group: str
    rank: int
    world_size: int
    batch_rows: int
    credit_batches: int
    credit_bytes: int
    rows_hash: str
    position: Position | None
    step: int
    held: tuple[int, ...]
    consumer: str = ""
    take_over: bool = False


class Attach(Message, frozen=True):
    """The first message on the second connection of a consumer on another machine."""

    session: str


class Released(Message, frozen=True):
    """The consumer no longer uses these deliveries, and may be sent as many more."""

    numbers: tuple[int, ...]


class NextPass(Message, frozen=True):
    """Begin the next pass of a grid stream, whether the present one is over or not."""

    epoch: int


class Pause(Message, frozen=True):
    """Send no more batches until `Resume`."""


class Resume(Message, frozen=True):
    """Send batches again."""


class Drain(Message, frozen=True):
    """Send no more batches; the session ends when all are given back."""


class Leave(Message, frozen=True):
    """The session is over and everything given back; `step` of `epoch` would have been next."""

    epoch: int
    step: int


class AskCatalogue(Message, frozen=True):
    """Ask for patients and slides from these indices on."""

    first_patient: int
    first_slide: int


class AskStatistics(Message, frozen=True):
    """Ask for the counters of the engine of one's group; answered with `Statistics`."""


class Operate(Message, frozen=True):
    """An operator's wish: status, pause, resume or drain, of a group or (empty) of all."""

    version: int
    token: str
    verb: str
    group: str


# Service to consumer.


class LeaseOpened(Message, frozen=True):
    """Over the lease socket, with a descriptor of the place where messages go: the peer may join.

    Attributes:
        token: for Join or Operate.
        version: of this protocol.
    """

    token: str
    version: int = SERVICE_PROTOCOL_VERSION


class ArenaPassed(Message, frozen=True):
    """Over the lease socket, with the descriptor of an arena of batches."""

    engine: int
    slots: int
    slot_bytes: int


class Joined(Message, frozen=True):
    """The session is open.

    Attributes:
        session: its name, which only the two know.
        local: batches come as references.
        mode: of the group.
        rows_hash: identity of the rows of the stream, however they are cut into batches.
        seed: of the stream.
        stream_rows: rows of a batch of the engine, as they lie in a slot.
        batch_rows: rows of a batch of this consumer.
        row_format: the columns of a row; None: `RowFormatKnown` says them.
        patients, slides: how many.
        position, step: where the consumer stood before its step 0, and the step that is next.
        after: where it stands now.
        credit_batches: that it was given.
        silent_s: it must say something more often than that, seconds.
        finite: the stream has passes, which end.
        rules: by which the stream is made.
        footprint_px: side of the square of its BigChunk that a row shows, target pixels; 0: nobody
            knows.
        regions: names of the annotated classes.
    """

    session: str
    local: bool
    mode: str
    rows_hash: str
    seed: int
    stream_rows: int
    batch_rows: int
    row_format: RowFormat | None
    patients: int
    slides: int
    position: Position
    step: int
    after: Position
    credit_batches: int
    silent_s: float
    finite: bool = False
    rules: Rules = Rules()
    footprint_px: int = 0
    regions: tuple[str, ...] = ()


class RowFormatKnown(Message, frozen=True):
    """The columns of a row, where the user's transform makes them."""

    format: RowFormat


class Piece(msgspec.Struct, frozen=True):
    """Rows [first, first + rows) of a slot; `dropped` (int32 bytes) hold nothing."""

    slot: int
    first: int
    rows: int
    dropped: bytes


class Delivered(Message, frozen=True):
    """A batch; to another machine its rows follow as frames, piece by piece: records, then each
    column.

    Attributes:
        number: by which it is released.
        epoch, step: what it is; a step that was received already is dropped.
        engine: whose arena the slots belong to.
        pieces: its rows.
        after: where the consumer stands behind it.
    """

    number: int
    epoch: int
    step: int
    engine: int
    pieces: tuple[Piece, ...]
    after: Position


class PassEnded(Message, frozen=True):
    """The pass is over for this consumer after so many steps; nobody gets `left_out` rows."""

    epoch: int
    steps: int
    left_out: int


class CataloguePage(Message, frozen=True):
    """Patients and slides from these indices on; as many as fit.

    Names and paths are bytes as in a file system, for they may be no UTF-8. Labels of slides are
    those that slides have at all, of each slide.
    """

    first_patient: int
    patients: tuple[tuple[int, bytes, dict[str, Label]], ...]
    first_slide: int
    slides: tuple[tuple[bytes, dict[str, Label]], ...]


class JoinFirst(Message, frozen=True):
    """The service does not know the connection: the consumer has to join (again)."""


class Detached(Message, frozen=True):
    """The session was ended by the service, and why.

    Attributes:
        reason: for people.
        at_once: what it was sent and has not used belongs to another now.
    """

    reason: str
    at_once: bool = False


class ServiceEnding(Message, frozen=True):
    """The service is about to end; it may come back at the same address."""


class Waits(Message, frozen=True):
    """Why nobody of the group gets a batch for now, and what to do; empty: it goes on."""

    reason: str


class GroupFailed(Message, frozen=True):
    """The stream of the group cannot go on; get() raises this."""

    failure: Failure


class OperatorAnswer(Message, frozen=True):
    """Answers Operate: the status as JSON."""

    status: str


ServiceMessage = (
    Join
    | Attach
    | Released
    | NextPass
    | Ping
    | Pause
    | Resume
    | Drain
    | Leave
    | AskCatalogue
    | AskStatistics
    | Operate
    | LeaseOpened
    | ArenaPassed
    | Joined
    | RowFormatKnown
    | Delivered
    | PassEnded
    | CataloguePage
    | Pong
    | JoinFirst
    | Detached
    | ServiceEnding
    | Waits
    | GroupFailed
    | OperatorAnswer
    | Notice
    | Refuse
    | Statistics
)
"""What may come over the sockets of a service."""
