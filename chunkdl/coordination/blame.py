"""Who is to blame when workers end: a slide over which loaders die, or nobody knows what."""

from __future__ import annotations

from chunkdl.coordination.failures import MAX_DEATHS
from chunkdl.coordination.tickets import Ticket
from chunkdl.protocol.messages import SurveyGrid

BLAME_OF_OUTSIDER = 0.25
"""What a death by a kill from outside counts: it may be the kernel that ran out of memory over this
very ticket, but most often the ticket has nothing to do with it."""


class SlideBlame:
    """The loaders that each slide has cost.

    A crash or a hang stays with the slide for good: a decoder that sometimes crashes over it will
    do so again. A kill from outside is forgiven when the same ticket is answered.
    """

    def __init__(self) -> None:
        self._own: dict[int, float] = {}
        self._outside: dict[tuple[int, int], float] = {}

    def died(self, ticket: Ticket, *, by_itself: bool) -> bool:
        """A loader died over a ticket of a slide; whether the slide has cost too many."""
        slide, key = ticket.slide, _key(ticket)
        if by_itself:
            self._own[slide] = self._own.get(slide, 0.0) + 1
        else:
            self._outside[key] = self._outside.get(key, 0.0) + BLAME_OF_OUTSIDER
        return self._own.get(slide, 0.0) + self._outside.get(key, 0.0) >= MAX_DEATHS

    def answered(self, ticket: Ticket) -> None:
        """A loader has survived a ticket."""
        self._outside.pop(_key(ticket), None)


def _key(ticket: Ticket) -> tuple[int, int]:
    return ticket.slide, -1 if isinstance(ticket, SurveyGrid) else ticket.ordinal


class BarrenDeaths:
    """The workers that have ended since the last batch was sent, whatever time that took.

    Args:
        most: that are made good.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sent = 0
        self._blame = 0.0

    def died(self, sent: int, *, by_itself: bool) -> bool:
        """A worker has ended; whether there were too many.

        Args:
            sent: batches that were sent so far.
            by_itself: nobody killed it from outside.
        """
        if sent != self._sent:
            self._sent, self._blame = sent, 0.0
        self._blame += 1 if by_itself else BLAME_OF_OUTSIDER
        return self._blame > self._most
