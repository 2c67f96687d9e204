"""How rows of a batch are cut out of a BigChunk of the built-in classes: one copy per row."""

from __future__ import annotations

import numpy as np

from chunkdl.transport.memory.layouts import Array, BatchView, BigChunkView
from chunkdl.transport.protocol.engine_messages import RowGroup


def fill_rows(group: RowGroup, bigchunk: BigChunkView, batch: BatchView) -> None:
    """Write records, pixels and columns of the rows that one BigChunk serves.

    Args:
        group: which rows of the batch, and which calls of the BigChunk they are.
        bigchunk: the BigChunk; only read.
        batch: the batch slot; only the rows of the group are written.
    """
    rows = np.frombuffer(group.rows, dtype=np.int32)
    calls = np.frombuffer(group.calls, dtype=np.int32)
    records = bigchunk.records[calls]
    batch.records[rows] = records
    for name, of_calls in bigchunk.columns.items():
        batch.columns[name][rows] = of_calls[calls]
    image, strips = batch.columns["image"], bigchunk.strips()
    corners = zip(rows.tolist(), records["left"].tolist(), records["top"].tolist(), strict=True)
    for row, left, top in corners:
        strips.crop_into(image[row], left, top)
        if bigchunk.label_mask is not None:
            mask = batch.columns["label_mask"][row]
            mask[:] = mask_of(bigchunk.label_mask, left, top, image.shape[1])


def told_of(bigchunk: BigChunkView, call: int, side_px: int) -> dict[str, Array]:
    """What annotations say of one call of a BigChunk, by column, beside the pixels; borrowed."""
    found = {name: of_calls[call] for name, of_calls in bigchunk.columns.items()}
    if bigchunk.label_mask is not None:
        record = bigchunk.records[call]
        left, top = int(record["left"]), int(record["top"])
        found["label_mask"] = mask_of(bigchunk.label_mask, left, top, side_px)
    return {name: np.asarray(value) for name, value in found.items()}


def mask_of(label_mask: Array, left: int, top: int, side_px: int) -> Array:
    """The classes of the pixels of a crop."""
    return label_mask[top : top + side_px, left : left + side_px]
