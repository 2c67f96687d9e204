"""Train on several processes that share one stream, with torch's DistributedDataParallel.

The first rank of the machine starts a service for all; each gets its batches of every step. The
global batch is the same rows for any number of ranks. No data and no GPU needed::

    torchrun --nproc-per-node=2 examples/train_ddp.py

A checkpoint of the first rank is enough for all, and a later run may have more or fewer of them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

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


def make_model() -> nn.Module:
    """Two convolutions and a mean."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2)),
    )


def train(folder: Path, steps: int) -> None:
    """Train for so many steps more than the checkpoint in the folder, if there is one."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    if rank == 0 and not (folder / "manifest.csv").exists():
        make_slides(folder)
    dist.barrier()
    torch.manual_seed(0)
    model = DistributedDataParallel(make_model())
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    checkpoint = folder / "checkpoint.pt"
    dataset = Dataset.from_csv(folder / "manifest.csv")
    batch_size = GLOBAL_BATCH // world_size
    with LightDL.for_ddp(dataset, batch_size=batch_size, batches=steps, **STREAM) as batches:
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)
            model.load_state_dict(state["model"])
            batches.load_state_dict(state["batches"])
        total = 0.0
        for batch in batches:
            loss = nn.functional.cross_entropy(
                model(batch["image"].float() / 127.5 - 1), batch["label"]
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.item()
        print(f"rank {rank} of {world_size}: {steps} batches, mean loss {total / steps:.3f}")
        if rank == 0:
            state = {"model": model.state_dict(), "batches": batches.state_dict()}
            torch.save(state, checkpoint)


def main() -> None:
    """Set the process group up around the training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="of slides and checkpoint, to go on later")
    given = parser.parse_args()
    dist.init_process_group("gloo")
    with tempfile.TemporaryDirectory() as temporary:
        shared = [str(given.folder or temporary)]
        dist.broadcast_object_list(shared, src=0)
        os.makedirs(shared[0], exist_ok=True)
        train(Path(shared[0]), given.steps)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
