"""Two ranks of Lightning that share one stream, for one epoch more than the checkpoint has::

lightning_ddp.py SLIDES FOLDER EPOCHS
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from chunkdl import Dataset, LightDL
from tests.frameworks.common import STREAM, first_batches
from tests.frameworks.lightning_model import QUIET, Model

STEPS = 3


class Shared(Model):
    """Its loader is made where the ranks know each other."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.dataset = dataset

    def train_dataloader(self) -> Any:
        """This rank's share."""
        half = {**STREAM, "batch_size": STREAM["batch_size"] // self.trainer.world_size}
        self.loader = LightDL.for_ddp(self.dataset, **half, batches=STEPS)
        return self.loader

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Each rank keeps its own rows beside."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""


def main() -> None:
    """Train, and keep what this rank has seen."""
    warnings.simplefilter("ignore")
    dataset, folder, epochs = Dataset.from_slides(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    last = folder / "last.ckpt"
    saves = ModelCheckpoint(dirpath=folder, save_last=True, enable_version_counter=False)
    model = Shared(dataset)
    trainer = lightning.Trainer(
        **{**QUIET, "devices": 2},
        strategy="ddp",
        max_epochs=epochs,
        callbacks=[saves],
        default_root_dir=folder,
    )
    trainer.fit(model, ckpt_path=last if last.exists() else None, weights_only=True)
    model.loader.close()
    mine = folder / f"rank-{trainer.global_rank}.pt"
    before = torch.load(mine, weights_only=True) if mine.exists() else []
    torch.save(before + model.trained, mine)
    if trainer.global_rank == 0:
        torch.save(first_batches(dataset, STEPS * epochs), folder / "alone.pt")


if __name__ == "__main__":
    main()
