"""Who iterates over a loader: what PyTorch, Lightning and accelerate do on the way to a training.

Lightning, where it knows no length, and accelerate take batches before they hand on those that they
took before. Neither tells the data, so their stack is looked at: once when an iteration begins, and
for accelerate when a state is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import FrameType
from typing import Any

from chunkdl.errors import ConfigError

DEPTH = 60
"""Frames that are looked at."""
NEAR = 8
"""Frames from here to who has asked a loader for an attribute, at most."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What iterates.

    Attributes:
        lightning: its fetcher, whose list `batches` has those that it took ahead; None: it is not
            there.
        fit: Lightning's loop of the training, where it has just been begun.
        accelerate: its data loader; None: it is not there.
        shares: accelerate takes batches in one process and sends parts of them to so many.
    """

    lightning: Any = None
    fit: Any = None
    accelerate: Any = None
    shares: int = 1

    @property
    def ahead(self) -> list[Any] | None:
        """The list that Lightning keeps batches in now; it takes another when it begins or ends."""
        return None if self.lightning is None else self.lightning.batches

    def held_back(self, ahead: list[Any] | None, taken: int, *, over: bool) -> int:
        """Batches that were taken from the loader and did not get to the training step.

        Args:
            ahead: what `ahead` was when the last batch was taken.
            taken: batches of this iteration.
            over: the iteration has ended.
        """
        if ahead is not None:
            return len(ahead)
        if self.accelerate is None:
            return 0
        # It takes its own note of the state before it takes the next batch.
        notes = any(frame.f_code.co_name == "_update_state_dict" for frame in _frames())
        if getattr(self.accelerate, "end_of_dataloader", over) or (notes and over):
            return 0
        begun = taken % self.shares
        return begun if begun or notes else self.shares

    def state_left(self, loader: Any) -> Mapping[str, Any] | None:
        """The state of a loader that Lightning has read from a checkpoint and does not give it.

        Of a checkpoint from the end of an epoch Lightning gives no loader its state.
        """
        states = list(getattr(self.fit, "_combined_loader_states_to_load", None) or ())
        for one in getattr(getattr(self.fit, "_combined_loader", None), "flattened", ()):
            if not (hasattr(one, "state_dict") and hasattr(one, "load_state_dict") and states):
                continue
            state: Mapping[str, Any] = states.pop(0)
            if _shows(one, loader):
                return state
            if _shows(getattr(one, "dataset", None), loader):
                # As torchdata's StatefulDataLoader keeps it.
                found: Mapping[str, Any] | None = state.get("dataset_state")
                return found
        return None

    @property
    def resumes(self) -> bool:
        """Whether a training has just been begun that goes on from a checkpoint."""
        trainer = getattr(self.fit, "trainer", None)
        loaded = getattr(trainer, "ckpt_path", None) is not None
        return loaded and getattr(trainer, "global_step", 0) > 0

    @property
    def restarts(self) -> bool:
        """Whether it goes on in the middle of an epoch."""
        return bool(getattr(self.fit, "restarting", False))


def _shows(one: Any, loader: Any) -> bool:
    """Whether this is the loader, or its view."""
    return one is loader or getattr(one, "loader", None) is loader


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    for _ in range(DEPTH):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _module(frame: FrameType | None) -> str:
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def find_caller() -> Caller:
    """Who has just called `iter`.

    Raises:
        ConfigError: a DataLoader that would bundle batches into batches.
    """
    lightning, fit, accelerate, shares, fetches = None, None, None, 1, False
    for frame in _frames():
        module, function = _module(frame), frame.f_code.co_name
        if module == "torch.utils.data._utils.fetch" and frame.f_locals.get("auto_collation"):
            raise ConfigError(
                "the batches of a loader are ready, and this DataLoader would bundle them into "
                "batches once more; give it batch_size=None"
            )
        if module.endswith("loops.fetchers") and "lightning" in module:
            fetches, fetcher = True, frame.f_locals.get("self")
            lightning = fetcher if isinstance(getattr(fetcher, "batches", None), list) else None
        elif fetches and module.endswith("loops.fit_loop") and function == "setup_data":
            # Also called to take new loaders in the middle of a training; not by `run` then.
            before = frame.f_back
            if before is not None and before.f_code.co_name == "run":
                fit = frame.f_locals.get("self")
        elif module == "accelerate.data_loader" and function in ("__iter__", "_fetch_batches"):
            accelerate = frame.f_locals.get("self")
            if type(accelerate).__name__ == "DataLoaderDispatcher":
                shares = getattr(getattr(accelerate, "state", None), "num_processes", 1)
    return Caller(lightning, fit, accelerate, shares)


def is_accelerate(function: str = "") -> bool:
    """Whether accelerate, or that function of it, has just called."""
    return any(
        _module(frame) == "accelerate.data_loader" and function in ("", frame.f_code.co_name)
        for frame in islice(_frames(), NEAR)
    )
