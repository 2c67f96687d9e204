"""Who iterates over a loader: what PyTorch, Lightning and accelerate do on the way to a training.

Lightning, where it knows no length, and accelerate take a batch before they hand on the one that
they took before it. Neither tells the data, so their stack is looked at: once when an iteration
begins, and for accelerate when a state is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from types import FrameType
from typing import Any

from chunkdl.errors import ConfigError

DEPTH = 60
"""Frames that are looked at."""
NEAR = 6
"""Frames from here to who has asked a loader for an attribute, at most."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What iterates.

    Attributes:
        lightning: its fetcher, whose list `batches` has those that it took ahead; None: it is not
            there.
        accelerate: accelerate is there, and keeps one batch.
        deals_out: accelerate takes batches in one process and sends parts of them to the others.
    """

    lightning: Any = None
    accelerate: bool = False
    deals_out: bool = False

    @property
    def ahead(self) -> list[Any] | None:
        """The list that Lightning keeps batches in now; it takes another when it begins or ends."""
        return None if self.lightning is None else self.lightning.batches

    def held_back(self, ahead: list[Any] | None, *, over: bool) -> int:
        """Batches that were taken from the loader and did not get to the training step.

        Args:
            ahead: what `ahead` was when the last batch was taken.
            over: the iteration has ended.
        """
        if ahead is not None:
            return len(ahead)
        if not self.accelerate or over:
            return 0
        # It takes its own note of the state before it takes the next batch.
        notes = (frame.f_code.co_name == "_update_state_dict" for frame in _frames())
        return 0 if any(notes) else 1


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    for _ in range(DEPTH):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def find_caller() -> Caller:
    """Who has just called `iter`.

    Raises:
        ConfigError: a DataLoader that would bundle batches into batches.
    """
    lightning, accelerate, deals_out = None, False, False
    for frame in _frames():
        module, function = str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
        if module == "torch.utils.data._utils.fetch" and frame.f_locals.get("auto_collation"):
            raise ConfigError(
                "the batches of a loader are ready, and this DataLoader would bundle them into "
                "batches once more; give it batch_size=None"
            )
        if module.endswith("loops.fetchers") and "lightning" in module:
            fetcher = frame.f_locals.get("self")
            lightning = fetcher if isinstance(getattr(fetcher, "batches", None), list) else None
        elif module == "accelerate.data_loader" and function in ("__iter__", "_fetch_batches"):
            accelerate = True
            itself = frame.f_locals.get("self")
            if type(itself).__name__ == "DataLoaderDispatcher":
                deals_out = getattr(getattr(itself, "state", None), "num_processes", 1) > 1
    return Caller(lightning, accelerate, deals_out)


def is_accelerate() -> bool:
    """Whether accelerate has just called."""
    near = islice(_frames(), NEAR)
    return any(frame.f_globals.get("__name__") == "accelerate.data_loader" for frame in near)
