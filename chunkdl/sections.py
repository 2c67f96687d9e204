"""A lock that is held for moments, and what a signal handler does that finds it held.

A handler runs in the main thread between two steps of whatever that does. If that holds the lock,
waiting for it would be for ever, and going ahead would change what is in the middle of a change.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Section:
    """A lock that is held for moments.

    Use ``with section.lock``: it is taken and given back in one step each, so that neither a
    handler nor an interrupt can come in between. Where `is_mine` says that this thread is in it
    already, leave what has to be done `for_later`, and `catch_up` when the lock was given back.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._later: deque[Callable[[], object]] = deque()

    @property
    def is_mine(self) -> bool:
        """Whether this thread is in the section: a signal handler, or what it interrupted."""
        # As `threading.Condition` asks it.
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]

    def for_later(self, act: Callable[[], object]) -> None:
        """Do something when somebody next leaves the section."""
        self._later.append(act)

    def catch_up(self) -> None:
        """Do what was left for later."""
        while self._later and not self.is_mine:
            self._later.popleft()()
