"""Tables as people have them, CSV and Parquet files, DataFrames, lists of dicts, as rows of cells.

Nothing here knows what a column means; see `chunkdl.dataset.manifest`.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chunkdl.dataset.labels import is_plain, is_time, plain
from chunkdl.errors import DatasetError

_MOST_BYTES = 64 * 2**20
_MOST_PROBLEMS_SHOWN = 10
_PARQUET = (".parquet", ".pq")
_SEPARATORS = ",;\t"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells.

    Attributes:
        source: for messages: the file, or what kind of object it was.
        columns: names as they are there; may be empty, and may come twice.
        rows: number of each row for messages, and its cells, as many as columns. A file of text
            counts as a spreadsheet does, with the header as row 1; others count from 0.
        text: cells are text, stripped; else they have the types that they had.
    """

    source: str
    columns: tuple[str, ...]
    rows: list[tuple[int, Sequence[Any]]]
    text: bool

    @property
    def header(self) -> str:
        """How messages about the columns begin."""
        return f"{self.source}: row 1" if self.text else self.source


def refuse(source: str, problems: Sequence[str]) -> None:
    """Raise one `DatasetError` about `source` if there are problems, showing the first ten."""
    if problems:
        more = len(problems) - _MOST_PROBLEMS_SHOWN
        shown = [*problems[:_MOST_PROBLEMS_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        raise DatasetError(f"{source}: " + "; ".join(shown))


def read_table(source: Any, wanted: Sequence[str]) -> Table:
    """The table in a file or in memory; `Dataset.from_table` says which there are.

    Args:
        source: the path of a file, or the table itself.
        wanted: columns by which a file of text shows what separates its cells.

    Raises:
        DatasetError: it cannot be read, has no rows, or is not a table.
    """
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        table = _parquet(path) if path.lower().endswith(_PARQUET) else read_text(path, wanted)
    else:
        table = _in_memory(source)
    return _with_rows(table)


def read_text(path: str, wanted: Sequence[str]) -> Table:
    """The table in a file of text whose cells are separated by commas, semicolons or tabs.

    The separator is the first under which the header has a wanted column.

    Raises:
        DatasetError: the file cannot be read, is no such text, or has no rows.
    """
    return rows_of_text(path, text_of(path), wanted)


def rows_of_text(source: str, text: str, wanted: Sequence[str]) -> Table:
    """The same of a text that was read already; `source` is for messages.

    Raises:
        DatasetError: it is no such text, or has no rows.
    """
    separator = next((s for s in _SEPARATORS if _has(text, s, wanted)), ",")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    rows: list[tuple[int, Sequence[Any]]] = []
    problems: list[str] = []
    columns: list[str] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not columns:
                columns = cells
            elif len(cells) != len(columns):
                problems.append(
                    f"row {reader.line_num}: {len(cells)} cells for {len(columns)} columns"
                )
            else:
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        problems.append(f"row {reader.line_num}: {error}")
    refuse(source, problems)
    return _with_rows(Table(source, tuple(columns), rows, text=True))


def _has(text: str, separator: str, wanted: Sequence[str]) -> bool:
    rows = csv.reader(io.StringIO(text, newline=None), delimiter=separator)
    try:
        header = next((row for row in rows if any(map(str.strip, row))), [])
    except csv.Error:
        return False
    return len(header) > 1 and any(spelled(name) in wanted for name in header)


def spelled(name: str) -> str:
    """A name without what people vary: " Tissue Mask" is "tissue_mask"."""
    return re.sub(r"[ -]", "_", name.strip().lower())


def _with_rows(table: Table) -> Table:
    if not table.rows:
        raise DatasetError(
            f"{table.source}: it has no rows; a manifest needs a header and one row per slide"
        )
    return table


def text_of(path: str) -> str:
    """The text of a file in UTF-8.

    Raises:
        DatasetError: it cannot be read, is too large for a table, or is no such text.
    """
    data = _bytes_of(path)
    if b"\0" in data:
        row = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise DatasetError(f"{path}: row {row}: this is not UTF-8 text; save the file as CSV UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{path}: row {row}: this is not UTF-8 text ({error.reason}); save the file as CSV "
            "UTF-8"
        ) from error


def _bytes_of(path: str) -> bytes:
    """The file, once; a slide that was given by mistake is not read."""
    try:
        size = os.stat(path).st_size
        if size > _MOST_BYTES:
            raise DatasetError(
                f"{path}: the file has {size} bytes, and a manifest has at most {_MOST_BYTES}; is "
                "it the right file?"
            )
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error


def _parquet(path: str) -> Table:
    data = _bytes_of(path)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(
            f"{path}: reading Parquet files needs pyarrow: pip install 'chunkdl[tables]'"
        ) from error
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        # By position: two columns may have one name.
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DatasetError(f"{path} is not a Parquet file: {error}") from error
    return _of_columns(path, table.column_names, columns)


def _in_memory(source: Any) -> Table:
    kind = f"the {type(source).__name__}"
    if isinstance(source, Mapping):
        return _of_columns(kind, list(source), [_column(kind, k, v) for k, v in source.items()])
    if hasattr(source, "reset_index") and hasattr(source, "columns"):
        return _of_pandas(kind, source)
    if hasattr(source, "column_names") and hasattr(source, "columns"):
        # Arrow.
        return _of_columns(kind, source.column_names, [c.to_pylist() for c in source.columns])
    if hasattr(source, "to_dict") and hasattr(source, "get_columns"):
        # polars.
        columns = source.get_columns()
        return _of_columns(kind, [c.name for c in columns], [c.to_list() for c in columns])
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return _of_dicts(kind, list(source))
    raise _no_table(kind)


def _of_pandas(kind: str, frame: Any) -> Table:
    # By position: two columns may have one name.
    columns = [(name, _pandas_cells(frame.iloc[:, n])) for n, name in enumerate(frame.columns)]
    levels = []
    # An index with a name is a column like any other.
    if any(name is not None for name in frame.index.names):
        for n, name in enumerate(frame.index.names):
            name = f"level_{n}" if name is None else name
            cells = _pandas_cells(frame.index.get_level_values(n).to_series())
            same = [column for other, column in columns if other == name]
            if not same:
                levels.append((name, cells))
            elif cells not in same:
                raise DatasetError(
                    f"{kind}: its index and a column are both named {name!r} and differ; rename "
                    "one of them, or drop the index with df.reset_index(drop=True)"
                )
    both = levels + columns
    return _of_columns(kind, [name for name, _ in both], [cells for _, cells in both])


def _pandas_cells(series: Any) -> list[Any]:
    """The cells of a column; None where it has none, text where it is of categories of objects."""
    cells = [plain(cell) for cell in series.tolist()]
    # Only a column of categories has it.
    if not hasattr(series, "cat") or all(is_plain(cell) or is_time(cell) for cell in cells):
        return cells
    return [None if cell is None else str(cell) for cell in cells]


def _no_table(kind: str) -> DatasetError:
    return DatasetError(
        f"{kind} is not a table; give the path of a CSV or Parquet file, a pandas or polars "
        "DataFrame, a pyarrow table, a list of dicts, or a dict of columns"
    )


def _column(kind: str, name: object, values: Any) -> list[Any]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise DatasetError(f"{kind}: column {name!r} is {values!r}; give a list of all its cells")
    return list(values)


def _of_columns(source: str, names: Sequence[object], columns: Sequence[list[Any]]) -> Table:
    lengths = {str(name): len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise DatasetError(f"{source}: columns have different numbers of rows: {told}")
    rows: list[tuple[int, Sequence[Any]]] = list(enumerate(zip(*columns, strict=True)))
    return Table(source, tuple(str(name).strip() for name in names), rows, text=False)


def _of_dicts(source: str, dicts: Sequence[Any]) -> Table:
    for number, row in enumerate(dicts):
        if not isinstance(row, Mapping):
            raise _no_table(f"{source}, whose row {number} is a {type(row).__name__},")
    names = list({name: None for row in dicts for name in row})
    return _of_columns(source, names, [[row.get(name) for row in dicts] for name in names])
