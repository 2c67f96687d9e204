"""How rows of a batch are cut out of a BigChunk of the built-in classes: one copy per row."""

from __future__ import annotations

import numpy as np

from chunkdl.transport.memory.layouts import BatchView, BigChunkView
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
            masks, side_px = batch.columns["label_mask"], image.shape[1]
            masks[row] = bigchunk.label_mask[top : top + side_px, left : left + side_px]
