"""A lock that is held for moments, and what a signal handler does that finds it held.

A handler runs in the main thread between two steps of whatever that does. If that holds the lock,
waiting for it would be for ever, and going ahead would change what is in the middle of a change.
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Section:
    """A lock that is held for moments.

    Use ``with section.lock``: it is taken and given back in one step each, so that neither a
    handler nor an interrupt can come in between. Where `is_mine` says that this thread is in it
    already, leave what has to be done `for_later`, and `catch_up` when the lock was given back.
    What an interrupt must not break off in the middle is done `whole`.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._wholes: set[object] = set()
        self._later: deque[Callable[[], object]] = deque()
        """Filled by handlers in the section, emptied by whoever has left it; each in one call."""

    @property
    def is_mine(self) -> bool:
        """Whether this thread is in the section: a signal handler, or what it interrupted."""
        # As `threading.Condition` asks it.
        return bool(self.lock._is_owned())  # type: ignore[attr-defined]

    @property
    def is_long(self) -> bool:
        """Whether the lock is held for longer than moments, by what is done `whole`."""
        return bool(self._wholes)

    def whole(self, act: Callable[[], T]) -> T:
        """Do something with the lock held, to its end; whoever calls does not hold it.

        Interrupts and handlers come in the main thread only, so another one does it for that: what
        interrupts the wait does not interrupt the act, and who next wants the lock waits for it.
        """
        if threading.current_thread() is not threading.main_thread():
            with self.lock:
                return self._long(act)
        over = _thread.allocate_lock()
        over.acquire()
        results: list[T] = []
        errors: list[BaseException] = []

        def do() -> None:
            with self.lock:
                try:
                    results.append(self._long(act))
                except BaseException as error:
                    errors.append(error)
            over.release()

        try:
            # Not `threading.Thread`, in which an interrupt leaves open whether it was started.
            _thread.start_new_thread(do, ())
        except RuntimeError:
            # The interpreter shuts down, or the system gives no more threads.
            do()
        over.acquire()
        if errors:
            raise errors.pop()
        return results.pop()

    def _long(self, act: Callable[[], T]) -> T:
        self._wholes.add(act)
        try:
            return act()
        finally:
            self._wholes.discard(act)

    def for_later(self, act: Callable[[], object]) -> None:
        """Do something when somebody next leaves the section."""
        self._later.append(act)

    def catch_up(self) -> None:
        """Do what was left for later."""
        while self._later and not self.is_mine:
            self._later.popleft()()
