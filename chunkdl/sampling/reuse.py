"""How many SmallChunks a BigChunk gives, for the reuse that was asked for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class ReuseRules(Protocol):
    """What has to be known of the configuration; see `chunkdl.engine.config.StreamConfig`."""

    def calls_for(self, useful_px: float) -> int:
        """SmallChunks of a BigChunk with so many useful target pixels, for the wished reuse."""


SURVEYED_WINDOWS = 64
"""Planned windows whose useful area sets the SmallChunks per BigChunk for a wished reuse."""


def calls_for_reuse(config: ReuseRules, useful_px: Collection[int]) -> int:
    """The SmallChunks per BigChunk for the wished reuse.

    Args:
        config: of the stream.
        useful_px: target pixels that the SmallChunks of each surveyed window can show.
    """
    return config.calls_for(sum(useful_px) / len(useful_px))
