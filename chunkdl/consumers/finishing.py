"""What is made of a batch in the training process: by `collate_func`, or by `tfms` in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from chunkdl.consumers.batches.arrays import ArrayKind
from chunkdl.consumers.batches.batch import Batch, SmallChunks
from chunkdl.errors import ConfigError
from chunkdl.patches.as_array import check_names, is_array
from chunkdl.patches.transforms import TransformHere
from chunkdl.system.steady_log import steady_logger


class Finish:
    """Makes of each batch what the user gets, by whichever way.

    Args:
        kind: of the arrays.
        tfms: of the user.
        here: `tfms` runs in this process.
        collate: of the user; gets the SmallChunks with their data, and `tfms`.
        plain: rows are untransformed images (B, H, W, 3).
        seed: of the stream.
        tensors_only: batches have no columns but arrays.
    """

    def __init__(
        self,
        kind: ArrayKind,
        tfms: Callable[[Any], Any] | None,
        *,
        here: bool,
        collate: Callable[..., Any] | None,
        plain: bool,
        seed: int,
        tensors_only: bool,
    ) -> None:
        self._kind = kind
        self._tfms = tfms
        self._collate = collate
        self._plain = plain
        self._tensors_only = tensors_only
        warn = steady_logger("chunkdl").warning
        self._transform = TransformHere(tfms, seed, warn) if here and tfms is not None else None

    def __call__(self, batch: Batch) -> Any:
        """The batch as it was asked for: itself, or what `collate_func` returns."""
        if self._collate is not None:
            chunks = list(SmallChunks(batch))
            for chunk, row in zip(chunks, self._rows(batch), strict=True):
                chunk.data = row
            return self._collate(chunks, self._tfms)
        if self._transform is not None:
            self._replace(batch, self._transform)
        return batch

    def _rows(self, batch: Batch) -> Any:
        """The data of each SmallChunk."""
        if self._plain:
            return self._kind.pixels(batch["image"])
        if batch.row_columns in (("image",), ("data",)):
            return batch[batch.row_columns[0]]
        return [batch.data_of(row) for row in range(len(batch.patients))]

    def _replace(self, batch: Batch, transform: TransformHere) -> None:
        names = [patient.name for patient in batch.patients]
        ordinals, calls = batch["bigchunk"].tolist(), batch["call"].tolist()
        rows = self._rows(batch)
        made = transform.apply(rows, ordinals, calls, names)
        columns = self._columns(made)
        if columns is None and self._tensors_only:
            raise ConfigError(
                f"tfms makes objects of class {type(made[0]).__name__}, or arrays of several "
                "shapes, which are no column with tensors_only=True; make arrays of one shape"
            )
        batch.replace_rows({"data": made} if columns is None else columns)
        batch.untransformed = rows

    def _columns(self, made: list[Any]) -> dict[str, Any] | None:
        """The columns that the rows become; None if a row is not an array, or the rows differ."""
        if not all(isinstance(row, Mapping) for row in made):
            image = self._kind.stacked(made)
            return None if image is None else {"image": image}
        if not all(map(_is_of_columns, made)) or not all(set(row) == set(made[0]) for row in made):
            return None
        # As in the collectors, in the order of the names.
        names = sorted(made[0])
        columns = {name: self._kind.stacked([row[name] for row in made]) for name in names}
        if any(column is None for column in columns.values()):
            return None
        check_names(names)
        return columns


def _is_of_columns(row: Mapping[Any, Any]) -> bool:
    """Whether a dict is one that makes columns."""
    named = all(isinstance(name, str) for name in row)
    return bool(row) and named and all(map(is_array, row.values()))
