"""Generators that classes, policies and transforms of the user keep, through real processes."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from chunkdl import Dataset, LightDL, Patient
from tests.processes.own_generators import (
    Counting,
    OwnCollector,
    OwnLoader,
    OwnPolicy,
    System,
    Unseedable,
)

SIX = Dataset("numbers", [Patient(10 + n, {}) for n in range(6)])
STREAM: dict[str, Any] = {
    "batch_size": 8,
    "num_bigchunks": 3,
    "smallchunks_per_bigchunk": 10,
    "memory_limit": "64MiB",
    "seed": 4,
}


def rows(processes: int, **more: Any) -> np.ndarray[Any, Any]:
    """The rows of some batches."""
    arguments = {**STREAM, "num_loaders": processes, "num_collectors": processes, **more}
    settings = {"rng": np.random.default_rng(0)}
    with LightDL(SIX, OwnLoader, OwnCollector, settings, **arguments) as loader:
        return np.concatenate([loader.next_batch(60)["image"].numpy() for _ in range(12)])


def test_classes_with_generators_of_their_own_give_the_same_rows_for_any_processes() -> None:
    """In attributes, in the settings, of the module, made in the call; and no number twice."""
    one = rows(1)
    assert np.array_equal(one, rows(3))
    # Of the loader's numbers each comes once a BigChunk; the constructor's number, too.
    by_call, by_load = one[:, 5:9], one[:, [0, 1, 2, 3, 4, 9]]
    assert len(np.unique(by_call)) == by_call.size
    loads = len(np.unique(by_load[:, 0]))
    assert loads > 6
    assert len(np.unique(by_load)) == 6 * loads


def test_a_policy_with_a_generator_of_its_own_chooses_the_same_patients_again() -> None:
    """Also from the middle on: a choice depends on the choice, not on those before it."""
    arguments = {**STREAM, "num_loaders": 1, "num_collectors": 1, "schedule": OwnPolicy}
    settings = {"rng": np.random.default_rng(0)}

    def loader() -> LightDL:
        own = {**arguments, "schedule": OwnPolicy()}
        return LightDL(SIX, OwnLoader, OwnCollector, settings, **own)

    with loader() as first:
        names = [[patient.name for patient in first.next_batch(60).patients] for _ in range(6)]
        state = first.state_dict()
        names += [[patient.name for patient in first.next_batch(60).patients] for _ in range(6)]
    with loader() as again:
        again.load_state_dict(state)
        rest = [[patient.name for patient in again.next_batch(60).patients] for _ in range(6)]
    assert rest == names[6:]


def brings_torch(crop: Any) -> Any:
    """Its collector has no torch before its first row."""
    import torch

    return torch.rand(4)


brings_torch.__module__ = "__main__"  # so that it travels by value, not as a name of this module


def test_a_transform_that_imports_torch_itself_makes_the_same_rows_from_the_first(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """torch comes after the generators of the row were seeded, in each collector anew."""
    runs: list[Any] = []
    for collectors in (1, 3):
        arguments = {**small_stream, "num_collectors": collectors, "tfms": brings_torch}
        with LightDL(coordinate_dataset, **arguments) as loader:
            runs.append(np.concatenate([loader.next_batch(60)["image"] for _ in range(6)]))
    assert np.array_equal(*runs)
    assert len(np.unique(runs[0])) == runs[0].size


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        (Unseedable(), "Unseedable made two different rows from one SmallChunk"),
        (Counting(), "Counting made two different rows from one SmallChunk"),
        (System(), "System.__class__.rng is a random.SystemRandom"),
    ],
    ids=["uuid4", "a counter", "SystemRandom"],
)
def test_a_transform_that_cannot_be_seeded_is_named_once(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    transform: Any,
    says: str,
) -> None:
    """In the log of the training process, for all collectors together."""
    arguments = {**small_stream, "num_collectors": 2, "tfms": transform}
    with (
        caplog.at_level(logging.WARNING, logger="chunkdl"),
        LightDL(coordinate_dataset, **arguments) as loader,
    ):
        for _ in range(6):
            loader.next_batch(60)
    told = [record.message for record in caplog.records]
    (warning,) = [text for text in told if "num_bigchunks" not in text]
    assert says in warning
