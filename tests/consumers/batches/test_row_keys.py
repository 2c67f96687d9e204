"""Each row has a key of its own, wherever and whenever it is delivered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.consumers.batches.batch import Batch
from chunkdl.consumers.batches.row_keys import NAMING, row_keys
from chunkdl.errors import ConfigError

NUMBERS = st.integers(-(2**62), 2**62)
ROWS = st.lists(st.tuples(*[NUMBERS] * len(NAMING)), min_size=1, max_size=8, unique=True)
SEEDS = st.integers(0, 2**64 - 1)


def batch_of(rows: list[tuple[int, ...]], **more: Any) -> Batch:
    """A batch with these columns, and one that names nothing."""
    columns = {
        name: torch.tensor(column)
        for name, column in zip(NAMING, zip(*rows, strict=True), strict=True)
    }
    return Batch({**columns, "tissue_fraction": torch.rand(len(rows)), **more}, [])


@given(ROWS, SEEDS, st.integers(0, 5))
def test_keys_belong_to_rows(rows: list[tuple[int, ...]], seed: int, epoch: int) -> None:
    """Different ones have different keys; alone, in numpy, and in another order they are equal."""
    keys = row_keys(batch_of(rows), seed, epoch)
    assert keys.dtype == np.uint64
    assert len(set(keys.tolist())) == len(rows)
    for row, key in zip(rows, keys, strict=True):
        alone = {name: np.array([value]) for name, value in zip(NAMING, row, strict=True)}
        assert row_keys(alone, seed, epoch).tolist() == [key]
    assert row_keys(batch_of(rows[::-1]), seed, epoch).tolist() == keys[::-1].tolist()


@given(ROWS, SEEDS, st.integers(0, 5))
def test_seed_pass_and_node_make_other_keys(
    rows: list[tuple[int, ...]], seed: int, epoch: int
) -> None:
    """Rows of another stream or pass may have the same columns."""
    nodes = [torch.full((len(rows),), node) for node in (0, 1)]
    found = [
        row_keys(batch_of(rows), seed, epoch),
        row_keys(batch_of(rows), seed ^ 1, epoch),
        row_keys(batch_of(rows), seed, epoch + 1),
        *(row_keys(batch_of(rows, node=node), seed, epoch) for node in nodes),
    ]
    assert len({key for keys in found for key in keys.tolist()}) == 5 * len(rows)


def test_a_key_stays_the_same_for_good() -> None:
    """A change of this number changes the augmentation of every stream."""
    assert row_keys(batch_of([(1, 2, 3, 4, 5)]), 6, 7).tolist() == [5371536550723376993]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: row_keys({"bigchunk": [1]}, 0), "no column 'call'"),
        (lambda: row_keys(batch_of([(0,) * 5]), -1), "seed must be a whole number"),
        (lambda: row_keys(batch_of([(0,) * 5]), 0, 2**64), "epoch must be a whole number"),
    ],
)
def test_what_names_no_row_is_refused(make: Any, words: str) -> None:
    """With the column that is missing."""
    with pytest.raises(ConfigError, match=words):
        make()
