"""A key for each row of a batch, from which everything random about the row can come."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError

NAMING = ("bigchunk", "call", "slide_index", "x", "y")
"""The columns that a row is named by."""


def row_keys(batch: Mapping[str, Any], seed: int, epoch: int = 0) -> npt.NDArray[np.uint64]:
    """A key for each row, the same wherever and whenever the row is delivered.

    It is a hash (BLAKE2b, 64 bits) of `seed`, `epoch`, the columns ``bigchunk``, ``call``,
    ``slide_index``, ``x`` and ``y``, and of ``node`` where rows of several services are in one
    batch. In one stream, or one pass, ``bigchunk`` and ``call`` name a row; the place tells rows of
    different streams apart. Workers, batch size, position in the batch and resumes change nothing.

    What batches do not say has to be given: rows of streams of different seeds, or of different
    passes (``grid=True``, ``cycles=``), have the same columns. Whether a BigChunk is a substitute
    is no part of the key; its slide and its places are. Of a dataset with other slides,
    ``slide_index`` is another.

    Args:
        batch: its columns, on any device; tensors on a GPU are waited for, so make the keys before
            you move the batch.
        seed: of the stream, or any other of your own, 0 to 2**64 - 1.
        epoch: number of the pass, at least 0.

    Returns:
        uint64 (B,).

    Raises:
        ConfigError: the batch has no such columns, or seed or epoch are out of their bounds.
    """
    for name, value in (("seed", seed), ("epoch", epoch)):
        right = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not right or not 0 <= value < 2**64:
            raise ConfigError(
                f"{name} must be a whole number from 0 to 2**64 - 1, not {value!r:.80}"
            )
    missing = [name for name in NAMING if name not in batch]
    if missing:
        raise ConfigError(
            f"the batch has no column {missing[0]!r}, which is part of the key of a row; make the "
            "keys of the batch that came from the loader"
        )
    names = (*NAMING, "node") if "node" in batch else NAMING
    columns = np.stack([_whole(batch[name]) for name in names], axis=1)
    begin = hashlib.blake2b(np.array([seed, epoch], "<u8").tobytes(), digest_size=8)
    keys = np.empty(len(columns), np.uint64)
    for row, words in enumerate(columns):
        hashed = begin.copy()
        hashed.update(words.tobytes())
        keys[row] = int.from_bytes(hashed.digest(), "little")
    return keys


def _whole(column: Any) -> npt.NDArray[np.int64]:
    found = column.cpu() if hasattr(column, "cpu") else column
    return np.asarray(found).astype("<i8")
