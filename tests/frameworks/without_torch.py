"""Batches of numpy where torch is not installed::

without_torch.py SLIDES
"""

from __future__ import annotations

import sys

import numpy as np

from tests.no_torch import have_no_torch


def main() -> None:
    """Two batches, and the second once more from the state of the first."""
    have_no_torch()
    from chunkdl import Dataset, LightDL
    from tests.frameworks.common import STREAM, rows_of

    with LightDL(Dataset.from_slides(sys.argv[1]), **STREAM, arrays="numpy") as loader:
        first = next(iter(loader))
        second = rows_of(loader.next_batch(60))
        print(*(type(first[name]).__name__ for name in ("image", "x", "slide")))
        assert isinstance(np.from_dlpack(first["image"]), np.ndarray)
        loader.load_state_dict(first.state)
        if rows_of(loader.next_batch(60)) == second:
            print("goes on")


if __name__ == "__main__":
    main()
