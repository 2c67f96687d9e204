"""What was dropped because it made no sense: counted by reason, noted ever more seldom. Pure."""

from __future__ import annotations

from collections import Counter

MOST_REASONS = 100
"""That are counted one by one; they may hold what strangers have sent."""
MOST_LETTERS = 200
"""Of a reason that are kept."""


class Drops:
    """How often something was dropped, by reason."""

    def __init__(self) -> None:
        self._counts = Counter[str]()

    @property
    def total(self) -> int:
        """How often anything was dropped."""
        return self._counts.total()

    def count(self, reason: str) -> str:
        """Something was dropped; a line for the log the first, second, fourth, ... time."""
        reason = reason[:MOST_LETTERS]
        if reason not in self._counts and len(self._counts) >= MOST_REASONS:
            reason = "for other reasons"
        self._counts[reason] += 1
        count = self._counts[reason]
        return "" if count & (count - 1) else f"dropped ({count}x so far): {reason}"
