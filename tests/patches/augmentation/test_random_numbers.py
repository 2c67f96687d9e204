"""The numbers of a row are Philox's, and depend on key, operation and view only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from chunkdl.patches.arithmetic.numpy_maths import NumpyMaths
from chunkdl.patches.arithmetic.torch_maths import TorchMaths
from chunkdl.patches.augmentation.random_numbers import noise, normals, philox, uniforms
from tests.patches.stain.stained import DEVICES

FULL = 2**32 - 1
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((FULL,) * 4, (FULL,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
"""Counter, key and answer, of Random123's ``kat_vectors``."""
KEYS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5)


@pytest.mark.parametrize("device", ["numpy", *DEVICES])
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_generator_is_philox(
    counter: tuple[int, ...], key: tuple[int, ...], answer: tuple[int, ...], device: str
) -> None:
    """The published answers, in numpy and in torch."""

    def words(values: tuple[int, ...]) -> tuple[object, ...]:
        arrays = [np.array([value]) for value in values]
        if device == "numpy":
            return tuple(arrays)
        return tuple(torch.from_numpy(array).to(device) for array in arrays)

    assert tuple(int(word[0]) for word in philox(words(counter), words(key))) == answer


@given(KEYS, st.integers(0, 50), st.integers(0, FULL), st.integers(1, 23))
def test_the_numbers_of_a_row_are_its_own(
    keys: list[int], operation: int, view: int, count: int
) -> None:
    """Whatever other rows are there, and however many numbers are asked for."""
    all_keys = np.array(keys, np.uint64)
    drawn = uniforms(all_keys, operation, view, count)
    assert drawn.shape == (len(keys), count)
    assert ((drawn >= 0) & (drawn < 1)).all()
    for row in range(len(keys)):
        alone = uniforms(all_keys[row : row + 1], operation, view, count + 3)
        assert np.array_equal(alone[0, :count], drawn[row])


def test_numbers_of_different_names_are_independent_and_uniform() -> None:
    """Of neighbouring keys, operations, views and indices."""
    keys = np.arange(4000, dtype=np.uint64)
    drawn = [uniforms(keys, operation, view, 4) for operation in (0, 1) for view in (0, 1)]
    columns = np.concatenate(drawn, axis=1)
    assert min(stats.kstest(column, "uniform").pvalue for column in columns.T) > 0.001
    apart = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(apart).max() < 0.07
    upper = keys << np.uint64(32)
    assert not np.array_equal(uniforms(upper[1:], 0, 0, 4), uniforms(keys[1:], 0, 0, 4))


def test_normal_numbers_are_normal() -> None:
    """Of a uniform number, and of each pixel and colour."""
    keys = np.arange(2000, dtype=np.uint64)
    parameters = normals(uniforms(keys, 0, 0, 8))
    assert parameters.shape == (2000, 8)
    grain = noise(NumpyMaths(), uniforms(keys[:2], 0, 0, 2), 5000)
    assert grain.shape == (2, 3, 5000)
    for column in (*parameters.T, *grain.reshape(6, -1)):
        assert stats.kstest(column, "norm").pvalue > 0.001
    assert np.abs(np.corrcoef(grain.reshape(6, -1)) - np.eye(6)).max() < 0.06


@pytest.mark.parametrize("device", DEVICES)
def test_the_grain_of_torch_is_that_of_numpy(device: str) -> None:
    """But for the last bits of cosines."""
    seeds = uniforms(np.arange(3, dtype=np.uint64), 0, 0, 2)
    expected = noise(NumpyMaths(), seeds, 999)
    found = noise(TorchMaths(torch.device(device)), seeds, 999).cpu().numpy()
    assert np.abs(found - expected).max() < 1e-4
