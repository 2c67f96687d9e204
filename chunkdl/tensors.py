"""From the bytes of a batch slot to torch tensors."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from chunkdl.chunks import Batch
from chunkdl.errors import ConfigError
from chunkdl.layouts import Array, BatchLayout, Bytes
from chunkdl.memory.packing import load, unpack
from chunkdl.patients import Patient
from chunkdl.pinned import tensor_on


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
        images: rows (height, width, channels) of bytes are untransformed images, whose tensor is
            channels first in channels_last order.
        copy: objects get memory of their own.
        first: of the rows.

    Returns:
        "image", a tensor on the memory of `buffer`, or "data", a list of objects; with
        "info_smallchunk" and "info_bigchunk" where rows have them; and `RECORD`s (rows,).
    """
    view = layout.view(buffer)
    kept: Any = slice(first, first + rows)
    if len(dropped):
        kept = np.delete(np.arange(first, first + rows), dropped)
    records = view.records[kept]
    columns: dict[str, Any] = {}
    if layout.packed:
        objects = [unpack(view.data[row], shared=patients) for row in _indices(kept)]
        if copy:
            # The patients in them are the training program's own, and stay so.
            objects = deepcopy(objects, {id(patient): patient for patient in patients})
        columns["data"] = objects
    else:
        tensor = _over(view.data[kept])
        height_width_channels = len(layout.shape) == 3 and layout.shape[2] in (1, 3, 4)
        if images and height_width_channels and layout.dtype == "|u1":
            tensor = tensor.permute(0, 3, 1, 2)
        columns["image"] = tensor
    if layout.info_bytes:
        infos = [load(view.infos[row]) for row in _indices(kept)]
        columns["info_smallchunk"] = [small for small, _ in infos]
        columns["info_bigchunk"] = [big for _, big in infos]
    return columns, records


def _over(rows: Array) -> torch.Tensor:
    """A tensor on the memory of an array; the memory of a broadcast is not to be written to."""
    if not rows.flags.writeable:
        _have_warned()
    return tensor_on(rows)


@functools.cache
def _have_warned() -> None:
    # Torch says it once, and the documentation of `copy=False` says the same.
    rows = np.zeros(1)
    rows.flags.writeable = False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        torch.from_numpy(rows)


def _indices(kept: Any) -> Sequence[int]:
    return range(kept.start, kept.stop) if isinstance(kept, slice) else kept.tolist()


def tensor_of(values: npt.NDArray[Any]) -> torch.Tensor:
    """A plain tensor of the values of an array; copies where they do not lie side by side."""
    return torch.from_numpy(np.ascontiguousarray(values))


def transformed(rows: Iterable[Any], transform: Callable[[Any], Any] | None) -> torch.Tensor:
    """The stacked results of `transform` on the data of each SmallChunk."""
    chosen = rows if transform is None else [transform(row) for row in rows]
    return torch.stack([torch.as_tensor(row) for row in chosen])


def concatenated(parts: Sequence[Any]) -> Any:
    """The rows of several batches in one column: a tensor where all parts are, else a list."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, torch.Tensor) for part in parts):
        return torch.cat(list(parts))
    return [
        value
        for part in parts
        for value in (part.tolist() if isinstance(part, torch.Tensor) else part)
    ]


def numbered(numbers: Sequence[int], counts: Sequence[int]) -> torch.Tensor:
    """Each number as often as it is counted."""
    return torch.repeat_interleave(torch.tensor(numbers), torch.tensor(counts))


class DatasetView(IterableDataset[dict[str, Any]]):
    """A loader as a torch dataset of ready batches, for ``DataLoader(view, batch_size=None)``.

    Args:
        batches: the loader.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        super().__init__()
        self._batches = batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if get_worker_info() is not None:
            raise ConfigError(
                "chunkdl reads in processes of its own; use DataLoader(..., num_workers=0)"
            )
        for batch in self._batches:
            yield dict(batch)


def cuda_is_there() -> bool:
    """Whether batches are likely to go to a GPU."""
    return bool(torch.cuda.is_available())
