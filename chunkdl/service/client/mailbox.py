"""What the thread of a connection and all other threads share: a box between them.

Who changes what is said beside each field. What several threads change is changed by one call into
a container, which Python does as a whole: no lock is needed, and finalizers and signal handlers may
change it in the middle of anything.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque

from chunkdl.errors import ServiceRefused
from chunkdl.service.client.arrivals import Answers, Arrived
from chunkdl.service.client.counters import Counters
from chunkdl.transport.protocol.engine_messages import Message
from chunkdl.transport.protocol.service_messages import CataloguePage, Joined, Leave


class Mailbox:
    """Filled and emptied from both sides; closed by the thread."""

    def __init__(self) -> None:
        # Filled by the thread, emptied by those who wait for an answer.
        self.welcome: Answers[Joined] = queue.SimpleQueue()
        self.counters = Counters()
        self.pages: Answers[CataloguePage] = queue.SimpleQueue()
        # Set by the thread, read by others.
        self.waits = ""
        """Why no batch comes, as the service says; empty: it has said nothing."""
        self.lost: ServiceRefused | None = None
        """Another has the place, and what was sent here and not handed over."""
        self.left = threading.Event()
        """The session is over; only memory that is in use is still kept."""
        self.late_releases = 0
        """So many batches in use or given back may wait for something else that is to be said."""
        # Filled by others, emptied by the thread.
        self.to_say: deque[Message] = deque()
        self.released: deque[tuple[int, int]] = deque()
        """Session and number of batches that were given back."""
        self.in_use: set[tuple[int, int]] = set()
        """The same of those that were handed over and not given back: added to by who takes
        batches, removed from by whoever gives them back, read by the thread."""
        self.leave: Leave | None = None
        """Where a successor goes on. Set by the thread when the session opens, then by who takes
        batches; whoever reads it has the old one or the new one, and both are right."""
        self.stopping = False
        """Set by others, once."""
        self.wake_up = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable when there is something for the thread; written to by others under the lock, and
        closed by the thread under it."""
        self._over = False
        # A finalizer may run while its own thread is in here.
        self._lock = threading.RLock()

    # ------------------------------------------------------------- other threads

    def say(self, message: Message) -> None:
        """Queue a message."""
        self.to_say.append(message)
        self.wake()

    def wake(self) -> None:
        """Have the thread look into the box."""
        with self._lock:
            if not self._over:
                os.eventfd_write(self.wake_up, 1)

    def took(self, arrived: Arrived) -> None:
        """A batch was handed over."""
        message = arrived.message
        self.in_use.add((arrived.session, message.number))
        # For one that is forgotten without close(): the rest was never returned.
        self.leave = Leave(message.epoch, message.step + 1)

    def give_back(self, session: int, number: int) -> None:
        """A batch is not in use any more; the service is told once that is worth a message.

        On this machine nothing waits for it as long as half of the credit is left. It goes along
        with the next thing that is to be said or heard, or soon after.
        """
        self.in_use.discard((session, number))
        self.released.append((session, number))
        if len(self.released) + len(self.in_use) > self.late_releases:
            self.wake()

    def stop(self) -> None:
        """Have the thread end."""
        self.stopping = True
        self.wake()

    # ------------------------------------------------------------- the thread

    def close(self) -> None:
        """Nothing is looked at any more."""
        with self._lock:
            self._over = True
            os.close(self.wake_up)
        self.left.set()
