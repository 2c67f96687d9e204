"""Augmentation of a real stream: by keys of its rows, and in the collectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from chunkdl import Dataset, LightDL
from chunkdl.consumers.batches.row_keys import row_keys
from chunkdl.patches.augmentation.augment import Augment
from chunkdl.patches.augmentation.colours import ColourJitter
from chunkdl.patches.augmentation.stains import HedJitter
from chunkdl.patches.augmentation.symmetries import Symmetry

AUGMENT = Augment(Symmetry(), HedJitter(), ColourJitter(), standardise="[0,1]")


def augmented(loader: LightDL, batches: int) -> torch.Tensor:
    """Rows of the next batches."""
    found = [loader.next_batch(60) for _ in range(batches)]
    return torch.cat([AUGMENT(batch["image"], row_keys(batch, seed=5)) for batch in found])


def test_rows_are_augmented_alike_after_a_resume_and_in_batches_of_another_size(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """By the keys of `row_keys`; and no two rows have the same."""
    with LightDL(coordinate_dataset, **small_stream) as loader:
        first = loader.next_batch(60)
        state = loader.state_dict()
        rest = augmented(loader, 2)
        before = AUGMENT(first["image"], row_keys(first, seed=5))
    assert len(set(row_keys(first, seed=5).tolist())) == len(before)

    with LightDL(coordinate_dataset, **small_stream) as loader:
        loader.load_state_dict(state)
        assert torch.equal(augmented(loader, 2), rest)

    half = {**small_stream, "batch_size": small_stream["batch_size"] // 2}
    with LightDL(coordinate_dataset, **half) as loader:
        assert torch.equal(augmented(loader, 2), before)


def test_rows_are_augmented_alike_by_any_number_of_collectors(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As a transform, with numbers from the generator that is seeded for each row."""
    streams = []
    for collectors in (1, 2):
        arguments = {**small_stream, "num_collectors": collectors, "tfms": AUGMENT.row}
        with LightDL(coordinate_dataset, **arguments) as loader:
            streams.append(torch.cat([loader.get(60)[0] for _ in range(4)]))
    assert torch.equal(*streams)
    assert streams[0].dtype == torch.float32
    told = [record.getMessage() for record in caplog.records]
    assert not [text for text in told if "generator" in text or "seed" in text]
