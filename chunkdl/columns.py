"""The columns of a batch in the training process: from records, paths, patients and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.arrays import ArrayKind
from chunkdl.layouts import COLUMNS
from chunkdl.patients import Patient

Table = list[Any] | npt.NDArray[Any]
"""A label per patient of the dataset; an array where all are numbers."""


def label_tables(patients: Sequence[Patient]) -> dict[str, Table]:
    """For each label column its value per patient; an array where all are numbers."""
    names = {name: None for patient in patients for name in patient.labels}
    tables: dict[str, Table] = {}
    for name in names:
        values = [patient.labels.get(name) for patient in patients]
        numbers = all(isinstance(value, int | float) for value in values)
        tables[name] = np.asarray(values) if numbers else values
    if "label" not in tables and len(tables) == 1:
        tables["label"] = next(iter(tables.values()))
    return tables


class Columns(Mapping[str, Any]):
    """The columns of a batch by name, made when they are asked for: most loops want only a few.

    Args:
        made: the columns that are there already: the rows.
        records: of its rows, `chunkdl.layouts.RECORD`.
        patients: of its rows.
        paths: of the slides, by index.
        labels: by name, a label for each patient of the dataset.
        kind: of the arrays.
    """

    def __init__(
        self,
        made: Mapping[str, Any],
        records: npt.NDArray[Any],
        patients: Sequence[Patient],
        paths: Sequence[str],
        labels: Mapping[str, Table],
        kind: ArrayKind,
    ) -> None:
        self._made = dict(made)
        self._given = tuple(made)
        self._records = records
        self._patients = patients
        self._paths = paths
        self._labels = labels
        self._kind = kind

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Any:
        if name == "slide":
            slides = self._records["slide"].tolist()
            return ["" if index < 0 else self._paths[index] for index in slides]
        if name == "patient":
            return [patient.name for patient in self._patients]
        if name in _NUMBERS:
            return self._kind.numbers(self._records[name])
        table = self._labels[name]
        rows = self._records["patient"]
        if isinstance(table, np.ndarray):
            return self._kind.numbers(table[rows])
        return [table[index] for index in rows.tolist()]

    def __iter__(self) -> Iterator[str]:
        yield from (*self._given, *_NUMBERS, "slide", "patient")
        yield from (name for name in self._labels if name not in _RESERVED)

    def __len__(self) -> int:
        return sum(1 for _ in self)


_NUMBERS = tuple(name for name, _ in COLUMNS if name not in ("slide", "patient"))
_RESERVED = frozenset(
    ("image", "data", "info_smallchunk", "info_bigchunk", *_NUMBERS, "slide", "patient")
)
