"""A clock that stands while this process does: for every limit on how long others may take.

A job may be stopped as a whole, for minutes (`scontrol suspend`, a frozen container, Ctrl-Z), and
goes on in any order. By the clock of the machine everybody has then been silent for too long. Who
watches others therefore counts the time in which it could have heard them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PIECE_S = 1.0
"""The longest piece of a wait with a deadline."""


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


def deadline_of(timeout: float | None) -> Callable[[float], float]:
    """How long the next piece of a wait may be, seconds: at most so long, and not past the timeout.

    A wait that is to notice the end of its timeout, and no time in which the process stood, is made
    of pieces of at most `PIECE_S`.
    """
    if timeout is None:
        return lambda most: most
    clock = AwakeClock(2 * PIECE_S)
    until = clock.now() + timeout
    return lambda most: max(0.0, min(most, until - clock.now()))
