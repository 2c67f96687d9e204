"""The tickets of the loaders, and the BigChunks that they are about."""

from __future__ import annotations

from dataclasses import dataclass

from chunkdl.transport.memory.slots import Lease
from chunkdl.transport.protocol.engine_messages import (
    BigChunkLoaded,
    GridSurveyed,
    LoadBigChunk,
    LoadFailed,
    NothingLeft,
    SurveyGrid,
    SurveyWindow,
    WindowSurveyed,
)

Ticket = SurveyWindow | SurveyGrid | LoadBigChunk
Answer = WindowSurveyed | GridSurveyed | BigChunkLoaded | LoadFailed | NothingLeft


def slot_lease(ticket: LoadBigChunk) -> Lease:
    """The slot that a ticket is about."""
    return Lease(ticket.slot, ticket.generation)


def answers(answer: Answer, ticket: Ticket) -> bool:
    """Whether that is an answer to that ticket."""
    if isinstance(ticket, SurveyGrid):
        return isinstance(answer, GridSurveyed | LoadFailed) and answer.slide == ticket.slide
    if isinstance(answer, GridSurveyed) or answer.ordinal != ticket.ordinal:
        return False
    if isinstance(answer, BigChunkLoaded):
        lease = Lease(answer.slot, answer.generation)
        return isinstance(ticket, LoadBigChunk) and lease == slot_lease(ticket)
    wanted = LoadBigChunk if isinstance(answer, NothingLeft) else SurveyWindow
    fits = isinstance(answer, LoadFailed) or isinstance(ticket, wanted)
    return fits and answer.attempt == ticket.attempt


@dataclass(slots=True)
class BigChunkState:
    """A BigChunk in a slot, or on its way there.

    Attributes:
        lease: its slot.
        uses: rows that are still to be cut from it.
        ready: its pixels are there.
        deaths: workers that it has cost.
        attempt: how often it was replaced before.
        first: the call with which this attempt begins.
        barren: attempts in a row that gave nothing.
    """

    lease: Lease
    uses: int
    ready: bool = False
    deaths: float = 0.0
    attempt: int = 0
    first: int = 0
    barren: int = 0
