"""The patient that a hook puts into a SmallChunk, on its way to the training process.

PyDmed sends the whole patient along with every SmallChunk. Here the training process has it
already; what the hook's differs by travels among the facts about the SmallChunk, and is taken out
before a program sees them.
"""

from __future__ import annotations

from typing import Any

from chunkdl.patches.chunks import SmallChunk
from chunkdl.patches.patient_copies import Changes

_CHANGES = "pdmreserved_changes_of_patient"
_NO_DICT = "pdmreserved_info"


def with_changes(chunk: SmallChunk, changes: Changes | None) -> SmallChunk:
    """The SmallChunk to send; the given one stays as it is."""
    if changes is None:
        return chunk
    info: Any = chunk.dict_info_of_smallchunk
    carried = {**info} if isinstance(info, dict) else {_NO_DICT: info}
    carried[_CHANGES] = changes
    return SmallChunk(chunk.data, carried, chunk.dict_info_of_bigchunk, chunk.patient)


def as_returned(chunk: SmallChunk) -> SmallChunk:
    """The SmallChunk that came, with the patient that the hook put into it."""
    info: Any = chunk.dict_info_of_smallchunk
    if not isinstance(info, dict) or _CHANGES not in info:
        return chunk
    changes: Changes = info.pop(_CHANGES)
    chunk.patient = changes.applied_to(chunk.patient)
    chunk.dict_info_of_smallchunk = info.pop(_NO_DICT, info)
    return chunk
