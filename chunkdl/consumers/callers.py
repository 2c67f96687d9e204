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

    def check_dealing_out(self, *, tensors_only: bool) -> None:
        """Refuse that accelerate sends parts of batches around where that cannot be right.

        Args:
            tensors_only: the batches have no other columns.

        Raises:
            ConfigError: and what to do.
        """
        if self.shares == 1:
            return
        if not tensors_only:
            raise ConfigError(
                "accelerate sends parts of each batch to the other processes, and can send "
                "tensors only; give the loader tensors_only=True, or share one stream by "
                "LightDL.for_ddp, which needs no accelerator.prepare"
            )
        if getattr(self.accelerate, "use_stateful_dataloader", False):
            raise ConfigError(
                "with use_stateful_dataloader all processes of accelerate write a state to one "
                "file, and only the first one reads this loader; leave it out, and save the state "
                "with accelerator.register_for_checkpointing(loader)"
            )

    def check_beginning(self, *, same: bool) -> None:
        """Refuse a training that goes on from a checkpoint with a stream at its beginning.

        Args:
            same: each epoch is the same, so that one may be the first.

        Raises:
            ConfigError: Lightning has no state for the loader.
        """
        trainer = getattr(self.fit, "trainer", None)
        if getattr(trainer, "ckpt_path", None) is None or not getattr(trainer, "global_step", 0):
            return
        if same and not getattr(self.fit, "restarting", False):
            return
        raise ConfigError(
            "Lightning goes on from a checkpoint, and this loader stands at the beginning of its "
            "stream: the training would see the same rows again. Give the loader to the Trainer "
            "itself, without a DataLoader, and Lightning saves its state; or save "
            "loader.state_dict() in on_save_checkpoint and load it in on_load_checkpoint (to begin "
            "anew on purpose: loader.load_state_dict(loader.state_dict()))"
        )


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
        elif module == "accelerate.data_loader" and function in ("__iter__", "__init__"):
            # With torchdata it begins the first iteration when it is made, to have a state.
            accelerate = frame.f_locals.get("self")
            if type(accelerate).__name__ == "DataLoaderDispatcher":
                shares = frame.f_globals["PartialState"]().num_processes
    return Caller(lightning, fit, accelerate, shares)


def is_accelerate(function: str = "") -> bool:
    """Whether accelerate, or that function of it, has just called."""
    return any(
        _module(frame) == "accelerate.data_loader" and function in ("", frame.f_code.co_name)
        for frame in islice(_frames(), NEAR)
    )
