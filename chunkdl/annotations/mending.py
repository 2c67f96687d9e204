"""From features as they were drawn to sound ones in fixed point; what is mended is told.

A chunk of features is looked at with a few calls over all its vertices, since files have hundreds
of thousands of cells. Shapely says which polygons cross themselves. Only those are mended, one by
one: what an outline goes around is inside (shapely's method "structure"), what holes go around is
taken from that, and the parts of a feature are united.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.annotations.drawn import Drawn, Floats, Source
from chunkdl.annotations.shapes import MOST_PX, UNITS, Coordinates, Offsets
from chunkdl.errors import ConfigError

CHUNK_FEATURES = 8192
CHUNK_VERTICES = 2**18

Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Sound:
    """One feature that can be packed.

    Attributes:
        drawn: where it comes from.
        rings: int32 (n, 2) each, at least three vertices; the first is not repeated.
        outer: whether a ring is an outer one, for each.
        points: int32 (k, 2).
    """

    drawn: Drawn
    rings: list[Coordinates]
    outer: list[bool]
    points: Coordinates


NO_POINTS: Coordinates = np.empty((0, 2), np.int32)


def sound_features(drawn: Iterable[Drawn], source: Source) -> Iterator[Sound]:
    """The features that are left, in their order.

    A feature with a coordinate that is not finite, a ring of fewer than three different points, and
    a feature of which nothing is left are left out; all this is told to the notes.

    Raises:
        AnnotationError: a coordinate is far outside of any slide.
        ConfigError: there are polygons, and shapely is not installed.
    """
    for chunk in _chunks(drawn):
        yield from _sound(chunk, source)


def _chunks(drawn: Iterable[Drawn]) -> Iterator[list[Drawn]]:
    chunk: list[Drawn] = []
    vertices = 0
    for feature in drawn:
        chunk.append(feature)
        vertices += sum(len(ring) for ring in itertools.chain.from_iterable(feature.polygons))
        if len(chunk) >= CHUNK_FEATURES or vertices >= CHUNK_VERTICES:
            yield chunk
            chunk, vertices = [], 0
    if chunk:
        yield chunk


@dataclass(slots=True)
class _Rings:
    """All rings of a chunk.

    Attributes:
        at: int32 (V, 2), vertices.
        ends: int64 (R,), where each ring ends.
        polygon: int64 (R,), to which polygon of the chunk a ring belongs.
        feature: int64 (R,), to which feature.
    """

    at: Coordinates
    ends: Offsets
    polygon: Offsets
    feature: Offsets

    @property
    def starts(self) -> Offsets:
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])

    @property
    def lengths(self) -> Offsets:
        return np.diff(self.ends, prepend=np.int64(0))

    def with_vertices(self, keep: Bools) -> _Rings:
        """Without some vertices; rings may become empty."""
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep)])
        return _Rings(self.at[keep], total[self.ends], self.polygon, self.feature)

    def with_rings(self, keep: Bools) -> _Rings:
        """Without some rings."""
        lengths = self.lengths
        at = self.at[np.repeat(keep, lengths)]
        ends = np.cumsum(lengths[keep])
        return _Rings(at, ends, self.polygon[keep], self.feature[keep])


def _sound(chunk: list[Drawn], source: Source) -> Iterator[Sound]:
    finite = _finite(chunk, source)
    rings = _cleaned(_rings_of(chunk), chunk, finite, source)
    mended = _mended(rings, chunk, source)
    outer = np.diff(rings.polygon, prepend=np.int64(-1)) != 0
    starts, ends = rings.starts, rings.ends
    first, last = (np.searchsorted(rings.feature, np.arange(len(chunk)), side) for side in _SIDES)
    for index, drawn in enumerate(chunk):
        points = NO_POINTS
        if drawn.points is not None and finite[index]:
            points = _fixed(drawn.points)
        if index in mended:
            found, is_outer = mended[index]
        else:
            own = range(first[index], last[index])
            found = [rings.at[starts[ring] : ends[ring]] for ring in own]
            is_outer = outer[first[index] : last[index]].tolist()
        if found or len(points):
            yield Sound(drawn, found, is_outer, points)
        elif finite[index]:
            source.notes.tell("nothing of it has an inside; left out", drawn.named())


_SIDES: tuple[Any, Any] = ("left", "right")


def _finite(chunk: list[Drawn], source: Source) -> Bools:
    """Which features have only finite coordinates; the others are told."""
    finite = np.ones(len(chunk), np.bool_)
    for index, drawn in enumerate(chunk):
        parts = [*itertools.chain.from_iterable(drawn.polygons)]
        if drawn.points is not None:
            parts.append(drawn.points)
        # One pass: the sum of absolute values is finite, and small, where all of them are.
        most = max((float(np.abs(part).max(initial=0.0)) for part in parts), default=0.0)
        if not np.isfinite(most) or any(np.isnan(part).any() for part in parts):
            finite[index] = False
            source.notes.tell("a coordinate is not a finite number; left out", drawn.named())
        elif most > MOST_PX:
            raise source.error(
                f"a coordinate is {most:.0f}, and no slide has more than {MOST_PX} pixels a side; "
                "coordinates must be level-0 pixels",
                drawn.named(),
            )
    return finite


def _fixed(at: Floats) -> Coordinates:
    return np.asarray(np.rint(at * UNITS), np.int32)


def _rings_of(chunk: list[Drawn]) -> _Rings:
    arrays: list[Floats] = []
    polygon: list[int] = []
    feature: list[int] = []
    count = 0
    for index, drawn in enumerate(chunk):
        for rings in drawn.polygons:
            arrays += rings
            polygon += [count] * len(rings)
            feature += [index] * len(rings)
            count += 1
    at = np.concatenate([np.empty((0, 2)), *arrays])
    ends = np.cumsum([len(ring) for ring in arrays], dtype=np.int64)
    with np.errstate(invalid="ignore"):  # of features that are left out below
        fixed = _fixed(np.clip(at, -MOST_PX, MOST_PX))
    return _Rings(fixed, ends, np.array(polygon, np.int64), np.array(feature, np.int64))


def _cleaned(rings: _Rings, chunk: list[Drawn], finite: Bools, source: Source) -> _Rings:
    """Without features that are not finite, repeated vertices, and rings without an inside."""
    rings = rings.with_rings(finite[rings.feature])
    rings = _with_enough(rings, 1, chunk, source)
    if not len(rings.ends):
        return rings
    first, last = rings.at[rings.starts], rings.at[rings.ends - 1]
    for feature in rings.feature[(first != last).any(axis=1)].tolist():
        if chunk[feature].must_close:
            source.notes.tell("a ring did not end where it began; closed", chunk[feature].named())
    keep = np.ones(len(rings.at), np.bool_)
    keep[1:] = (rings.at[1:] != rings.at[:-1]).any(axis=1)
    keep[rings.starts] = True
    rings = rings.with_vertices(keep)
    keep = np.ones(len(rings.at), np.bool_)
    closing = (rings.at[rings.starts] == rings.at[rings.ends - 1]).all(axis=1)
    keep[(rings.ends - 1)[closing & (rings.lengths > 1)]] = False
    return _with_enough(rings.with_vertices(keep), 3, chunk, source)


def _with_enough(rings: _Rings, least: int, chunk: list[Drawn], source: Source) -> _Rings:
    """Without rings of fewer vertices."""
    enough = rings.lengths >= least
    for feature in rings.feature[~enough].tolist():
        source.notes.tell(
            "a ring has fewer than three different points; the ring was left out",
            chunk[feature].named(),
        )
    # Without its outer ring a polygon has nothing to have holes in.
    outer = np.diff(rings.polygon, prepend=np.int64(-1)) != 0
    lost = np.isin(rings.polygon, rings.polygon[outer & ~enough])
    return rings.with_rings(enough & ~lost)


def shapely_module() -> Any:
    """Shapely, imported where it is first used: it is an extra.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import shapely
    except ImportError as error:
        raise ConfigError(
            "polygons are checked with shapely, which is not installed: pip install "
            "'chunkdl[annotations]'"
        ) from error
    return shapely


def _mended(
    rings: _Rings, chunk: list[Drawn], source: Source
) -> dict[int, tuple[list[Coordinates], list[bool]]]:
    """The rings of the features that had to be mended, and which of them are outer ones."""
    if not len(rings.ends) or all(drawn.is_sound for drawn in chunk):
        return {}
    shapely = shapely_module()
    owner = np.repeat(np.arange(len(rings.ends)), rings.lengths)
    closed = shapely.linearrings(rings.at.astype(np.float64), indices=owner)
    _, polygon = np.unique(rings.polygon, return_inverse=True)
    polygons = shapely.polygons(closed, indices=polygon)
    feature = rings.feature[np.diff(polygon, prepend=-1) != 0]
    valid = shapely.is_valid(polygons)
    crossing = set(feature[~valid].tolist())
    several, group, count = np.unique(feature, return_inverse=True, return_counts=True)
    if (count > 1).any():
        whole = shapely.multipolygons(polygons, indices=group)
        overlapping = set(several[(count > 1) & ~shapely.is_valid(whole)].tolist()) - crossing
    else:
        overlapping = set()
    found = {}
    for index in sorted(crossing | overlapping):
        parts = polygons[feature == index]
        kind = "its parts overlap, or share an edge; united"
        try:
            if index in crossing:
                kind = "its outline crosses or touches itself; mended"
                parts = [_mend(shapely, part) for part in parts]
            whole = shapely.union_all(parts)
        except shapely.errors.ShapelyError as error:
            raise source.error(
                f"its outline crosses itself and cannot be mended: {error}", chunk[index].named()
            ) from error
        source.notes.tell(kind, chunk[index].named())
        found[index] = _rings_in(shapely, whole)
    return found


def _mend(shapely: Any, polygon: Any) -> Any:
    """What the outer ring goes around, without what the holes go around."""
    if shapely.is_valid(polygon):
        return polygon
    rings = [shapely.Polygon(ring) for ring in (polygon.exterior, *polygon.interiors)]
    outer, *holes = shapely.make_valid(rings, method="structure", keep_collapsed=False)
    return outer.difference(shapely.union_all(holes)) if holes else outer


def _rings_in(shapely: Any, geometry: Any) -> tuple[list[Coordinates], list[bool]]:
    """The rings of every polygon in a geometry, back in fixed point."""
    rings: list[Coordinates] = []
    outer: list[bool] = []
    for part in shapely.get_parts(geometry):
        if part.geom_type != "Polygon":
            continue
        for number, ring in enumerate([part.exterior, *part.interiors]):
            at = np.rint(shapely.get_coordinates(ring)).astype(np.int32)
            at = at[:-1][(at[1:] != at[:-1]).any(axis=1)]
            if len(at) >= 3:
                rings.append(at)
                outer.append(number == 0)
            elif number == 0:
                break
    return rings, outer
