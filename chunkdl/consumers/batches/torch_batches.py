"""torch: from the bytes of a batch slot to tensors, and a loader as a torch dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch.utils import _pytree
from torch.utils.data import IterableDataset

from chunkdl.consumers.batches.arrays import Buffers, joined
from chunkdl.consumers.batches.batch import Batch
from chunkdl.consumers.batches.buffers import BufferPool
from chunkdl.consumers.batches.pinned import PinnedMemory, tensor_on
from chunkdl.errors import ConfigError
from chunkdl.transport.memory.layouts import Array

if TYPE_CHECKING:
    from chunkdl.consumers.loader import Loader


def transformed(rows: Iterable[Any], transform: Callable[[Any], Any] | None) -> torch.Tensor:
    """The stacked results of `transform` on the data of each SmallChunk."""
    chosen = rows if transform is None else [transform(row) for row in rows]
    return torch.stack([torch.as_tensor(row) for row in chosen])


class TorchArrays:
    """torch; images become (B, C, H, W) in channels_last order.

    Args:
        pin: copy into page-locked memory; None: where CUDA is there.
    """

    def __init__(self, pin: bool | None) -> None:
        gpu = bool(torch.cuda.is_available())
        if pin and not gpu:
            raise ConfigError(
                "pin_memory=True, and torch finds no GPU to lock memory for; leave pin_memory out"
            )
        self.pins = gpu if pin is None else pin

    def know(self, loader: type[Any]) -> None:
        """``DataLoader(loader, batch_size=None)`` is ``DataLoader(loader.dataset_view(), ...)``."""
        IterableDataset.register(loader)

    def buffers(self, size: int) -> Buffers:
        """See `ArrayKind`."""
        return PinnedMemory(size) if self.pins else BufferPool(size)

    def rows(self, rows: Array, *, images: bool) -> Any:
        """See `ArrayKind`."""
        tensor = tensor_on(rows)
        return tensor.permute(0, 3, 1, 2) if images else tensor

    def pixels(self, images: Any) -> Array:
        """See `ArrayKind`."""
        pixels: Array = images.permute(0, 2, 3, 1).numpy()
        return pixels

    def numbers(self, values: npt.NDArray[Any]) -> Any:
        """See `ArrayKind`."""
        # Never on memory of the slot: of one row the values lie side by side as they are.
        return torch.from_numpy(np.array(values))

    def stacked(self, rows: Sequence[Any]) -> Any:
        """See `ArrayKind`."""
        try:
            tensors = [torch.as_tensor(row) for row in rows]
        except (TypeError, ValueError, RuntimeError):
            return None
        same = len({(tensor.shape, tensor.dtype) for tensor in tensors}) == 1
        return torch.stack(tensors) if same else None

    def together(self, parts: Sequence[Any]) -> Any:
        """See `ArrayKind`."""
        if len(parts) == 1:
            return parts[0]
        if all(isinstance(part, torch.Tensor) for part in parts):
            return torch.cat(list(parts))
        return joined(parts)

    def repeated(self, numbers: Sequence[int], counts: Sequence[int]) -> Any:
        """See `ArrayKind`."""
        return torch.repeat_interleave(torch.tensor(numbers), torch.tensor(counts))


class DatasetView(IterableDataset[Any]):
    """A loader as a torch dataset of ready batches, for ``DataLoader(view, batch_size=None)``.

    What iterates over it, and what asks for its length or its state, asks the loader.

    Args:
        loader: that it shows.
    """

    def __init__(self, loader: Loader) -> None:
        super().__init__()
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def generator(self) -> NoReturn:
        """See `Loader.generator`."""
        self.loader.generator  # noqa: B018
        raise AttributeError("a view has no generator")

    def set_epoch(self, epoch: int) -> None:
        """Which pass the next iteration is; see `Loader.set_epoch`."""
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """See `Loader.state_dict`."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Loader.load_state_dict`."""
        self.loader.load_state_dict(state)


_pytree.register_pytree_node(
    Batch,
    lambda batch: batch.flattened(),
    Batch.of_flattened,
    serialized_type_name="chunkdl.consumers.batches.batch.Batch",
)
