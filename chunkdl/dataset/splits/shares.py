"""How many patients of each class come into each part: shares, and counts rounded both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from chunkdl.errors import DatasetError

Size = float | int | Fraction | None
"""Of a part: a share of the patients, a number of patients, or None for the others."""
_ENOUGH = Fraction(1, 10**9)
"""Shares that differ from 1 by less are meant to be 1: 1/3 three times, as floats."""


def shares_of(parts: Mapping[str, Size], patients: int) -> dict[str, Fraction]:
    """The share of each part, exactly; they sum to 1.

    Args:
        parts: by name; shares, or numbers of patients; one may be None, which is what is left.
        patients: how many there are.

    Raises:
        DatasetError: they mean no split, or a part would have no patient.
    """
    if not patients:
        raise DatasetError("a dataset without patients cannot be split")
    if len(parts) < 2:
        raise DatasetError("a split needs two parts or more, such as {'train': 0.8, 'test': 0.2}")
    for name, size in parts.items():
        if not isinstance(name, str) or not name or name != name.strip():
            raise DatasetError(f"part {name!r}: its name must be text without spaces around it")
        usable = size is None or (
            not isinstance(size, bool) and isinstance(size, float | int | Fraction)
        )
        if not usable or (size is not None and not 0 < size < math.inf):
            raise DatasetError(
                f"part {name!r}: {size!r} is neither a share between 0 and 1, nor a number of "
                "patients above 0, nor None for the others"
            )
    given = {name: size for name, size in parts.items() if size is not None}
    if len(given) < len(parts) - 1:
        raise DatasetError("only one part can be None, the patients that are left; size the others")
    counts = {isinstance(size, int) for size in given.values()}
    if len(counts) > 1:
        raise DatasetError(
            f"parts {_told(given)}: give shares for all parts, or numbers of patients for all"
        )
    # "0.1" is a tenth, and the float 0.1 is not.
    exact = {name: Fraction(str(size)) for name, size in given.items()}
    shares = {n: f / patients if counts == {True} else f for n, f in exact.items()}
    left = 1 - sum(shares.values(), Fraction(0))
    whole = len(given) == len(parts)
    if whole and abs(left) < _ENOUGH:
        shares = {name: share / (1 - left) for name, share in shares.items()}
    elif whole or left <= 0:
        wanted = "1" if counts == {False} else f"the {patients} patients"
        raise DatasetError(
            f"parts {_told(given)} do not sum to {wanted}; give a part None, and it has the others"
        )
    shares = {name: shares.get(name, left) for name in parts}
    for name, share in shares.items():
        if share * patients < 1:
            raise DatasetError(
                f"part {name!r} would have {float(share * patients):.3g} of {patients} patients; "
                "give it a larger share, or a number of patients"
            )
    return shares


def _told(parts: Mapping[str, Size]) -> str:
    return ", ".join(f"{name}={size}" for name, size in parts.items())


def rounded(shares: Sequence[Fraction], counts: Sequence[int]) -> list[list[int]]:
    """How many patients of each class each part has: exact shares, rounded up or down.

    So are the sizes of the parts: entry, row and column of the table are each less than 1 from what
    the shares say. That there is such a table is the theorem of controlled rounding (Bacharach
    1966); a row more, of patients who do not exist, fills the sizes up to whole numbers, and the
    table is then an integral flow (Cox 1987).

    Args:
        shares: of the parts; they sum to 1.
        counts: patients of each class.

    Returns:
        Class by part.
    """
    exact = [[share * count for share in shares] for count in counts]
    table = [[math.floor(entry) for entry in row] for row in exact]
    sizes = [share * sum(counts) for share in shares]
    filled = [math.ceil(size) - size for size in sizes]
    over = [[e - t for e, t in zip(r, f, strict=True)] for r, f in zip(exact, table, strict=True)]
    more = _zeros_and_ones(
        [*over, filled],
        [
            math.ceil(size) - sum(column)
            for size, column in zip(sizes, zip(*table, strict=True), strict=True)
        ],
    )
    return [[t + m for t, m in zip(r, s, strict=True)] for r, s in zip(table, more, strict=False)]


def _zeros_and_ones(over: list[list[Fraction]], wanted: list[int]) -> list[list[int]]:
    """A table of 0 and 1 with the sums of `over`, and 0 where that is 0; augmenting paths find it.

    Args:
        over: fractions below 1, whose rows sum to whole numbers.
        wanted: sums of its columns.
    """
    columns = range(len(wanted))
    taken = [[0] * len(wanted) for _ in over]
    load = [0] * len(wanted)

    def place(row: int, seen: set[int]) -> bool:
        # Largest fractions first: they are nearest to one more.
        for column in sorted(columns, key=lambda c: (-over[row][c], c)):
            if not over[row][column] or taken[row][column] or column in seen:
                continue
            seen.add(column)
            if load[column] < wanted[column]:
                load[column] += 1
                taken[row][column] = 1
                return True
            for other in range(len(over)):
                if not taken[other][column]:
                    continue
                taken[other][column] = 0
                if place(other, seen):
                    taken[row][column] = 1
                    return True
                taken[other][column] = 1
        return False

    for row, fractions in enumerate(over):
        for _ in range(int(sum(fractions))):
            assert place(row, set()), "an integral flow has the value of the fractional one"
    return taken
