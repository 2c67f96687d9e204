"""One iteration over a loader, as a framework or a `for` makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from chunkdl.callers import Caller
from chunkdl.errors import EndOfStream


class Iteration(Iterator[Any]):
    """One epoch or pass; it begins with the first batch that is taken.

    Args:
        take: gives the next batch of the loader to this iteration.
        caller: who iterates.
    """

    def __init__(self, take: Callable[[Iteration], Any], caller: Caller) -> None:
        self._take = take
        self._caller = caller
        self._over = False
        self._count = 0
        self._ahead = caller.ahead
        self.begun = False
        self.resumed_at_the_end = False
        """It goes on from a state, and nothing has come yet."""

    @property
    def held_back(self) -> int:
        """Batches that a framework has taken ahead."""
        held = self._caller.held_back(self._ahead, self._count, over=self._over)
        return min(self._count, held)

    @property
    def shares(self) -> int:
        """Batches that a framework takes for one step."""
        return self._caller.shares

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._over:
            raise EndOfStream("the iteration is over")
        self._ahead = self._caller.ahead
        try:
            batch = self._take(self)
        except EndOfStream:
            self._over = True
            raise
        self._count += 1
        self.resumed_at_the_end = False
        return batch
