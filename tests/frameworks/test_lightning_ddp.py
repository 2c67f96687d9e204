"""`LightDL.for_ddp` in Lightning's ``strategy="ddp"``, which starts the second process itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chunkdl import Dataset, LightDL
from chunkdl.consumers.batches.batch import Batch
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.service.rank_program import PATIENCE_S

pytest.importorskip("lightning")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STREAM: dict[str, Any] = {
    "batch_size": 8,
    "smallchunk_size": 64,
    "bigchunk_size": 256,
    "num_bigchunks": 4,
    "num_loaders": 1,
    "num_collectors": 1,
    "memory_limit": "256MiB",
    "tissue": "none",
    "seed": 5,
}

PROGRAM = f"""
import os
import sys
import lightning
import torch
from torch.utils.data import DataLoader
from chunkdl import Dataset, LightDL

STREAM = {STREAM!r}
folder, where = sys.argv[1:]
dataset = Dataset.from_slides(folder)


def make(**more):
    loader = LightDL.for_ddp(dataset, **STREAM, **more)
    kept.append(loader)
    return DataLoader(loader.dataset_view(), batch_size=None)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, index):
        self.say("train", index, batch)
        return self.layer(batch["image"].float().mean((2, 3)) / 255).mean()

    def validation_step(self, batch, index):
        self.say("validate", index, batch)

    def say(self, what, index, batch):
        rank = f"{{self.global_rank}}/{{self.trainer.world_size}}"
        places = [f"{{x}},{{y}}" for x, y in zip(batch["x"].tolist(), batch["y"].tolist())]
        line = " ".join([what, str(self.current_epoch), str(index), rank, *places])
        # In one piece: the processes share the terminal.
        os.write(1, f"{{line}}\\n".encode())

    def train_dataloader(self):
        return made if where == "before" else make(batches=3)

    def val_dataloader(self):
        return make(batches=2)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


kept = []
if where == "before":
    made = make(batches=3)
trainer = lightning.Trainer(
    max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False,
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0,
)
trainer.fit(Module())
for loader in kept:
    loader.close()
"""


def run(folder: Path, where: str) -> subprocess.CompletedProcess[str]:
    """Run the program; its loader is made in the hook, or before the trainer."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(program), str(folder), where],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two slides."""
    for number in range(2):
        slide = tmp_path / f"{number}.tif"
        write_coordinate_slide(slide, 1500, 1248, slide_id=number, tile=128, levels=(1,))
    return tmp_path


def places_of(batch: Batch) -> list[str]:
    """Where its rows are from, as the program prints it."""
    return [f"{x},{y}" for x, y in zip(batch["x"].tolist(), batch["y"].tolist(), strict=True)]


def test_loaders_that_are_made_in_the_hooks_share_the_rows(folder: Path) -> None:
    """Training and validation, made anew in each epoch: the ranks of each step have its rows."""
    done = run(folder, "hook")
    assert done.returncode == 0, done.stderr
    found: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for line in re.findall(r"^(?:train|validate) .*$", done.stdout, re.MULTILINE):
        what, epoch, step, rank, *rows = line.split()
        found.setdefault((what, epoch, step), {})[rank] = rows
    with LightDL(Dataset.from_slides(folder), **STREAM) as alone:
        stream = [places_of(alone.next_batch(60)) for _ in range(8)]
    # How many there are of each is Lightning's affair, and that of the iterators.
    assert {key[:2] for key in found} == {
        (what, epoch) for what in ("train", "validate") for epoch in "01"
    }
    for ranks in found.values():
        step = stream.index(ranks["0/2"]) // 2
        assert ranks == {"0/2": stream[2 * step], "1/2": stream[2 * step + 1]}


def test_a_loader_that_is_made_before_the_trainer_says_where_it_belongs(folder: Path) -> None:
    """The first process makes it while it is alone; the second, which Lightning starts later, is
    told at once, and nobody waits.
    """
    done = run(folder, "before")
    assert done.returncode != 0
    assert "ConfigError: WORLD_SIZE=2 is set and RANK is not: Lightning has started" in done.stderr
    assert "train_dataloader()" in done.stderr
    assert "train 0" not in done.stdout
