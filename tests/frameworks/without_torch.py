"""Batches of numpy where torch is not installed::

without_torch.py SLIDES
"""

from __future__ import annotations

import sys

import numpy as np

from tests.frameworks.common import STREAM, rows_of


class NotInstalled:
    """Finds no torch."""

    def find_spec(self, name: str, *_: object) -> None:
        """Refuse what is not installed."""
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main() -> None:
    """Two batches, and the second once more from the state of the first."""
    sys.meta_path.insert(0, NotInstalled())  # type: ignore[arg-type]
    from chunkdl import Dataset, LightDL

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
