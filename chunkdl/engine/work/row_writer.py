"""How a row that was made one at a time gets into its batch slot.

Nobody says beforehand what the user's code makes. The collector that has made the first row
proposes how rows lie in a slot; the coordinator tells everybody, and every row has to be like it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chunkdl.engine.config import EngineConfig
from chunkdl.errors import PackingError
from chunkdl.patches.as_array import array_of
from chunkdl.transport.memory.arena import ALIGNMENT, Arena
from chunkdl.transport.memory.layouts import BatchLayout, BatchView
from chunkdl.transport.memory.packing import Packer, dump
from chunkdl.transport.protocol.engine_messages import RowFormatSet


class RowWriter:
    """Writes rows into batch slots.

    Args:
        config: of the service.
        arena: of the batches, sparse.
        settle: tells the coordinator a proposal and comes back with what holds.
        shared: what both sides have, by identity; see `Packer`.
    """

    def __init__(
        self,
        config: EngineConfig,
        arena: Arena,
        settle: Callable[[RowFormatSet], RowFormatSet],
        shared: dict[int, int],
    ) -> None:
        self._config = config
        self._arena = arena
        self._settle = settle
        self._shared = shared
        self._layout: BatchLayout | None = None
        self._views: dict[int, BatchView] = {}

    def shaped(self, shape: RowFormatSet) -> None:
        """How rows lie in a slot is settled."""
        layout = self._config.stream.layout_of(shape.shape, shape.dtype, packed=shape.packed)
        self._layout = layout

    def write(
        self,
        slot: int,
        row: int,
        record: Any,
        data: Any,
        infos: Any = None,
        of_load: tuple[object, int] | None = None,
    ) -> None:
        """Write one row.

        Args:
            slot, row: where.
            record: a `RECORD`.
            data: an array, a tensor, an image, or an object.
            infos: the two info dicts; None: the stream has none.
            of_load: one object more that both sides have, and its number.

        Raises:
            PackingError: it is not like the rows before it, too large, or cannot be pickled.
        """
        array = None if self._config.stream.objects else array_of(data)
        if self._layout is None:
            self.shaped(self._settle(self._proposal(array)))
        view, layout = self._view(slot)
        view.records[row] = record
        if infos is not None:
            self._write_infos(view, row, infos)
        if layout.packed:
            at = layout.data_at + row * layout.row_bytes

            def reserve(first: int, end: int) -> None:
                self._arena.reserve(slot, at + first, at + end)

            shared, number = (None, 0) if of_load is None else of_load
            if shared is not None:
                self._shared[id(shared)] = number
            try:
                self._packed(Packer(view.data[row], reserve, self._shared), data)
            finally:
                self._shared.pop(id(shared), None)
            return
        if array is None or array.shape != layout.shape or array.dtype.str != layout.dtype:
            found = type(data).__name__ if array is None else f"{array.dtype} {array.shape}"
            raise PackingError(
                f"the SmallChunk is {found}, those before it were {np.dtype(layout.dtype)} "
                f"{layout.shape}; make them equal, or give a collate_func, which takes any"
            )
        view.data[row] = array

    def _packed(self, packer: Packer, data: Any) -> None:
        try:
            packer.pack(data)
        except PackingError as error:
            raise PackingError(
                f"the SmallChunk's data: {error} (a row's share of memory_limit; raise it, or "
                "lower batch_size or batch_slots)"
            ) from error

    def _write_infos(self, view: BatchView, row: int, infos: Any) -> None:
        try:
            dump(infos, view.infos[row])
        except PackingError as error:
            raise PackingError(
                "the two info dicts of a SmallChunk have to be small, with what a hook has changed "
                f"in its patient; put large things into its data: {error}"
            ) from error

    def _view(self, slot: int) -> tuple[BatchView, BatchLayout]:
        layout = self._layout
        if layout is None:
            raise PackingError("rows are written before their shape is settled")
        if slot not in self._views:
            end = layout.data_at if layout.packed else layout.slot_bytes
            self._arena.reserve(slot, 0, end)
            self._views[slot] = layout.view(self._arena.slot(slot))
        return self._views[slot], layout

    def _proposal(self, array: np.ndarray[Any, np.dtype[Any]] | None) -> RowFormatSet:
        room = self._config.run.batch_slot_bytes
        stream = self._config.stream
        if array is None:
            data_at = stream.layout_of((0,), "|u1", packed=True).data_at
            share = (room - data_at) // stream.batch_size // ALIGNMENT * ALIGNMENT
            return RowFormatSet("|u1", (max(0, share),), packed=True)
        layout = stream.layout_of(array.shape, array.dtype.str, packed=False)
        if layout.slot_bytes > room:
            raise PackingError(
                f"{stream.batch_size} SmallChunks of {array.dtype} {array.shape} take "
                f"{layout.slot_bytes / 2**20:.1f} MiB, a batch may take {room / 2**20:.1f} MiB; "
                "raise memory_limit, or lower batch_size or batch_slots"
            )
        return RowFormatSet(array.dtype.str, array.shape, packed=False)
