"""The columns of several batches as those of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.consumers.batches.arrays import ArrayKind
from chunkdl.consumers.batches.batch import Batch

PADDING: Mapping[str, float] = {"cells": np.nan, "cell_class": -1}
"""Columns with room for as many objects as a row of their service can have, and what is behind."""


class Together(Mapping[str, Any]):
    """The columns of several batches, one behind the other; made when they are asked for."""

    def __init__(self, batches: Sequence[Batch], nodes: Sequence[int], kind: ArrayKind) -> None:
        self._kind = kind
        self._batches = batches
        self._nodes = nodes
        self._made: dict[str, Any] = {}
        self._names = [
            *(name for name in batches[0] if all(name in other for other in batches)),
            "node",
        ]

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if name not in self._names:
                raise KeyError(name)
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Any:
        if name == "node":
            return self._kind.repeated(
                self._nodes, [len(batch.patients) for batch in self._batches]
            )
        parts = [batch[name] for batch in self._batches]
        if name in PADDING and len({part.shape[1] for part in parts}) > 1:
            return self._kind.numbers(_padded([np.asarray(part) for part in parts], PADDING[name]))
        return self._kind.together(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _padded(parts: Sequence[npt.NDArray[Any]], fill: float) -> npt.NDArray[Any]:
    """Behind each other, each with as much room as the one with the most."""
    room = max(part.shape[1] for part in parts)
    found = np.full((sum(map(len, parts)), room, *parts[0].shape[2:]), fill, parts[0].dtype)
    first = 0
    for part in parts:
        found[first : first + len(part), : part.shape[1]] = part
        first += len(part)
    return found
