"""The columns of several batches as those of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chunkdl.consumers.batches.arrays import ArrayKind
from chunkdl.consumers.batches.batch import Batch


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
        return self._kind.together([batch[name] for batch in self._batches])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
