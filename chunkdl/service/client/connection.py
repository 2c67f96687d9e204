"""The consumer's side of a service: one session, kept up by a thread of its own."""

from __future__ import annotations

import copy
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from chunkdl.engine.loader_statistics import Told
from chunkdl.errors import ChunkdlError, Closed, GetTimeout, ServiceDied
from chunkdl.service.client.arrivals import Answer, Answers, Arrived
from chunkdl.service.client.mailbox import Mailbox
from chunkdl.service.client.session_thread import JoinRequest, SessionThread
from chunkdl.system.awake_clock import PIECE_S, deadline_of
from chunkdl.transport.memory.layouts import BatchLayout, Bytes
from chunkdl.transport.protocol.engine_messages import Message
from chunkdl.transport.protocol.service_messages import (
    AskCatalogue,
    AskStatistics,
    CataloguePage,
    Leave,
    PassEnded,
    Position,
)

STOP_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0


class Connection:
    """A session with a service.

    Batches are taken by one thread at a time, which has `first` and `took`. The rest may be called
    from any thread, and what `releaser` gives from finalizers as well.

    Args:
        wish: of the consumer.
        rows_hash: identity of the rows that the service must have; empty: any.
        position, step: where to go on; None: wherever the group is.
        allocate: memory for a batch of so many bytes that comes from another machine.

    Raises:
        ServiceRefused: the service does not take this consumer.
        ServiceDied: nobody answers there.
    """

    def __init__(
        self,
        wish: JoinRequest,
        rows_hash: str,
        position: Position | None,
        step: int,
        allocate: Callable[[int], Bytes],
    ) -> None:
        # Of whoever takes batches, one at a time.
        self._arrived: deque[Arrived | PassEnded | ChunkdlError] = deque()
        self._thread = SessionThread(wish, rows_hash, position, step, allocate)
        running = threading.Thread(target=self._thread.run, name="chunkdl-connection", daemon=True)
        self._box = self._thread.box
        self._wish = wish
        self._stop = weakref.finalize(self, _stop, os.getpid(), self._box)
        running.start()
        try:
            self.joined = self._answer(self._box.welcome, wish.connect_s + ANSWER_TIMEOUT_S)
        except BaseException:
            self._stop()
            raise

    @property
    def layout(self) -> BatchLayout | None:
        """How the rows of the stream lie in a slot; None while that is not known."""
        return self._thread.arrivals.layout

    @property
    def held(self) -> int:
        """Batches that were handed over and not given back."""
        return len(self._box.in_use)

    def first(self, timeout_s: float | None) -> Arrived | PassEnded:
        """The next batch, or the end of the pass; it comes again until it was `took`.

        Raises:
            GetTimeout: nothing came in time.
            ServiceDied: the service was away for too long.
            ServiceRefused: it has ended the session; at once where another has its rank.
            ChunkdlError: the stream failed.
        """
        left = deadline_of(timeout_s)
        while not self._arrived:
            piece_s = left(PIECE_S)
            try:
                # One call from queue to queue: no interrupt comes in between.
                self._arrived.extend(map(self._thread.arrivals.inbox.get, (True,), (piece_s,)))
            except queue.Empty:
                if piece_s == 0.0:
                    raise GetTimeout(self._why_nothing_came()) from None
        arrived = self._box.lost or self._arrived[0]
        if isinstance(arrived, ChunkdlError):
            # Whoever asks again is told again. What is raised keeps the frames that it passes, and
            # with them their batches; this must not keep those.
            raise copy.copy(arrived) from arrived.__cause__
        return arrived

    def took(self, arrived: Arrived | PassEnded, *, unread: bool = False) -> None:
        """The first one was taken; once more is not an error.

        Args:
            arrived: that one.
            unread: nobody uses it, and it was given back.
        """
        if not self._arrived or self._arrived[0] is not arrived:
            return
        if isinstance(arrived, Arrived) and not unread:
            self._box.took(arrived)
        self._arrived.popleft()

    def _why_nothing_came(self) -> str:
        if self._box.waits:
            return f"no batch came in time: group {self._wish.group} waits: {self._box.waits}"
        return (
            "no batch came in time; the service is there (loader.stats() shows what it does). "
            "Raise the timeout, or look for slow storage or a rank that is away"
        )

    def releaser(self, arrived: Arrived) -> Callable[[], None]:
        """What gives a batch back when it is called, from any thread; for finalizers."""
        return _Releaser(self._box, arrived.session, arrived.message.number)

    def send(self, message: Message) -> None:
        """Say something to the service; lost where it is away."""
        self._box.say(message)

    def ask_statistics(self) -> None:
        """Have the service tell its counters, which `statistics` has then."""
        self._box.say(AskStatistics())

    def statistics(self, timeout_s: float) -> Told:
        """The counters of the engine of the group; see `Counters.after`."""
        return self._box.counters.after(self.ask_statistics, timeout_s)

    def catalogue(self, patient: int, slide: int) -> CataloguePage:
        """Patients and slides from these indices on."""
        self._box.say(AskCatalogue(patient, slide))
        return self._answer(self._box.pages, ANSWER_TIMEOUT_S)

    def _answer(self, answers: Answers[Answer], timeout_s: float) -> Answer:
        """What the thread has put there."""
        left = deadline_of(timeout_s)
        while True:
            piece_s = left(PIECE_S)
            try:
                answer = answers.get(timeout=piece_s)
                break
            except queue.Empty:
                if not piece_s:
                    raise ServiceDied(
                        f"the service at {self._wish.address} did not answer within "
                        f"{timeout_s:.0f} s"
                    ) from None
        if isinstance(answer, ChunkdlError):
            # Whoever asks again is told again.
            answers.put(answer)
            raise copy.copy(answer) from answer.__cause__
        return answer

    def close(self, epoch: int, step: int) -> None:
        """End the session; that step would have been next. Closing twice is not an error."""
        self._box.leave = Leave(epoch, step)
        # For a thread that waits in `first`.
        self._thread.arrivals.inbox.put(Closed("the loader was closed"))
        self._stop()


@dataclass(frozen=True, slots=True)
class _Releaser:
    box: Mailbox
    session: int
    number: int

    def __call__(self) -> None:
        self.box.give_back(self.session, self.number)


def _stop(owner: int, box: Mailbox) -> None:
    """End the session; for close(), collection and exit."""
    if os.getpid() != owner:
        return  # a forked child; the session is not its own
    box.stop()
    # The thread itself stays for as long as somebody has a batch in the service's memory.
    left = deadline_of(STOP_TIMEOUT_S)
    while not box.left.wait(piece_s := left(PIECE_S)) and piece_s:
        pass
