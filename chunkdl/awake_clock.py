"""A clock that stands while this process does: for limits on the silence of others.

A job may be stopped as a whole, for minutes (`scontrol suspend`, a frozen container, Ctrl-Z), and
goes on in any order. By the clock of the machine everybody has then been silent for too long. Who
watches others therefore counts the time in which it could have heard them.
"""

from __future__ import annotations

import time


class AwakeClock:
    """Seconds in which this process has run or waited; its zero means nothing.

    Args:
        step_s: the most that counts between two looks. Who looks less often than that loses time,
            so a wait that is to be counted is made of pieces that are no longer.
    """

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._real_s = self._now_s = time.monotonic()

    def now(self) -> float:
        """Seconds; never goes back."""
        real_s = time.monotonic()
        self._now_s += min(real_s - self._real_s, self._step_s)
        self._real_s = real_s
        return self._now_s
