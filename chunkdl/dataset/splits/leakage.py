"""Whether two sets of patients have something in common that would leak from one into the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.dataset.splits.classes import classes_of, named
from chunkdl.dataset.tables import refuse
from chunkdl.errors import DatasetError
from chunkdl.slides.address import parse_address
from chunkdl.slides.search import same_slides


def check_disjoint(*datasets: Dataset, together: str | None = None) -> None:
    """See that datasets, such as one for training and one for validation, have nothing in common.

    They may not share a patient (by name), a slide file (by its real path, through links; two
    images of a file are one file) or a DICOM series. Copies of a file under another name, and
    patients whose names were changed, are not found.

    Args:
        datasets: two or more.
        together: a label of which no value may be in two datasets, such as the hospital.

    Raises:
        DatasetError: they have; names up to ten patients, files and values.
    """
    if len(datasets) < 2:
        raise DatasetError("check_disjoint compares datasets; give it two or more")
    called = [f"{dataset.str_dsname!r}" for dataset in datasets]
    if len(set(called)) < len(called):
        called = [f"dataset {number} ({name})" for number, name in enumerate(called, start=1)]
    sets = dict(zip(called, datasets, strict=True))
    values = None
    if together is not None:
        values = {name: _values(dataset, together) for name, dataset in sets.items()}
    refuse("the datasets are not disjoint", leaks(sets, values))


def _values(dataset: Dataset, label: str) -> list[str]:
    named(dataset, label)
    return [
        f"{label}={value!r}" for value in sorted(set(classes_of(dataset, label, one=True).values()))
    ]


def leaks(
    sets: Mapping[str, Iterable[Patient]], values: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """What sets of patients have in common, a sentence for each.

    Args:
        sets: by what messages call them.
        values: of each set, what no other may have.
    """
    patients = {called: list(members) for called, members in sets.items()}
    found = _in_several(
        {called: [f"patient {p.name}" for p in members] for called, members in patients.items()}
    )
    owners = [(patient, called) for called, members in patients.items() for patient in members]
    for file, (first, one), (second, other) in shared_files(owners):
        if first.name != second.name:
            found.append(
                f"file {file} is in {one} (patient {first.name}) and in {other} "
                f"(patient {second.name})"
            )
    return found + _in_several(values or {})


def _in_several(sets: Mapping[str, Iterable[str]]) -> list[str]:
    first: dict[str, str] = {}
    found = []
    for called, things in sets.items():
        for thing in dict.fromkeys(things):
            earlier = first.setdefault(thing, called)
            if earlier != called:
                found.append(f"{thing} is in {earlier} and in {called}")
    return found


Owner = tuple[Patient, str]


def shared_files(owners: Iterable[Owner]) -> list[tuple[str, Owner, Owner]]:
    """The slide files, by their real paths, that patients with different owners have.

    Args:
        owners: each patient, and who has it.

    Returns:
        File, its first patient and owner, another patient and owner.
    """
    first: dict[str, Owner] = {}
    found = []
    for patient, owner in owners:
        for record in patient.slides:
            file = os.path.realpath(parse_address(record.path).path)
            earlier = first.setdefault(file, (patient, owner))
            if earlier[1] != owner:
                found.append((file, earlier, (patient, owner)))
    for one, other in same_slides(first):
        if first[one][1] != first[other][1]:
            found.append((other, first[one], first[other]))
    return found
