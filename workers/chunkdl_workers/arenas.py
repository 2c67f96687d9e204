"""The two arenas of an engine: made by its coordinator, seen by its workers, tried by a service."""

from __future__ import annotations

import os
from contextlib import ExitStack

from chunkdl.engine.config import EngineConfig
from chunkdl.transport.memory.arena import Arena, create_memory, take_memory


def create_arenas(config: EngineConfig) -> tuple[int, int]:
    """Descriptors of the memory of the BigChunks and of the batches; the caller closes them.

    Raises:
        MemoryLimitError: the system does not give that much.
    """
    bigchunk_bytes, batch_bytes = config.run.memory_bytes
    # What the user's code makes is not known yet; its memory is taken as it is filled.
    sparse_bigchunks, sparse_batches = _has_sparse(config)
    bigchunks = create_memory("chunkdl-bigchunks", bigchunk_bytes, sparse=sparse_bigchunks)
    with ExitStack() as on_error:
        on_error.callback(os.close, bigchunks)
        withheld = config.run.withheld_slots * config.run.batch_slot_bytes
        some = sparse_batches or withheld > 0
        batches = create_memory("chunkdl-batches", batch_bytes, sparse=some)
        on_error.callback(os.close, batches)
        if some and not sparse_batches:
            take_memory(batches, withheld, batch_bytes - withheld)
        on_error.pop_all()
    return bigchunks, batches


def bigchunk_arena(descriptor: int, config: EngineConfig) -> Arena:
    """This process's view of the BigChunks."""
    run, (sparse, _) = config.run, _has_sparse(config)
    return Arena(descriptor, run.bigchunk_slots, run.bigchunk_slot_bytes, sparse=sparse)


def batch_arena(descriptor: int, config: EngineConfig) -> Arena:
    """This process's view of the batches."""
    run, (_, sparse) = config.run, _has_sparse(config)
    return Arena(descriptor, run.batch_slots, run.batch_slot_bytes, sparse=sparse)


def _has_sparse(config: EngineConfig) -> tuple[bool, bool]:
    """Whether the memory of the BigChunks and of the batches is taken as it is filled."""
    rows = config.stream.rows
    return rows.by_hooks, not rows.are_crops


def try_memory(config: EngineConfig, engines: int) -> None:
    """Take the memory of so many engines at once, and give it back.

    An engine takes it only when somebody wants batches, long after the service has said that it
    serves.

    Raises:
        MemoryLimitError: the system does not give that much, or a process may not map it.
    """
    with ExitStack() as stack:
        for _ in range(engines):
            descriptors = create_arenas(config)
            for descriptor in descriptors:
                stack.callback(os.close, descriptor)
            # As a worker does, which has both.
            with bigchunk_arena(descriptors[0], config), batch_arena(descriptors[1], config):
                pass
