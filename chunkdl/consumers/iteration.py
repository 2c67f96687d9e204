"""One iteration over a loader, as a framework or a `for` makes it.

The loader knows how far it has come (`Progress`) and not the iterator, which holds the loader: a
loader that is dropped ends its processes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from chunkdl.consumers.callers import Caller
from chunkdl.errors import EndOfStream


class Progress:
    """How far an iteration has come.

    Args:
        caller: who iterates.
    """

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._count = 0
        self._ahead = caller.ahead
        self.over = False
        """It has ended."""
        self.begun = False
        """A batch was asked for."""
        self.resumed_at_the_end = False
        """It goes on from a state, and nothing has come yet."""

    @property
    def held_back(self) -> int:
        """Batches that a framework has taken ahead."""
        held = self.caller.held_back(self._ahead, self._count, over=self.over)
        return min(self._count, held)

    def asks(self) -> None:
        """The next batch is wanted."""
        self._ahead = self.caller.ahead

    def has(self) -> None:
        """It has come."""
        self._count += 1
        self.resumed_at_the_end = False


class Iteration(Iterator[Any]):
    """One epoch or pass; it begins with the first batch that is taken.

    Args:
        take: gives the next batch of the loader to the iteration with this progress.
        caller: who iterates.
    """

    def __init__(self, take: Callable[[Progress], Any], caller: Caller) -> None:
        self._take = take
        self._progress = Progress(caller)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._progress.over:
            raise EndOfStream("the iteration is over")
        self._progress.asks()
        try:
            batch = self._take(self._progress)
        except EndOfStream:
            self._progress.over = True
            raise
        self._progress.has()
        return batch
