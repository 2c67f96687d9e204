"""GeoJSON as QuPath writes it, in all its versions.

RFC 7946 says what geometries are; the members that QuPath adds (`properties.classification`,
`properties.objectType`, `nucleusGeometry`, `plane`) are read as its exports have them. Features are
decoded one at a time, so a file takes no more memory than its bytes and one feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from chunkdl.annotations.drawn import Drawn, Floats, Source, named
from chunkdl.annotations.json_text import BAD_JSON

MOST_NESTED = 8
"""Collections of geometries inside each other."""
_DETECTIONS = {"detection", "cell", "tile"}

_Position = list[float | None]
_POINT = msgspec.json.Decoder(_Position)
_LINE = msgspec.json.Decoder(list[_Position])
_POLYGON = msgspec.json.Decoder(list[list[_Position]])
_POLYGONS = msgspec.json.Decoder(list[list[list[_Position]]])


class _Collection(msgspec.Struct):
    type: Any = None
    features: list[msgspec.Raw] = []


class _Feature(msgspec.Struct):
    type: Any = None
    id: Any = None
    geometry: msgspec.Raw = msgspec.Raw(b"null")
    nucleusGeometry: msgspec.Raw = msgspec.Raw(b"null")  # noqa: N815, as in the file
    properties: msgspec.Raw = msgspec.Raw(b"null")


class _Properties(msgspec.Struct):
    name: Any = None
    classification: Any = None
    objectType: Any = None  # noqa: N815, as in the file
    object_type: Any = None


class _Geometry(msgspec.Struct):
    type: Any = None
    coordinates: msgspec.Raw = msgspec.Raw(b"[]")
    geometries: list[msgspec.Raw] = []
    plane: Any = None


_COLLECTION = msgspec.json.Decoder(_Collection)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_FEATURE = msgspec.json.Decoder(_Feature)
_PROPERTIES = msgspec.json.Decoder(_Properties | None)
_GEOMETRY = msgspec.json.Decoder(_Geometry | None)

GEOMETRIES = {
    *("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"),
    "GeometryCollection",
}
TYPES = {"FeatureCollection", "Feature", *GEOMETRIES}
"""What the member `type` of a GeoJSON object may say."""


def read_geojson(source: Source) -> Iterator[Drawn]:
    """The features of a FeatureCollection, a list of features, one feature, or one geometry.

    Lines are left out with a note, for they have no inside. A feature without a class has the
    empty class name.

    Raises:
        AnnotationError: it is not GeoJSON, or has a geometry of no known type.
    """
    try:
        features = _features(source.data, source)
    except BAD_JSON as error:
        raise source.error(f"it is not GeoJSON: {error}") from error
    for number, raw in enumerate(features):
        try:
            drawn = _drawn(number, raw, source)
        except BAD_JSON as error:
            raise source.error(f"it cannot be read as GeoJSON: {error}", str(number)) from error
        if drawn is not None:
            yield drawn


def _features(data: bytes, source: Source) -> list[msgspec.Raw]:
    if data.lstrip()[:1] == b"[":
        return _LIST.decode(data)
    whole = _COLLECTION.decode(data)
    if whole.type == "FeatureCollection":
        return whole.features
    if whole.type == "Feature":
        return [msgspec.Raw(data)]
    if whole.type in GEOMETRIES:
        return [msgspec.Raw(b'{"type": "Feature", "geometry": ' + data + b"}")]
    raise source.error(
        f"it is no GeoJSON: its type is {whole.type!r:.60} and not FeatureCollection, Feature or a "
        "geometry"
    )


def _drawn(number: int, raw: msgspec.Raw, source: Source) -> Drawn | None:
    feature = _FEATURE.decode(raw)
    properties = _PROPERTIES.decode(feature.properties) or _Properties()
    name = properties.name if properties.name not in (None, "") else feature.id
    label = "" if name is None else str(name)
    if feature.type != "Feature":
        raise source.error(
            f"its type is {feature.type!r:.60} and not Feature", named(number, label)
        )
    kind = properties.objectType or properties.object_type
    found = Drawn(
        number,
        label,
        _class_name(properties.classification, source, named(number, label)),
        detected=isinstance(kind, str) and kind.lower() in _DETECTIONS,
        must_close=True,
    )
    geometry = feature.geometry
    if source.options.cells == "nucleus" and kind == "cell":
        geometry = feature.nucleusGeometry
        if geometry == msgspec.Raw(b"null"):
            source.notes.tell("the cell has no outline of its nucleus; left out", found.named())
            return None
    points: list[Floats] = []
    _add_geometry(geometry, found, points, source, MOST_NESTED)
    if points:
        found.points = np.concatenate(points)
    return found if found.polygons or points else None


def _class_name(classification: Any, source: Source, feature: str) -> str:
    """The class of any form that QuPath has written: a dict, several names, a text, or nothing."""
    given = classification
    if isinstance(given, dict):
        names = given.get("names")
        given = given.get("name")
        if given is None and isinstance(names, list):
            # QuPath writes derived classes so: "Tumor: Positive".
            given = ": ".join(map(str, names))
    if given is None:
        return ""
    if not isinstance(given, str):
        raise source.error(f"its classification is {given!r:.60} and not a name", feature)
    return given


def _add_geometry(
    raw: msgspec.Raw, found: Drawn, points: list[Floats], source: Source, depth: int
) -> None:
    """Add what a geometry has to a feature."""
    geometry = _GEOMETRY.decode(raw)
    if geometry is None:
        source.notes.tell("it has no geometry; left out", found.named())
        return
    plane = geometry.plane
    if isinstance(plane, dict) and (plane.get("z") or plane.get("t")):
        source.notes.tell(
            "it was drawn in another plane of the image, and is read as all others", found.named()
        )
    kind, at = geometry.type, geometry.coordinates
    if kind == "GeometryCollection":
        if depth == 0:
            raise source.error(
                f"its collections of geometries are nested more than {MOST_NESTED} deep",
                found.named(),
            )
        for inner in geometry.geometries:
            _add_geometry(inner, found, points, source, depth - 1)
    elif kind in ("LineString", "MultiLineString"):
        source.notes.tell("it is a line and has no inside; left out", found.named())
    elif kind in _ADD:
        _ADD[kind](at, found, points, source)
    else:
        raise source.error(f"its geometry is of the unknown type {kind!r:.60}", found.named())


def _add_point(at: msgspec.Raw, found: Drawn, points: list[Floats], source: Source) -> None:
    position = _POINT.decode(at)
    points += _positions([position] if position else [], found, source)


def _add_points(at: msgspec.Raw, found: Drawn, points: list[Floats], source: Source) -> None:
    points += _positions(_LINE.decode(at), found, source)


def _add_polygon(at: msgspec.Raw, found: Drawn, _: list[Floats], source: Source) -> None:
    _add_rings(_POLYGON.decode(at), found, source)


def _add_polygons(at: msgspec.Raw, found: Drawn, _: list[Floats], source: Source) -> None:
    polygons = _POLYGONS.decode(at)
    for rings in polygons:
        _add_rings(rings, found, source)
    if not polygons:
        source.notes.tell("its geometry is empty; left out", found.named())


_ADD: dict[str, Callable[[msgspec.Raw, Drawn, list[Floats], Source], None]] = {
    "Point": _add_point,
    "MultiPoint": _add_points,
    "Polygon": _add_polygon,
    "MultiPolygon": _add_polygons,
}


def _add_rings(rings: list[list[_Position]], found: Drawn, source: Source) -> None:
    if not rings or not rings[0]:
        source.notes.tell("its geometry is empty; left out", found.named())
        return
    found.polygons.append([array for ring in rings for array in _positions(ring, found, source)])


def _positions(ring: list[_Position], found: Drawn, source: Source) -> list[Floats]:
    """The positions as one array (n, 2), None as NaN; no array where there are none."""
    if not ring:
        source.notes.tell("its geometry is empty; left out", found.named())
        return []
    try:
        both = np.array(ring, np.float64)
    except ValueError:
        # Some positions have a height, others none.
        both = np.array([position[:2] for position in ring if len(position) > 1], np.float64)
        if len(both) < len(ring):
            raise source.error("a position has no y", found.named()) from None
    if both.ndim != 2 or both.shape[1] < 2:
        raise source.error("a position has no y", found.named())
    return [both[:, :2]]
