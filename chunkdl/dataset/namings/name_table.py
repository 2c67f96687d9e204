"""Slides whose patients a table says, by the names of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chunkdl.dataset.joined_labels import name_in, names_of_slide, rows_by_name
from chunkdl.dataset.namings.naming import NamedSlide
from chunkdl.dataset.tables import Table, read_table, refuse
from chunkdl.errors import DatasetError


@dataclass(frozen=True, slots=True)
class NameTable:
    """Slides by a table with a row for each, as many data sets have it beside the images.

    For names that do not say whose slide it is, as in CPTAC-2 and PANDA. The table has names of
    files and not their paths: folders do not matter.

    Attributes:
        table: CSV or Parquet file, DataFrame or rows, as `Dataset.from_table` reads.
        slide: the column with the names of files, with or without suffix.
        patient: the column with the patients.
        labels: columns that become labels of the slides.

    Raises:
        DatasetError: the table cannot be read, lacks a column, or has a slide twice with different
            values.
    """

    table: Any = field(repr=False)
    slide: str
    patient: str
    labels: tuple[str, ...] = ()
    _known: Mapping[str, NamedSlide] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        table = read_table(self.table, (self.slide.lower(), self.patient.lower()))
        object.__setattr__(self, "_known", _slides(table, self.slide, self.patient, self.labels))

    def read(self, path: str) -> NamedSlide | None:
        """See `chunkdl.dataset.namings.naming.Naming`."""
        found = [self._known[name] for name in names_of_slide(path) if name in self._known]
        if not found:
            raise DatasetError(f"column {self.slide!r} of the table does not have it")
        if any(said != found[0] for said in found):
            raise DatasetError("the table has it twice, with the suffix and without, and differs")
        return found[0]


def _slides(
    table: Table, slide: str, patient: str, labels: tuple[str, ...]
) -> dict[str, NamedSlide]:
    rows = rows_by_name(table, slide, labels)
    if table.columns.count(patient) != 1:
        raise DatasetError(
            f"{table.header}: there must be one column {patient!r}; columns found: "
            f"{', '.join(table.columns)}"
        )
    at, of = table.columns.index(slide), table.columns.index(patient)
    known: dict[str, NamedSlide] = {}
    problems = []
    for number, row in table.rows:
        # As it is written: two codes that are equal as numbers are two patients.
        name, whose = name_in(row[at]), name_in(row[of])
        said = NamedSlide(whose, of_slide=rows[name])
        if not whose:
            problems.append(f"row {number}: column {patient!r} is empty")
        elif known.setdefault(name, said) != said:
            problems.append(f"row {number}: {name} has another patient in an earlier row")
    refuse(table.source, problems)
    return known
