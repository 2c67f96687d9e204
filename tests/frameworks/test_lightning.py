"""A Lightning training sees every row of the stream once, in order, however it is interrupted."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from chunkdl import Dataset, LightDL
from chunkdl.consumers.loader import Loader
from chunkdl.errors import ConfigError
from tests.frameworks.common import GRID, STREAM, Rows, first_batches, rows_of, run_program
from tests.frameworks.lightning_model import QUIET, Model, given_as

pytestmark = [
    pytest.mark.slow,
    # What Lightning says of every small training on a CPU.
    pytest.mark.filterwarnings("ignore:The '\\w+_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    # torchdata counts on after the end of an epoch.
    pytest.mark.filterwarnings("ignore:Length of IterableDataset .* was reported to be"),
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable"),
    pytest.mark.filterwarnings("ignore:.set_vital. is deprecated"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]

WAYS = "itself", "view", "DataLoader", "StatefulDataLoader"


@contextlib.contextmanager
def loaders(dataset: Dataset, **stream: Any) -> Iterator[tuple[LightDL, LightDL]]:
    """For training and validation."""
    train = LightDL(dataset, **{**STREAM, **stream})
    validation = LightDL(dataset, **GRID)
    with contextlib.closing(train), contextlib.closing(validation):
        yield train, validation


def trainer(folder: Path, *callbacks: Any, **given: Any) -> Any:
    """A trainer that says nothing and keeps its files there."""
    return lightning.Trainer(
        **{"enable_checkpointing": bool(callbacks), **QUIET, **given},
        callbacks=list(callbacks),
        default_root_dir=folder,
    )


@pytest.mark.parametrize("way", WAYS)
def test_each_validation_sees_the_same_grid_and_the_training_the_stream(
    two_patients: Dataset, stream: list[Rows], tmp_path: Path, way: str
) -> None:
    """A sanity check of two batches, then validations that are whole: each begins anew."""
    model = Model()
    with loaders(two_patients, batches=3) as (train, validation):
        whole = [rows_of(batch) for batch in validation]
        trainer(tmp_path, max_epochs=2, num_sanity_val_steps=2).fit(
            model, given_as(way, train), given_as(way, validation)
        )
    assert model.trained == stream[:6]
    assert model.validated == [whole[:2], whole, whole]


def test_a_limited_validation_sees_the_beginning_of_the_grid_each_time(
    two_patients: Dataset, stream: list[Rows], tmp_path: Path
) -> None:
    """`limit_val_batches` breaks off each pass; `val_check_interval` has several in an epoch."""
    model = Model()
    with loaders(two_patients, batches=4) as (train, validation):
        beginning = [rows_of(batch) for batch in validation][:3]
        trainer(tmp_path, max_epochs=1, limit_val_batches=3, val_check_interval=2).fit(
            model, train, validation
        )
    assert model.trained == stream[:4]
    assert model.validated == [beginning[:2], beginning, beginning]


class Run(NamedTuple):
    """A training that is broken off and goes on.

    Attributes:
        stream: of the loader.
        trainer: its arguments, and `more` of the training that goes on.
        saves: arguments of its ModelCheckpoint.
        batches: that it has trained on in the end.
        steps: after which it goes on, as far as checkpoints are there.
    """

    stream: dict[str, Any]
    trainer: dict[str, Any]
    more: dict[str, Any]
    batches: int
    saves: dict[str, Any] = {"every_n_train_steps": 1}  # noqa: RUF012
    steps: tuple[int, ...] = (2, 3, 4)


EPOCHS: dict[str, Any] = {"max_epochs": 2}
RUNS = {
    "after a step": Run({"batches": 3}, EPOCHS, {"max_epochs": 3}, 9),
    "at the end of an epoch": Run({"batches": 3}, EPOCHS, {"max_epochs": 3}, 9, saves={}),
    "after a validation": Run(
        {"batches": 4},
        {"max_epochs": 1, "val_check_interval": 2, "limit_val_batches": 1},
        {"max_epochs": 2},
        8,
        saves={"save_on_train_epoch_end": False},
    ),
    "without a length": Run({}, {"max_steps": 4}, {"max_steps": 6}, 6),
    "limited": Run({}, {**EPOCHS, "limit_train_batches": 3}, {"max_epochs": 3}, 9),
    "limited, at the end of an epoch": Run(
        {}, {**EPOCHS, "limit_train_batches": 3}, {"max_epochs": 3}, 9, saves={}
    ),
    "two batches a step": Run(
        {"batches": 4}, {"max_epochs": 1, "accumulate_grad_batches": 2}, {"max_epochs": 2}, 8
    ),
    "in half precision": Run(
        {}, {"max_steps": 3, "precision": "bf16-mixed"}, {"max_steps": 5}, 5, steps=(2, 3)
    ),
}


def go_on(dataset: Dataset, folder: Path, way: str, run: Run, expected: list[Rows]) -> None:
    """Train, then train on from each checkpoint; each time with a new loader for the training."""
    saves = ModelCheckpoint(dirpath=folder, save_top_k=-1, filename="{step}", **run.saves)
    model = Model()
    with loaders(dataset, **run.stream) as (train, validation):
        model.loader = train
        trainer(folder, saves, **run.trainer).fit(model, given_as(way, train), validation)
        assert model.trained == expected[: len(model.trained)]
        kept = {step: folder / f"step={step}.ckpt" for step in run.steps}
        found = [path for path in kept.values() if path.exists()]
        assert found, os.listdir(folder)
        train.close()
        for path in found:
            model = Model()
            with LightDL(dataset, **{**STREAM, **run.stream}) as train:
                model.loader = train
                trainer(folder, **{**run.trainer, **run.more}).fit(
                    model, given_as(way, train), validation, ckpt_path=path, weights_only=True
                )
            assert model.trained == expected[: run.batches], path.name


@pytest.mark.parametrize("name", RUNS)
def test_a_training_that_goes_on_sees_every_row_once(
    two_patients: Dataset, stream: list[Rows], tmp_path: Path, name: str
) -> None:
    """The Trainer saves and loads the state of a loader that it is given itself."""
    go_on(two_patients, tmp_path, "itself", RUNS[name], stream)


@pytest.mark.parametrize("name", ["after a step", "at the end of an epoch", "without a length"])
def test_a_stateful_dataloader_goes_on_as_well(
    two_patients: Dataset, stream: list[Rows], tmp_path: Path, name: str
) -> None:
    """Lightning asks it, and it asks the view."""
    run = RUNS[name]._replace(steps=(3, 4))
    go_on(two_patients, tmp_path, "StatefulDataLoader", run, stream)


@pytest.mark.parametrize("name", ["after a step", "at the end of an epoch", "without a length"])
def test_a_state_that_the_module_saves_is_right(
    two_patients: Dataset,
    stream: list[Rows],
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind a plain DataLoader, which has no state, `on_save_checkpoint` is the place for it."""

    def on_save_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(trained=list(self.trained), loader=self.loader.state_dict())

    def on_load_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        self.trained = list(checkpoint["trained"])
        self.loader.load_state_dict(checkpoint["loader"])

    monkeypatch.setattr(Model, "on_save_checkpoint", on_save_checkpoint)
    monkeypatch.setattr(Model, "on_load_checkpoint", on_load_checkpoint)
    run = RUNS[name]._replace(steps=(3, 4))
    go_on(two_patients, tmp_path, "DataLoader", run, stream)


@pytest.mark.parametrize("saves", [{"every_n_train_steps": 1}, {}])
def test_shuffled_passes_of_a_grid_go_on(
    two_patients: Dataset, tmp_path: Path, saves: dict[str, Any]
) -> None:
    """The first pass has no length, so that Lightning takes a batch ahead; the second has one."""
    grid = {**GRID, "shuffle": True}
    with contextlib.closing(LightDL(two_patients, **grid)) as loader:
        passes = [[rows_of(batch) for batch in loader] for _ in range(3)]
    assert passes[0] != passes[1]
    each = len(passes[0])
    steps = each - 1, each, each + 1
    run = Run(grid, EPOCHS, {"max_epochs": 3}, 3 * each, saves, steps)
    go_on(two_patients, tmp_path, "itself", run, [rows for one in passes for rows in one])


def test_a_state_is_of_whoever_took_the_last_batch(
    two_patients: Dataset, stream: list[Rows], tmp_path: Path
) -> None:
    """A Trainer that has ended holds a batch back; a batch that is taken by hand does not."""
    model = Model()
    with loaders(two_patients) as (train, _):
        trainer(tmp_path, max_steps=3).fit(model, train)
        assert train.state_dict()["next_batch"] == len(model.trained) == 3
        batch = train.next_batch(60)
        assert train.state_dict() == batch.state


class Pair(Model):
    """Is trained on two streams at a time."""

    def training_step(self, batch: Any, index: int) -> Any:
        """Of both, the first's first."""
        super().training_step(batch["other"], index)
        return super().training_step(batch["one"], index)


def test_two_streams_of_a_training_go_on_each_on_its_own(
    two_patients: Dataset, stream: list[Rows], tmp_path: Path
) -> None:
    """A dict of loaders, from the end of an epoch, where Lightning gives no loader its state."""
    saves = ModelCheckpoint(dirpath=tmp_path, save_top_k=-1, filename="{step}")
    for epochs, ckpt_path in (1, None), (2, tmp_path / "step=3.ckpt"):
        model = Pair()
        with (
            loaders(two_patients, batches=3) as (one, _),
            loaders(two_patients, batches=2, seed=6) as (other, _),
        ):
            trainer(tmp_path, saves, max_epochs=epochs).fit(
                model, {"one": one, "other": other}, ckpt_path=ckpt_path, weights_only=True
            )
    assert model.trained[1::2] == stream[:6]
    assert model.trained[::2] == first_batches(two_patients, 6, seed=6)


def test_a_training_that_would_see_the_same_rows_again_is_refused(
    two_patients: Dataset, stream: list[Rows], tmp_path: Path
) -> None:
    """A plain DataLoader has no state; the sentence says what to do, also on purpose."""
    saves = ModelCheckpoint(dirpath=tmp_path, save_top_k=-1, filename="{step}")
    with loaders(two_patients, batches=3) as (train, _):
        trainer(tmp_path, saves, max_epochs=1).fit(Model(), given_as("DataLoader", train))

    def again(loader: Loader) -> Model:
        model = Model()
        trainer(tmp_path, max_epochs=2).fit(
            model,
            given_as("DataLoader", loader),
            ckpt_path=tmp_path / "step=3.ckpt",
            weights_only=True,
        )
        return model

    with loaders(two_patients, batches=3) as (train, _):
        with pytest.raises(ConfigError, match=r"the same rows again.*to the Trainer itself"):
            again(train)
        train.load_state_dict(train.state_dict())
        assert again(train).trained == stream[:3] * 2


def test_a_training_that_is_killed_at_every_step_sees_every_row_once(
    two_slides: Path, stream: list[Rows], tmp_path: Path
) -> None:
    """Eight processes, each killed in the step behind its first; epochs have three."""
    printed = run_program("lightning_killed.py", str(two_slides), str(tmp_path), "8")
    numbers = [int(number) for number in re.findall(r"trained (\d+)", printed)]
    assert numbers == list(range(1, 9))
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["trained"] == stream[:8]


def test_two_ranks_of_lightning_share_the_stream(two_slides: Path, tmp_path: Path) -> None:
    """`for_ddp` in `train_dataloader`: as many rows of each step for both, none twice, no gap."""
    for epochs in "1", "2":
        run_program("lightning_ddp.py", str(two_slides), str(tmp_path), epochs)
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]
    together = [one + other for one, other in zip(*ranks, strict=True)]
    assert together == torch.load(tmp_path / "alone.pt", weights_only=True)
