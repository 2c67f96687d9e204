"""Every message between processes: small, frozen, typed; one line each on who sends it and why.

Pixels never travel in a message; a message names the slot where they lie. Nothing here is ever
pickled. Lists of numbers travel as the bytes of int32 arrays.
"""

from __future__ import annotations

import msgspec

from chunkdl.errors import Failure
from chunkdl.transport.row_format import RowFormat

PROTOCOL_VERSION = 4
"""Of these messages, and of the configuration that the processes of a service are given."""


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages; the class name is the tag."""


class Part(Message, frozen=True):
    """Some bytes of a message that is too large for one; `more`: this is not the last part."""

    number: int
    more: bool
    data: bytes


# Coordinator to loader.


class SurveyWindow(Message, frozen=True):
    """Tell how many pixels BigChunk `ordinal`, read from `slide`, would make you decode.

    `region` is the class that it is drawn from; -1: none was chosen.
    """

    ordinal: int
    attempt: int
    slide: int
    region: int = -1


class SurveyGrid(Message, frozen=True):
    """Tell how many grid positions each window of `slide` has."""

    slide: int


class LoadBigChunk(Message, frozen=True):
    """Read BigChunk `ordinal` from `slide` into a slot; `window` is its number in the grid.

    Without replacement `calls` positions of the window from `first` on, in the order of `cycle`.
    `region` is the class that it is drawn from; -1: none was chosen.

    Of the user's classes: `slide` is -1 where the patient has none; `message` and `checkpoint` are
    pickled, empty for none.
    """

    ordinal: int
    attempt: int
    slide: int
    window: int
    calls: int
    slot: int
    generation: int
    patient: int = 0
    message: bytes = b""
    checkpoint: bytes = b""
    cycle: int = -1
    first: int = 0
    region: int = -1


class Recall(Message, frozen=True):
    """Do no more for `slide`, which is left out: answer its tickets with LoadFailed."""

    slide: int


# Loader to coordinator.


class WindowSurveyed(Message, frozen=True):
    """Answers SurveyWindow."""

    ordinal: int
    attempt: int
    useful_px: int


class GridSurveyed(Message, frozen=True):
    """Answers SurveyGrid; `counts` are int32 bytes."""

    slide: int
    counts: bytes


class BigChunkLoaded(Message, frozen=True):
    """Answers LoadBigChunk: the pixels are in the slot."""

    ordinal: int
    slot: int
    generation: int
    decoded_px: int
    target_px: int
    read_s: float


class LoadFailed(Message, frozen=True):
    """Answers any of the three: the slide, or only that region of it, cannot be used."""

    ordinal: int
    attempt: int
    slide: int
    whole_slide: bool
    failure: Failure


class NothingLeft(Message, frozen=True):
    """Answers LoadBigChunk: the user's class says that this patient has no more BigChunks."""

    ordinal: int
    attempt: int


class SlideNote(Message, frozen=True):
    """What was absent or damaged in `slide` and was mended, `count` times so far."""

    slide: int
    what: str
    count: int


class SlideLooked(Message, frozen=True):
    """Anchors of `slide` that the pixel filter looked at, and refused, since the last of these."""

    slide: int
    looked: int
    refused: int


# Coordinator to collector, and back.


class RowGroup(msgspec.Struct, frozen=True):
    """Rows of a batch that come from one BigChunk; `rows` and `calls` are int32 bytes.

    `first` is the call with which this attempt at the BigChunk began.
    """

    ordinal: int
    slot: int
    rows: bytes
    calls: bytes
    attempt: int = 0
    first: int = 0


class FillRows(Message, frozen=True):
    """Cut these rows of a batch out of these BigChunks."""

    batch: int
    slot: int
    generation: int
    groups: tuple[RowGroup, ...]


class RowsFilled(Message, frozen=True):
    """Answers FillRows."""

    batch: int
    generation: int
    ordinals: tuple[int, ...]


class RowsEnded(Message, frozen=True):
    """Of FillRows, before RowsFilled: one BigChunk gave only the first `done` rows of its group.

    It is exhausted, or with a `failure` its hook raised.
    """

    batch: int
    generation: int
    ordinal: int
    attempt: int
    done: int
    failure: Failure | None


class RowFormatSet(Message, frozen=True):
    """The columns of a row; proposed by the collector that made the first one.

    The coordinator says it to every collector, which waits for it, and to the consumer.
    """

    format: RowFormat


class CheckpointSet(Message, frozen=True):
    """The user's collector of that BigChunk set a checkpoint (pickled)."""

    ordinal: int
    attempt: int
    checkpoint: bytes


class StatusSet(Message, frozen=True):
    """The user's collector of that BigChunk has a new status (pickled), for the schedule."""

    ordinal: int
    attempt: int
    status: bytes


# Coordinator to scheduler, and back.


class ChoosePatient(Message, frozen=True):
    """Run the user's policy for the next BigChunk; numbers are int32 bytes, statuses pickled."""

    ordinal: int
    attempt: int
    loads: bytes
    open: bytes
    waiting: bytes
    finished: bytes
    status: dict[int, bytes]


class PatientChosen(Message, frozen=True):
    """Answers ChoosePatient: a patient, or `NOT_NOW`, or `HALTED`.

    `looked`: the policy has looked at the status of patients.
    """

    ordinal: int
    attempt: int
    patient: int
    looked: bool


class ScheduleFailed(Message, frozen=True):
    """Answers ChoosePatient: the policy raised."""

    ordinal: int
    failure: Failure


NOT_NOW = -1
HALTED = -2


# Any worker to the coordinator.


class WorkerReady(Message, frozen=True):
    """The worker has started and takes tickets."""


class WorkerNote(Message, frozen=True):
    """A line for the log of the training process: of the user's classes, or a warning of ours."""

    text: str
    warning: bool = False


class WorkerBroke(Message, frozen=True):
    """Code in the worker raised where it should not; it takes no more tickets."""

    failure: Failure


# Consumer to coordinator.


class Hello(Message, frozen=True):
    """Opens a session; `token` proves that the consumer belongs to this service."""

    version: int
    token: bytes
    plan_hash: str
    credit: int


WITHHELD_BATCH, WITHHELD_GENERATION = -1, 1
"""What a `Release` names that lets the engine use a slot which was withheld from it."""


class Release(Message, frozen=True):
    """The consumer no longer uses a batch slot, and may be sent one batch more."""

    batch: int
    slot: int
    generation: int


class NextEpoch(Message, frozen=True):
    """Begin the next pass of a stream that has passes."""

    epoch: int


class AskStatistics(Message, frozen=True):
    """Ask for Statistics."""


class Ping(Message, frozen=True):
    """The consumer is there; sent when it has nothing else to say."""


# Parent to coordinator, over their private channel.


class MessageToPatient(Message, frozen=True):
    """For the next load of a patient (pickled; the coordinator never looks into it)."""

    patient: int
    message: bytes


# Coordinator to its parent, over their private channel.


class ServiceUp(Message, frozen=True):
    """The service can be reached there.

    With that of an embedded one, which has no name, come two descriptors: of the batch arena and of
    the place of its socket.
    """

    endpoint: str


class ServiceStays(Message, frozen=True):
    """Whoever started the service has let go of it; it stays for the consumers that it has."""


# Coordinator to consumer.


class Welcome(Message, frozen=True):
    """The session is open."""

    session: str


class Refuse(Message, frozen=True):
    """There will be no session, and why."""

    reason: str


class BatchReady(Message, frozen=True):
    """A batch lies in a slot; `dropped` are rows (int32 bytes) whose region was unreadable."""

    batch: int
    epoch: int
    slot: int
    generation: int
    rows: int
    dropped: bytes
    smallchunks_per_bigchunk: int
    substitutions: dict[int, int]
    closed: bytes = b""
    """BigChunks of which this batch has the last row, where a policy chooses; int64 bytes."""
    pass_batches: int = -1
    """Batches of the pass, once that is known."""


class BigChunkOpened(Message, frozen=True):
    """A BigChunk is being loaded: what a resume has to know of it.

    `first` is the call with which this attempt begins; `chosen`: the policy was asked for it;
    `pure`: so far by nothing that a second run would not see.
    """

    ordinal: int
    attempt: int
    first: int
    patient: int
    chosen: bool
    pure: bool
    message: bytes
    checkpoint: bytes


class CheckpointKept(Message, frozen=True):
    """The checkpoint (pickled) that BigChunk `ordinal` leaves to the next load of its patient."""

    ordinal: int
    patient: int
    checkpoint: bytes


class End(Message, frozen=True):
    """The pass is over; it had `batches` batches."""

    epoch: int
    batches: int


class Notice(Message, frozen=True):
    """Something for the log of the training process; `of_user`: the user's classes said it."""

    level: int
    text: str
    of_user: bool = False


class StreamFailed(Message, frozen=True):
    """The stream cannot go on; get() raises this."""

    failure: Failure


class Statistics(Message, frozen=True):
    """Counters since the start and levels of the moment."""

    batches: int
    rows: int
    bigchunks: int
    decoded_px: int
    target_px: int
    delivered_px: int
    read_s: float
    substitutions: int
    unusable_slides: int
    restarts: int
    smallchunks_per_bigchunk: int
    bigchunks_ready: int
    batches_ready: int
    slots_free: int
    looked: int = 0
    refused: int = 0


class Pong(Message, frozen=True):
    """Answers Ping."""


AnyMessage = (
    Part
    | SurveyWindow
    | SurveyGrid
    | LoadBigChunk
    | Recall
    | WindowSurveyed
    | GridSurveyed
    | BigChunkLoaded
    | LoadFailed
    | NothingLeft
    | SlideNote
    | SlideLooked
    | FillRows
    | RowsFilled
    | RowsEnded
    | RowFormatSet
    | CheckpointSet
    | StatusSet
    | ChoosePatient
    | PatientChosen
    | ScheduleFailed
    | WorkerReady
    | WorkerNote
    | WorkerBroke
    | Hello
    | Release
    | NextEpoch
    | AskStatistics
    | Ping
    | MessageToPatient
    | ServiceUp
    | ServiceStays
    | Welcome
    | Refuse
    | BatchReady
    | BigChunkOpened
    | CheckpointKept
    | End
    | Notice
    | StreamFailed
    | Statistics
    | Pong
)
