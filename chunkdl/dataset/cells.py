"""Columns of text cells, as a CSV file has them, as values with types."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

MISSING = frozenset(("", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "<NA>", "null", "NULL"))
"""Cells that say nothing. "None" may be the name of a class: it is one only among numbers."""

# At most 18 digits, and none of them a leading zero: "007" and a 30-digit number are names, and
# turning them into numbers would lose what they say.
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[+-]?((?:0|[1-9][0-9]{0,17})(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
_TRUTH = {
    **dict.fromkeys(("True", "true", "TRUE"), True),
    **dict.fromkeys(("False", "false", "FALSE"), False),
}
_LIST = re.compile(r"\[([^\[\]()]*)\]|\(([^\[\]()]*)\)")


def typed(cells: Sequence[str]) -> list[Any]:
    """The values of a column: all of one kind, so that one odd cell leaves the others text.

    Truth values, else whole numbers, else numbers, else lists of one of these, else text. A missing
    cell is None.
    """
    for missing in (MISSING, MISSING | {"None"}):
        texts = [cell for cell in cells if cell not in missing]
        convert = _conversion(texts)
        if convert is not str:
            return [None if cell in missing else convert(cell) for cell in cells]
    return [None if cell in MISSING else cell for cell in cells]


def is_number(text: str) -> bool:
    """Whether the text is a number that a float holds, or infinite and says so.

    What a float would make infinite or 0, such as 1e999, is none.
    """
    found = _FLOAT.fullmatch(text)
    if found is None:
        return _INFINITE.fullmatch(text) is not None
    value = float(text)
    return math.isfinite(value) and (value != 0 or float(found[1]) == 0)


def _conversion(texts: Sequence[str]) -> Callable[[str], Any]:
    if not texts:
        return str
    scalar = _scalar(texts)
    if scalar is not str or not all(map(_LIST.fullmatch, texts)):
        return scalar
    items = [item for text in texts for item in _items(text)]
    inner = _scalar([item for item in items if item not in MISSING])
    if inner is str and items:
        return str
    return lambda text: [None if item in MISSING else inner(item) for item in _items(text)]


def _scalar(texts: Sequence[str]) -> Callable[[str], Any]:
    if all(text in _TRUTH for text in texts):
        return _TRUTH.__getitem__
    if all(map(_INTEGER.fullmatch, texts)):
        return int
    if all(map(is_number, texts)):
        return float
    return str


def _items(text: str) -> list[str]:
    """Of "[0, 1, 1]", of "(0, 1)", and of "[0 1 1]" as numpy prints it."""
    inside = text[1:-1].strip()
    return re.split(r"\s*,\s*|\s+", inside.rstrip(",").rstrip()) if inside else []
