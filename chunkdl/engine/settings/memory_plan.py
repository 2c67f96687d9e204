"""How much memory a stream takes, and what of it there is."""

from __future__ import annotations

import dataclasses

from chunkdl.engine.config import RunConfig, StreamConfig
from chunkdl.engine.settings.machine import available_memory
from chunkdl.engine.work.open_slides import CACHED_BYTES, MOST_BYTES, SCRATCH_BYTES
from chunkdl.errors import MemoryLimitError
from chunkdl.sampling.positions import cell_side
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.memory.arena import ALIGNMENT, aligned

WORKER_BYTES = 150 * 2**20
"""What a process with its libraries takes beside the arenas, at most; code of the user's comes on
top."""
CELL_BYTES = 24
"""What planning takes for each cell of positions in a window, at most, while it lasts."""
SHARE_OF_BATCHES = 0.25
"""Of memory_limit, for batches whose rows the user's code makes."""

log = steady_logger("chunkdl")


def with_memory(run: RunConfig, stream: StreamConfig, memory_limit: int) -> RunConfig:
    """How a stream is run, with its arenas.

    Raises:
        MemoryLimitError: they need more than the limit, or than there is.
    """
    slots, slot_bytes, batch_slot_bytes = _arenas(
        stream, run.num_loaders, run.batch_slots, memory_limit
    )
    run = dataclasses.replace(
        run,
        bigchunk_slots=slots,
        bigchunk_slot_bytes=slot_bytes,
        batch_slot_bytes=batch_slot_bytes,
    )
    arenas, beside = sum(run.memory_bytes), beside_arenas(run, stream)
    available = available_memory()
    log.info("memory: at most %.0f MiB more in the processes themselves", beside / 2**20)
    if arenas + beside > available:
        log.warning(
            "%d loaders and %d collectors may take up to %.0f MiB in addition to the %.0f MiB of "
            "regions and batches, but only %.0f MiB are available here; if memory runs out, "
            "lower num_loaders or memory_limit",
            run.num_loaders,
            run.num_collectors,
            beside / 2**20,
            arenas / 2**20,
            available / 2**20,
        )
    return run


def beside_arenas(run: RunConfig, stream: StreamConfig) -> int:
    """Memory of the processes of a stream beside its arenas, at most, bytes; code of the user's
    comes on top."""
    return run.num_loaders * loader_bytes(stream) + (1 + run.num_collectors) * WORKER_BYTES


def loader_bytes(stream: StreamConfig) -> int:
    """The part of a loader: its libraries, the slides that it has open, what it works with."""
    cells = (stream.bigchunk_px // cell_side(stream.smallchunk_px) + 2) ** 2
    return WORKER_BYTES + MOST_BYTES + CACHED_BYTES + max(SCRATCH_BYTES, CELL_BYTES * cells)


def _arenas(
    stream: StreamConfig, num_loaders: int, batch_slots: int, memory_limit: int
) -> tuple[int, int, int]:
    """BigChunk slots (the open ones and as much look-ahead as helps and fits), and slot sizes.

    What the user's code makes has no known size: rows that it makes may take `SHARE_OF_BATCHES` of
    the memory, its BigChunks share the rest equally.

    Raises:
        MemoryLimitError: not even the open ones fit.
    """
    # Two tickets a loader, and two BigChunks that wait to be opened.
    wished = stream.num_bigchunks + 2 * num_loaders + 2
    if (row_format := stream.row_format) is not None:
        batch = aligned(stream.layout_of(row_format).slot_bytes)
    else:
        batch = max(ALIGNMENT, int(memory_limit * SHARE_OF_BATCHES) // batch_slots)
        batch = batch // ALIGNMENT * ALIGNMENT
    batches = batch_slots * batch
    if stream.rows.by_hooks:
        bigchunk = (memory_limit - batches) // wished // ALIGNMENT * ALIGNMENT
        log.info("memory: %d BigChunks of at most %.1f MiB", wished, bigchunk / 2**20)
        return wished, max(ALIGNMENT, bigchunk), batch
    bigchunk = aligned(stream.bigchunk_layout.slot_bytes)
    fitting = (memory_limit - batches) // bigchunk
    least = stream.num_bigchunks + 1
    if fitting < least:
        raise MemoryLimitError(
            f"memory_limit of {memory_limit / 2**20:.0f} MiB is too small: {least} BigChunks of "
            f"{bigchunk / 2**20:.1f} MiB (num_bigchunks={stream.num_bigchunks} and one that is "
            f"read ahead) and {batch_slots} batches of {batches / batch_slots / 2**20:.1f} MiB "
            f"take {(least * bigchunk + batches) / 2**20:.0f} MiB; raise memory_limit, or lower "
            "num_bigchunks, bigchunk_size or batch_size"
        )
    slots = min(wished, fitting)
    needed = slots * bigchunk + batches
    available = available_memory()
    if needed > available:
        raise MemoryLimitError(
            f"the stream needs {needed / 2**20:.0f} MiB, but only {available / 2**20:.0f} MiB are "
            "available here; lower num_bigchunks, bigchunk_size, batch_size or memory_limit"
        )
    log.info(
        "memory: %d BigChunks of %.1f MiB + %d batches of %.1f MiB = %.0f MiB",
        slots,
        bigchunk / 2**20,
        batch_slots,
        batches / batch_slots / 2**20,
        needed / 2**20,
    )
    return slots, bigchunk, batch
