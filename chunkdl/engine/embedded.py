"""The training side of a stream: starts the embedded service, receives batches, gives slots back.

A consumer owns its service: the coordinator process, the private channel to it (whose end of file
is its death), one ZeroMQ socket for messages, and the map of the batch arena. It is used by one
thread at a time; `LightDL` holds a lock around it.
"""

from __future__ import annotations

import copy
import os
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice

import zmq

from chunkdl.engine.config import EngineConfig
from chunkdl.engine.coordinator_process import CoordinatorProcess
from chunkdl.engine.resume_state import ResumeState
from chunkdl.errors import ChunkdlError, ProtocolError, ServiceDied
from chunkdl.system.awake_clock import AwakeClock
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.channel import private_address
from chunkdl.transport.contexts import end_context
from chunkdl.transport.memory.arena import Arena, take_memory
from chunkdl.transport.memory.layouts import Bytes
from chunkdl.transport.protocol.codec import encode, first_whole
from chunkdl.transport.protocol.engine_messages import (
    PROTOCOL_VERSION,
    WITHHELD_BATCH,
    WITHHELD_GENERATION,
    AnyMessage,
    AskStatistics,
    BatchReady,
    BigChunkOpened,
    CheckpointKept,
    End,
    Hello,
    Message,
    MessageToPatient,
    NextEpoch,
    Notice,
    Ping,
    Pong,
    Refuse,
    Release,
    RowFormatSet,
    Statistics,
    StreamFailed,
    Welcome,
)

START_TIMEOUT_S = 60.0
"""For the coordinator to come up: a Python start and the allocation of the arenas."""
TOO_LATE = f"the coordinator did not come up within {START_TIMEOUT_S:.0f} s"
LOOK_S = 1.0
"""The most that counts as silence between two looks, and the longest piece of a wait, seconds."""
LEASE_CHECK_S = 0.5
"""The same while slots are held, which another thread may give back meanwhile."""

log = steady_logger("chunkdl")


def tell_log(level: int, text: str) -> None:
    """Put a line into the log of this process."""
    log.log(level, "%s", text)


@dataclass(frozen=True, slots=True)
class Received:
    """A batch in its slot; the slot is ours until `EmbeddedEngine.release`.

    Attributes:
        message: what the coordinator said about it.
        slot: its bytes.
    """

    message: BatchReady
    slot: Bytes


class EmbeddedEngine:
    """One session with an embedded service of its own.

    It waits for nothing: `hear` takes in what has come, `take` gives the next batch, `descriptors`
    are what to wait on, and `nothing_came` is called whenever there was nothing to take.

    One thread at a time has all of it but `_released`, to which any thread or finalizer appends. A
    slot is the coordinator's until `BatchReady` names it, and ours until it is released.

    Args:
        config: of the service that is started.
        journal: takes the reports of the service.
        tell: is called with level and text of what it has to say to people.
    """

    def __init__(
        self,
        config: EngineConfig,
        journal: ResumeState,
        tell: Callable[[int, str], None] = tell_log,
    ) -> None:
        self._journal = journal
        self._tell = tell
        self._slots = config.run.batch_slots
        self._released: deque[Release] = deque()
        """Any thread appends."""
        self._held: set[Release] = set()
        self._failure: ChunkdlError | None = None
        self._patience_s = config.run.stall_timeout_s
        self._step_s = min(LOOK_S, self._patience_s / 2)
        self._clock = AwakeClock(self._step_s)
        self._looked_s = self._clock.now()
        self._silent_s = 0.0
        self._asked = False
        self._arrived: deque[bytes] = deque()
        self._partly = 0
        self._inbox: deque[BatchReady | End] = deque()
        self.answer: Statistics | None = None
        """The last counters that have come."""
        self.questions = self.answers = 0
        """How often counters were asked for, and have come."""
        self._arena: Arena | None = None
        self._free: Callable[[], object] = lambda: None
        self.arena_descriptor = -1
        """Of the memory that the batches lie in, until `close`."""
        self.is_open = False
        """The session is open; until then only `hear` and `hear_channel` may be called."""
        self._config = config
        self._process = CoordinatorProcess(config)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        line = self._process.channel.fileno()
        self._descriptors = self._socket.fileno(), line
        self._stop = weakref.finalize(
            self, _stop, os.getpid(), self._process, self._socket, self._context
        )

    @property
    def pid(self) -> int:
        """Process id of the coordinator."""
        return self._process.pid

    def _come_up(self, timeout_s: float) -> bool:
        """Say hello to a coordinator that is up; False: it is not, in that time."""
        up = self._process.wait_until_up(timeout_s)
        if up is None:
            return False
        self.arena_descriptor, place = up
        self._free = weakref.finalize(self, _close, up)
        config = self._config
        run = config.run
        self._arena = Arena(self.arena_descriptor, run.batch_slots, run.batch_slot_bytes)
        self._socket.connect(private_address(place))
        self._send(Hello(PROTOCOL_VERSION, config.token, config.plan_hash, self._slots))
        return True

    @property
    def descriptors(self) -> tuple[int, int]:
        """What becomes readable when there may be something to `hear`, and when the service ends.

        After anything was sent `hear` has to be called too: the first one tells only of changes.
        """
        return self._descriptors

    @property
    def held(self) -> int:
        """Batches that were taken and not released."""
        return len(self._held)

    @property
    def waiting(self) -> bool:
        """Whether there is something to `hear` or to `take`."""
        if self._failure is not None:
            return False
        ready = (
            len(self._arrived) > self._partly
            or self.answer is not None
            or (bool(self._inbox) and self.held < self._slots)
        )
        return ready or bool(int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN)

    @property
    def look_s(self) -> float:
        """The longest that may be waited for something to hear, seconds."""
        return min(LEASE_CHECK_S if self.held else LOOK_S, self._step_s)

    def hear(self, *, past_batches: bool = False) -> None:
        """Take in what the service has said, up to the next batch.

        An interrupt loses nothing: what has arrived is kept until it was taken in, and taking it in
        once more changes nothing.

        Args:
            past_batches: and what came behind it, for the sake of `answer`.

        Raises:
            ServiceDied: the coordinator is gone.
            ChunkdlError: the stream failed; raised again by every later call.
        """
        if self._failure is not None:
            raise _fresh(self._failure)
        self._return_slots()
        while past_batches or not self._inbox:
            whole = first_whole(self._arrived)
            if whole is None:
                self._partly = len(self._arrived)
                if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
                    return
                # One call from the socket to the queue: no interrupt comes in between.
                self._arrived.extend(map(self._socket.recv, (zmq.NOBLOCK,)))
                continue
            message, parts = whole
            self._partly = 0
            self._take_in(message)
            self._arrived = deque(islice(self._arrived, parts, None))

    def take(self) -> Received | End | None:
        """The next batch, or the end of the pass; None: it is not here. Errors as of `first`."""
        received = self.first()
        if received is not None:
            self.took(received)
        return received

    def first(self) -> Received | End | None:
        """The same, which comes again until it was `took`.

        Raises:
            ProtocolError: all slots are in use.
        """
        if self.is_full:
            raise ProtocolError(
                f"all {self._slots} batch slots are in use by batches that were taken with "
                "copy=False; drop them before asking for more, or raise batch_slots"
            )
        if not self._inbox or self._arena is None:
            return None
        message = self._inbox[0]
        if isinstance(message, End):
            return message
        return Received(message, self._arena.slot(message.slot))

    def took(self, received: Received | End) -> None:
        """The first one was taken; once more is not an error."""
        message = received if isinstance(received, End) else received.message
        if self._inbox and self._inbox[0] is message:
            if isinstance(message, BatchReady):
                self._held.add(_release_of(message))
            self._inbox.popleft()

    @property
    def is_full(self) -> bool:
        """Whether all slots are in use, so that nothing can be taken."""
        self._return_slots()
        return self.held == self._slots

    def hear_channel(self) -> None:
        """The channel has become readable: the service is up, or has ended.

        Raises:
            ChunkdlError: it has ended, and why.
        """
        if self._arena is None:
            self._come_up(0.0)
            return
        # What it has sent before is still good.
        self.hear()
        if not self._inbox and (failure := self._process.last_words()) is not None:
            self._failure = failure
            raise _fresh(failure)

    def nothing_came(self) -> None:
        """There was nothing to `hear`; a coordinator that is silent is asked whether it is there.

        What counts is time in which it could be heard, little of it between two looks, and not the
        clock: who was stopped itself blames nobody, and who looks for moments only notices too.

        Raises:
            ServiceDied: it does not answer; it was killed.
        """
        now_s = self._clock.now()
        self._silent_s += now_s - self._looked_s
        self._looked_s = now_s
        self._process.flush()
        if not self.is_open:
            if self._silent_s >= START_TIMEOUT_S:
                self._give_up(TOO_LATE)
        elif self._silent_s < self._patience_s:
            return
        elif not self._asked:
            self._asked, self._silent_s = True, self._patience_s
            self._send(Ping())
        elif self._silent_s >= 2 * self._patience_s:
            self._give_up(
                f"the coordinator (pid {self.pid}) has not answered for {self._patience_s:g} s and "
                "was killed: was it stopped, or is the machine out of memory? stall_timeout says "
                "how long is waited"
            )

    def _give_up(self, why: str) -> None:
        self._process.kill()
        self._failure = ServiceDied(why)
        raise _fresh(self._failure)

    def release(self, message: BatchReady) -> None:
        """Give a slot back; may be called from any thread."""
        self.releaser(message)()

    def releaser(self, message: BatchReady) -> Callable[[], None]:
        """What gives a slot back when it is called, for finalizers.

        It does not hold the consumer: a tensor that is kept must not keep the service running.
        """
        return partial(self._released.append, _release_of(message))

    def let_use(self, slot: int) -> None:
        """Have the service use a slot that the configuration withholds; it is open.

        Raises:
            MemoryLimitError: the system does not give its memory; it stays withheld.
        """
        run = self._config.run
        if self._config.stream.rows.are_crops:
            first = slot * run.batch_slot_bytes
            take_memory(self.arena_descriptor, first, run.batch_slot_bytes)
        self._send(Release(WITHHELD_BATCH, slot, WITHHELD_GENERATION))

    def flush(self) -> None:
        """Tell the service which slots were given back."""
        self._return_slots()

    def next_epoch(self, epoch: int) -> None:
        """Begin the next pass of a grid stream, the last one being over."""
        self._send(NextEpoch(epoch))
        self._inbox.clear()

    def send_message(self, patient: int, note: bytes) -> None:
        """Leave a pickled message for the next load of a patient."""
        # Over the private channel: what comes from a socket is never unpickled.
        self._process.tell(MessageToPatient(patient, note))

    def ask_statistics(self) -> int:
        """Have the counters of the service come into `answer`; then `answers` is that number."""
        self._send(AskStatistics())
        self.questions += 1
        return self.questions

    def kill(self) -> None:
        """End the service at once; `close` has still to be called."""
        self._process.kill()

    def close(self) -> None:
        """End the service; waits until its processes are gone. Closing twice is not an error."""
        self._stop()
        if self._arena is not None:
            self._arena.close()
        self._free()

    def _take_in(self, message: AnyMessage) -> None:
        self._silent_s, self._asked = 0.0, False
        match message:
            case Notice():
                if message.of_user:
                    self._journal.log(message.text)
                else:
                    self._tell(message.level, message.text)
            case Pong():
                pass
            case RowFormatSet() | BigChunkOpened() | CheckpointKept():
                self._journal.take(message)
            case BatchReady() | End():
                if not self._inbox or self._inbox[-1] != message:
                    self._inbox.append(message)
            case Statistics():
                self.answer = message
                # An interrupt may have this taken in twice.
                self.answers = min(self.answers + 1, self.questions)
            case Welcome():
                self.is_open = True
            case Refuse():
                raise ProtocolError(f"the service refused the session: {message.reason}")
            case StreamFailed():
                self._failure = message.failure.to_error()
                raise _fresh(self._failure)
            case _:
                raise ProtocolError(f"the service sent {type(message).__name__}")

    def _return_slots(self) -> None:
        while self._released:
            # An interrupt may have it sent twice, which does no harm, but never not at all.
            self._send(self._released[0])
            self._held.discard(self._released[0])
            self._released.popleft()

    def _send(self, message: Message) -> None:
        self._socket.send(encode(message))


def _release_of(message: BatchReady) -> Release:
    return Release(message.batch, message.slot, message.generation)


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _stop(
    owner: int,
    process: CoordinatorProcess,
    messages: zmq.Socket[bytes],
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    """End the service and free what belongs to it; for close(), collection and exit."""
    if os.getpid() != owner:
        return  # a forked child of the training process; the service is not its own
    process.stop()
    messages.close(0)
    end_context(context)


def _fresh(failure: ChunkdlError) -> ChunkdlError:
    """The error to raise: what is raised keeps the frames that it passes, and so who took batches
    there; what is kept must not.
    """
    raised = copy.copy(failure)
    raised.__cause__ = failure.__cause__
    return raised
