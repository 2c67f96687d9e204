"""Train with accelerate, in one process or several that share one stream.

The model and the optimiser are prepared; the loader is not, since it gives each process its rows
already. `accelerator.save_state` keeps its state beside theirs. No data and no GPU needed::

    python examples/train_accelerate.py
    torchrun --nproc-per-node=2 examples/train_accelerate.py

The global batch is the same rows for any number of processes, and a later run may have others.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from chunkdl import Dataset, LightDL, write_tissue_slide

GLOBAL_BATCH = 64
STREAM: dict[str, Any] = {
    "smallchunk_size": 64,
    "bigchunk_size": 1024,
    "mpp": 1.0,
    "num_bigchunks": 32,
    "memory_limit": "1GiB",
    "seed": 1,
}


def make_slides(folder: Path) -> None:
    """Synthetic slides of two classes, and the manifest that names them."""
    lines = ["patient,slide,label"]
    for number in range(6):
        slide, label = f"{number}.tif", number % 2
        tumour = 0.97 if label else 0.03
        write_tissue_slide(folder / slide, 2048, 2048, seed=number, tumour_fraction=tumour)
        lines.append(f"{number},{slide},{label}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


def train(accelerator: Accelerator, folder: Path, steps: int) -> None:
    """Train for so many steps, from the checkpoint in the folder on if there is one."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        *(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2)),
    )
    model, optimiser = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    dataset = Dataset.from_csv(folder / "manifest.csv")
    batch_size = GLOBAL_BATCH // accelerator.num_processes
    with LightDL.for_ddp(dataset, batch_size=batch_size, batches=steps, **STREAM) as batches:
        accelerator.register_for_checkpointing(batches)
        checkpoint = folder / "checkpoint"
        if checkpoint.exists():
            accelerator.load_state(str(checkpoint))
        total, numbers = 0.0, []
        for batch in batches:
            moved = batch.to(accelerator.device, non_blocking=True)
            answers = model(moved["image"].float() / 127.5 - 1)
            loss = nn.functional.cross_entropy(answers, moved["label"])
            optimiser.zero_grad()
            accelerator.backward(loss)
            optimiser.step()
            total += loss.item()
            numbers.append(batch.number)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(checkpoint))
        accelerator.print(f"batches {numbers[0]} to {numbers[-1]}: mean loss {total / steps:.3f}")
        accelerator.wait_for_everyone()


def main() -> None:
    """One run; with a folder that has a checkpoint, it goes on from there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="of slides and checkpoint, to go on later")
    given = parser.parse_args()
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    with tempfile.TemporaryDirectory() as temporary:
        (shared,) = broadcast_object_list([str(given.folder or temporary)])
        folder = Path(shared)
        if accelerator.is_main_process and not (folder / "manifest.csv").exists():
            make_slides(folder)
        accelerator.wait_for_everyone()
        train(accelerator, folder, given.steps)
    accelerator.end_training()


if __name__ == "__main__":
    main()
