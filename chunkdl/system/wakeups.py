"""How a thread that waits on descriptors is woken by another."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Sequence


class Wakeup:
    """Wakes those that wait. It has a descriptor only while somebody waits."""

    def __init__(self) -> None:
        # A signal handler may wake its own thread in the middle of these.
        self._lock = threading.RLock()
        # Of all threads, changed under the lock; whoever waits has put its own descriptor there.
        self._waiting: set[int] = set()
        self.calls = 0
        """How often somebody was to be woken; read without the lock, before looking for news."""

    def wake(self) -> None:
        """Have whoever is in `wait` go on."""
        with self._lock:
            self.calls += 1
            for descriptor in self._waiting:
                os.eventfd_write(descriptor, 1)

    def wait(self, descriptors: Sequence[int], seconds: float, calls: int) -> frozenset[int]:
        """Which of these became readable in that time, and another one where it was woken.

        Args:
            descriptors: that are waited on.
            seconds: the longest wait.
            calls: what `calls` was when there was nothing to do: who was to be woken since does not
                wait.
        """
        own = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            with self._lock:
                self._waiting.add(own)
                if self.calls != calls:
                    return frozenset((own,))
            return readable((*descriptors, own), seconds)
        finally:
            with self._lock:
                self._waiting.discard(own)
            os.close(own)


def readable(descriptors: Sequence[int], seconds: float) -> frozenset[int]:
    """Which of these became readable in that time."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return frozenset(descriptor for descriptor, _ in poll.poll(seconds * 1000))
