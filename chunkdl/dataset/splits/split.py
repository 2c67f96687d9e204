"""Which part of a dataset each patient is in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Self

from chunkdl.dataset.patients import Dataset, StrPath
from chunkdl.dataset.splits.classes import by_name, classes_of, named, some
from chunkdl.dataset.splits.dealing import deal
from chunkdl.dataset.splits.groups import place_groups
from chunkdl.dataset.splits.leakage import leaks, shared_files
from chunkdl.dataset.splits.shares import Size, shares_of
from chunkdl.dataset.tables import refuse
from chunkdl.errors import DatasetError


@dataclass(frozen=True)
class Split:
    """Parts of a dataset, such as training and test, or folds: each patient is in one.

    ``split["train"]`` is the `Dataset` of a part, in the order of the whole dataset;
    ``split.without("fold1")`` has the patients of all other parts. Splits are equal if they put
    equal names into equal parts.

    Attributes:
        dataset: that is split; its patients have different names.
        part_of: name of the part of each patient, by the patient's name, sorted by it.
        parts: names of the parts, in their order; by default that of `part_of`.
        made_from: how it was drawn, as a JSON object; empty for a split made by hand.

    Raises:
        DatasetError: a patient has no part, or a part no patient; a name is not of the dataset;
            two parts have a slide file in common.
    """

    dataset: Dataset = field(compare=False)
    part_of: Mapping[str, str] = field(hash=False, repr=False)
    parts: tuple[str, ...] = ()
    made_from: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        parts = tuple(self.parts) or tuple(dict.fromkeys(self.part_of.values()))
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "part_of", MappingProxyType(dict(sorted(self.part_of.items()))))
        self._check()

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle, which knows no read-only mappings."""
        return type(self), (self.dataset, dict(self.part_of), self.parts, self.made_from)

    @classmethod
    def draw(
        cls,
        dataset: Dataset,
        parts: Mapping[str, Size],
        *,
        stratify: str | None = None,
        spread: str | Sequence[str] = (),
        together: str | None = None,
        seed: int = 0,
    ) -> Self:
        """Draw parts by seed and the names of the patients; their order does not matter.

        A patient whose slides have several values of a label is, for `stratify` and `spread`, of a
        class of its own, such as "normal + tumor".

        Args:
            dataset: the patients.
            parts: by name: shares of the patients that sum to 1, or numbers of patients; one may
                be None, for all others, as in ``{"train": None, "test": 20}``.
            stratify: a label. Each part has its share of each class, rounded up or down; so are the
                sizes of the parts.
            spread: labels that are spread over the parts as evenly as this leaves room for, the
                first one first. Nothing is promised: a hospital with two patients is in two parts.
            together: a label such as the hospital, of which each value is in one part only. Parts
                are then as near to their shares of each class as a search finds (see
                ``docs/splits.md``).
            seed: any whole number.

        Raises:
            DatasetError: the parts do not fit the patients; a patient has no value of a label, or
                one that is no class; a class has too few patients for all parts; patients that
                could come into different parts have a slide file in common.
        """
        shares = shares_of(parts, len(by_name(dataset)))
        told = {n: str(size) if isinstance(size, Fraction) else size for n, size in parts.items()}
        return cls._drawn(dataset, shares, {"parts": told}, stratify, spread, together, seed)

    @classmethod
    def folds(
        cls,
        dataset: Dataset,
        count: int,
        *,
        stratify: str | None = None,
        spread: str | Sequence[str] = (),
        together: str | None = None,
        seed: int = 0,
    ) -> Self:
        """Draw folds of equal size, "fold1" to "foldK": of the patients, and of each class.

        For each fold, ``split.without(fold)`` is for training and ``split[fold]`` for validation.

        Args:
            dataset: the patients.
            count: of folds, 2 or more.
            stratify, spread, together, seed: as for `draw`. With `together`, the folds have all
                patients of a hospital in one fold, and are balanced by class
                (preserved-site cross-validation; Howard et al. 2021).

        Raises:
            DatasetError: as for `draw`.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 2:
            raise DatasetError(f"{count!r} folds cannot be made; give a whole number from 2 on")
        patients = len(by_name(dataset))
        if count > patients:
            raise DatasetError(
                f"dataset {dataset.str_dsname!r} has {patients} patients, too few for {count} folds"
            )
        shares = {f"fold{number}": Fraction(1, count) for number in range(1, count + 1)}
        return cls._drawn(dataset, shares, {"folds": count}, stratify, spread, together, seed)

    @classmethod
    def read(cls, path: StrPath, dataset: Dataset) -> Self:
        """The split in a file that `write` made, or any CSV with the columns patient and part.

        Args:
            path: the file.
            dataset: that was split; its patients must be those of the file.

        Raises:
            DatasetError: the file cannot be used, or its patients are others; names some.
        """
        from chunkdl.dataset.splits.split_file import read_split

        part_of, parts, made_from = read_split(path)
        known = set(by_name(dataset))
        problems = [
            f"{len(names)} patients of {whose}: {some(sorted(names))}"
            for names, whose in (
                (known - set(part_of), f"dataset {dataset.str_dsname!r} are not in the file"),
                (set(part_of) - known, f"the file are not in dataset {dataset.str_dsname!r}"),
            )
            if names
        ]
        if problems:
            raise DatasetError(
                f"{path}: this split is of other patients; {'; '.join(problems)}; give the dataset "
                "that was split, or draw a new split"
            )
        return cls(dataset, part_of, parts, made_from)

    def write(self, path: StrPath) -> None:
        """Write a CSV of patient and part, with a comment that says how the split was drawn.

        Raises:
            DatasetError: a name cannot be written, or the file cannot.
        """
        from chunkdl.dataset.splits.split_file import write_split

        write_split(path, self.part_of, self.parts, self.made_from)

    def __getitem__(self, part: str) -> Dataset:
        """The patients of a part."""
        self._known(part)
        return self._dataset(part, {part})

    def without(self, part: str) -> Dataset:
        """The patients of all parts but one."""
        self._known(part)
        return self._dataset(f"without {part}", set(self.parts) - {part})

    def counts(self, label: str) -> dict[str, dict[str, int]]:
        """How many patients of each class each part has.

        Args:
            label: of patients or slides.

        Raises:
            DatasetError: as for `draw`.
        """
        class_of = classes_of(self.dataset, label)
        pairs = Counter((self.part_of[patient], name) for patient, name in class_of.items())
        classes = sorted(set(class_of.values()))
        return {part: {name: pairs[part, name] for name in classes} for part in self.parts}

    def __iter__(self) -> Iterator[str]:
        """The names of the parts."""
        return iter(self.parts)

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self.parts)

    def _dataset(self, called: str, parts: set[str]) -> Dataset:
        return Dataset(
            f"{self.dataset.str_dsname} {called}",
            [patient for patient in self.dataset if self.part_of[patient.name] in parts],
        )

    def _known(self, part: str) -> None:
        if part not in self.parts:
            raise DatasetError(f"there is no part {part!r}; the split has {', '.join(self.parts)}")

    def _check(self) -> None:
        patients = by_name(self.dataset)
        whose = f"the split of dataset {self.dataset.str_dsname!r}"
        lost = [name for name in patients if name not in self.part_of]
        strange = [name for name in self.part_of if name not in patients]
        empty = [part for part in self.parts if part not in self.part_of.values()]
        unknown = {part for part in self.part_of.values() if part not in self.parts}
        problems = [
            f"{what}: {some(names)}"
            for names, what in (
                (lost, f"{len(lost)} patients have no part"),
                (strange, f"{len(strange)} patients are not of the dataset"),
                (empty, "parts have no patient"),
                (sorted(map(str, unknown)), "parts are not among its parts"),
            )
            if names
        ]
        refuse(whose, problems)
        members: dict[str, list[Any]] = {part: [] for part in self.parts}
        for name, patient in patients.items():
            members[self.part_of[name]].append(patient)
        refuse(whose, leaks({f"part {part!r}": found for part, found in members.items()}))

    @classmethod
    def _drawn(
        cls,
        dataset: Dataset,
        shares: Mapping[str, Fraction],
        made_from: dict[str, Any],
        stratify: str | None,
        spread: str | Sequence[str],
        together: str | None,
        seed: int,
    ) -> Self:
        further = [spread] if isinstance(spread, str) else list(spread)
        for label in (stratify, together, *further):
            if label is not None:
                named(dataset, label)
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise DatasetError(f"seed={seed!r:.80} must be a whole number")
        if together is not None and further:
            raise DatasetError(
                "spread has no meaning beside together: patients who stay together are not spread; "
                "leave one of them out"
            )
        names = by_name(dataset)
        class_of = dict.fromkeys(names, "")
        if stratify is not None:
            class_of = classes_of(dataset, stratify)
        group_of = {name: f"patient {name}" for name in names}
        if together is not None:
            found = classes_of(dataset, together, one=True)
            group_of = {name: f"{together} {value}" for name, value in found.items()}
        _check_files(dataset, group_of)
        if together is None:
            _check_sizes(class_of, stratify, shares)
            others = [classes_of(dataset, label) for label in further]
            part_of = deal(class_of, shares, others, seed)
        else:
            _check_groups(class_of, group_of, stratify, together, shares)
            placed = place_groups(class_of, group_of, shares, seed)
            part_of = {name: placed[group] for name, group in group_of.items()}
            _check_classes(class_of, part_of, stratify, together, shares)
        how = {"stratify": stratify, "spread": further, "together": together}
        said = {**made_from, **{name: value for name, value in how.items() if value}, "seed": seed}
        told = {"dataset": dataset.str_dsname, "patients": len(names), **said}
        return cls(dataset, part_of, tuple(shares), json.dumps(told, ensure_ascii=True))


def _check_files(dataset: Dataset, group_of: Mapping[str, str]) -> None:
    owners = [(patient, group_of[name]) for name, patient in by_name(dataset).items()]
    refuse(
        f"dataset {dataset.str_dsname!r}",
        [
            f"patients {first.name} and {second.name} have the same file {file}, and could come "
            "into different parts; make them one patient, or give them a label with the same "
            "value and name it as together="
            for file, (first, _), (second, _) in shared_files(owners)
        ],
    )


def _check_sizes(
    class_of: Mapping[str, str], label: str | None, shares: Mapping[str, Fraction]
) -> None:
    part, least = min(shares.items(), key=lambda item: item[1])
    refuse(
        f"stratify={label!r}",
        [
            f"class {name!r} has {count} patients, of which part {part!r} would have "
            f"{float(least * count):.2g}; join it with another class, make fewer or larger parts, "
            "or leave its patients out"
            for name, count in sorted(Counter(class_of.values()).items())
            if least * count < 1
        ],
    )


def _check_groups(
    class_of: Mapping[str, str],
    group_of: Mapping[str, str],
    label: str | None,
    together: str,
    shares: Mapping[str, Fraction],
) -> None:
    groups: dict[str, set[str]] = {}
    for name, value in class_of.items():
        groups.setdefault(value, set()).add(group_of[name])
    whole = len(set(group_of.values()))
    if whole < len(shares):
        raise DatasetError(
            f"together={together!r} has {whole} values, too few for {len(shares)} parts"
        )
    refuse(
        f"stratify={label!r}, together={together!r}",
        [
            f"class {name!r} is in {len(found)} groups only, too few for {len(shares)} parts; join "
            "it with another class, make fewer parts, or leave its patients out"
            for name, found in sorted(groups.items())
            if len(found) < len(shares)
        ],
    )


def _check_classes(
    class_of: Mapping[str, str],
    part_of: Mapping[str, str],
    label: str | None,
    together: str,
    shares: Mapping[str, Fraction],
) -> None:
    there = {(part_of[name], value) for name, value in class_of.items()}
    refuse(
        f"stratify={label!r}, together={together!r}",
        [
            f"part {part!r} would have no patient of class {name!r}: its groups are too large or "
            "too few; try another seed, make fewer parts, or join the class with another"
            for part in shares
            for name in sorted(set(class_of.values()))
            if (part, name) not in there
        ],
    )
