"""How a row that was made one at a time gets into its batch slot.

Nobody says beforehand what the user's code makes. The collector that has made the first row
proposes how rows lie in a slot; the coordinator tells everybody, and every row has to be like it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from chunkdl.engine.config import EngineConfig
from chunkdl.errors import PackingError
from chunkdl.patches.as_array import row_of
from chunkdl.transport.memory.arena import ALIGNMENT, Arena
from chunkdl.transport.memory.layouts import Array, BatchLayout, BatchView
from chunkdl.transport.memory.packing import Packer, dump
from chunkdl.transport.row_format import RowFormat

NOTHING: Mapping[str, Array] = MappingProxyType({})


class RowWriter:
    """Writes rows into batch slots.

    Args:
        config: of the service.
        arena: of the batches, sparse.
        settle: tells the coordinator a proposal and comes back with what holds.
        shared: what both sides have, by identity; see `Packer`.
        transforms: rows are what a transform has made.
    """

    def __init__(
        self,
        config: EngineConfig,
        arena: Arena,
        settle: Callable[[RowFormat], RowFormat],
        shared: dict[int, int],
        *,
        transforms: bool,
    ) -> None:
        self._config = config
        self._arena = arena
        self._settle = settle
        self._shared = shared
        self._transforms = transforms
        self._layout: BatchLayout | None = None
        self._views: dict[int, BatchView] = {}

    def settled(self, row_format: RowFormat) -> None:
        """The columns of the rows of this stream are settled."""
        self._layout = self._config.stream.layout_of(row_format)

    def write(
        self,
        slot: int,
        row: int,
        record: Any,
        data: Any,
        infos: Any = None,
        of_load: tuple[object, int] | None = None,
        more: Mapping[str, Array] = NOTHING,
    ) -> None:
        """Write one row.

        Args:
            slot, row: where.
            record: a `RECORD`.
            data: an array, a tensor, an image, a number, a dict of these, which is a column each,
                or another object.
            infos: the two info dicts; None: the stream has none.
            of_load: one object more that both sides have, and its number.
            more: columns beside those of `data`; rows that are objects have none.

        Raises:
            PackingError: it is not like the rows before it, too large, or cannot be pickled.
        """
        arrays = None if self._config.stream.objects else row_of(data)
        if arrays is not None:
            arrays = {**arrays, **more}
        elif asked := ", ".join(sorted(set(more) - {"region"})):
            raise PackingError(
                f"the SmallChunk is {type(data).__name__}, which has no place for the columns "
                f"{asked}; let the transform return an array, a tensor, or a dict of these, or ask "
                "for no regions, label_mask and shares"
            )
        if self._layout is None:
            self.settled(self._settle(self._proposal(arrays)))
        view, layout = self._view(slot)
        view.records[row] = record
        if infos is not None:
            self._write_infos(view, row, infos)
        if layout.format.packed:
            at = layout.data_at + row * layout.format.row_bytes

            def reserve(first: int, end: int) -> None:
                self._arena.reserve(slot, at + first, at + end)

            shared, number = (None, 0) if of_load is None else of_load
            if shared is not None:
                self._shared[id(shared)] = number
            try:
                self._packed(Packer(view.columns["data"][row], reserve, self._shared), data)
            finally:
                self._shared.pop(id(shared), None)
            return
        if arrays is None:
            raise _other(f"is {type(data).__name__}, those before it were {layout.format}")
        if difference := layout.format.difference(arrays):
            raise _other(difference)
        for name, array in arrays.items():
            view.columns[name][row] = array

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
            raise PackingError("rows are written before their columns are settled")
        if slot not in self._views:
            end = layout.data_at if layout.format.packed else layout.slot_bytes
            self._arena.reserve(slot, 0, end)
            self._views[slot] = layout.view(self._arena.slot(slot))
        return self._views[slot], layout

    def _proposal(self, row: Mapping[str, Array] | None) -> RowFormat:
        room = self._config.run.batch_slot_bytes
        stream = self._config.stream
        if row is None:
            data_at = stream.layout_of(RowFormat.of_objects(0)).data_at
            share = (room - data_at) // stream.batch_size // ALIGNMENT * ALIGNMENT
            return RowFormat.of_objects(max(0, share))
        # What a transform makes has the order of axes that it gave it.
        row_format = RowFormat.of_arrays(row, images=not self._transforms)
        layout = stream.layout_of(row_format)
        if layout.slot_bytes > room:
            raise PackingError(
                f"{stream.batch_size} SmallChunks of {row_format} take "
                f"{layout.slot_bytes / 2**20:.1f} MiB, a batch may take {room / 2**20:.1f} MiB; "
                "raise memory_limit, or lower batch_size or batch_slots"
            )
        return row_format


def _other(difference: str) -> PackingError:
    return PackingError(
        f"the SmallChunk {difference}; make them equal, or give a collate_func, which takes any"
    )
