"""The labels of a dataset as tables: the values of a label by the index of a patient or a slide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from chunkdl.dataset.labels import RESERVED, Stacked, is_plain, plain, refusal, stacked
from chunkdl.dataset.patients import Patient
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.errors import DatasetError
from chunkdl.system.steady_log import steady_logger

Labels = Mapping[str, object]

log = steady_logger("chunkdl")


@dataclass(frozen=True, slots=True, eq=False)
class LabelTable:
    """One label.

    Attributes:
        of: what has it; "slide" where any slide of the dataset does.
        column: its values by the index of what has it. Of slides, values by the index of the
            patient follow where rows need not be of a slide.
        count: of patients or slides.
    """

    of: Literal["patient", "slide"]
    column: Stacked
    count: int

    def of_rows(self, records: npt.NDArray[Any]) -> list[Any] | npt.NDArray[Any]:
        """The values of rows, whose `RECORD`s are given."""
        index = records[self.of]
        if self.of == "slide":
            index = np.where(index < 0, self.count + records["patient"], index)
        values = self.column.values
        if isinstance(values, np.ndarray):
            rows: npt.NDArray[Any] = values[index]
            return rows
        return [values[number] for number in index.tolist()]


def slide_labels(
    patients: Sequence[Patient], slides: Sequence[SlideEntry]
) -> list[dict[str, object]]:
    """For each slide of a stream its value of each label that slides have, None where it has none.

    A missing value of a slide says nothing: its patient's holds. See `Record.labels`.
    """
    records = [patient.slides for patient in patients]
    names = _names(record.labels for of_patient in records for record in of_patient)
    if not names:
        return [{} for _ in slides]
    found = []
    for entry in slides:
        own = records[entry.patient][entry.record].labels
        known = {name: value for name, value in own.items() if plain(value) is not None}
        both = {**patients[entry.patient].labels, **known}
        found.append({name: both.get(name) for name in names})
    return found


def label_tables(
    of_patients: Sequence[Labels],
    of_slides: Sequence[Labels],
    patient_of_slide: Sequence[int] | None = None,
) -> dict[str, LabelTable]:
    """The tables of all labels that can be columns; the only one is there as "label" as well.

    Args:
        of_patients: labels of each patient.
        of_slides: of each slide, as `slide_labels` gives them.
        patient_of_slide: indices, where rows need not be of a slide: such a row has what all slides
            of its patient have, or a missing value where they differ.
    """
    tables: dict[str, LabelTable] = {}
    names_of_slides = _names(of_slides)
    for name in _names([*of_patients, *of_slides]):
        if name in RESERVED:
            continue
        if name in names_of_slides:
            values = [labels.get(name) for labels in of_slides]
            if patient_of_slide is not None:
                values += _agreed(values, patient_of_slide, len(of_patients))
            tables[name] = LabelTable("slide", stacked(values), len(of_slides))
        else:
            values = [labels.get(name) for labels in of_patients]
            tables[name] = LabelTable("patient", stacked(values), len(of_patients))
    if "label" not in tables and len(tables) == 1:
        (tables["label"],) = tables.values()
    return tables


def check_labels(
    patients: Sequence[Patient], slides: Sequence[SlideEntry], *, own_classes: bool
) -> None:
    """See that each label can be a column of a batch.

    Args:
        patients: of the dataset.
        slides: of the stream.
        own_classes: what patients have beside records may be for the user's classes alone: what
            cannot be a column is told instead of refused.

    Raises:
        DatasetError: a label has a name that batches need, or a number that no tensor holds.
    """
    of_patients = [patient.labels for patient in patients]
    of_slides = slide_labels(patients, slides)
    names = _names([*of_patients, *of_slides])
    if own_classes:
        hidden = [name for name in names if name in RESERVED]
        if hidden:
            log.warning(
                "batches have their own columns named %s, so the labels of patients with these "
                "names are only in the patients, not in the batches",
                ", ".join(map(repr, hidden)),
            )
        return
    problems = list(filter(None, map(refusal, names)))
    for name, table in label_tables(of_patients, of_slides).items():
        if table.column.problem:
            problems.append(f"label {name!r}: {table.column.problem}")
        elif table.column.remark:
            log.warning("label %r %s: batches have it as a list", name, table.column.remark)
    if problems:
        raise DatasetError("; ".join(problems))


def _names(labels: Iterable[Labels]) -> list[str]:
    return list({name: None for each in labels for name in each})


def _agreed(values: Sequence[object], patient_of_slide: Sequence[int], patients: int) -> list[Any]:
    """For each patient the value that all its slides have; None where they differ."""
    of_patient: list[list[Any]] = [[] for _ in range(patients)]
    for value, patient in zip(map(plain, values), patient_of_slide, strict=True):
        of_patient[patient].append(value)
    return [_only(found) for found in of_patient]


def _only(values: list[Any]) -> Any:
    if not values or not all(map(is_plain, values)):
        return None
    return values[0] if all(value == values[0] for value in values) else None
