"""Two ranks of accelerate, under torchrun: what each is trained on, and what a resume goes on with::

    accelerate_ranks.py SLIDES FOLDER

Prints a line for each promise that was kept.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader

from chunkdl import Dataset, LightDL
from chunkdl.errors import ConfigError
from tests.frameworks.common import STREAM, corners_of, first_batches, rows_of

BATCHES = 6


def gathered(mine: list[Any]) -> list[list[Any]]:
    """What each rank has."""
    everybody: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, mine)
    return everybody


def of_steps(mine: list[Any]) -> list[Any]:
    """The rows of each step, of the first rank and then of the second."""
    return [tuple(a) + tuple(b) for a, b in zip(*gathered(mine), strict=True)]


def sentence(act: Any) -> str:
    """What a refusal says."""
    try:
        act()
    except ConfigError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def dealt_out(dataset: Dataset, folder: Path, *, stateful: bool) -> None:
    """The first rank reads, accelerate deals out; a resume in each step sees every row once."""
    alone = first_batches(dataset, BATCHES)
    expected = [
        tuple((x, y) for _, x, y in first + second)
        for first, second in zip(alone[::2], alone[1::2], strict=True)
    ]

    def prepared() -> tuple[Accelerator, LightDL, Any]:
        configuration = DataLoaderConfiguration(use_stateful_dataloader=stateful)
        accelerator = Accelerator(cpu=True, dataloader_config=configuration)
        loader = LightDL(dataset, **STREAM, batches=BATCHES, tensors_only=True)
        accelerator.register_for_checkpointing(loader)
        return accelerator, loader, accelerator.prepare(DataLoader(loader, batch_size=None))

    accelerator, loader, batches = prepared()
    seen = []
    for number, batch in enumerate(batches):
        seen.append(corners_of(batch))
        accelerator.save_state(str(folder / f"step-{number}"))
    loader.close()
    assert of_steps(seen) == expected
    for number in range(len(expected)):
        accelerator, loader, batches = prepared()
        accelerator.load_state(str(folder / f"step-{number}"))
        rest = [corners_of(batch) for batch in batches]
        loader.close()
        if number + 1 < len(expected):
            assert of_steps(rest) == expected[number + 1 :], number
    print(f"dealt out, stateful={stateful}", flush=True)


def shared(dataset: Dataset) -> None:
    """A stream that ranks share needs no `prepare`, and is refused there."""
    accelerator = Accelerator(cpu=True)
    half = {**STREAM, "batch_size": STREAM["batch_size"] // accelerator.num_processes}
    alone = first_batches(dataset, BATCHES)
    with LightDL.for_ddp(dataset, **half, batches=BATCHES) as loader:
        assert of_steps([rows_of(batch) for batch in loader]) == alone
        print("shared", flush=True)
        prepared = accelerator.prepare(DataLoader(loader, batch_size=None))
        if accelerator.is_main_process:
            print("refused:", sentence(lambda: next(iter(prepared))), flush=True)
    dist.barrier()


def refused(dataset: Dataset) -> None:
    """Text columns cannot be dealt out, and ready batches cannot be taken in turn."""
    accelerator = Accelerator(cpu=True)
    loader = LightDL(dataset, **STREAM, batches=BATCHES)
    if accelerator.is_main_process:
        prepared = accelerator.prepare(DataLoader(loader, batch_size=None))
        print("refused:", sentence(lambda: next(iter(prepared))), flush=True)
        turns = DataLoaderConfiguration(dispatch_batches=False)
        other = Accelerator(cpu=True, dataloader_config=turns)
        said = sentence(lambda: other.prepare(DataLoader(loader, batch_size=None)))
        print("refused:", said, flush=True)
    loader.close()
    dist.barrier()


def main() -> None:
    """All of them."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dataset, folder = Dataset.from_slides(sys.argv[1]), Path(sys.argv[2])
    refused(dataset)
    shared(dataset)
    if "tensors_only" in LightDL.__init__.__kwdefaults__:
        for stateful in False, True:
            dealt_out(dataset, folder / str(stateful), stateful=stateful)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
