"""How BigChunks and batches lie in the bytes of a slot: arithmetic over somebody else's memory.

A BigChunk slot of the built-in classes holds a record for each of its calls and the pixels; a batch
slot holds a record for each row, what a user's class says about each row, and the columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.transport.row_format import ColumnFormat, RowFormat

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

_LINE = 64
"""Parts of a slot start on cache lines."""
INFO_BYTES = 4096
"""For the two info dicts of a SmallChunk of a user's class, pickled."""


def _end(size: int) -> int:
    """End of a part of `size` bytes, on a cache line."""
    return -(-size // _LINE) * _LINE


def _column(slot: Bytes, column: ColumnFormat, start: int, rows: int) -> Array:
    data = slot[start : start + rows * column.row_bytes]
    return data.view(column.dtype).reshape(rows, *column.shape)


COLUMNS: tuple[tuple[str, type[np.generic]], ...] = (
    ("x", np.int64),
    ("y", np.int64),
    ("bigchunk", np.int64),
    ("level", np.int32),
    ("slide", np.int32),
    ("patient", np.int32),
    ("call", np.int32),
    ("mpp", np.float32),
    ("tissue_fraction", np.float32),
)
"""The columns of a batch beside the image: name and type."""

RECORD = np.dtype([*COLUMNS, ("left", np.int32), ("top", np.int32)])
"""Everything numeric about a row, and its corner inside the BigChunk. One record per call
lies in the BigChunk; cutting a row copies its record whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Strips:
    """The pixels of a BigChunk as strips from left to right.

    With strips as wide as the file's tiles a tile is one piece of memory, so the decoder writes
    where the pixels stay, and a crop touches fewer pages. One strip is a plain image. Only blocks
    that some SmallChunk of the plan touches hold pixels; the rest is undefined.

    Attributes:
        array: uint8 of shape (strips, height, strip width, 3).
    """

    array: npt.NDArray[np.uint8]

    def crop(self, left: int, top: int, side_px: int) -> npt.NDArray[np.uint8]:
        """The square with that corner, uint8 (side_px, side_px, 3); a copy only across strips."""
        strip, within = divmod(left, self.array.shape[2])
        if within + side_px <= self.array.shape[2]:
            return self.array[strip, top : top + side_px, within : within + side_px]
        out = np.empty((side_px, side_px, 3), dtype=np.uint8)
        self.crop_into(out, left, top)
        return out

    def crop_into(self, out: npt.NDArray[np.uint8], left: int, top: int) -> None:
        """Copy the square of the size of `out` with that corner."""
        width, side_px = self.array.shape[2], out.shape[0]
        strip, within = divmod(left, width)
        bottom, done = top + side_px, min(side_px, width - within)
        out[:, :done] = self.array[strip, top:bottom, within : within + done]
        # It goes on in the strips to the right.
        while done < side_px:
            strip += 1
            more = min(side_px - done, width)
            out[:, done : done + more] = self.array[strip, top:bottom, :more]
            done += more

    def sample_into(self, planes: npt.NDArray[np.uint8], left: int, top: int, step: int) -> None:
        """Copy every `step`-th pixel of every `step`-th row, from that corner on.

        Args:
            planes: (3, rows, columns), a colour each: copies of three bytes each are slow.
            left, top: of the first pixel.
            step: distance of the pixels.
        """
        rows, columns = planes.shape[1:]
        down = slice(top, top + (rows - 1) * step + 1, step)
        done = 0
        while done < columns:
            strip, within = divmod(left + done * step, self.array.shape[2])
            more = min(columns - done, -(-(self.array.shape[2] - within) // step))
            across = slice(within, within + (more - 1) * step + 1, step)
            for colour, plane in enumerate(planes):
                plane[:, done : done + more] = self.array[strip, down, across, colour]
            done += more


@dataclass(frozen=True, slots=True, eq=False)
class BigChunkView:
    """Typed views of a BigChunk slot; borrowed from the arena.

    Attributes:
        strip_px: how the pixels lie, int32 of shape (1,); see `strips`.
        records: of `RECORD`, shape (calls,).
        pixels: uint8 of shape (side · side · 3,).
        side_px: side of the region, target pixels.
        columns: what the columns beside the image say of each call, each of the type of its format
            and shape (calls, ...).
        label_mask: uint8 of shape (side, side), the class of each pixel; None: there is none.
    """

    strip_px: npt.NDArray[np.int32]
    records: Array
    pixels: Bytes
    side_px: int
    columns: Mapping[str, Array]
    label_mask: npt.NDArray[np.uint8] | None

    def strips(self) -> Strips:
        """The pixels, (strips, side, strip_px, 3)."""
        width = int(self.strip_px[0])
        return Strips(self.pixels.reshape(self.side_px // width, self.side_px, width, 3))


@dataclass(frozen=True, slots=True)
class BigChunkLayout:
    """Where things lie in a BigChunk slot: the width of its strips, a record per call, the columns
    beside the image by call, the pixels, and the classes of the pixels.

    Attributes:
        side_px: side of the region, target pixels.
        calls: most SmallChunks that are taken from it.
        columns: of a batch, beside the image.
        has_label_mask: each pixel has a class.
    """

    side_px: int
    calls: int
    columns: tuple[ColumnFormat, ...] = ()
    has_label_mask: bool = False

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot before the arena rounds them up."""
        area = self.side_px * self.side_px
        return self._pixels_at + area * 3 + area * self.has_label_mask

    @property
    def _columns_at(self) -> tuple[int, ...]:
        """Where each column begins, and the end of all."""
        sizes = [_end(self.calls * column.row_bytes) for column in self.columns]
        return tuple(accumulate(sizes, initial=_end(_LINE + self.calls * RECORD.itemsize)))

    @property
    def _pixels_at(self) -> int:
        # See `chunkdl.slides.readers.tiled` for why rows should not begin on 32 bytes.
        return self._columns_at[-1] + 16

    def view(self, slot: Bytes) -> BigChunkView:
        """The views of a slot."""
        records = slot[_LINE : _LINE + self.calls * RECORD.itemsize].view(RECORD)
        area = self.side_px * self.side_px
        end = self._pixels_at + area * 3
        columns = {
            column.name: _column(slot, column, start, self.calls)
            for column, start in zip(self.columns, self._columns_at[:-1], strict=True)
        }
        label_mask = None
        if self.has_label_mask:
            label_mask = slot[end : end + area].reshape(self.side_px, self.side_px)
        return BigChunkView(
            slot[:4].view(np.int32),
            records,
            slot[self._pixels_at : end],
            self.side_px,
            columns,
            label_mask,
        )


@dataclass(frozen=True, slots=True, eq=False)
class BatchView:
    """Typed views of a batch slot; borrowed from the arena.

    Attributes:
        records: of `RECORD`, shape (rows,).
        infos: uint8 of shape (rows, info_bytes).
        columns: the data by column, each of the type of its format and shape (rows, ...).
    """

    records: Array
    infos: Bytes
    columns: Mapping[str, Array]


@dataclass(frozen=True)
class BatchLayout:
    """Where things lie in a batch slot: a record per row, infos per row, then column by column.

    Attributes:
        rows: rows of a full batch.
        format: of a row.
        info_bytes: for the info dicts of a row.
    """

    rows: int
    format: RowFormat
    info_bytes: int = 0

    @cached_property
    def slot_bytes(self) -> int:
        """Bytes of one slot before the arena rounds them up."""
        starts = self._columns_at
        return starts[-1] + self.rows * self.format.columns[-1].row_bytes

    @cached_property
    def _infos_at(self) -> int:
        return _end(self.rows * RECORD.itemsize)

    @cached_property
    def data_at(self) -> int:
        """Where the first column begins."""
        return _end(self._infos_at + self.rows * self.info_bytes)

    @cached_property
    def _columns_at(self) -> tuple[int, ...]:
        sizes = [_end(self.rows * column.row_bytes) for column in self.format.columns[:-1]]
        return tuple(accumulate(sizes, initial=self.data_at))

    def view(self, slot: Bytes) -> BatchView:
        """The views of a slot."""
        records = slot[: self.rows * RECORD.itemsize].view(RECORD)
        infos = slot[self._infos_at : self._infos_at + self.rows * self.info_bytes]
        columns = {
            column.name: _column(slot, column, start, self.rows)
            for column, start in zip(self.format.columns, self._columns_at, strict=True)
        }
        return BatchView(records, infos.reshape(self.rows, self.info_bytes), columns)

    def parts(self, slot: Bytes, first: int, rows: int) -> tuple[Bytes, ...]:
        """The bytes of some rows of a slot: their records, then their part of each column."""
        record = RECORD.itemsize
        found = [slot[first * record : (first + rows) * record]]
        for column, start in zip(self.format.columns, self._columns_at, strict=True):
            row = column.row_bytes
            found.append(slot[start + first * row : start + (first + rows) * row])
        return tuple(found)
