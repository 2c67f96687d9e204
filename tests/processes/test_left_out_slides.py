"""A stream without the slides that were left out is the stream of a dataset that never had them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl import Dataset, LightDL, Patient, Record
from chunkdl.sampling.policies.balanced import LabelBalanced
from chunkdl.sampling.policies.in_turn import RoundRobin, Uniform
from chunkdl.sampling.policies.policy import Policy, Situation
from chunkdl.sampling.policies.quota import Quota
from chunkdl.slides.synthetic.writing import write_coordinate_slide


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


class Latest(Policy):
    """A policy of the user, asked in a process of its own."""

    def choose(self, now: Situation) -> int:
        waiting = now.waiting or tuple(set(now.open) - now.finished)
        return min(waiting, key=lambda patient: (now.loads[patient], -patient))


@pytest.fixture
def with_tiny_ones(coordinate_dataset: Dataset, tmp_path: Path) -> Dataset:
    """The patients of the dataset, with others before, between and behind, and a tiny slide."""
    write_coordinate_slide(tmp_path / "tiny.tif", 32, 32, tile=16, levels=(1,))
    tiny = Record(tmp_path, "tiny.tif", {"tissue_mask": np.ones((2, 2), dtype=bool)})
    # Labels are numbered as they appear; the first one is that of the first patient that stays.
    left_out = [Patient(100 + number, {"a": tiny, "label": 1 - number % 2}) for number in range(3)]
    first, second = coordinate_dataset
    more = Patient(second.int_uniqueid, {**second.dict_records, "tiny": tiny})
    return Dataset("tiny", [left_out[0], first, left_out[1], more, left_out[2]])


@pytest.mark.parametrize(
    "schedule",
    [None, RoundRobin(), LabelBalanced(), Quota(Uniform(), 4), Latest()],
    ids=["random", "in turn", "by label", "quota", "own"],
)
def test_left_out_slides_have_no_part_in_a_stream(
    coordinate_dataset: Dataset,
    with_tiny_ones: Dataset,
    small_stream: dict[str, Any],
    digest_of: Callable[[Any], str],
    schedule: Policy | None,
) -> None:
    """Bit for bit, with the labels of the right patients, and nothing counts as unusable."""
    batches, labels = [], []
    for dataset in (coordinate_dataset, with_tiny_ones):
        with LightDL(dataset, schedule=schedule, **small_stream) as loader:
            taken = [loader.next_batch(60) for _ in range(12)]
            batches.append([digest_of(batch) for batch in taken])
            labels.append([batch["label"].tolist() for batch in taken])
            assert {p.int_uniqueid for batch in taken for p in batch.patients} <= {7, 9}
            assert loader.stats(60).unusable_slides == 0
    assert batches[0] == batches[1]
    assert labels[0] == labels[1]


def test_left_out_slides_have_no_part_in_a_grid_pass(
    coordinate_dataset: Dataset,
    with_tiny_ones: Dataset,
    small_stream: dict[str, Any],
    digest_of: Callable[[Any], str],
) -> None:
    """The pass is the same, and so is its end."""
    passes = []
    for dataset in (coordinate_dataset, with_tiny_ones):
        with LightDL(dataset, grid=True, **small_stream) as loader:
            passes.append([digest_of(batch) for batch in loader])
    assert passes[0] == passes[1]
    assert passes[0]


def test_a_stream_without_left_out_slides_goes_on_from_a_state(
    with_tiny_ones: Dataset, small_stream: dict[str, Any], digest_of: Callable[[Any], str]
) -> None:
    """The states of a policy count the patients of the dataset."""
    with LightDL(with_tiny_ones, schedule=Uniform(), **small_stream) as loader:
        for _ in range(7):
            loader.next_batch(60)
        state = loader.state_dict()
        expected = [digest_of(loader.next_batch(60)) for _ in range(5)]
    with LightDL(with_tiny_ones, schedule=Uniform(), **small_stream) as loader:
        loader.load_state_dict(state)
        assert [digest_of(loader.next_batch(60)) for _ in range(5)] == expected
