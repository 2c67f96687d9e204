"""A lock that is held for moments, and what a signal handler does that finds it held.

A handler runs in the main thread between two steps of whatever that does. If that holds the lock,
waiting for it would be for ever, and going ahead would change what is in the middle of a change.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType


class Section:
    """A lock that knows when it is asked for by the thread that holds it.

    Use it as a context manager; where `is_mine` says that this thread is in it already, leave what
    has to be done `for_later`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._later: deque[Callable[[], object]] = deque()

    @property
    def is_mine(self) -> bool:
        """Whether this thread is in the section: a signal handler, or what it interrupted."""
        return self._owner == threading.get_ident()

    def for_later(self, act: Callable[[], object]) -> None:
        """Do something as soon as the section is left."""
        self._later.append(act)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._owner = 0
        self._lock.release()
        while self._later:
            self._later.popleft()()
