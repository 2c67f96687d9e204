"""A rank of a training without a framework, started by torchrun or by mp.spawn::

    ranks.py SLIDES FOLDER [spawn]

Each rank keeps the rows that it got.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from chunkdl import Dataset, LightDL
from tests.frameworks.common import STREAM, first_batches, rows_of

BATCHES = 4
WORLD = 2


def train(slides: str, folder: str) -> None:
    """An epoch, a resume by another loader, and an epoch more."""
    torch.set_num_threads(1)
    dataset = Dataset.from_slides(slides)
    half = {**STREAM, "batch_size": STREAM["batch_size"] // WORLD, "batches": BATCHES}
    with LightDL.for_ddp(dataset, **half) as loader:
        seen = [rows_of(batch) for batch in loader]
        state = loader.state_dict()
        dist.barrier()
    with LightDL.for_ddp(dataset, **half) as loader:
        loader.load_state_dict(state)
        seen += [rows_of(batch) for batch in loader]
        dist.barrier()
    torch.save(seen, Path(folder, f"rank-{dist.get_rank()}.pt"))
    if dist.get_rank() == 0:
        torch.save(first_batches(dataset, 2 * BATCHES), Path(folder, "alone.pt"))


def spawned(rank: int, slides: str, folder: str) -> None:
    """What mp.spawn starts, which says nothing in the environment."""
    store = dist.FileStore(os.path.join(folder, "store"), WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    train(slides, folder)
    dist.destroy_process_group()


def main() -> None:
    """As torchrun starts it, or as the parent of spawned ranks."""
    slides, folder = sys.argv[1:3]
    if sys.argv[3:] == ["spawn"]:
        mp.spawn(spawned, (slides, folder), nprocs=WORLD)
        return
    dist.init_process_group("gloo")
    train(slides, folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
