"""An engine as its group sees it, and the batches that it has lent to the group."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from chunkdl.transport.protocol.engine_messages import BatchReady
from chunkdl.transport.protocol.service_messages import Delivered


@dataclass(slots=True)
class Lent:
    """A batch of the engine, while the group has it."""

    message: BatchReady
    dropped: np.ndarray[tuple[int, ...], np.dtype[np.int32]]
    readers: int = 0


@dataclass(slots=True)
class EngineView:
    """What is known of the engine: which one, and which batch it makes next."""

    number: int = 0
    runs: bool = False
    ended: bool = False
    epoch: int = 0
    next_batch: int = 0
    calls: int = 0
    substitutions: dict[int, int] = field(default_factory=dict)

    def has(self, delivery: Delivered) -> bool:
        """Whether what was delivered is still in its memory."""
        return self.runs and delivery.engine == self.number
