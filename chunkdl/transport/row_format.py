"""What a row of a batch is: named columns, each with a type and a shape of its own.

The format belongs to the stream. Crops have one that is known from the configuration; of rows that
the user's code makes, the collector that has made the first one proposes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from chunkdl.dataset.labels import RESERVED

MOST_COLUMNS = 256
MOST_LETTERS = 100
"""Of the name of a column."""
_TAKEN = RESERVED - {"image"}
OF_ANNOTATIONS = frozenset(
    (
        *("region", "drawn_region", "region_shares", "label_mask"),
        *("cells", "cell_class", "cell_count"),
    )
)
"""Columns that rows have where slides are annotated; no code of the user's makes them."""


def wrong_name(name: str) -> str:
    """Why a column of rows cannot have this name; empty where it can."""
    if name in _TAKEN:
        return f"the name {name[:MOST_LETTERS]!r} is reserved for columns of batches"
    if not 0 < len(name) <= MOST_LETTERS or not name.isprintable():
        return (
            f"the name {name[:MOST_LETTERS]!r} is not one of 1 to {MOST_LETTERS} printable letters"
        )
    return ""


class ColumnFormat(msgspec.Struct, frozen=True):
    """One column of a batch.

    Attributes:
        name: of the column.
        dtype: of its numbers, as numpy writes it.
        shape: of one row; () of one number a row.
        is_image: a row is an image (height, width, channels) as it was read, and comes to the user
            in the order of axes that the library of arrays has for images.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_image: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{np.dtype(self.dtype)} {self.shape}"


class RowFormat(msgspec.Struct, frozen=True):
    """The columns of the rows of a stream.

    Attributes:
        columns: in the order in which they lie in a slot.
        packed: a row is a Python object, in the bytes of its only column; see
            `chunkdl.transport.memory.packing`.
    """

    columns: tuple[ColumnFormat, ...]
    packed: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return sum(column.row_bytes for column in self.columns)

    def __str__(self) -> str:
        if len(self.columns) == 1:
            return str(self.columns[0])
        return "dicts of " + ", ".join(f"{column.name!r}: {column}" for column in self.columns)

    @classmethod
    def of_crops(
        cls,
        side_px: int,
        more: tuple[ColumnFormat, ...] = (),
        *,
        has_label_mask: bool = False,
    ) -> RowFormat:
        """Of square crops, uint8 (side_px, side_px, 3).

        Args:
            side_px: of a crop.
            more: columns beside the image that each of them has.
            has_label_mask: each has the classes of its pixels, uint8 (side_px, side_px).
        """
        columns = [ColumnFormat("image", "|u1", (side_px, side_px, 3), is_image=True)]
        columns += more
        if has_label_mask:
            columns.append(ColumnFormat("label_mask", "|u1", (side_px, side_px)))
        return cls(tuple(columns))

    @classmethod
    def of_objects(cls, room: int) -> RowFormat:
        """Of objects that are pickled into so many bytes each."""
        return cls((ColumnFormat("data", "|u1", (room,)),), packed=True)

    @classmethod
    def of_arrays(cls, row: Mapping[str, npt.NDArray[np.generic]], *, images: bool) -> RowFormat:
        """Of rows like this one.

        The columns come in the order of their names: whichever row is the first one, and however
        its dict was made, rows with the same columns have the same format.

        Args:
            row: its arrays, by column.
            images: bytes (height, width, 1, 3 or 4) are images as they were read.
        """
        return cls(
            tuple(
                ColumnFormat(name, array.dtype.str, array.shape, images and _may_be_image(array))
                for name, array in sorted(row.items())
            )
        )

    def difference(self, row: Mapping[str, npt.NDArray[np.generic]]) -> str:
        """What is other in a row than in those before it, as "it is …, those before it were …";
        empty: nothing.
        """
        names = [column.name for column in self.columns]
        if set(row) != set(names):
            return f"has the columns {_listed(row)}, those before it had {_listed(names)}"
        for column in self.columns:
            array = row[column.name]
            if array.shape != column.shape or array.dtype.str != column.dtype:
                which = "" if names == ["image"] else f"{column.name!r} "
                return f"is {which}{array.dtype} {array.shape}, those before it were {column}"
        return ""


def _may_be_image(array: npt.NDArray[np.generic]) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in (1, 3, 4)


def _listed(names: Mapping[str, object] | list[str]) -> str:
    return ", ".join(map(repr, names))
