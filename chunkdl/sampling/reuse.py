"""How many SmallChunks a BigChunk gives, for the reuse that was asked for."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Protocol


class ReuseRules(Protocol):
    """What has to be known of the configuration; see `chunkdl.engine.config.StreamConfig`."""

    @property
    def most_calls(self) -> int:
        """SmallChunks of a BigChunk at most."""

    def calls_for(self, decoded_px: float) -> int:
        """SmallChunks of a BigChunk that makes so many pixels decoded, for the wished reuse."""


SURVEYED_WINDOWS = 64
"""Planned windows whose decoded area sets the SmallChunks per BigChunk for a wished reuse."""


def calls_for_reuse(config: ReuseRules, decoded_px: Collection[float]) -> tuple[int, bool]:
    """The SmallChunks per BigChunk for the wished reuse, and whether a limit has lowered them.

    Args:
        config: of the stream.
        decoded_px: pixels that each surveyed window makes a loader decode.
    """
    # Exactly rounded: the order in which the answers came must not show.
    decoded = math.fsum(decoded_px) / len(decoded_px)
    calls = config.calls_for(decoded)
    return min(calls, config.most_calls), calls > config.most_calls
