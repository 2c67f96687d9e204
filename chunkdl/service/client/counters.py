"""What a service has counted, as it was told last."""

from __future__ import annotations

import contextlib
import copy
import queue
import time
from collections.abc import Callable

from chunkdl.engine.loader_statistics import Told
from chunkdl.errors import ChunkdlError
from chunkdl.system.awake_clock import deadline_of
from chunkdl.transport.protocol.engine_messages import Statistics

LOOK_S = 0.02


class Counters:
    """The last counters of a service, and how to wait for newer ones."""

    def __init__(self) -> None:
        # These are set by the thread of the session.
        self._told = Told()
        self._answers = 0
        self._failure: ChunkdlError | None = None
        # A queue, which a signal handler may use in the middle of its use; one entry is enough.
        self._answered: queue.SimpleQueue[None] = queue.SimpleQueue()

    def answer(self, counters: Statistics | None) -> None:
        """The service has answered; None: its engine does not run just now."""
        if counters is not None:
            self._told = Told(counters, time.monotonic())
        self._answers += 1
        if self._answered.empty():
            self._answered.put(None)

    def fail(self, error: ChunkdlError) -> None:
        """The session is over."""
        self._failure = error
        self.answer(None)

    def after(self, ask: Callable[[], object], timeout_s: float) -> Told:
        """What was told last, once the service has answered, or when the time is over.

        Args:
            ask: asks it.
            timeout_s: longest wait, seconds.

        Raises:
            ChunkdlError: the session is over, and why.
        """
        left, before = deadline_of(timeout_s), self._answers
        with contextlib.suppress(queue.Empty):
            self._answered.get_nowait()
        ask()
        while self._failure is None and self._answers == before and (piece_s := left(LOOK_S)):
            # Another that waits may have taken the news of it.
            with contextlib.suppress(queue.Empty):
                self._answered.get(timeout=piece_s)
        if self._failure is not None:
            # What is raised keeps the frames that it passes, and with them their batches.
            raise copy.copy(self._failure) from self._failure.__cause__
        return self._told
