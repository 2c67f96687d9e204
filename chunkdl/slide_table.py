"""The slides of a dataset in one row, which is how every process knows them: by their index."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from chunkdl.config import SlideEntry
from chunkdl.errors import DatasetError
from chunkdl.patients import Dataset, Patient, Record


def slide_table(
    dataset: Dataset, *, needs_slides: bool = True
) -> tuple[tuple[SlideEntry, ...], tuple[tuple[int, ...], ...]]:
    """All slides of a dataset, and the indices of those of each patient.

    Args:
        dataset: the patients.
        needs_slides: each patient must have one; False for classes of the user, which may read
            whatever they like: files that are not there are left out.

    Raises:
        DatasetError: there is none, a patient has none, a file is missing, or an override is wrong.
    """
    if not isinstance(dataset, Dataset):
        raise DatasetError(
            f"the first argument is a chunkdl.Dataset, not a {type(dataset).__name__}; "
            "see Dataset.from_slides and Dataset.from_csv"
        )
    if not len(dataset):
        raise DatasetError(f"dataset {dataset.str_dsname!r} has no patients")
    entries: list[SlideEntry] = []
    of_patient: list[tuple[int, ...]] = []
    for index, patient in enumerate(dataset):
        first = len(entries)
        entries.extend(
            _entry(record, patient, index)
            for record in patient.slides
            if needs_slides or os.path.exists(record.path)
        )
        if needs_slides and len(entries) == first:
            raise DatasetError(
                f"patient {patient.name} has no slide among its records; name it like a slide "
                'file, or say Record(..., {"slide": True})'
            )
        of_patient.append(tuple(range(first, len(entries))))
    return tuple(entries), tuple(of_patient)


def _entry(record: Record, patient: Patient, index: int) -> SlideEntry:
    if not os.path.exists(record.path):
        raise DatasetError(f"patient {patient.name}: there is no file {record.path}")
    mpp = record.dict_infos.get("mpp")
    match mpp:
        case None:
            pair = None
        case int() | float():
            pair = (float(mpp), float(mpp))
        case (int() | float() as x, int() | float() as y):
            pair = (float(x), float(y))
        case _:
            raise DatasetError(
                f"patient {patient.name}: mpp={mpp!r} of {record.path} is no number above 0 and "
                "no pair of them"
            )
    if pair is not None and not all(0 < value < 1000 for value in pair):
        raise DatasetError(
            f"patient {patient.name}: mpp={mpp!r} of {record.path} must lie between 0 and 1000"
        )
    return SlideEntry(record.path, index, pair, record.dict_infos.get("tissue_mask"))


def identity(entry: SlideEntry) -> list[Any]:
    """What makes a slide the same slide for the plan, wherever it lies."""
    return [
        os.path.basename(entry.path),
        os.path.getsize(entry.path),
        entry.patient,
        entry.mpp,
        _mask_identity(entry.tissue_mask),
    ]


def _mask_identity(mask: Any) -> str | None:
    """Identifies a given tissue mask by its content; None where there is none."""
    if mask is None:
        return None
    if isinstance(mask, str | os.PathLike):
        return hashlib.sha256(Path(mask).read_bytes()).hexdigest()
    cells = np.ascontiguousarray(mask)
    return hashlib.sha256(repr(cells.shape).encode() + cells.tobytes()).hexdigest()
