"""Loading a state into a loader of a service, which takes as long as the service to answer.

No lock that anybody else needs is held meanwhile: a loader can be closed, and who asks for a batch
waits for as long as it wants to.
"""

from __future__ import annotations

from collections.abc import Callable

from chunkdl.errors import ConfigError, GetTimeout
from chunkdl.system.awake_clock import PIECE_S
from chunkdl.system.sections import Section


class Moves:
    """The moves of a loader, one at a time."""

    def __init__(self) -> None:
        self._section = Section()
        self.under_way = False
        """A thread moves the loader; it has no connection, or one that is over."""

    def make(self, move: Callable[[], object]) -> None:
        """Move; a signal handler that has interrupted another move does so after that."""
        if self._section.is_mine:
            self._section.for_later(lambda: self.make(move))
            return
        try:
            with self._section.lock:
                self.under_way = True
                try:
                    move()
                finally:
                    self.under_way = False
        finally:
            self._section.catch_up()

    def wait(self, left: Callable[[float], float]) -> None:
        """Until no other thread moves the loader, or for a moment; ask `under_way` again.

        Args:
            left: of the time that may be waited; see `deadline_of`.

        Raises:
            ConfigError: it is this one.
            GetTimeout: it was not done in time.
        """
        if self._section.is_mine:
            raise ConfigError(
                "a signal handler asked for a batch while a state was loaded; have it set a flag, "
                "and ask in the loop"
            )
        piece_s = left(PIECE_S)
        if self._section.lock.acquire(timeout=piece_s):
            self._section.lock.release()
        elif not piece_s:
            raise GetTimeout("another thread loads a state into this loader and was not done")
