"""The class of each patient under a label, which is what parts of a split are made alike in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chunkdl.dataset.labels import plain
from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.dataset.tables import refuse
from chunkdl.errors import DatasetError

BETWEEN = " + "
"""What stands between the values of a patient whose slides differ."""


def by_name(dataset: Dataset) -> dict[str, Patient]:
    """The patients by their names, sorted by them; a split knows patients by nothing else.

    Raises:
        DatasetError: two patients have one name.
    """
    found: dict[str, Patient] = {}
    twice = [p.name for p in dataset if found.setdefault(p.name, p) is not p]
    refuse(
        f"dataset {dataset.str_dsname!r}",
        [
            f"two patients are named {name!r}; give each its own name, or make them one patient"
            for name in dict.fromkeys(twice)
        ],
    )
    return dict(sorted(found.items()))


def classes_of(dataset: Dataset, label: str, *, one: bool = False) -> dict[str, str]:
    """The class of each patient, as text, by the patient's name.

    A slide has its own value, or else that of its patient. A patient whose slides have several
    values is of a class of its own, such as "normal + tumor". A whole number is the same class as
    an integer and as a float; slides without a value do not count where others have one.

    Args:
        dataset: the patients.
        label: of patients or of slides.
        one: each patient must have one value only, as where the label is its hospital.

    Raises:
        DatasetError: a patient has no value, or one that is no class: a list, or a number with
            fractions; it has several, and `one` is asked.
    """
    found: dict[str, str] = {}
    missing: list[str] = []
    problems: list[str] = []
    for name, patient in by_name(dataset).items():
        values = [value for value in _values(patient, label) if value is not None]
        wrong = [value for value in values if not _is_class(value)]
        texts = sorted({_text(value) for value in values})
        if wrong:
            problems.append(
                f"patient {name}: {label}={wrong[0]!r:.80} is no class; give text, a whole number "
                "or a boolean, e.g. the name of the interval that a measurement lies in"
            )
        elif not texts:
            missing.append(name)
        elif one and len(texts) > 1:
            problems.append(
                f"patient {name}: its slides have several values of {label!r}: {', '.join(texts)}; "
                "give the patient one"
            )
        else:
            found[name] = BETWEEN.join(texts)
    if missing:
        problems.append(
            f"{len(missing)} of {len(dataset)} patients have no {label!r}: {some(missing)}; give "
            "them one, such as 'unknown', or leave them out of the dataset"
        )
    refuse(f"dataset {dataset.str_dsname!r}", problems)
    return found


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - 5
    return ", ".join(names[:5]) + (f" and {more} more" if more > 0 else "")


def _values(patient: Patient, label: str) -> list[Any]:
    own = plain(patient.labels.get(label))
    of_slides = [plain(record.labels.get(label)) for record in patient.slides]
    return [own if value is None else value for value in of_slides] or [own]


def _is_class(value: Any) -> bool:
    return type(value) in (bool, int, str) or (type(value) is float and value.is_integer())


def _text(value: Any) -> str:
    return str(int(value)) if type(value) is float else str(value)


def named(dataset: Dataset, label: str) -> None:
    """See that the label is text.

    Raises:
        DatasetError: it is not.
    """
    if not isinstance(label, str):
        raise DatasetError(
            f"dataset {dataset.str_dsname!r}: {label!r:.80} is not the name of a label"
        )
