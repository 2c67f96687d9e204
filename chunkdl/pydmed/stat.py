"""PyDmed's older module for collecting a stream: the classes of `streamcollector`."""

from __future__ import annotations

from chunkdl.pydmed import star
from chunkdl.pydmed.streamcollector import (
    ProcessedPiece,
    StatCollector,
    Statistic,
    StreamCollector,
    StreamWriter,
)

__all__ = [
    "ProcessedPiece",
    "StatCollector",
    "Statistic",
    "StreamCollector",
    "StreamWriter",
    *star.STREAMCOLLECTOR,
]

__getattr__ = star.importer(__name__, star.STREAMCOLLECTOR)
