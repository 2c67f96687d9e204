"""Splits as files: a CSV with a line for each patient, below a comment that says how it was made.

A CSV, and no JSON: spreadsheets, pandas (``comment="#"``) and R read it, and a version control
system shows who changed parts.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from chunkdl.dataset.patients import StrPath
from chunkdl.dataset.tables import refuse, rows_of_text, spelled, text_of
from chunkdl.errors import DatasetError
from chunkdl.system.kept_files import write_whole

VERSION = 1
_COLUMNS = ("patient", "part")
_NO_TEXT = {"\0", "\r", "\n"}
"""What programs that read tables disagree about."""
_COMMENT = re.compile(r"(?:[ \t]*#[^\r\n]*(?:\r\n|\r|\n)|[ \t]*(?:\r\n|\r|\n))*")
_HEADER = re.compile(r"# chunkdl split ([0-9]{1,6}) (\{.*\})")


def write_split(
    path: StrPath, part_of: Mapping[str, str], parts: Sequence[str], made_from: str
) -> None:
    """Write the file, whole or not at all.

    Raises:
        DatasetError: a name cannot be written, or the file cannot.
    """
    refuse(
        os.fspath(path),
        [
            f"the name {name!r} cannot be written into a file of text; rename it"
            for name in (*part_of, *parts)
            if not name or name != name.strip() or set(name) & _NO_TEXT or not _is_unicode(name)
        ],
    )
    try:
        how = json.loads(made_from) if made_from else None
    except ValueError as error:
        raise DatasetError(f"made_from={made_from!r:.80} is not JSON: {error}") from error
    header = {"parts": list(parts), "made_from": how}
    text = io.StringIO(newline="")
    text.write(f"# chunkdl split {VERSION} {json.dumps(header, ensure_ascii=True)}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(sorted(part_of.items()))
    try:
        write_whole(Path(path), text.getvalue().encode())
    except OSError as error:
        raise DatasetError(f"{os.fspath(path)} cannot be written: {error.strerror}") from error


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_split(path: StrPath) -> tuple[dict[str, str], tuple[str, ...], str]:
    """Part by patient, the parts in their order, and how the split was made (JSON or empty).

    Raises:
        DatasetError: the file cannot be read or says no split; names up to ten rows.
    """
    name = os.fspath(path)
    text = text_of(name)
    comment = _COMMENT.match(text)
    assert comment is not None
    parts, made_from = _read_header(name, comment[0])
    # Lines keep their numbers.
    rest = "\n" * len(comment[0].splitlines()) + text[comment.end() :]
    table = rows_of_text(name, rest, _COLUMNS)
    columns = [spelled(column) for column in table.columns]
    if missing := [column for column in _COLUMNS if columns.count(column) != 1]:
        raise DatasetError(
            f"{name}: a split needs one column {missing[0]!r}; columns found: "
            f"{', '.join(table.columns)}"
        )
    part_of: dict[str, str] = {}
    problems = []
    for number, row in table.rows:
        patient, part = (str(row[columns.index(column)]) for column in _COLUMNS)
        if not patient or not part:
            problems.append(f"row {number}: patient or part is empty")
        elif patient in part_of:
            problems.append(f"row {number}: patient {patient} comes twice")
        part_of[patient] = part
    refuse(name, problems)
    there = dict.fromkeys(part_of.values())
    return part_of, tuple(dict.fromkeys([*(p for p in parts if p in there), *there])), made_from


def _read_header(name: str, comment: str) -> tuple[list[str], str]:
    """The parts and how they were made; nothing of a file that somebody else wrote."""
    line = next(
        (line for line in comment.splitlines() if line.startswith("# chunkdl split ")), None
    )
    if line is None:
        return [], ""
    found = _HEADER.fullmatch(line)
    if found is not None and int(found[1]) != VERSION:
        raise DatasetError(
            f"{name}: this file has version {found[1]} of the format, and this chunkdl reads "
            f"version {VERSION}; read it with the chunkdl that wrote it"
        )
    try:
        said = json.loads(found[2]) if found else None
    except ValueError:
        said = None
    parts = said.get("parts") if isinstance(said, dict) else None
    if not isinstance(said, dict) or not isinstance(parts, list):
        raise DatasetError(
            f"{name}: the comment in its first line is damaged; restore it, or delete the line"
        )
    made_from = said.get("made_from")
    return [str(part) for part in parts], json.dumps(made_from) if made_from else ""
