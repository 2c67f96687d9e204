"""How a thread that waits on descriptors is woken by another."""

from __future__ import annotations

import contextlib
import os
import select
import weakref
from collections.abc import Sequence


class Wakeup:
    """A descriptor that is waited on beside others, until it is collected."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._descriptor)

    def wake(self) -> None:
        """Have whoever is in `wait`, or comes next, go on."""
        os.eventfd_write(self._descriptor, 1)

    def wait(self, descriptors: Sequence[int], seconds: float) -> frozenset[int]:
        """Which of these became readable in that time, and the own one where it was woken."""
        ready = _readable((*descriptors, self._descriptor), seconds)
        if self._descriptor in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._descriptor)
        return ready

    def look(self, descriptors: Sequence[int], seconds: float) -> frozenset[int]:
        """The same for somebody who is not to be woken."""
        return _readable(descriptors, seconds)


def _readable(descriptors: Sequence[int], seconds: float) -> frozenset[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return frozenset(descriptor for descriptor, _ in poll.poll(seconds * 1000))
