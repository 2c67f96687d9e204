"""The objects of a slide as points: cells, nuclei, mitoses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chunkdl.annotations.shapes import UNITS, Annotations, Objects, ranges

PARTS = 4
"""Of a side of a square; so many more than there are may be expected as fit into 1/PARTS beside
it on two sides."""
MOST_PARTS = 2**22
"""Of a slide; larger parts are taken where there are more."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Centres:
    """Centroids of shapes, and points, in the order of their features.

    Attributes:
        places: float64 (n, 2), x and y, level-0 pixels.
        class_of: uint8 (n,), index of the class in the annotations.
    """

    places: Floats
    class_of: npt.NDArray[np.uint8]


def centres_of(annotations: Annotations, objects: Objects) -> Centres:
    """One of each shape, and each point of the features that have only points.

    Args:
        annotations: of the slide.
        objects: annotations without what a program detected, detections only, or all.
    """
    wanted = np.ones(len(annotations), np.bool_)
    if objects != "all":
        wanted = annotations.detected == (objects == "detections")
    with_area = annotations.features[1:] > annotations.features[:-1]
    shapes, points = np.flatnonzero(wanted & with_area), np.flatnonzero(wanted & ~with_area)
    first, last = annotations.feature_points[points], annotations.feature_points[points + 1]
    places = (annotations.centroids[shapes], annotations.points[ranges(first, last)] / UNITS)
    feature = np.concatenate((shapes, np.repeat(points, last - first)))
    order = np.argsort(feature, kind="stable")
    return Centres(np.concatenate(places)[order], annotations.class_of[feature[order]])


def most_together(places: Floats, side0: float) -> int:
    """A bound of how many places lie in one square of `side0` level-0 pixels, wherever it is.

    It is the largest number in any square of whole parts that holds such a square.

    Args:
        places: (n, 2), level-0 pixels.
        side0: of the square.
    """
    if not len(places):
        return 0
    low = places.min(axis=0)
    extent = places.max(axis=0) - low
    part = side0 / PARTS
    while np.prod(extent / part + PARTS + 2) > MOST_PARTS:
        part *= 2
    across = int(np.ceil(side0 / part)) + 1
    column, row = np.floor((places - low) / part).astype(np.int64).T
    counts = np.zeros((row.max() + across + 1, column.max() + across + 1), np.int64)
    np.add.at(counts, (row + across, column + across), 1)
    sums = np.pad(counts.cumsum(0).cumsum(1), ((0, across), (0, across)), mode="edge")
    some = sums[across:, across:] - sums[:-across, across:] - sums[across:, :-across]
    return int((some + sums[:-across, :-across]).max())
