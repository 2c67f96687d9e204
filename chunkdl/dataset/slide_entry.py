"""One slide of a dataset, as every process is given it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SlideEntry:
    """One slide of the dataset.

    Attributes:
        path: the file, with "#image=K" behind it where it is one of several slides in the file
            (see `chunkdl.slides.address`).
        patient: index of its patient in the dataset.
        mpp: microns per pixel of level 0 that replace the file's, as (x, y); None: the file's.
        tissue_mask: array, image file or file of outlines that replaces the detector; None: the
            detector.
        record: which of the slides of its patient it is, counted from 0.
        annotations: of the dataset, the file that its record names; of a stream that looks at
            them, the file that they are kept in, or `Annotations` where none could be written;
            None: it has none.
    """

    path: str
    patient: int
    mpp: tuple[float, float] | None
    tissue_mask: Any
    record: int = 0
    annotations: Any = None
