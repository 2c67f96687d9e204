"""Slides of the Imaging Data Commons: DICOM files, and the listing that they were downloaded by."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from chunkdl.dataset import cells
from chunkdl.dataset.labels import plain, refusal
from chunkdl.dataset.namings.naming import NamedSlide
from chunkdl.dataset.tables import Table, read_table, refuse
from chunkdl.errors import DatasetError
from chunkdl.slides.readers.dicom_header import member_of
from chunkdl.slides.readers.refusals import NotTaken
from chunkdl.slides.suffixes import stem

_PATIENT = "PatientID"
_SERIES = "SeriesInstanceUID"
_SERIES_KEYS = (_SERIES, "crdc_series_uuid")
_INSTANCE_KEY = "crdc_instance_uuid"
_COLLECTION = "collection_id"
_MODALITY = re.compile(r"[A-Z]{2,4}_")
"""What idc-index puts before the series in the name of its folder."""


@dataclass(frozen=True, slots=True)
class Idc:
    """Slides of the Imaging Data Commons, by a listing of series or of files.

    A slide is found in the listing by its folder, if that is named after the series
    ("SM_1.3.6.1.…", "1.3.6.1.…" or its `crdc_series_uuid`), else by its file name
    (`crdc_instance_uuid`), else by the SeriesInstanceUID in the file.

    Attributes:
        table: CSV or Parquet file, DataFrame or rows, as `Dataset.from_table` reads, with the
            columns PatientID and SeriesInstanceUID as idc-index and the portal have them;
            collection_id, crdc_series_uuid and crdc_instance_uuid are used if they are there.
        labels: further columns that become labels of the slides. `collection` is a label of the
            patient if the table has collection_id.

    Raises:
        DatasetError: the table cannot be read, or contradicts itself: a series has two patients, or
            a PatientID is in two collections, which may be two people.
    """

    table: Any = field(repr=False)
    labels: tuple[str, ...] = ()
    _known: dict[str, NamedSlide] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        wanted = (_PATIENT.lower(), _SERIES.lower())
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "_known", _by_key(read_table(self.table, wanted), self.labels))

    def read(self, path: str) -> NamedSlide | None:
        """See `chunkdl.dataset.namings.naming.Naming`."""
        folders = os.path.dirname(path).split(os.sep)[::-1]
        for key in (*folders, *(_MODALITY.sub("", name, count=1) for name in folders), stem(path)):
            if key in self._known:
                return self._known[key]
        try:
            member = member_of(path)
        except (NotTaken, ValueError, OSError) as error:
            raise DatasetError(f"neither folder nor file is in the listing ({error})") from error
        if member is None or member.series not in self._known:
            series = "of no whole-slide image" if member is None else f"series {member.series}"
            raise DatasetError(f"the listing does not have it: {series}")
        return self._known[member.series]


def _by_key(table: Table, labels: Sequence[str]) -> dict[str, NamedSlide]:
    """What is known of a slide, by each of its keys."""
    at = {name: n for n, name in enumerate(table.columns)}
    missing = [name for name in (_PATIENT, _SERIES, *labels) if name not in at]
    problems = [f"column {name!r} is missing" for name in missing]
    problems += [refusal(name) for name in labels if refusal(name)]
    if problems:
        raise DatasetError(
            f"{table.header}: {'; '.join(problems)}; columns found: {', '.join(table.columns)}"
        )
    columns = {name: [row[at[name]] for _, row in table.rows] for name in labels}
    if table.text:
        columns = {name: cells.typed(column) for name, column in columns.items()}
    known: dict[str, NamedSlide] = {}
    collection_of: dict[str, str] = {}
    for index, (number, row) in enumerate(table.rows):
        patient, series = (str(plain(row[at[name]]) or "").strip() for name in (_PATIENT, _SERIES))
        if not patient or not series:
            problems.append(f"row {number}: {_PATIENT} or {_SERIES} is empty")
            continue
        of_patient = {}
        if _COLLECTION in at:
            collection = str(plain(row[at[_COLLECTION]]) or "").strip()
            of_patient = {"collection": collection}
            if collection_of.setdefault(patient, collection) != collection:
                problems.append(
                    f"row {number}: {_PATIENT} {patient} is in the collections "
                    f"{collection_of[patient]} and {collection}, which may be two people; make two "
                    "tables, or one with their own names"
                )
        said = NamedSlide(
            patient, of_patient, {name: plain(c[index]) for name, c in columns.items()}
        )
        keys = [
            str(plain(row[at[name]]) or "") for name in (*_SERIES_KEYS, _INSTANCE_KEY) if name in at
        ]
        for key in filter(None, keys):
            if known.setdefault(key, said) != said:
                problems.append(f"row {number}: {key} has other values in an earlier row")
    refuse(table.source, list(dict.fromkeys(problems)))
    return known
