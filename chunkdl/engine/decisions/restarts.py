"""How many deaths of a process are made good: of workers, and of whole engines in a service.

Many within a minute are a crash loop. So are many without a batch in between, however slowly that
goes: a worker that dies after ten minutes over the same rows gets nowhere either.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0
"""Deaths that are longer ago are forgotten."""
BLAME_OF_OUTSIDER = 0.25
"""What a death by a kill from outside counts: it may be the kernel that ran out of memory over what
was just done, but most often that has nothing to do with it."""


class RecentDeaths:
    """The deaths of the last minute.

    Args:
        most: that are made good.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._at_s: deque[float] = deque()

    def died(self, now_s: float) -> bool:
        """One more has ended; whether there were too many."""
        self._at_s.append(now_s)
        while now_s - self._at_s[0] > WINDOW_S:
            self._at_s.popleft()
        return len(self._at_s) > self._most


class BarrenDeaths:
    """The deaths since the last batch, whatever time that took.

    Args:
        most: that are made good.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._batches = 0
        self._blame = 0.0

    def died(self, batches: int, *, by_itself: bool = True) -> bool:
        """One more has ended; whether there were too many.

        Args:
            batches: that were made so far.
            by_itself: nobody killed it from outside.
        """
        if batches != self._batches:
            self._batches, self._blame = batches, 0.0
        self._blame += 1 if by_itself else BLAME_OF_OUTSIDER
        return self._blame > self._most
