"""Labels from a table that knows patients or slides by name, such as a clinical table."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from chunkdl.dataset import cells
from chunkdl.dataset.labels import is_plain, is_time, plain, refusal
from chunkdl.dataset.tables import Table, refuse
from chunkdl.errors import DatasetError
from chunkdl.slides.address import parse_address
from chunkdl.slides.suffixes import stem
from chunkdl.system.steady_log import steady_logger

Missing = Literal["error", "none"]
_MOST_NAMED = 5

log = steady_logger("chunkdl")


def joined_labels(
    table: Table,
    column: str,
    wanted: Sequence[str] | None,
    names: Mapping[str, Sequence[str]],
    known: Collection[str],
    missing: Missing,
) -> dict[str, dict[str, object]]:
    """For each patient or slide the labels of the row that has its name.

    Args:
        table: its rows.
        column: of the names.
        wanted: the columns that are labels; None: all others.
        names: of each patient or slide, what a row may call it.
        known: labels that they have already.
        missing: whether one without a row is an error, or has None for each label.

    Raises:
        DatasetError: see `Dataset.with_labels`.
    """
    if missing not in ("error", "none"):
        raise DatasetError(f"missing={missing!r:.80} must be 'error' or 'none'")
    rows = rows_by_name(table, column, wanted)
    labels = list(next(iter(rows.values())))
    problems = [
        f"column {name!r}: there is a label of this name already; rename the column"
        for name in labels
        if name in known
    ]
    found: dict[str, dict[str, object]] = {}
    lost, used = [], set[str]()
    for thing, called in names.items():
        mine = [name for name in called if name in rows]
        used.update(mine)
        if len(mine) > 1:
            problems.append(f"{thing} has the rows {' and '.join(mine)}; keep one of them")
        elif not mine:
            lost.append(called[0])
        found[thing] = rows[mine[0]] if mine else dict.fromkeys(labels)
    if lost and (missing == "error" or len(lost) == len(names)):
        more = len(lost) - _MOST_NAMED
        problems.append(
            f"{len(lost)} of {len(names)} have no row by column {column!r}: "
            f"{', '.join(lost[:_MOST_NAMED])}"
            + (f" and {more} more" if more > 0 else "")
            + f"; the table has {', '.join(list(rows)[:3])}, …; add rows, leave these out, or give "
            "missing='none'"
        )
    refuse(table.source, problems)
    log.info("%s: %d of %d rows are used", table.source, len(used), len(rows))
    return found


def names_of_slide(path: str) -> tuple[str, ...]:
    """What a table may call a slide: its file name, or that without the suffix."""
    file = parse_address(path).path
    return tuple(dict.fromkeys((os.path.basename(file), stem(file))))


def rows_by_name(
    table: Table, column: str, wanted: Sequence[str] | None
) -> dict[str, dict[str, object]]:
    """The labels by the name in a column; rows of one name must agree.

    Args:
        table: its rows.
        column: of the names.
        wanted: the columns that are labels; None: all others.

    Raises:
        DatasetError: they do not, the column is missing, or another cannot be a label.
    """
    columns = [name for name in table.columns if name != column]
    if wanted is not None:
        columns = [name for name in columns if name in wanted]
    problems = [refusal(name) for name in columns if refusal(name)]
    problems += [f"column {name!r} comes twice" for name in columns if columns.count(name) > 1]
    problems += ["a column has no name"] if "" in columns else []
    problems += [
        f"there must be one column {name!r}"
        for name in (column, *(wanted or ()))
        if table.columns.count(name) != 1
    ]
    if problems:
        raise DatasetError(
            f"{table.header}: {'; '.join(dict.fromkeys(problems))}; columns found: "
            f"{', '.join(table.columns)}"
        )
    at = table.columns.index(column)
    values = {name: _values(table, name, table.columns.index(name)) for name in columns}
    found: dict[str, dict[str, object]] = {}
    for index, (number, row) in enumerate(table.rows):
        name = name_in(row[at])
        labels = {label: column_values[index] for label, column_values in values.items()}
        if not name:
            problems.append(f"row {number}: column {column!r} is empty")
        elif found.setdefault(name, labels) != labels:
            problems.append(f"row {number}: {name} has other values in an earlier row")
    refuse(table.source, problems)
    return found


def name_in(cell: Any) -> str:
    """The name of a patient or slide in a cell; empty where there is none.

    A whole number that other missing numbers have made a float is one again.
    """
    value = plain(cell)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _values(table: Table, name: str, position: int) -> list[Any]:
    column = [row[position] for _, row in table.rows]
    if table.text:
        return cells.typed(column)
    values = [plain(cell) for cell in column]
    values = [value.isoformat() if is_time(value) else value for value in values]
    refuse(
        table.source,
        [
            f"row {number}: column {name!r} is a {type(value).__name__}; a label must be a number, "
            "a text, a boolean or a list of these"
            for (number, _), value in zip(table.rows, values, strict=True)
            if not is_plain(value)
        ],
    )
    return values
