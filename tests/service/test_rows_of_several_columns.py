"""Rows with columns of their own: images of different size and a number, by every loader."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from chunkdl.consumers.batches.batch import Batch
from chunkdl.consumers.lightdl import LightDL
from chunkdl.dataset.patients import Dataset
from chunkdl.errors import ChunkdlError, ConfigError, HookError
from tests.service.test_every_loader import Make, make

__all__ = ["make"]  # the fixture

Pixels = npt.NDArray[np.uint8]
COLUMNS = ("context", "image", "score")


def three(crop: Pixels) -> dict[str, Any]:
    """The crop with its channels first, every other pixel of it, and a number."""
    return {
        "image": np.ascontiguousarray(crop.transpose(2, 0, 1), dtype=np.float32) / 255,
        "context": np.ascontiguousarray(crop[::2, ::2]),
        "score": np.float32(crop.mean(dtype=np.float64)),
    }


def three_of_torch(crop: Pixels) -> dict[str, Any]:
    """The same, with a torch image: its workers import torch, which takes most of their start."""
    return {**three(crop), "image": torch.from_numpy(crop).permute(2, 0, 1).float() / 255}


def assert_made_by_three(batch: Batch) -> None:
    """Row i of each column is of one crop."""
    rows = len(batch.patients)
    context, image, score = (batch[name].numpy() for name in COLUMNS)
    assert image.shape == (rows, 3, 64, 64)
    assert context.shape == (rows, 32, 32, 3)
    assert score.shape == (rows,)
    crops = np.round(image.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    assert np.array_equal(context, crops[:, ::2, ::2])
    assert np.array_equal(score, crops.mean((1, 2, 3), dtype=np.float64).astype(np.float32))


def test_every_loader_brings_rows_with_several_columns(make: Make) -> None:
    """Two images of different size and a number, of the same crop; nothing is told apart by how
    they come.
    """
    loader = make(tfms=three)
    for copy in (None, True, False) * 4:
        batch = loader.next_batch(60, copy=copy)
        assert batch.row_columns == COLUMNS
        assert list(batch)[:3] == list(COLUMNS)
        assert_made_by_three(batch)
        del batch
    # What goes on from a state goes on with all columns.
    state = loader.state_dict()
    before = loader.next_batch(60, copy=True)
    loader.load_state_dict(state)
    after = loader.next_batch(60, copy=True)
    assert all(torch.equal(before[name], after[name]) for name in COLUMNS)


def test_a_pass_brings_all_columns_of_its_short_batches(make: Make) -> None:
    """Also where a batch has fewer rows than a slot."""
    loader = make(tfms=three, smallchunks_per_bigchunk=None, grid=True)
    sizes = set()
    for batch in loader:
        assert_made_by_three(batch)
        sizes.add(len(batch.patients))
    assert min(sizes) < max(sizes) == 16


def test_the_rows_are_those_of_the_stream_without_a_transform(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Made in the collectors or in this process; as tensors or as arrays of numpy."""
    ways: list[dict[str, Any]] = [
        {},
        {"tfms_in": "consumer"},
        {"arrays": "numpy"},
        {"arrays": "numpy", "tfms_in": "consumer"},
        {"tensors_only": True},
    ]
    with LightDL(coordinate_dataset, **small_stream) as plain:
        crops = [plain.next_batch(60)["image"].permute(0, 2, 3, 1).numpy().copy() for _ in range(4)]
    for way in ways:
        transform = three if "arrays" in way else three_of_torch
        with LightDL(coordinate_dataset, tfms=transform, **small_stream, **way) as loader:
            for expected in crops:
                batch = loader.next_batch(60)
                assert batch.row_columns == COLUMNS
                assert np.array_equal(np.asarray(batch["context"]), expected[:, ::2, ::2])
                assert np.asarray(batch["score"]).dtype == np.float32


def test_a_batch_keeps_its_columns_wherever_it_goes(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Pickled, on a device, and as SmallChunks, whose data is what was made."""
    with LightDL(coordinate_dataset, tfms=three, **small_stream) as loader:
        x, patients, _ = loader.get(60)
        assert x.shape == (16, 3, 64, 64)
        assert len(patients) == 16
        batch = loader.next_batch(60)
        for same in (pickle.loads(pickle.dumps(batch)), batch.to("cpu")):
            assert same.row_columns == COLUMNS
            assert all(torch.equal(same[name], batch[name]) for name in COLUMNS)
        data = batch.data_of(3)
        assert {name: tuple(value.shape) for name, value in data.items()} == {
            "image": (3, 64, 64),
            "context": (32, 32, 3),
            "score": (),
        }


def in_any_order(crop: Pixels) -> dict[str, float]:
    """Two numbers, whose order in the dict hangs on the crop."""
    row = {"a": 1.0, "b": 2.0}
    return row if crop[0, 0, 2] % 2 else {name: row[name] for name in ("b", "a")}


def test_columns_stay_apart_whichever_row_comes_first(make: Make) -> None:
    """In every engine: after a state, and after what was paused."""
    loader = make(tfms=in_any_order)
    states = [loader.next_batch(60).state for _ in range(6)]
    for state in states[::2]:
        loader.load_state_dict(state)
        batch = loader.next_batch(60)
        assert set(batch["a"].tolist()) == {1.0}
        assert set(batch["b"].tolist()) == {2.0}
        loader.pause()
        assert set(loader.next_batch(60)["a"].tolist()) == {1.0}


def number_or_text(crop: Pixels) -> dict[str, Any]:
    """A row that is arrays or is not."""
    return {"a": 1.0 if crop[0, 0, 2] % 2 else "none"}


def test_an_engine_knows_the_rows_of_the_one_before_it(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """What comes of it is what came before, or an error that says what is other."""
    kinds, told = set(), []
    with LightDL(coordinate_dataset, tfms=number_or_text, **small_stream) as loader:
        for _ in range(4):
            try:
                kinds.add(loader.next_batch(60).row_columns)
            except HookError as error:
                told.append(str(error))
            loader.pause()
    assert len(kinds) <= 1
    assert all("those before it were" in message for message in told)


Transform = Callable[[Pixels], Any]
WRONG: dict[str, tuple[Transform, str]] = {
    "a column of ours": (lambda crop: {"image": crop, "x": 1.0}, "name 'x' is reserved"),
    "one to come": (lambda crop: {"image": crop, "weight": 1.0}, "name 'weight' is reserved"),
    "no name": (lambda crop: {"": crop}, "name '' is not one of 1 to 100 printable letters"),
    "a long name": (lambda crop: {"n" * 101: crop}, "is not one of 1 to 100 printable letters"),
    "very many": (
        lambda crop: {f"c{n}": n for n in range(300)},
        "300 columns, but a row has at most 256",
    ),
}


@pytest.mark.parametrize("where", ["collectors", "consumer"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_column_that_cannot_be_is_an_error(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], wrong: str, where: Any
) -> None:
    """It says which, wherever the transform runs."""
    transform, told = WRONG[wrong]
    with (
        LightDL(coordinate_dataset, tfms=transform, tfms_in=where, **small_stream) as loader,
        pytest.raises(ChunkdlError, match=told),
    ):
        loader.next_batch(60)


@pytest.mark.parametrize("where", ["collectors", "consumer"])
def test_a_column_with_the_name_of_a_label_is_an_error(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], where: Any
) -> None:
    """Neither hides the other."""

    def labelled(crop: Pixels) -> dict[str, Any]:
        return {"image": crop, "label": 3}

    with (
        LightDL(coordinate_dataset, tfms=labelled, tfms_in=where, **small_stream) as loader,
        pytest.raises(ConfigError, match=r"'label'.*another"),
    ):
        loader.next_batch(60)


class Changing:
    """Rows that are not like those before them."""

    def __init__(self, *rows: Any) -> None:
        self.rows = list(rows)

    def __call__(self, crop: Pixels) -> Any:
        """The next of them, the last one again and again."""
        return self.rows.pop(0) if len(self.rows) > 1 else self.rows[0]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"image": 1, "b": 2}, "has the columns 'image', 'b', those before it had 'a', 'image'"),
        ({"image": 1}, "has the columns 'image', those before it had 'a', 'image'"),
        ({"image": 1, "a": 2.5}, r"is 'a' float64 \(\), those before it were int64 \(\)"),
        (1, "has the columns 'image', those before it had 'a', 'image'"),
        (
            {"image": 1, "a": "text"},
            r"is dict, those before it were dicts of 'a': int64 \(\), 'image'",
        ),
    ],
    ids=["another", "one less", "another type", "only one", "no array"],
)
def test_a_row_with_other_columns_is_an_error(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], other: Any, told: str
) -> None:
    """It says what is other."""
    first = {"image": 1, "a": 2}
    # Each is made twice at first, and a rehearsal takes one too.
    transform = Changing(*[first] * 40, other)
    stream = {**small_stream, "on_error": "raise"}
    with (
        LightDL(coordinate_dataset, tfms=transform, **stream) as loader,
        pytest.raises(HookError, match=told),
    ):
        for _ in range(20):
            loader.next_batch(60)


def test_get_says_which_columns_there_are(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """It returns the column "image", and without one it says what to do."""

    def unnamed(crop: Pixels) -> dict[str, Any]:
        return {"tile": crop, "mean": float(crop.mean())}

    with LightDL(coordinate_dataset, tfms=unnamed, **small_stream) as loader:
        assert loader.next_batch(60)["tile"].shape == (16, 64, 64, 3)
        with pytest.raises(ConfigError, match=r"columns mean, tile, and get.* called 'image'"):
            loader.get(60)
