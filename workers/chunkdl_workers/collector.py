"""The collector: makes the rows of batch slots out of resident BigChunks.

Started by the supervisor; knows two arenas, no slides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from chunkdl.engine.config import EngineConfig
from chunkdl.engine.work.crop_rows import fill_rows
from chunkdl.patches.user_code import load_user_code
from chunkdl.system.own_imports import importing_ours
from chunkdl.transport.memory.arena import Arena
from chunkdl.transport.protocol.engine_messages import (
    FillRows,
    RowFormatSet,
    RowGroup,
    RowsEnded,
    RowsFilled,
)
from chunkdl.transport.row_format import RowFormat
from chunkdl_workers.arenas import batch_arena, bigchunk_arena
from chunkdl_workers.link import Link, serve
from chunkdl_workers.process import one_thread_for_torch

if TYPE_CHECKING:
    from chunkdl.engine.work.rows_by_hook import RowMaker


class PlainRows:
    """Crops as they are, in a layout that is known from the start."""

    def __init__(
        self, config: EngineConfig, row_format: RowFormat, bigchunks: Arena, batches: Arena
    ) -> None:
        stream = config.stream
        self._bigchunks = [
            stream.bigchunk_layout.view(bigchunks.slot(slot)) for slot in range(bigchunks.slots)
        ]
        layout = stream.layout_of(row_format)
        self._batches = [layout.view(batches.slot(slot)) for slot in range(batches.slots)]

    def fill(self, ticket: FillRows, group: RowGroup) -> RowsEnded | None:
        """Write the rows of the group."""
        fill_rows(group, self._bigchunks[group.slot], self._batches[ticket.slot])
        return None


def row_maker(
    link: Link, config: EngineConfig, bigchunks: Arena, batches: Arena
) -> tuple[RowMaker, Callable[[RowFormat], None]]:
    """What makes the rows of this stream, and what has to know their columns."""
    if (row_format := config.stream.row_format) is not None:
        return PlainRows(config, row_format, bigchunks, batches), _known_already

    def settle(proposal: RowFormat) -> RowFormat:
        link.send(RowFormatSet(proposal))
        return link.wait_for(RowFormatSet).format

    # A third of the start, and most streams are of crops.
    with importing_ours():
        from chunkdl.engine.work.row_writer import RowWriter
        from chunkdl.engine.work.rows_by_hook import HookRows, TransformedRows

    user = load_user_code(config.user["collector"])
    one_thread_for_torch()
    transforms = user.transform is not None
    writer = RowWriter(config, batches, settle, user.shared(), transforms=transforms)
    if not config.stream.rows.by_hooks:
        recorder = link.recorder
        made = TransformedRows(config, user, bigchunks, writer, recorder, link.warn)
        return made, writer.settled
    rows = HookRows(config, user, bigchunks, writer, link.recorder, link.send, link.log, link.warn)
    return rows, writer.settled


def _known_already(row_format: RowFormat) -> None:
    raise TypeError(f"rows of crops were said to be {row_format}")


def work(link: Link, config: EngineConfig, descriptors: list[int]) -> None:
    """Answer tickets until the coordinator is gone."""
    bigchunks = bigchunk_arena(descriptors[0], config)
    maker, settled = row_maker(link, config, bigchunks, batch_arena(descriptors[1], config))
    link.ready()
    for ticket in link.messages():
        if isinstance(ticket, RowFormatSet):
            settled(ticket.format)
            continue
        if not isinstance(ticket, FillRows):
            raise TypeError(f"a collector cannot do {type(ticket).__name__}")
        filled = []
        for group in ticket.groups:
            ended = maker.fill(ticket, group)
            if ended is None:
                filled.append(group.ordinal)
            else:
                link.send(ended)
        link.send(RowsFilled(ticket.batch, ticket.generation, tuple(filled)))


def main() -> None:
    """Run the program."""
    serve("collector", work)
