"""Train with Lightning: validation on whole grids, a checkpoint, and a later run that goes on.

The Trainer is given the loaders themselves. It saves and loads their state with its checkpoints, so
that a run that goes on sees the rows that would have come next. No data needed::

    python examples/train_lightning.py
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from chunkdl import Batch, Dataset, LightDL, write_tissue_slide

# What both loaders share: 64-pixel patches at 1 micron per pixel.
STREAM: dict[str, Any] = {
    "smallchunk_size": 64,
    "bigchunk_size": 1024,
    "mpp": 1.0,
    "num_bigchunks": 32,
    "memory_limit": "1GiB",
}


def make_dataset(folder: Path, name: str, patients: int, first_seed: int) -> Dataset:
    """Synthetic slides of tumour (1) and stroma (0) in turn, and the manifest that names them."""
    manifest = folder / f"{name}.csv"
    with manifest.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["patient", "slide", "label"])
        for number in range(patients):
            label = number % 2
            slide, tumour = f"{name}-{number}.tif", 0.97 if label else 0.03
            write_tissue_slide(
                folder / slide, 2048, 2048, seed=first_seed + number, tumour_fraction=tumour
            )
            rows.writerow([f"{name}-{number}", slide, label])
    return Dataset.from_csv(manifest)


class Classifier(lightning.LightningModule):  # type: ignore[misc]
    """Two convolutions and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2)),
        )
        self.numbers: list[int] = []
        self.right: list[Tensor] = []

    def answers(self, batch: Batch) -> Tensor:
        """Two scores for each row."""
        answers: Tensor = self.net(batch["image"].float() / 127.5 - 1)
        return answers

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Cross entropy."""
        self.numbers.append(batch.number)
        return nn.functional.cross_entropy(self.answers(batch), batch["label"])

    def validation_step(self, batch: Batch, index: int) -> None:
        """Count what is right."""
        self.right.append(self.answers(batch).argmax(1) == batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Say it, except of the sanity check."""
        share = torch.cat(self.right).float().mean()
        self.right.clear()
        if not self.trainer.sanity_checking:
            print(f"step {self.trainer.global_step:4}  right {share:.1%}", flush=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def train(folder: Path, training: Dataset, held_out: Dataset, epochs: int, every: int) -> None:
    """Train to the end of so many epochs of `every` batches, from the last checkpoint on."""
    last = folder / "last.ckpt"
    checkpoints = ModelCheckpoint(dirpath=folder, save_last=True, enable_version_counter=False)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=[checkpoints],
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Classifier()
    with (
        LightDL(training, batch_size=64, batches=every, seed=1, **STREAM) as batches,
        LightDL(held_out, batch_size=256, grid=True, **STREAM) as grid,
    ):
        ckpt_path = last if last.exists() else None
        trainer.fit(model, batches, grid, ckpt_path=ckpt_path, weights_only=True)
    print(f"trained on batches {model.numbers[0]} to {model.numbers[-1]} of the stream")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--every", type=int, default=15, help="steps of an epoch")
    given = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        sets = (
            make_dataset(here, "training", patients=6, first_seed=0),
            make_dataset(here, "validation", patients=4, first_seed=100),
        )
        train(here, *sets, epochs=given.epochs // 2, every=given.every)
        train(here, *sets, epochs=given.epochs, every=given.every)  # a later run
