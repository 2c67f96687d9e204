"""The slides of a dataset in one row, which is how every process knows them: by their index."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.errors import DatasetError
from chunkdl.slides.address import parse_address
from chunkdl.system.printing import printable


def slide_table(
    dataset: Dataset, *, needs_slides: bool = True, needs_files: bool = True
) -> tuple[SlideEntry, ...]:
    """All slides of a dataset, those of a patient behind each other.

    Args:
        dataset: the patients.
        needs_slides: each patient must have one; False for classes of the user, which may read
            whatever they like: files that are not there are left out.
        needs_files: a file that is not there is an error.

    Raises:
        DatasetError: there is none, a patient has none, a file is missing, or an override is wrong.
    """
    if not isinstance(dataset, Dataset):
        raise DatasetError(
            "the first argument must be a chunkdl.Dataset, and not of class "
            f"{type(dataset).__name__}; see "
            "Dataset.from_slides and Dataset.from_csv"
        )
    if not len(dataset):
        raise DatasetError(f"dataset {dataset.str_dsname!r} has no patients")
    entries: list[SlideEntry] = []
    for index, patient in enumerate(dataset):
        first = len(entries)
        entries.extend(
            _entry(record, patient, index, number, needs_file=needs_files)
            for number, record in enumerate(patient.slides)
            if needs_slides or _is_there(record)
        )
        if needs_slides and len(entries) == first:
            raise DatasetError(
                f"patient {patient.name} has no record that is a slide; use a file name that ends "
                f'like a slide, or Record(..., {{"slide": True}})'
            )
    return tuple(entries)


def grouped(slides: Sequence[SlideEntry], patients: int) -> tuple[tuple[int, ...], ...]:
    """The indices of the slides of each patient; none for a patient whose slides were left out."""
    of_patient: list[list[int]] = [[] for _ in range(patients)]
    for index, entry in enumerate(slides):
        of_patient[entry.patient].append(index)
    return tuple(map(tuple, of_patient))


def _entry(
    record: Record, patient: Patient, index: int, number: int, *, needs_file: bool
) -> SlideEntry:
    if needs_file and not _is_there(record):
        raise DatasetError(
            f"patient {patient.name}: there is no file {parse_address(record.path).path}"
        )
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
                f"patient {patient.name}: mpp={mpp!r} of {record.path} is neither a number above "
                "0 nor a pair of such numbers"
            )
    if pair is not None and not all(0 < value < 1000 for value in pair):
        raise DatasetError(
            f"patient {patient.name}: mpp={mpp!r} of {record.path} must lie between 0 and 1000"
        )
    annotations = record.dict_infos.get("annotations")
    if annotations is not None and not isinstance(annotations, str | os.PathLike):
        raise DatasetError(
            f"patient {patient.name}: annotations={annotations!r:.80} of {record.path} is not the "
            "path of a file"
        )
    return SlideEntry(
        record.path,
        index,
        pair,
        record.dict_infos.get("tissue_mask"),
        number,
        None if annotations is None else os.fspath(annotations),
    )


def _is_there(record: Record) -> bool:
    return os.path.exists(parse_address(record.path).path)


def slide_identity(entry: SlideEntry) -> list[Any]:
    """What makes a slide the same slide for the plan, wherever it lies."""
    return [
        # With its "#image=1": two images of a file are two slides.
        printable(os.path.basename(entry.path)),
        _size(parse_address(entry.path).path),
        entry.patient,
        entry.mpp,
        _mask_identity(entry.tissue_mask),
    ]


def _size(path: str) -> int:
    """Of a file, or of the files in the folder of a slide: a folder has another size everywhere."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    with os.scandir(path) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.is_file())


def _mask_identity(mask: Any) -> str | None:
    """Identifies a given tissue mask by its content; None where there is none."""
    if mask is None:
        return None
    if isinstance(mask, str | os.PathLike):
        try:
            return hashlib.sha256(Path(mask).read_bytes()).hexdigest()
        except OSError as error:
            raise DatasetError(
                f"tissue mask {os.fspath(mask)} cannot be read: {error.strerror}"
            ) from error
    cells = np.ascontiguousarray(mask)
    return hashlib.sha256(repr(cells.shape).encode() + cells.tobytes()).hexdigest()
