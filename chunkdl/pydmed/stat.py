"""PyDmed's older module for collecting a stream, with the same classes under their older names."""

from __future__ import annotations

from typing import Any

from chunkdl.chunks import SmallChunk
from chunkdl.pydmed.streamcollector import (
    ProcessedPiece,
    StatCollector,
    StreamCollector,
    StreamWriter,
)

__all__ = ["ProcessedPiece", "StatCollector", "Statistic", "StreamCollector", "StreamWriter"]


class Statistic(ProcessedPiece):
    """A `ProcessedPiece` with the arguments in the order that this module has in PyDmed."""

    def __init__(self, stat: Any, source_smallchunk: SmallChunk) -> None:
        super().__init__(source_smallchunk, stat=stat)
