"""PyDmed's `Record`, `Patient` and `Dataset`, with its splits, its balancing and its folder search.

Random choices come from Python's global `random`, as PyDmed's programs expect that call
`random.seed`, unless a seed is given.
"""

from __future__ import annotations

import copy
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from chunkdl.dataset import patients
from chunkdl.dataset.patients import Patient, Record
from chunkdl.errors import ConfigError, DatasetError
from chunkdl.pydmed import star
from chunkdl.pydmed.utils.minimath import lcm

__all__ = ["KEY_OF_ORIGINAL_PATIENT", "Dataset", "Patient", "Record", *star.DATA]

__getattr__ = star.importer(__name__, star.DATA)

KEY_OF_ORIGINAL_PATIENT: Final = "TODO:packagename reserved, original patient"
"""Under which record a copy made by `Dataset.balance_by_repeat` keeps its original.

The odd text is PyDmed's own; its programs look the original up by it.
"""

LabelOf = Callable[[Patient], Hashable]


class Dataset(patients.Dataset):
    """A dataset with PyDmed's static methods; they leave the datasets given to them unchanged."""

    @staticmethod
    def splits_from(
        dataset: patients.Dataset,
        percentage_partitions: Sequence[float],
        *,
        seed: int | None = None,
    ) -> list[Dataset]:
        """Random parts that have every patient of the dataset exactly once.

        Args:
            dataset: what to split.
            percentage_partitions: the size of each part; they sum to 100. Sizes are rounded down,
                and the last part takes what remains.
            seed: of the shuffle; None for Python's global `random`.

        Returns:
            One dataset per percentage, in their order, all under the name of `dataset`.

        Raises:
            ConfigError: the percentages are no partition.
        """
        _check_percentages(percentage_partitions)
        shuffled = list(dataset.list_patients)
        _shuffler(seed)(shuffled)
        parts = _cut(shuffled, percentage_partitions)
        return [Dataset(dataset.str_dsname, part) for part in parts]

    @staticmethod
    def labelbalanced_splits_from(
        dataset: patients.Dataset,
        percentage_partitions: Sequence[float],
        func_getlabel_of_patient: LabelOf,
        verbose: bool = False,
        *,
        seed: int | None = None,
    ) -> list[Dataset]:
        """As `splits_from`, but every label is split on its own, so that all parts have its share.

        Args:
            dataset: what to split.
            percentage_partitions: the share of each part in every label; they sum to 100. Sizes
                are rounded down per label, and the last part takes what remains of each.
            func_getlabel_of_patient: the label of a patient, hashable.
            verbose: print the number of patients of each label in each part.
            seed: of the shuffles; None for Python's global `random`.

        Returns:
            One dataset per percentage, in their order, all under the name of `dataset`.

        Raises:
            ConfigError: the percentages are no partition.
        """
        _check_percentages(percentage_partitions)
        shuffle = _shuffler(seed)
        parts: list[list[Patient]] = [[] for _ in percentage_partitions]
        for members in _by_label(dataset, func_getlabel_of_patient).values():
            shuffle(members)
            for part, share in zip(parts, _cut(members, percentage_partitions), strict=True):
                part += share
        if verbose:
            for number, part in enumerate(parts):
                counts = Counter(map(func_getlabel_of_patient, part)).items()
                labels = ", ".join(f"{label!r}: {count}" for label, count in counts)
                print(f"part {number}: {len(part)} patients by label {{{labels}}}")  # noqa: T201
        return [Dataset(dataset.str_dsname, part) for part in parts]

    @staticmethod
    def balance_by_repeat(
        ds: patients.Dataset,
        func_getlabel_of_patient: LabelOf,
        newlen_each_class: int | None = None,
    ) -> Dataset:
        """A dataset in which every label has equally many patients, by repeating them.

        Copy c of a patient has the id c * 10**digits + id, where digits is that of the largest id;
        so copy 0 has the id of its original. Its records are a deep copy, and the original itself
        is under `KEY_OF_ORIGINAL_PATIENT`.

        Args:
            ds: what to balance.
            func_getlabel_of_patient: the label of a patient, hashable.
            newlen_each_class: patients per label, at least as many as the most frequent label
                has; None for the least common multiple of what the labels have. Where it is no
                multiple of these, the first patients of the label have one copy more.

        Returns:
            The copies under the name of `ds`, those of one patient next to each other.

        Raises:
            ConfigError: `newlen_each_class` would lose patients.
        """
        members_of_label = _by_label(ds, func_getlabel_of_patient)
        sizes = [len(members) for members in members_of_label.values()]
        wanted = lcm(sizes) if newlen_each_class is None else newlen_each_class
        if wanted < max(sizes, default=0):
            raise ConfigError(
                f"newlen_each_class={wanted} would lose patients of dataset {ds.str_dsname!r}; "
                f"give {max(sizes)} or more, as its largest label has"
            )
        copies_of: dict[Patient, int] = {}
        for members in members_of_label.values():
            whole, rest = divmod(wanted, len(members))
            copies_of |= {patient: whole + (i < rest) for i, patient in enumerate(members)}
        step = 10 ** len(str(max((patient.int_uniqueid for patient in ds), default=0)))
        return Dataset(
            ds.str_dsname,
            [
                _copy_of(patient, number * step + patient.int_uniqueid)
                for patient in ds
                for number in range(copies_of[patient])
            ],
        )

    @staticmethod
    def create_onetoone(
        str_dsname: str,
        rootdir: str,
        imgsprefix: str,
        func_get_patientrecords: Callable[[str], Mapping[str, Any]],
        func_get_wsiinfos: Callable[[str], dict[str, Any]],
    ) -> Dataset:
        """One patient per image file below a folder.

        Args:
            str_dsname: name of the dataset.
            rootdir: folder to search with all its subfolders; a relative one is kept relative.
            imgsprefix: how the names of the images end, without the dot, such as "svs".
            func_get_patientrecords: all records but the image, of the image's path relative to
                `rootdir`.
            func_get_wsiinfos: `dict_infos` of the image's record, of the same path.

        Returns:
            Patients with the ids 0, 1, ... in the order of the paths; the image is the record
            "wsi".

        Raises:
            DatasetError: there is no such file.
        """
        # PyDmed's users add rootdir and relativedir as strings.
        root = os.path.join(rootdir, "")
        found = sorted(
            os.path.relpath(path, root)
            for path in Path(root).rglob(f"*.{imgsprefix}")
            if path.is_file()
        )
        if not found:
            raise DatasetError(
                f"dataset {str_dsname!r}: {root} has no file that ends with .{imgsprefix}; check "
                f"the folder, and give the ending without its dot"
            )
        list_patients = []
        for number, relative in enumerate(found):
            record = Record(root, relative, func_get_wsiinfos(relative))
            records = {**func_get_patientrecords(relative), "wsi": record}
            list_patients.append(Patient(number, records))
        return Dataset(str_dsname, list_patients)


def _check_percentages(percentages: Sequence[float]) -> None:
    """Raises ConfigError unless these are the sizes of parts."""
    if any(share < 0 for share in percentages) or not math.isclose(sum(percentages), 100):
        raise ConfigError(
            f"percentage_partitions={list(percentages)} must sum to 100, and none may be negative"
        )


def _shuffler(seed: int | None) -> Callable[[list[Patient]], None]:
    return random.shuffle if seed is None else random.Random(seed).shuffle  # noqa: S311


def _by_label(dataset: patients.Dataset, label_of: LabelOf) -> dict[Hashable, list[Patient]]:
    """The patients of each label, both in the order of the dataset."""
    members: dict[Hashable, list[Patient]] = {}
    for patient in dataset:
        members.setdefault(label_of(patient), []).append(patient)
    return members


def _cut(members: list[Patient], percentages: Sequence[float]) -> list[list[Patient]]:
    """Consecutive parts of these sizes, rounded down; the last one takes what remains."""
    parts = []
    begin = 0
    for share in percentages[:-1]:
        end = begin + int(share * len(members) / 100)
        parts.append(members[begin:end])
        begin = end
    return [*parts, members[begin:]]


def _copy_of(patient: Patient, int_uniqueid: int) -> Patient:
    """A patient with copied records and another id; for people it is still the same."""
    records = copy.deepcopy(patient.dict_records)
    records[KEY_OF_ORIGINAL_PATIENT] = patient
    return Patient(int_uniqueid, records, name=patient.name)
