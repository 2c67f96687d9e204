"""Which kind of stream a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence

from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.cycle_stream import CycleStream
from chunkdl.sampling.grid_stream import GridStream
from chunkdl.sampling.streams import RandomStream, Stream, StreamRules


def stream_of(
    config: StreamRules,
    cursor: Cursor,
    slides_of_patient: Sequence[Sequence[int]],
    epoch: int,
    calls: int,
) -> Stream | None:
    """The stream of a configuration.

    Args:
        config: of the stream.
        cursor: where it goes on.
        slides_of_patient: indices of the slides of each patient.
        epoch: number of the pass, where there are passes.
        calls: SmallChunks of a BigChunk; 0 where they are not known yet.

    Returns:
        None while the number of calls has to be known and is not.
    """
    if config.grid:
        return GridStream(config, cursor, sum(map(len, slides_of_patient)), epoch)
    if not config.replacement:
        return CycleStream(config, cursor, slides_of_patient, epoch)
    return RandomStream(config, cursor, calls) if calls else None
