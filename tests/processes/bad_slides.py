"""Datasets with slides that are bad from the start."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from chunkdl import Dataset, Patient, Record
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.processes.slow_classes import WIDE


def with_bad_slides(good: Dataset, folder: Path) -> Dataset:
    """The dataset, and beside it one slide of every bad kind, whose files are made in a folder."""
    write_coordinate_slide(folder / "damaged.tif", 1500, 1248, slide_id=3, tile=128, levels=(1,))
    data = bytearray((folder / "damaged.tif").read_bytes())
    # It opens well, and a part of its tiles is nothing but zeros.
    data[len(data) * 2 // 5 : len(data) * 3 // 5] = bytes(len(data) * 3 // 5 - len(data) * 2 // 5)
    (folder / "damaged.tif").write_bytes(data)
    (folder / "empty.tif").write_bytes(b"")
    (folder / "text.svs").write_text("this is not a slide")
    write_coordinate_slide(folder / "glass.tif", 1500, 1248, slide_id=3, levels=(1,))
    everything = np.ones((5, 6), dtype=bool)
    masks = {"glass.tif": ~everything}
    bad = [
        Patient(
            100 + number,
            {"s": Record(folder, name, {"tissue_mask": masks.get(name, everything)})},
        )
        for number, name in enumerate(("damaged.tif", "empty.tif", "text.svs", "glass.tif"))
    ]
    return Dataset("mixed", [*good, *bad])


def with_killing_slide(good: Iterable[str], folder: Path) -> Dataset:
    """Good slides, and one over which a `Marked` detector does what it is told."""
    bad = folder / "bad.tif"
    write_coordinate_slide(bad, WIDE, 1248, slide_id=3, tile=128, levels=(1, 2, 4), mpp=0.25)
    return Dataset.from_slides([*good, str(bad)])
