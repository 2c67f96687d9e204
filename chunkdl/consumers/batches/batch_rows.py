"""The columns of a batch that lie in its slot."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.consumers.batches.arrays import ArrayKind
from chunkdl.dataset.patients import Patient
from chunkdl.transport.memory.layouts import Array, BatchLayout, Bytes
from chunkdl.transport.memory.packing import load, unpack


class Hold:
    """The right to a slot, which whoever drops it gives back once the batch was given out.

    An interrupt may drop what was assembled before anybody got it; then the slot is still to be
    read.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._given_out = self._dropped = False

    def __call__(self) -> None:
        """Nothing refers to the memory of the slot any more."""
        self._dropped = True
        if self._given_out:
            self._release()

    def give_out(self, *, lent: bool) -> None:
        """The batch is given out, on the memory of the slot or on other memory.

        Where an interrupt has this done twice, the slot may be given back twice, which is once.
        """
        self._given_out = True
        if self._dropped or not lent:
            self._release()


def leased(slot: Bytes, when_dropped: Callable[[], None]) -> Bytes:
    """The bytes of a slot, with `when_dropped` called once nothing refers to them any more."""
    buffer = np.frombuffer(slot.data, dtype=np.uint8)
    finalizer = weakref.finalize(buffer, when_dropped)
    finalizer.atexit = False
    return buffer


def rows_of(
    buffer: Bytes,
    layout: BatchLayout,
    rows: int,
    dropped: npt.NDArray[np.int32],
    patients: Sequence[Patient],
    kind: ArrayKind,
    *,
    images: bool,
    copy: bool,
    first: int = 0,
) -> tuple[dict[str, Any], Array]:
    """The columns of a batch that lie in its slot, and the records of its rows.

    Args:
        buffer: bytes of a batch slot.
        layout: how they lie.
        rows: rows that are filled.
        dropped: rows among them that hold nothing, counted from the first; leaving them out costs a
            copy.
        patients: of the dataset.
        kind: of the arrays.
        images: images come in the order of axes that the library has for them.
        copy: objects get memory of their own.
        first: of the rows.

    Returns:
        The columns of the layout, arrays on the memory of `buffer`, or "data", a list of objects;
        with "info_smallchunk" and "info_bigchunk" where rows have them; and `RECORD`s (rows,).
    """
    view = layout.view(buffer)
    kept: Any = slice(first, first + rows)
    if len(dropped):
        kept = np.delete(np.arange(first, first + rows), dropped)
    records = view.records[kept]
    columns: dict[str, Any] = {}
    if layout.format.packed:
        packed = view.columns["data"]
        objects = [unpack(packed[row], shared=patients) for row in _indices(kept)]
        if copy:
            # The patients in them are the training program's own, and stay so.
            objects = deepcopy(objects, {id(patient): patient for patient in patients})
        columns["data"] = objects
    else:
        for column in layout.format.columns:
            data = view.columns[column.name][kept]
            columns[column.name] = kind.rows(data, images=images and column.is_image)
    if layout.info_bytes:
        infos = [load(view.infos[row]) for row in _indices(kept)]
        columns["info_smallchunk"] = [small for small, _ in infos]
        columns["info_bigchunk"] = [big for _, big in infos]
    return columns, records


def _indices(kept: Any) -> Sequence[int]:
    return range(kept.start, kept.stop) if isinstance(kept, slice) else kept.tolist()
