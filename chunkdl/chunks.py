"""BigChunk, SmallChunk and Batch as the user sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from chunkdl.patients import Patient


class BigChunk:
    """A large region of one patient, as the hooks of a user see it.

    Args:
        data: the region, usually an array (height, width, 3) uint8.
        dict_info_of_bigchunk: what the loader wants to say about it.
        patient: whose it is.
    """

    def __init__(self, data: Any, dict_info_of_bigchunk: dict[str, Any], patient: Patient) -> None:
        self.data = data
        self.dict_info_of_bigchunk = dict_info_of_bigchunk
        self.patient = patient


class SmallChunk:
    """One crop of a BigChunk: the training example.

    Args:
        data: the crop, or whatever the user's class made; None in what `LightDL.get()` returns of
            the built-in classes, whose pixels are in the batch.
        dict_info_of_smallchunk: x, y (level-0 pixels of the top-left corner), level, mpp,
            tissue_fraction, call.
        dict_info_of_bigchunk: slide (path) and bigchunk (ordinal).
        patient: whose it is.
    """

    def __init__(
        self,
        data: Any,
        dict_info_of_smallchunk: dict[str, Any],
        dict_info_of_bigchunk: dict[str, Any],
        patient: Patient,
    ) -> None:
        self.data = data
        self.dict_info_of_smallchunk = dict_info_of_smallchunk
        self.dict_info_of_bigchunk = dict_info_of_bigchunk
        self.patient = patient


class Batch(Mapping[str, Any]):
    """The columns of one batch, row i of each belonging together.

    ``image`` is a tensor (B, 3, H, W), channels_last. ``x`` and ``y`` are level-0 pixels of the
    top-left corner, ``level`` the pyramid level that was read, ``mpp`` microns per pixel of the
    row (NaN where unknown), ``tissue_fraction`` the share of tissue in it, ``bigchunk`` the ordinal
    of its BigChunk and ``call`` its number in that BigChunk: tensors of shape (B,). ``slide`` and
    ``patient`` are lists of paths and names; ``label`` is a tensor where all labels are numbers,
    else a list; every label column of the dataset is there under its own name too.

    Of the user's classes: ``image`` are their rows as a tensor; where they are no arrays, ``data``
    is a list of them instead. The numbers are what their info dicts say under these names, -1 or
    NaN where they say nothing; ``info_smallchunk`` and ``info_bigchunk`` are lists of the dicts.
    """

    def __init__(self, columns: Mapping[str, Any], patients: list[Patient], number: int) -> None:
        self._columns = columns
        self.patients = patients
        """The patient of each row."""
        self.number = number
        """Number of the batch in its stream, or in its pass."""

    def __getitem__(self, column: str) -> Any:
        return self._columns[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"Batch(number={self.number}, rows={len(self.patients)}, columns={list(self)})"


class SmallChunks(Sequence[SmallChunk]):
    """The SmallChunks of a batch, made when they are looked at; their pixels are in the batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return len(self._batch.patients)

    @overload
    def __getitem__(self, row: int) -> SmallChunk: ...

    @overload
    def __getitem__(self, row: slice) -> list[SmallChunk]: ...

    def __getitem__(self, row: int | slice) -> SmallChunk | list[SmallChunk]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a batch of {len(self)}")
        batch = self._batch
        if "info_smallchunk" in batch:
            rows = batch["image"] if "image" in batch else batch["data"]
            small, big = batch["info_smallchunk"][row], batch["info_bigchunk"][row]
            return SmallChunk(rows[row], small, big, batch.patients[row])
        small = {name: batch[name][row].item() for name in _OF_SMALLCHUNK}
        big = {"slide": batch["slide"][row], "bigchunk": batch["bigchunk"][row].item()}
        return SmallChunk(None, small, big, batch.patients[row])


_OF_SMALLCHUNK = ("x", "y", "level", "mpp", "tissue_fraction", "call")
