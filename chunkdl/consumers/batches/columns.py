"""The columns of a batch beside its rows: numbers of the records, slides, patients and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.consumers.batches.arrays import ArrayKind
from chunkdl.dataset.label_tables import LabelTable
from chunkdl.dataset.patients import Patient
from chunkdl.errors import ConfigError
from chunkdl.transport.memory.layouts import COLUMNS
from chunkdl.transport.row_format import OF_ANNOTATIONS, RowFormat


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """What the indices in a batch stand for; all batches of a stream share it.

    Attributes:
        patients: of the dataset.
        paths: of the slides of the stream.
        labels: by name.
        kind: of the arrays in batches.
        regions: names of the annotated classes.
    """

    patients: Sequence[Patient]
    paths: Sequence[str]
    labels: Mapping[str, LabelTable]
    kind: ArrayKind
    regions: Sequence[str] = ()

    def by_name(self) -> dict[str, Any]:
        """Copies: "slide" are the paths by ``slide_index``, "patient" the names by
        ``patient_index``, "region" the annotated classes by ``region`` and ``drawn_region``, and
        each label its values by the index of what has it, a tensor or a list as in a batch.
        """
        tables: dict[str, Any] = {
            "slide": list(self.paths),
            "patient": [patient.name for patient in self.patients],
        }
        if self.regions:
            tables["region"] = list(self.regions)
        for name, table in self.labels.items():
            values = table.column.values[: table.count]
            if isinstance(values, np.ndarray):
                tables[name] = self.kind.numbers(values.copy())
            else:
                tables[name] = values
        return tables

    def check_apart(self, row_format: RowFormat) -> None:
        """See that no column that the user's code makes has the name of a label.

        Raises:
            ConfigError: one has.
        """
        for column in row_format.columns:
            if column.name in self.labels:
                raise ConfigError(
                    f"the SmallChunks have a column {column.name!r}, which is a label of the "
                    "dataset too; give one of them another name"
                )


class Columns(Mapping[str, Any]):
    """The columns of a batch by name, made when they are asked for: most loops want only a few.

    Args:
        made: the columns that are there already: the rows.
        records: of its rows, `chunkdl.transport.memory.layouts.RECORD`.
        tables: of the stream.
        tensors_only: there are no columns but tensors.
    """

    def __init__(
        self,
        made: Mapping[str, Any],
        records: npt.NDArray[Any],
        tables: Tables,
        *,
        tensors_only: bool = False,
    ) -> None:
        self._made = dict(made)
        self._given = tuple(made)
        self._records = records
        self._tables = tables
        self._tensors_only = tensors_only

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The columns that make the data of a SmallChunk."""
        return tuple(name for name in self._given if name not in OF_ANNOTATIONS.union(INFOS))

    def tables(self) -> dict[str, Any]:
        """What the indices stand for; see `Tables.by_name`."""
        return self._tables.by_name()

    def __getitem__(self, name: str) -> Any:
        if self._tensors_only and self._is_left_out(name):
            raise KeyError(self._why_left_out(name))
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Any:
        if name == "slide":
            paths = self._tables.paths
            slides = self._records["slide"].tolist()
            return ["" if index < 0 else paths[index] for index in slides]
        if name == "patient":
            patients = self._tables.patients
            return [patients[index].name for index in self._records["patient"].tolist()]
        if name in _INDICES:
            return self._tables.kind.numbers(self._records[_INDICES[name]].astype(np.int64))
        if name in _NUMBERS:
            return self._tables.kind.numbers(self._records[name])
        values = self._tables.labels[name].of_rows(self._records)
        return self._tables.kind.numbers(values) if isinstance(values, np.ndarray) else values

    def _is_left_out(self, name: str) -> bool:
        """Whether the column is there but is not a tensor."""
        if name in self._given:
            return isinstance(self._made[name], list)
        if name in self._tables.labels:
            # No name of a column above is one of a label.
            return isinstance(self._tables.labels[name].column.values, list)
        return name in _INDICES.values()

    def _why_left_out(self, name: str) -> str:
        if name in self._given:
            return f"column {name!r} is not a tensor and is left out with tensors_only=True"
        of = self._tables.labels[name].of if name in self._tables.labels else name
        return (
            f"column {name!r} is not a tensor and is left out with tensors_only=True; its value "
            f"for a row is loader.tables[{name!r}][i] with i of the column '{of}_index'"
        )

    def __iter__(self) -> Iterator[str]:
        names = *self._given, *_NUMBERS, *_INDICES, *_INDICES.values(), *self._tables.labels
        for name in names:
            if not (self._tensors_only and self._is_left_out(name)):
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)


INFOS = ("info_smallchunk", "info_bigchunk")
"""Columns of the dicts that the user's classes give; no part of the data of a SmallChunk."""
_INDICES = {"slide_index": "slide", "patient_index": "patient"}
"""Columns of indices, and what they are into."""
_NUMBERS = tuple(name for name, _ in COLUMNS if name not in _INDICES.values())
