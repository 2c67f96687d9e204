"""When a service ends: after a drain, or once nobody is there any more. Pure.

An end is asked for by signals and by operators. The first time it begins a drain: no more
consumers, no more batches, and the end when all is given back, or after `drain_s`. The second
signal ends the service at once. One that is to end when it is idle does so when its last consumer
has left for a while; so does one whose starter has ended.
"""

from __future__ import annotations

IDLE_S = 1.0
"""Without a consumer, before a service that is to end with the last one does: a consumer that loads
another state comes back at once."""


class Ending:
    """How far the end of a service has come; used by one thread.

    Args:
        exit_when_idle: end when the last consumer has left.
        drain_s: a drain takes so long at most, seconds.
    """

    def __init__(self, *, exit_when_idle: bool, drain_s: float) -> None:
        self._exit_when_idle = exit_when_idle
        self._drain_s = drain_s
        self._asked = 0
        self._orphaned = False
        self._drain_until_s: float | None = None
        self._idle_since_s: float | None = None

    def ask(self) -> None:
        """Somebody wants the end; may be called by a signal handler of the same thread."""
        self._asked += 1

    def starter_ended(self) -> None:
        """Who started the service for itself has ended."""
        self._orphaned = True

    @property
    def at_once(self) -> bool:
        """Whether nothing is waited for."""
        return self._asked > 1

    @property
    def is_near(self) -> bool:
        """Whether time alone may end the service."""
        return self._drain_until_s is not None or self._idle_since_s is not None

    def is_to_drain(self, *, by_operator: bool) -> bool:
        """Whether a drain was asked for and is not begun."""
        return (self._asked > 0 or by_operator) and self._drain_until_s is None

    def begin_drain(self, now_s: float) -> None:
        """The drain begins."""
        self._drain_until_s = now_s + self._drain_s

    def look(self, joined: int, present: int, now_s: float) -> None:
        """Note since when all consumers have left, where that ends the service.

        Args:
            joined: consumers that have ever come.
            present: those that are there.
            now_s: time, seconds.
        """
        if not (self._exit_when_idle or self._orphaned) or not joined or present:
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = now_s

    def is_over(self, present: int, now_s: float) -> bool:
        """Whether the service may end now."""
        since_s = self._idle_since_s
        if since_s is not None and now_s - since_s >= IDLE_S:
            return True
        if self._orphaned and not self._exit_when_idle:
            # Who started it has ended, perhaps before anybody came.
            return not present
        if self._drain_until_s is None:
            return False
        return not present or self.at_once or now_s >= self._drain_until_s
