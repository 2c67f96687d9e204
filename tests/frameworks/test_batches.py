"""A batch goes through what frameworks do with batches, and stays what it is."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import accelerate.utils
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils import _pytree
from torch.utils.data import default_collate, default_convert

from chunkdl import Dataset, LightDL
from chunkdl.consumers.batches.batch import Batch
from chunkdl.errors import StateError
from tests.frameworks.common import STREAM, rows_of, run_program

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batch(two_patients: Dataset) -> Batch:
    """One of a stream, copied."""
    with LightDL(two_patients, **STREAM) as loader:
        copied: Batch = loader.next_batch(60, copy=True)
    return copied


def saved(batch: Batch) -> Any:
    """Through torch.save."""
    file = io.BytesIO()
    torch.save(batch, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def through_tree_map(batch: Batch) -> Any:
    """Each tensor anew."""
    return _pytree.tree_map(lambda x: x.clone() if torch.is_tensor(x) else x, batch)


WAYS: dict[str, Callable[[Batch], Any]] = {
    "a copy": copy.copy,
    "a deep copy": copy.deepcopy,
    "pickle": lambda batch: pickle.loads(pickle.dumps(batch)),
    "torch.save": saved,
    "a dict of its columns": lambda batch: Batch(dict(batch)),
    "to": lambda batch: batch.to(CPU, non_blocking=True),
    "a map over the tree": through_tree_map,
    "torch's default_convert": default_convert,
    "accelerate's send_to_device": lambda batch: accelerate.utils.send_to_device(batch, CPU),
    "Lightning's transfer": lambda batch: move_data_to_device(batch, CPU),
    "Lightning's collections": lambda batch: apply_to_collection(
        batch, torch.Tensor, torch.Tensor.contiguous
    ),
    "Lightning's half precision": MixedPrecision("bf16-mixed", "cpu").convert_input,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_stays_a_batch(batch: Batch, way: str) -> None:
    """Class, columns, values, patients, number and state."""
    made = WAYS[way](batch)
    assert type(made) is Batch
    assert list(made) == list(batch)
    assert rows_of(made) == rows_of(batch)
    assert torch.equal(made["image"], batch["image"])
    assert (made.number, made.patients, made.state) == (batch.number, batch.patients, batch.state)
    assert made.diversity == batch.diversity


def test_a_collation_of_one_batch_has_one_row_more(batch: Batch) -> None:
    """What a DataLoader of batch_size=1 would do; nothing of it is lost or refused."""
    made = default_collate([batch])
    assert made["image"].shape == (1, *batch["image"].shape)
    assert [slide for (slide,) in made["slide"]] == batch["slide"]


def test_page_locking_by_torch_keeps_the_batch(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What DataLoader(pin_memory=True) does; without a GPU with what pins a tensor left out."""
    from torch.utils.data._utils.pin_memory import pin_memory

    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor.clone())
    made = pin_memory(batch)  # type: ignore[no-untyped-call]
    assert type(made) is Batch
    assert rows_of(made) == rows_of(batch)
    assert (made.number, made.state) == (batch.number, batch.state)


def test_parts_and_sums_of_batches_have_no_place_in_the_stream(batch: Batch) -> None:
    """A state is never told of rows that it is not the state of."""
    half = Batch({name: values[:4] for name, values in batch.items()})
    assert half.number == -1
    with pytest.raises(StateError, match=r"loader\.state_dict"):
        _ = half.state
    with pytest.raises(StateError, match="put together from columns"):
        _ = half.diversity


def test_a_batch_of_numpy_goes_to_other_libraries_without_a_copy(two_patients: Dataset) -> None:
    """By DLPack, which JAX takes as well."""
    with LightDL(two_patients, **STREAM, arrays="numpy") as loader:
        batch = loader.next_batch(60)
        images = batch["image"]
        assert type(images) is np.ndarray
        assert images.shape == (8, 32, 32, 3)
        tensor = torch.from_dlpack(images)  # type: ignore[attr-defined]
        assert tensor.data_ptr() == images.ctypes.data
        assert np.shares_memory(np.from_dlpack(images), images)
        assert rows_of(pickle.loads(pickle.dumps(batch))) == rows_of(batch)
        assert batch.to("cpu")["x"] is not None


def test_numpy_needs_no_torch(two_patients: Dataset, two_slides: Any) -> None:
    """In a process that cannot import it."""
    printed = run_program("without_torch.py", str(two_slides))
    assert printed.split() == ["ndarray", "ndarray", "list", "goes", "on"]
