"""What tells rows of batches apart, for the tests and for the programs that they start."""

from __future__ import annotations

import hashlib

import numpy as np

from chunkdl.consumers.batches.batch import Batch


def row_digests(batch: Batch) -> list[str]:
    """A digest of each row of a batch, of torch or of numpy: where it is from, and its pixels."""
    pixels = batch["image"]
    if not isinstance(pixels, np.ndarray):
        pixels = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    names = "x", "y", "bigchunk", "call", "level"
    facts = np.stack([np.asarray(batch[name]) for name in names], 1)
    return [
        hashlib.sha256(pixels[row].tobytes() + facts[row].tobytes()).hexdigest()[:16]
        for row in range(len(pixels))
    ]
