"""The annotations of one slide as a frozen value: packed arrays that processes can share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

UNITS = 64
"""Fixed-point steps of a level-0 pixel; coordinates are whole numbers of these."""
MOST_PX = 2**24
"""Level-0 pixels that a coordinate may be away from 0: in steps it fits into int32 with room."""
MOST_CLASSES = 255
"""A raster of uint8 has 0 for none."""
UNCLASSIFIED = "unclassified"
"""The class of what has none in its file."""

Objects = Literal["annotations", "detections", "all"]
"""Annotations without what a program detected, detections only, or both."""

Coordinates = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]

ARRAYS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "vertices": ("<i4", (2,)),
    "rings": ("<i8", ()),
    "ring_boxes": ("<i4", (4,)),
    "features": ("<i8", ()),
    "points": ("<i4", (2,)),
    "feature_points": ("<i8", ()),
    "class_of": ("|u1", ()),
    "detected": ("|b1", ()),
    "boxes": ("<i4", (4,)),
    "areas": ("<f8", ()),
    "centroids": ("<f8", (2,)),
    "numbers": ("<i4", ()),
}
"""The arrays of `Annotations`: dtype, and shape behind the first axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """Features of one slide in level-0 pixel coordinates: polygons with holes, and points.

    Pixel (0, 0) covers x and y from 0 to 1. A place belongs to a feature if a ray from it crosses
    the feature's rings an odd number of times (even-odd). All arrays are read-only. They take 8
    bytes a vertex or point, 24 a ring and 66 a feature.

    Attributes:
        classes: names, sorted by code points, at most 255.
        vertices: int32 (V, 2), x and y in 1/64 of a level-0 pixel, ring after ring; the first
            vertex of a ring is not repeated at its end. Outer rings have a positive area by the
            shoelace formula, holes a negative one.
        rings: int64 (R + 1,); ring r has the vertices from ``rings[r]`` to ``rings[r + 1]``.
        ring_boxes: int32 (R, 4), left, top, right, bottom of each ring, as vertices.
        features: int64 (F + 1,); feature f has the rings from ``features[f]`` to
            ``features[f + 1]``. Features are in the order of their file.
        points: int32 (P, 2), as vertices.
        feature_points: int64 (F + 1,); feature f has the points from ``feature_points[f]`` to
            ``feature_points[f + 1]``.
        class_of: uint8 (F,), index into `classes`.
        detected: bool (F,); objects that a program found, such as the cells of QuPath.
        boxes: int32 (F, 4), left, top, right, bottom of rings and points, as vertices.
        areas: float64 (F,), level-0 pixels; 0 where there are only points.
        centroids: float64 (F, 2), x and y in level-0 pixels; the mean of the points where there
            are only these.
        numbers: int32 (F,), place in the file, counted from 0; what was dropped is counted too.
        notes: what was mended or left out, each a whole sentence.
        kept_in: path of the file that the arrays are mapped from; empty: they are in memory.
    """

    classes: tuple[str, ...]
    vertices: Coordinates
    rings: Offsets
    ring_boxes: Coordinates
    features: Offsets
    points: Coordinates
    feature_points: Offsets
    class_of: npt.NDArray[np.uint8]
    detected: npt.NDArray[np.bool_]
    boxes: Coordinates
    areas: npt.NDArray[np.float64]
    centroids: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int32]
    notes: tuple[str, ...] = ()
    kept_in: str = ""

    def __len__(self) -> int:
        """Number of features."""
        return len(self.class_of)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, in the order of `ARRAYS`."""
        return {name: getattr(self, name) for name in ARRAYS}

    def digest(self) -> bytes:
        """SHA-256 of classes and arrays: equal for the same features, whatever file they are of."""
        digest = hashlib.sha256("\0".join(self.classes).encode(errors="backslashreplace"))
        for name, array in self.arrays().items():
            digest.update(f"\0{name} {array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.digest()

    def rings_of(self, feature: int) -> list[npt.NDArray[np.float64]]:
        """The rings of a feature, float64 (n, 2) in level-0 pixels, for drawing."""
        first, last = int(self.features[feature]), int(self.features[feature + 1])
        return [
            self.vertices[self.rings[ring] : self.rings[ring + 1]] / UNITS
            for ring in range(first, last)
        ]


def ranges(starts: Offsets, stops: Offsets) -> Offsets:
    """All whole numbers from each start up to its stop, one range after the other, int64."""
    lengths = stops - starts
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    found: Offsets = np.arange(total, dtype=np.int64)
    found += np.repeat(starts - (ends - lengths), lengths)
    return found
