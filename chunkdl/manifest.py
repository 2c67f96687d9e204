"""Reading the CSV manifest of a dataset: all its mistakes in one error, one `stat` per file."""

from __future__ import annotations

import csv
import io
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from chunkdl.errors import DatasetError
from chunkdl.slide_search import same_slides
from chunkdl.slides.address import SlideAddress, parse_address
from chunkdl.slides.readers.dicom_series import slides_in

_MOST_BYTES = 64 * 2**20
_MOST_PROBLEMS_SHOWN = 10
_RESERVED_COLUMNS = ("patient", "slide", "image", "mpp", "tissue_mask")
_IMAGE = re.compile(r"[0-9]{1,6}")
# At most 18 digits, and none of them a leading zero: "007" and a 30-digit number are names, and
# turning them into numbers would lose what they say.
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(
    r"[+-]?(?:(?:0|[1-9][0-9]{0,17})(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?"
)


@dataclass(frozen=True, slots=True)
class ManifestSlide:
    """One row.

    Attributes:
        path: the slide file, as in the row (relative to the root, or absolute), with "#image=K"
            where the row chooses an image; for a folder of DICOM files the one that stands for
            the slide.
        infos: "mpp" (float or (x, y), microns per pixel) and "tissue_mask" (absolute path), each
            only where the row has it.
    """

    path: str
    infos: dict[str, object]


@dataclass(slots=True)
class ManifestPatient:
    """All rows of one patient.

    Attributes:
        name: the text of its `patient` cells.
        row: number of its first row; the header is row 1.
        labels: by column: int, float, str, or None for an empty cell.
        slides: in the order of the rows.
    """

    name: str
    row: int
    labels: dict[str, object]
    slides: list[ManifestSlide] = field(default_factory=list)


def read_manifest(manifest: str, root: str) -> list[ManifestPatient]:
    """The patients of a manifest, in the order of their first rows.

    Args:
        manifest: the CSV file; `Dataset.from_csv` describes its columns.
        root: folder that the paths in it are relative to.

    Raises:
        DatasetError: the manifest cannot be used; names the file and up to ten bad rows.
    """
    problems: list[str] = []
    patients: dict[str, ManifestPatient] = {}
    row_of_slide: dict[str, int] = {}
    for number, cells in _read_rows(manifest):
        labels = {key: cell for key, cell in cells.items() if key not in _RESERVED_COLUMNS}
        try:
            slide = _slide_of(cells, root)
            earlier = row_of_slide.setdefault(_place(root, slide.path), number)
            if earlier != number:
                raise DatasetError(f"slide {cells['slide']!r} is already in row {earlier}")
            name = cells["patient"]
            patient = patients.setdefault(name, ManifestPatient(name, number, {**labels}))
            _check_agreement(patient, labels)
            patient.slides.append(slide)
        except DatasetError as error:
            problems.append(f"row {number}: {error}")
    problems += [
        f"row {row_of_slide[other]}: {other} is of the same DICOM series as the file in row "
        f"{row_of_slide[first]}: they are one slide, name it once"
        for first, other in same_slides(row_of_slide)
    ]
    refuse(manifest, problems)
    _turn_into_numbers([patient.labels for patient in patients.values()])
    return list(patients.values())


def refuse(source: str, problems: list[str]) -> None:
    """Raise one `DatasetError` about `source` if there are problems, showing the first ten."""
    if problems:
        more = len(problems) - _MOST_PROBLEMS_SHOWN
        shown = problems[:_MOST_PROBLEMS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise DatasetError(f"{source}: " + "; ".join(shown))


def _place(root: str, path: str) -> str:
    return os.path.normpath(os.path.join(root, path))


def _check_agreement(patient: ManifestPatient, labels: Mapping[str, str]) -> None:
    for column, value in labels.items():
        if value != patient.labels[column]:
            raise DatasetError(
                f"column {column!r} is {value!r}, but {patient.labels[column]!r} in row "
                f"{patient.row} of the same patient"
            )


def _read_rows(manifest: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of a manifest with their row numbers, each a dict of stripped cells by column."""
    reader = csv.reader(io.StringIO(_read_text(manifest), newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    problems: list[str] = []
    columns: list[str] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not columns:
                columns = _checked_columns(manifest, cells)
            elif len(cells) != len(columns):
                problems.append(
                    f"row {reader.line_num}: {len(cells)} cells for {len(columns)} columns"
                )
            else:
                rows.append((reader.line_num, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        problems.append(f"row {reader.line_num}: {error}")
    refuse(manifest, problems)
    if not rows:
        raise DatasetError(f"{manifest}: no rows; it needs a header and one row per slide")
    return rows


def _read_text(manifest: str) -> str:
    try:
        size = os.stat(manifest).st_size
        if size > _MOST_BYTES:
            raise DatasetError(
                f"{manifest}: {size} bytes are too many for a manifest (at most "
                f"{_MOST_BYTES}); is it a CSV file?"
            )
        with open(manifest, "rb") as file:
            data = file.read()
    except OSError as error:
        raise DatasetError(f"{manifest}: cannot be read: {error.strerror}") from error
    if b"\0" in data:
        row = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise DatasetError(f"{manifest}: row {row}: not a text in UTF-8; save it as CSV UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{manifest}: row {row}: not a text in UTF-8 ({error.reason}); save it as CSV UTF-8"
        ) from error


def _checked_columns(manifest: str, columns: list[str]) -> list[str]:
    problems = [
        f"column {name!r} is missing" for name in ("patient", "slide") if name not in columns
    ]
    problems += [f"column {name!r} comes twice" for name in columns if columns.count(name) > 1]
    problems += ["a column has no name"] if "" in columns else []
    problems += [
        f"column {name!r} takes a name that is kept for slides"
        for name in columns
        if name.startswith("slide:")
    ]
    if len(columns) == 1 and re.search(r"[;\t]", columns[0]):
        problems.append("the cells seem to be separated by semicolons or tabs; use commas")
    if problems:
        raise DatasetError(
            f"{manifest}: row 1: {'; '.join(dict.fromkeys(problems))}; columns found: "
            f"{', '.join(columns)}"
        )
    return columns


def _slide_of(cells: Mapping[str, str], root: str) -> ManifestSlide:
    for column in ("patient", "slide"):
        if not cells[column]:
            raise DatasetError(f"column {column!r} is empty")
    infos: dict[str, object] = {}
    address = _address(cells, root)
    try:
        path = os.path.join(root, address.path)
        # With an image chosen, the folder is the name of the slide.
        if stat.S_ISDIR(os.stat(path).st_mode) and address.image is None:
            file = os.path.basename(_dicom_slide(path))
            address = SlideAddress(os.path.join(address.path, file), address.image)
        mask = cells.get("tissue_mask")
        if mask:
            infos["tissue_mask"] = os.path.join(root, mask)
            os.stat(os.path.join(root, mask))
    except OSError as error:
        raise DatasetError(f"a file cannot be used: {error}") from error
    if cells.get("mpp"):
        infos["mpp"] = _parse_mpp(cells["mpp"])
    return ManifestSlide(str(address), infos)


def _address(cells: Mapping[str, str], root: str) -> SlideAddress:
    """The slide of a row, relative to the root where the row says it so."""
    relative, image = cells["slide"], cells.get("image")
    named = parse_address(os.path.join(root, relative))
    path = relative if named.image is None else relative.rpartition("#image=")[0]
    if not image:
        return SlideAddress(path, named.image)
    if not _IMAGE.fullmatch(image):
        raise DatasetError(
            f"column 'image' is {image!r}; give the number of the slide in its file, counted from "
            "0, or leave it empty"
        )
    if named.image not in (None, int(image)):
        raise DatasetError(f"column 'image' is {image!r}, but the slide is {relative!r}")
    return SlideAddress(path, int(image))


def _dicom_slide(folder: str) -> str:
    """The file that stands for the only slide of a folder."""
    slides = slides_in(folder)
    if not slides:
        raise DatasetError(f"column 'slide': the folder {folder} has no DICOM files of a slide")
    if len(slides) > 1:
        names = ", ".join(os.path.basename(slide) for slide in slides[:_MOST_PROBLEMS_SHOWN])
        raise DatasetError(
            f"column 'slide': the folder {folder} has {len(slides)} DICOM series; name a file of "
            f"the wanted one, such as {names}"
        )
    return slides[0]


def _parse_mpp(text: str) -> float | tuple[float, float]:
    parts = text.split()
    numbers = [float(part) for part in parts if _NUMBER.fullmatch(part)]
    if len(numbers) != len(parts) or len(parts) > 2 or min(numbers) <= 0:
        raise DatasetError(
            f"column 'mpp' is {text!r}; give microns per pixel as '0.25', or as '0.25 0.26' for "
            f"x and y"
        )
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _turn_into_numbers(patients: list[dict[str, object]]) -> None:
    """Make each label column int or float where all its cells are; empty cells become None."""
    for column in patients[0]:
        texts = {str(labels[column]) for labels in patients} - {""}
        convert: type[int] | type[float] | type[str] = str
        if all(_INTEGER.fullmatch(text) for text in texts):
            convert = int
        elif all(_NUMBER.fullmatch(text) for text in texts):
            convert = float
        for labels in patients:
            text = str(labels[column])
            labels[column] = convert(text) if text else None
