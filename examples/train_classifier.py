"""Train a small classifier of tissue on synthetic slides: batches, validation, checkpoint.

Each patient has one slide and one label: 1 where nearly all its tissue is tumour, 0 where nearly
all is stroma. The network sees single patches with the label of their patient. No data needed::

    python examples/train_classifier.py
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chunkdl import Dataset, LightDL, write_tissue_slide

# What both loaders share: 64-pixel patches at 1 micron per pixel.
STREAM: dict[str, Any] = {
    "smallchunk_size": 64,
    "bigchunk_size": 1024,
    "mpp": 1.0,
    "num_bigchunks": 32,
}


def make_dataset(folder: Path, name: str, patients: int, first_seed: int) -> Dataset:
    """Synthetic slides of both classes in turn, and the manifest that names them."""
    manifest = folder / f"{name}.csv"
    with manifest.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["patient", "slide", "label"])
        for number in range(patients):
            label = number % 2
            slide = f"{name}-{number}.tif"
            tumour = 0.97 if label else 0.03
            write_tissue_slide(
                folder / slide, 2048, 2048, seed=first_seed + number, tumour_fraction=tumour
            )
            rows.writerow([f"{name}-{number}", slide, label])
    return Dataset.from_csv(manifest)


def make_model() -> nn.Module:
    """Three convolutions and a mean."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2)),
    )


def normalised(image: Tensor) -> Tensor:
    """uint8 of a batch to floats around 0."""
    return image.float() / 127.5 - 1


def validate(model: nn.Module, loader: LightDL) -> float:
    """Share of the held-out patches, each position of the grid once, that are classified right."""
    model.eval()
    right = seen = 0
    with torch.inference_mode():
        for batch in loader:
            answers = model(normalised(batch["image"])).argmax(1)
            right += int((answers == batch["label"]).sum())
            seen += len(answers)
    model.train()
    return right / seen


def train(folder: Path, steps: int, every: int) -> float:
    """Train for `steps` batches, validate every so many; returns the last accuracy."""
    torch.manual_seed(0)
    train_set = make_dataset(folder, "train", patients=6, first_seed=0)
    held_out = make_dataset(folder, "validation", patients=4, first_seed=100)
    model = make_model()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4)
    checkpoint = folder / "checkpoint.pt"
    accuracy = 0.0
    with (
        LightDL(train_set, batch_size=64, batches=every, seed=1, **STREAM) as batches,
        LightDL(held_out, batch_size=256, grid=True, **STREAM) as grid,
    ):
        for epoch in range(steps // every):
            total = 0.0
            for batch in batches:  # `every` batches; the next epoch goes on behind them
                loss = nn.functional.cross_entropy(
                    model(normalised(batch["image"])), batch["label"]
                )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                total += loss.item()
            accuracy = validate(model, grid)
            print(f"step {(epoch + 1) * every:4}  loss {total / every:.3f}  right {accuracy:.1%}")
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "batches": batches.state_dict(),
                },
                checkpoint,
            )
    resume(checkpoint, train_set, every)
    return accuracy


def resume(checkpoint: Path, dataset: Dataset, every: int) -> None:
    """What a later run does: model and stream go on exactly where they were saved."""
    state = torch.load(checkpoint, weights_only=True)
    model = make_model()
    model.load_state_dict(state["model"])
    with LightDL(dataset, batch_size=64, batches=every, seed=1, **STREAM) as batches:
        batches.load_state_dict(state["batches"])
        print(f"a later run goes on with batch {next(iter(batches)).number}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--every", type=int, default=10, help="steps between validations")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        train(Path(temporary), given.steps, given.every)
