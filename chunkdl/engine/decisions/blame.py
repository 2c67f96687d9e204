"""Who is to blame when loaders end: a slide over which they die, or nobody knows what."""

from __future__ import annotations

from chunkdl.engine.decisions.events import WorkerLost
from chunkdl.engine.decisions.failures import MAX_DEATHS
from chunkdl.engine.decisions.restarts import BLAME_OF_OUTSIDER
from chunkdl.engine.decisions.tickets import Ticket
from chunkdl.transport.protocol.engine_messages import SurveyGrid


class SlideBlame:
    """The loaders that each slide has cost.

    A crash stays with the slide for good: a decoder that sometimes crashes over it will do so
    again. A silence, or a kill from outside, is forgiven when the same ticket is answered after
    all: the storage was away, or somebody else was to blame. Silences at the same time count once,
    because whatever froze all loaders was not the slide.
    """

    def __init__(self) -> None:
        self._crashes: dict[int, int] = {}
        self._silences: dict[int, dict[int, int]] = {}
        self._silent_until_s: dict[int, float] = {}
        self._kills: dict[tuple[int, int], float] = {}

    def died(self, ticket: Ticket, loss: WorkerLost) -> bool:
        """A loader ended over a ticket of a slide; whether the slide has cost too many."""
        slide, place = ticket.slide, _place(ticket)
        if not loss.by_itself:
            kills = self._kills.get((slide, place), 0.0)
            self._kills[slide, place] = kills + BLAME_OF_OUTSIDER
        elif loss.silence is None:
            self._crashes[slide] = self._crashes.get(slide, 0) + 1
        elif loss.silence.since_s >= self._silent_until_s.get(slide, loss.silence.since_s):
            silences = self._silences.setdefault(slide, {})
            silences[place] = silences.get(place, 0) + 1
            self._silent_until_s[slide] = loss.silence.until_s
        own = self._crashes.get(slide, 0) + sum(self._silences.get(slide, {}).values())
        return own + self._kills.get((slide, place), 0.0) >= MAX_DEATHS

    def answered(self, ticket: Ticket) -> None:
        """A loader has survived a ticket."""
        slide, place = ticket.slide, _place(ticket)
        self._kills.pop((slide, place), None)
        self._silences.get(slide, {}).pop(place, None)


def _place(ticket: Ticket) -> int:
    """Which of the tickets of a slide it is, in whatever attempt."""
    return -1 if isinstance(ticket, SurveyGrid) else ticket.ordinal
