"""ASAP's XML: annotations in groups, read as a stream; nothing in it is expanded or fetched."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

import numpy as np

from chunkdl.annotations.drawn import Drawn, Floats, Source, named
from chunkdl.annotations.hole_groups import with_holes

MOST_DEPTH = 64
_PIECE = 2**20
_NO_GROUP = {"", "None"}
_POLYGONS = {"Polygon", "Spline", "Rectangle"}
_POINTS = {"Dot", "PointSet"}
_ROOT = "ASAP_Annotations"


@dataclass(slots=True)
class _Annotation:
    number: int
    name: str
    kind: str
    group: str
    orders: array[float] = field(default_factory=lambda: array("d"))
    at: array[float] = field(default_factory=lambda: array("d"))
    """x and y in turns."""

    def named(self) -> str:
        return named(self.number, self.name)


def read_asap(source: Source) -> Iterator[Drawn]:
    """The annotations of an ASAP file.

    The class is the name of the annotation's group, or that of the topmost group with the option
    `top_groups`. Polygons of a hole group are no annotations; see `hole_groups.with_holes`. Splines
    are read as polygons through their points. A rectangle of two points has these as corners.

    Raises:
        AnnotationError: it is not XML of ASAP, or a number in it is none.
    """
    parsed = _Parsed(source)
    names = {name.casefold() for name in source.options.hole_groups}
    holes = {a.number for a in parsed.annotations if a.group.casefold() in names}
    features = _features(parsed, source)
    if not holes:
        yield from features
        return
    drawn: list[Drawn] = []
    cut: list[Drawn] = []
    for found in features:
        is_hole = found.number in holes and found.points is None
        (cut if is_hole else drawn).append(found)
    yield from with_holes(drawn, cut, source)


def _features(parsed: _Parsed, source: Source) -> Iterator[Drawn]:
    for annotation in parsed.annotations:
        found = _drawn(annotation, parsed.class_of(annotation, source), source)
        if found is not None:
            yield found


def _drawn(annotation: _Annotation, class_name: str, source: Source) -> Drawn | None:
    """None: it was told and is left out."""
    if not annotation.at:
        source.notes.tell("it has no coordinates; left out", annotation.named())
        return None
    at = _in_order(annotation)
    found = Drawn(annotation.number, annotation.name, class_name)
    if annotation.kind in _POINTS:
        found.points = at
    elif annotation.kind in _POLYGONS:
        if annotation.kind == "Spline":
            source.notes.tell("it is a spline; read as a polygon through its points", found.named())
        if annotation.kind == "Rectangle" and len(at) == 2:
            (left, top), (right, bottom) = at
            at = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        found.polygons.append([at])
    elif annotation.kind == "Measurement":
        source.notes.tell("it is a measurement and has no inside; left out", found.named())
        return None
    else:
        raise source.error(f"its type {annotation.kind!r:.60} is not known", found.named())
    return found


def _in_order(annotation: _Annotation) -> Floats:
    """The coordinates by their `Order`, or as they lie in the file where one has none."""
    at = np.array(annotation.at, np.float64).reshape(-1, 2)
    orders = np.array(annotation.orders)
    if np.isfinite(orders).all() and (np.diff(orders) < 0).any():
        at = at[np.argsort(orders, kind="stable")]
    return at


class _Parsed:
    """What is in the file.

    Attributes:
        annotations: in the order of the file.
        parents: group that a group belongs to, by its name.
    """

    def __init__(self, source: Source) -> None:
        self.annotations: list[_Annotation] = []
        self.parents: dict[str, str] = {}
        self._source = source
        self._depth = 0
        self._elements: dict[str, Callable[[dict[str, str]], None]] = {
            "Annotation": self._begin_annotation,
            "Coordinate": self._coordinate,
            "Group": self._group,
        }
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        # Entities can be declared nowhere else, and are not known without.
        parser.StartDoctypeDeclHandler = self._refuse
        try:
            for start in range(0, max(len(source.data), 1), _PIECE):
                piece = source.data[start : start + _PIECE]
                parser.Parse(piece, start + _PIECE >= len(source.data))
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise source.error(f"the XML cannot be read: {error}") from error

    def class_of(self, annotation: _Annotation, source: Source) -> str:
        """The class of an annotation; empty where it is in no group."""
        group = annotation.group
        if group in _NO_GROUP or not source.options.top_groups:
            return "" if group in _NO_GROUP else group
        seen = {group}
        while (parent := self.parents.get(group, "")) not in _NO_GROUP:
            if parent in seen:
                raise source.error(f"the group {parent!r:.60} belongs to itself")
            seen.add(parent)
            group = parent
        return group

    def _refuse(self, *_: object) -> None:
        raise self._source.error("XML that defines a document type or entities is not read")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise self._source.error(f"its XML is nested more than {MOST_DEPTH} deep")
        if self._depth == 1 and name != _ROOT:
            other = "; ImageScope's files have to be exported from QuPath as GeoJSON"
            raise self._source.error(
                f"it is XML, but not ASAP's: it begins with {name!r:.60} and not {_ROOT!r}"
                f"{other if name == 'Annotations' else ''}"
            )
        if name in self._elements:
            self._elements[name](attributes)

    def _end(self, _: str) -> None:
        self._depth -= 1

    def _begin_annotation(self, attributes: dict[str, str]) -> None:
        self.annotations.append(
            _Annotation(
                len(self.annotations),
                attributes.get("Name", ""),
                attributes.get("Type", "Polygon"),
                attributes.get("PartOfGroup", ""),
            )
        )

    def _coordinate(self, attributes: dict[str, str]) -> None:
        if not self.annotations:
            raise self._source.error("a coordinate belongs to no annotation")
        annotation = self.annotations[-1]
        try:
            annotation.at.extend((float(attributes["X"]), float(attributes["Y"])))
            annotation.orders.append(float(attributes.get("Order", math.nan)))
        except (KeyError, ValueError) as error:
            shown = {key: value[:30] for key, value in attributes.items()}
            raise self._source.error(
                f"the coordinate {shown} has no numbers X and Y (with a point, not a comma)",
                annotation.named(),
            ) from error

    def _group(self, attributes: dict[str, str]) -> None:
        self.parents[attributes.get("Name", "")] = attributes.get("PartOfGroup", "")
