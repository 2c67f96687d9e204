"""The smallest training in Lightning, which knows what it was trained on."""

from __future__ import annotations

import logging
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from chunkdl.consumers.loader import Loader
from tests.frameworks.common import Rows, rows_of

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Model(lightning.LightningModule):  # type: ignore[misc]
    """A linear layer on the mean colour.

    Attributes:
        trained: rows of each batch, of all runs that this one goes on from.
        validated: of each run over the validation its batches' rows, beginning with the sanity
            check.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.trained: list[Rows] = []
        self.validated: list[list[Rows]] = []

    def training_step(self, batch: Any, index: int) -> Any:
        """A loss that is a number."""
        self.trained.append(rows_of(batch))
        return self.layer(batch["image"].float().mean((2, 3)) / 255).mean()

    def on_validation_start(self) -> None:
        """A run begins."""
        self.validated.append([])

    def validation_step(self, batch: Any, index: int) -> None:
        """Notes what comes."""
        self.validated[-1].append(rows_of(batch))

    def configure_optimizers(self) -> Any:
        """The plainest."""
        return torch.optim.SGD(self.parameters(), 1e-3)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What was trained belongs to the weights."""
        checkpoint["trained"] = list(self.trained)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
        self.trained = list(checkpoint["trained"])


def given_as(way: str, loader: Loader) -> Any:
    """The loader as users give it to a Trainer."""
    if way == "itself":
        return loader
    if way == "view":
        return loader.dataset_view()
    kind = {"DataLoader": DataLoader, "StatefulDataLoader": StatefulDataLoader}[way]
    return kind(loader.dataset_view(), batch_size=None)
