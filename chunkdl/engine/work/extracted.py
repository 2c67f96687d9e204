"""What a user's loader class leaves in a slot, for the collector that gets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chunkdl.transport.memory.layouts import Array


@dataclass(frozen=True, slots=True)
class Extracted:
    """What lies in the slot of a user's BigChunk.

    Attributes:
        patient: index of its patient.
        bigchunk: what the hook returned.
        records: of the plan's positions, None where the hook did not look at the plan.
        checkpoint, message: notes that the collector gets too.
        by_place: the collector has to take each SmallChunk at the place that the plan says, or it
            has not passed the pixel filter of the stream.
    """

    patient: int
    bigchunk: Any
    records: Array | None
    checkpoint: bytes
    message: bytes
    by_place: bool = False
