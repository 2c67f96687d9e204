"""From the rows of a manifest to patients: all its mistakes in one error, one `stat` per file."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chunkdl.dataset import cells
from chunkdl.dataset.labels import is_plain, is_time, plain, refusal
from chunkdl.dataset.tables import Table, refuse, spelled
from chunkdl.errors import DatasetError
from chunkdl.slides.address import SlideAddress, parse_address
from chunkdl.slides.readers.dicom_series import slides_in
from chunkdl.slides.search import same_slides
from chunkdl.system.steady_log import steady_logger

NEEDED = ("patient", "slide")
_OPTIONAL = ("image", "mpp", "tissue_mask", "annotations")
_FILES = {
    "tissue_mask": "an image file, or of outlines",
    "annotations": "a file of annotations",
}
"""Columns of other files of the slide, and what they are."""
_IMAGE = re.compile(r"[0-9]{1,6}")
_UNNAMED = re.compile(r"|Unnamed: [0-9]+(\.[0-9]+)?|__index_level_[0-9]+__")
"""What pandas calls the column of row numbers that it wrote without a name, or read again."""
_MOST_NAMED = 10

log = steady_logger("chunkdl")


@dataclass(frozen=True, slots=True)
class ManifestSlide:
    """One row.

    Attributes:
        path: the slide file, as in the row (relative to the root, or absolute), with "#image=K"
            where the row chooses an image; for a folder of DICOM files the one that stands for
            the slide.
        infos: "mpp" (float or (x, y), microns per pixel), "tissue_mask" and "annotations"
            (absolute paths), each
            only where the row has it.
        labels: by column, of the slide; None where the row has none.
    """

    path: str
    infos: dict[str, object]
    labels: dict[str, object]


@dataclass(frozen=True, slots=True)
class ManifestPatient:
    """All rows of one patient.

    Attributes:
        name: the text of its `patient` cells.
        labels: by column, those that are equal in all rows of each patient; None where its rows
            have none.
        slides: in the order of the rows.
    """

    name: str
    labels: dict[str, object]
    slides: list[ManifestSlide] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    patient: str
    path: str
    infos: dict[str, object]


def patients_of(table: Table, root: str) -> list[ManifestPatient]:
    """The patients of a manifest, in the order of their first rows.

    Args:
        table: its rows; `Dataset.from_table` describes its columns.
        root: folder that the paths in it are relative to.

    Raises:
        DatasetError: the manifest cannot be used; names it and up to ten bad rows.
    """
    columns = _columns_of(table)
    rows = _rows_of(table, columns, root)
    labels = {
        name: _values(table, name, position)
        for name, position in columns.items()
        if name not in (*NEEDED, *_OPTIONAL)
    }
    of_slides = _labels_of_slides(table, rows, labels)
    patients: dict[str, ManifestPatient] = {}
    for index, row in enumerate(rows):
        own = {name: values[index] for name, values in labels.items() if name in of_slides}
        shared = {name: values[index] for name, values in labels.items() if name not in of_slides}
        patient = patients.setdefault(row.patient, ManifestPatient(row.patient, shared))
        patient.slides.append(ManifestSlide(row.path, row.infos, own))
    return list(patients.values())


# ------------------------------------------------------------------------------- columns


def _columns_of(table: Table) -> dict[str, int]:
    """Position by name, of the columns that count."""
    names: list[tuple[str, int]] = []
    problems: list[str] = []
    for position, name in enumerate(table.columns):
        if _UNNAMED.fullmatch(name):
            if name == "" and position and not _is_empty(table, position):
                problems.append("a column has no name; give it one, or remove it")
            else:
                log.info("%s: column %r has no name and is ignored", table.source, name)
            continue
        known = spelled(name) in (*NEEDED, *_OPTIONAL)
        names.append((spelled(name) if known else name, position))
    found = [name for name, _ in names]
    problems = [_missing(name, found) for name in NEEDED if name not in found] + problems
    problems += [f"column {name!r} comes twice" for name in found if found.count(name) > 1]
    problems += [
        f"column {name!r} begins with 'slide:', which is reserved; rename it"
        for name in found
        if name.startswith("slide:")
    ]
    problems += [refusal(name) for name in found if name not in (*NEEDED, *_OPTIONAL)]
    told = list(dict.fromkeys(filter(None, problems)))
    if told:
        raise DatasetError(
            f"{table.header}: {'; '.join(told)}; columns found: {', '.join(table.columns)}"
        )
    return dict(names)


def _missing(name: str, found: Sequence[str]) -> str:
    near = [other for other in found if name in spelled(other)]
    if near:
        return f"column {name!r} is missing; did you mean {near[0]!r}? Rename it"
    if name == "patient":
        return (
            "column 'patient' is missing; it says which slides belong to one patient. If each "
            "slide is of a different patient, copy the column 'slide' into it"
        )
    return f"column {name!r} is missing"


def _is_empty(table: Table, position: int) -> bool:
    return all(whole[position] in ("", None) for _, whole in table.rows)


# ---------------------------------------------------------------------------------- rows


def _rows_of(table: Table, columns: Mapping[str, int], root: str) -> list[_Row]:
    rows: list[_Row] = []
    problems: list[str] = []
    row_of_slide: dict[str, int] = {}
    chosen = {name: columns[name] for name in (*NEEDED, *_OPTIONAL) if name in columns}
    for number, whole in table.rows:
        try:
            given = {name: whole[position] for name, position in chosen.items()}
            patient = _text("patient", given["patient"])
            slide = _text("slide", given["slide"])
            path, infos = _slide_of(slide, given, root)
            earlier = row_of_slide.setdefault(_place(root, path), number)
            if earlier != number:
                raise DatasetError(f"slide {slide!r} is already in row {earlier}")
            rows.append(_Row(number, patient, path, infos))
        except DatasetError as error:
            problems.append(f"row {number}: {error}")
    problems += [
        f"row {row_of_slide[other]}: {other} belongs to the same DICOM series as the file in row "
        f"{row_of_slide[first]}: they are one slide; name it only once"
        for first, other in same_slides(row_of_slide)
    ]
    refuse(table.source, problems)
    return rows


def _place(root: str, path: str) -> str:
    return os.path.normpath(os.path.join(root, path))


def _text(column: str, cell: Any) -> str:
    """A name: text, a path, or a number, which other missing numbers may have made a float."""
    value = plain(cell)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif column == "patient" and isinstance(value, float) and value.is_integer():
        value = int(value)
    elif column == "slide" and isinstance(value, int | float):
        raise DatasetError(f"column 'slide' is {cell!r}; give the path of a file")
    if isinstance(value, list | bytes | dict):
        raise DatasetError(f"column {column!r} is {cell!r}; give a text")
    text = "" if value is None else str(value).strip()
    if not text:
        raise DatasetError(f"column {column!r} is empty")
    return text


def _optional(given: Mapping[str, Any], column: str) -> Any:
    """A cell; None where it says nothing."""
    value = plain(given.get(column))
    if isinstance(value, str):
        value = value.strip()
    return None if isinstance(value, str) and value in cells.MISSING else value


def _slide_of(slide: str, given: Mapping[str, Any], root: str) -> tuple[str, dict[str, object]]:
    infos: dict[str, object] = {}
    address = _address(slide, _optional(given, "image"), root)
    files = {name: _optional(given, name) for name in _FILES}
    for name, file in files.items():
        if file is not None and not isinstance(file, str | os.PathLike):
            raise DatasetError(
                f"column {name!r} is a {type(file).__name__}; give the path of {_FILES[name]}"
            )
    try:
        path = os.path.join(root, address.path)
        # With an image chosen, the folder is the name of the slide.
        if stat.S_ISDIR(os.stat(path).st_mode) and address.image is None:
            file = os.path.basename(_dicom_slide(path))
            address = SlideAddress(os.path.join(address.path, file), address.image)
        for name, file in files.items():
            if file is not None:
                infos[name] = os.path.join(root, os.fspath(file))
                os.stat(os.path.join(root, file))
    except DatasetError:
        raise
    except (OSError, ValueError) as error:
        raise DatasetError(f"a file of this row cannot be used: {error}") from error
    mpp = _optional(given, "mpp")
    if mpp is not None:
        infos["mpp"] = _parse_mpp(mpp)
    return str(address), infos


def _address(slide: str, image: Any, root: str) -> SlideAddress:
    """The slide of a row, relative to the root where the row says it so."""
    named = parse_address(os.path.join(root, slide))
    path = slide if named.image is None else slide.rpartition("#image=")[0]
    if image is None:
        return SlideAddress(path, named.image)
    if isinstance(image, float) and image.is_integer():
        image = int(image)
    if isinstance(image, bool) or not _IMAGE.fullmatch(str(image)):
        raise DatasetError(
            f"column 'image' is {str(image)!r}; give the number of the slide in its file, counted "
            "from 0, or leave it empty. If the column is a label, rename it, e.g. to "
            "'image_label'"
        )
    if named.image not in (None, int(image)):
        raise DatasetError(
            f"column 'image' is {str(image)!r}, but column 'slide' names another image: "
            f"{slide!r}; make them agree, or leave 'image' empty"
        )
    return SlideAddress(path, int(image))


def _dicom_slide(folder: str) -> str:
    """The file that stands for the only slide of a folder."""
    slides = slides_in(folder)
    if not slides:
        raise DatasetError(f"column 'slide': the folder {folder} has no DICOM files of a slide")
    if len(slides) > 1:
        names = ", ".join(os.path.basename(slide) for slide in slides[:_MOST_NAMED])
        raise DatasetError(
            f"column 'slide': the folder {folder} has {len(slides)} DICOM series; name a file of "
            f"the one that you want, such as {names}"
        )
    return slides[0]


def _parse_mpp(given: Any) -> float | tuple[float, float]:
    parts = given.split() if isinstance(given, str) else given
    parts = parts if isinstance(parts, list) else [parts]
    numbers = [
        float(part)
        for part in parts
        if type(part) in (int, float) or (isinstance(part, str) and cells.is_number(part))
    ]
    usable = all(0 < number < math.inf for number in numbers)
    if len(numbers) != len(parts) or len(parts) not in (1, 2) or not usable:
        raise DatasetError(
            f"column 'mpp' is {given!r}; give microns per pixel as '0.25', or as '0.25 0.26' for "
            f"x and y"
        )
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


# -------------------------------------------------------------------------------- labels


def _values(table: Table, name: str, position: int) -> list[Any]:
    """The cells of a label column as plain values."""
    column = [whole[position] for _, whole in table.rows]
    if table.text:
        return cells.typed(column)
    values = [_value(cell) for cell in column]
    refuse(
        table.source,
        [
            f"row {number}: column {name!r} is a {type(value).__name__}; a label must be a "
            "number, a text, a boolean or a list of these; convert it to text, in a DataFrame "
            f"with df[{name!r}].astype('string')"
            for (number, _), value in zip(table.rows, values, strict=True)
            if not is_plain(value)
        ],
    )
    return values


def _value(cell: Any) -> Any:
    value = plain(cell)
    return value.isoformat() if is_time(value) else value


def _labels_of_slides(
    table: Table, rows: Sequence[_Row], labels: Mapping[str, Sequence[Any]]
) -> set[str]:
    """Columns in which rows of one patient differ."""
    first: dict[str, int] = {}
    found: set[str] = set()
    for index, row in enumerate(rows):
        earlier = first.setdefault(row.patient, index)
        for name, values in labels.items():
            if name not in found and values[index] != values[earlier]:
                found.add(name)
                log.info(
                    "%s: column %r is %r in row %d and %r in row %d of patient %s: so it is a "
                    "label of slides, not of patients",
                    *(table.source, name, values[earlier], rows[earlier].number),
                    *(values[index], row.number, row.patient),
                )
    return found
