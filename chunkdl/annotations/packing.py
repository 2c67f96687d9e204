"""From sound features to the packed arrays of `Annotations`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from chunkdl.annotations.drawn import Source
from chunkdl.annotations.mending import Sound
from chunkdl.annotations.shapes import (
    MOST_CLASSES,
    UNCLASSIFIED,
    UNITS,
    Annotations,
    Coordinates,
    Offsets,
)

MOST_FEATURES = 2**22
MOST_VERTICES = 2**27
"""A GiB of them."""
_AT_ONCE = 4096


def pack(features: Iterable[Sound], source: Source) -> Annotations:
    """The annotations that consist of these features, in their order.

    Raises:
        AnnotationError: there are more than 255 classes, 4,194,304 features or 134,217,728
            vertices.
    """
    names: dict[str, int] = {}
    parts = []
    count = vertices = 0
    for chunk in _chunks(features):
        part = _Part(chunk, names)
        parts.append(part)
        count, vertices = count + len(chunk), vertices + len(part.vertices) + len(part.points)
        if count > MOST_FEATURES or vertices > MOST_VERTICES:
            raise source.error(
                f"it has more than {MOST_FEATURES} features or {MOST_VERTICES} points; split it, "
                "or simplify its outlines"
            )
        if len(names) > MOST_CLASSES:
            raise source.error(
                f"it has more than {MOST_CLASSES} classes ({', '.join(sorted(names)[:5])}, …): a "
                "raster has one byte a pixel"
            )
    classes = sorted(names)
    place = np.zeros(max(len(names), 1), np.uint8)
    place[[names[name] for name in classes]] = np.arange(len(classes))
    whole = {
        name: np.concatenate([getattr(part, name) for part in parts] or [getattr(EMPTY, name)])
        for name in EMPTY.__slots__
    }
    for array in whole.values():
        array.setflags(write=False)
    class_of = place[whole["class_numbers"]]
    class_of.setflags(write=False)
    return Annotations(
        classes=tuple(classes),
        vertices=whole["vertices"],
        rings=_offsets(whole["ring_lengths"]),
        ring_boxes=whole["ring_boxes"],
        features=_offsets(whole["ring_counts"]),
        points=whole["points"],
        feature_points=_offsets(whole["point_counts"]),
        class_of=class_of,
        detected=whole["detected"],
        boxes=whole["boxes"],
        areas=whole["areas"],
        centroids=whole["centroids"],
        numbers=whole["numbers"],
        notes=source.notes.sentences(),
    )


def _chunks(features: Iterable[Sound]) -> Iterator[list[Sound]]:
    iterator = iter(features)
    return iter(lambda: list(itertools.islice(iterator, _AT_ONCE)), [])


def _offsets(lengths: Offsets) -> Offsets:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    offsets.setflags(write=False)
    return offsets


class _Part:
    """The arrays of some features, with lengths instead of offsets."""

    __slots__ = (
        *("vertices", "ring_lengths", "ring_boxes", "ring_counts", "points", "point_counts"),
        *("class_numbers", "detected", "boxes", "areas", "centroids", "numbers"),
    )

    def __init__(self, chunk: list[Sound], names: dict[str, int]) -> None:
        rings = [ring for sound in chunk for ring in sound.rings]
        self.ring_lengths = np.array([len(ring) for ring in rings], np.int64)
        self.ring_counts = np.array([len(sound.rings) for sound in chunk], np.int64)
        self.points: Coordinates = np.concatenate([_NONE, *(sound.points for sound in chunk)])
        self.point_counts = np.array([len(sound.points) for sound in chunk], np.int64)
        self.class_numbers = np.array(
            [names.setdefault(s.drawn.class_name or UNCLASSIFIED, len(names)) for s in chunk],
            np.int64,
        )
        self.detected = np.array([sound.drawn.detected for sound in chunk], np.bool_)
        self.numbers = np.array([sound.drawn.number for sound in chunk], np.int32)
        outer = np.array([is_outer for sound in chunk for is_outer in sound.outer], np.bool_)
        vertices: Coordinates = np.concatenate([_NONE, *rings])
        starts = np.cumsum(self.ring_lengths) - self.ring_lengths
        doubled, _ = _moments(vertices, starts, self.ring_lengths, vertices[starts])
        wrong = (doubled > 0) != outer
        for index in np.flatnonzero(wrong).tolist():
            own = slice(starts[index], starts[index] + self.ring_lengths[index])
            vertices[own] = vertices[own][::-1].copy()
        self.vertices = vertices
        self.ring_boxes = _boxes(vertices, starts)
        self._measure(starts)

    def _measure(self, starts: Offsets) -> None:
        """Areas, centroids and boxes of the features."""
        count = len(self.ring_counts)
        self.areas = np.zeros(count, np.float64)
        self.centroids = np.zeros((count, 2), np.float64)
        self.boxes: Coordinates = np.zeros((count, 4), np.int32)
        first_point = np.cumsum(self.point_counts) - self.point_counts
        for index in np.flatnonzero(self.point_counts).tolist():
            own = self.points[first_point[index] : first_point[index] + self.point_counts[index]]
            self.centroids[index] = own.mean(axis=0) / UNITS
            self.boxes[index] = [*own.min(axis=0), *own.max(axis=0)]
        drawn = np.flatnonzero(self.ring_counts)
        if not len(drawn):
            return
        first = (np.cumsum(self.ring_counts) - self.ring_counts)[drawn]
        # Relative to a vertex of the same feature, where float64 is exact enough.
        origin = self.vertices[starts[first]]
        of_rings = np.repeat(origin, self.ring_counts[drawn], axis=0)
        doubled, moments = _moments(self.vertices, starts, self.ring_lengths, of_rings)
        doubled, moments = np.add.reduceat(doubled, first), np.add.reduceat(moments, first)
        boxes = np.concatenate(
            [
                np.minimum.reduceat(self.ring_boxes[:, :2], first),
                np.maximum.reduceat(self.ring_boxes[:, 2:], first),
            ],
            axis=1,
        )
        with_points = self.point_counts[drawn] > 0
        both = np.concatenate(
            [np.minimum(boxes[:, :2], self.boxes[drawn, :2]), boxes[:, 2:]], axis=1
        )
        both[:, 2:] = np.maximum(boxes[:, 2:], self.boxes[drawn, 2:])
        self.boxes[drawn] = np.where(with_points[:, None], both, boxes)
        self.areas[drawn] = np.abs(doubled) / 2 / UNITS**2
        middle = (boxes[:, :2] + boxes[:, 2:].astype(np.float64)) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            centre = origin + moments / (3 * doubled[:, None])
        # What mending left with no area has no centre of it.
        self.centroids[drawn] = np.where(doubled[:, None] != 0, centre, middle) / UNITS


_NONE: Coordinates = np.empty((0, 2), np.int32)


def _moments(
    vertices: Coordinates, starts: Offsets, lengths: Offsets, origins: Coordinates
) -> tuple[np.ndarray, np.ndarray]:
    """Twice the signed areas of rings (R,), and six times their first moments (R, 2).

    By the shoelace formula, about an origin for each ring.
    """
    if not len(starts):
        return np.zeros(0), np.zeros((0, 2))
    at = vertices - np.repeat(origins.astype(np.float64), lengths, axis=0)
    follower = np.arange(1, len(at) + 1)
    follower[starts + lengths - 1] = starts
    then = at[follower]
    cross = at[:, 0] * then[:, 1] - then[:, 0] * at[:, 1]
    return np.add.reduceat(cross, starts), np.add.reduceat((at + then) * cross[:, None], starts)


def _boxes(vertices: Coordinates, starts: Offsets) -> Coordinates:
    if not len(starts):
        return np.zeros((0, 4), np.int32)
    low, high = np.minimum.reduceat(vertices, starts), np.maximum.reduceat(vertices, starts)
    return np.concatenate([low, high], axis=1)


EMPTY = _Part([], {})
