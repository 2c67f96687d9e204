"""Whether the settings mix the rows of a batch well: rows of one BigChunk are neighbours."""

from __future__ import annotations

from chunkdl.engine.config import RunConfig, StreamConfig
from chunkdl.sampling.rotation import most_rows_of_one
from chunkdl.system.steady_log import steady_logger

MOST_NEIGHBOURS = 2
"""Rows of one BigChunk in a batch, without a warning."""

log = steady_logger("chunkdl")


def warn_of_neighbours(stream: StreamConfig, run: RunConfig, patients: int) -> None:
    """Say where batches may hold more rows of one BigChunk than they should, and what to set.

    Nothing is said of streams over a grid, which give the positions of a BigChunk however many it
    has, and where only more patients would help: with checkpoints no more BigChunks can be open
    than there are patients.

    Args:
        stream: of the service.
        run: of the service.
        patients: of the dataset.
    """
    rows, most = stream.batch_size, neighbours(stream, stream.num_bigchunks)
    can_be_open = patients if stream.one_load_per_patient else rows
    better = min(enough_for(rows), can_be_open)
    then = neighbours(stream, better)
    if stream.on_grid or most <= max(MOST_NEIGHBOURS, then):
        return
    advice = f"with num_bigchunks={better} at most {then} of one"
    if rows <= can_be_open:
        advice += f", with num_bigchunks={rows} one of each"
    if not stream.rows.by_hooks:
        advice += f" (each takes {run.bigchunk_slot_bytes / 2**20:.1f} MiB of memory_limit)"
    log.warning(
        "num_bigchunks=%d is few for batch_size=%d: a batch may have %d rows of one BigChunk, "
        "which lie near each other and may overlap; %s",
        stream.num_bigchunks,
        rows,
        most,
        advice,
    )


def neighbours(stream: StreamConfig, places: int) -> int:
    """The most rows of one BigChunk in a batch of an endless stream with so many open."""
    most = most_rows_of_one(stream.batch_size, places)
    return min(most, stream.smallchunks_per_bigchunk or most)


def enough_for(rows: int) -> int:
    """The fewest open BigChunks with which a batch has no more than `MOST_NEIGHBOURS` of one."""
    counts = range(1, rows + 1)
    return next(places for places in counts if most_rows_of_one(rows, places) <= MOST_NEIGHBOURS)
