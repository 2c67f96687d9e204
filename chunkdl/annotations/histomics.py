"""Annotations of HistomicsTK, HistomicsUI and the Digital Slide Archive, as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from chunkdl.annotations.curves import ellipse, rectangle
from chunkdl.annotations.drawn import Drawn, Floats, Source, named
from chunkdl.annotations.json_text import BAD_JSON

Positions = list[list[float | None]]
_LEFT_OUT = {
    *("arrow", "heatmap", "griddata", "image", "pixelmap", "rectanglegrid"),
}
"""Elements that are no regions."""


class _Element(msgspec.Struct):
    type: str
    id: Any = None
    points: Positions = []
    holes: list[Positions] | None = None
    closed: bool = False
    center: list[float | None] = []
    width: float | None = None
    height: float | None = None
    radius: float | None = None
    rotation: float | None = None
    label: Any = None
    group: Any = None


class _Document(msgspec.Struct):
    elements: list[msgspec.Raw] | None = None
    name: Any = None
    annotation: msgspec.Raw = msgspec.Raw(b"null")


_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_DOCUMENT = msgspec.json.Decoder(_Document | None)
_ELEMENT = msgspec.json.Decoder(_Element)


def read_histomics(source: Source) -> Iterator[Drawn]:
    """The elements of one annotation document, or of a list of them.

    The class is the element's group, if it has one other than "default", else its label, else
    the name of the document. Lines and elements that are no regions are left out with a note.

    Raises:
        AnnotationError: it is no such document, or an element is of no known type.
    """
    number = 0
    data = source.data
    try:
        documents = _LIST.decode(data) if data.lstrip()[:1] == b"[" else [msgspec.Raw(data)]
        for raw in documents:
            document = _DOCUMENT.decode(raw)
            # The archive's own file has the document inside a record.
            if document is not None and document.elements is None:
                document = _DOCUMENT.decode(document.annotation)
            if document is None or document.elements is None:
                raise source.error("it has no elements: it is no annotation of HistomicsTK")
            for element in document.elements:
                found = _drawn(number, element, document, source)
                number += 1
                if found is not None:
                    yield found
    except BAD_JSON as error:
        raise source.error(
            f"it cannot be read as an annotation of HistomicsTK: {error}", str(number)
        ) from error


def _drawn(number: int, raw: msgspec.Raw, document: _Document, source: Source) -> Drawn | None:
    """None: it was told and is left out."""
    element = _ELEMENT.decode(raw)
    name = "" if element.id is None else str(element.id)
    found = Drawn(number, name, _class_name(element, document))
    kind = element.type
    if kind == "polyline":
        if not element.closed:
            source.notes.tell("it is a line and has no inside; left out", found.named())
            return None
        rings = [element.points, *(element.holes or [])]
        found.polygons.append([_positions(ring, source, found) for ring in rings])
    elif kind == "point":
        found.points = _positions([element.center], source, found)
    elif kind == "rectangle":
        found.polygons.append([rectangle(*_shape(element, source, number, name))])
    elif kind == "ellipse":
        found.polygons.append([ellipse(*_shape(element, source, number, name))])
    elif kind == "circle":
        if element.radius is None:
            raise source.error("the circle has no radius", found.named())
        x, y = _positions([element.center], source, found)[0].tolist()
        found.polygons.append([ellipse((x, y), 2 * element.radius, 2 * element.radius)])
    elif kind in _LEFT_OUT:
        source.notes.tell(f"it is of the type {kind} and no region; left out", found.named())
        return None
    else:
        raise source.error(f"its type {kind!r:.60} is not known", found.named())
    return found


def _class_name(element: _Element, document: _Document) -> str:
    label = element.label.get("value") if isinstance(element.label, dict) else element.label
    group = None if element.group == "default" else element.group
    return next((str(name) for name in (group, label, document.name) if name), "")


def _shape(
    element: _Element, source: Source, number: int, name: str
) -> tuple[tuple[float, float], float, float, float]:
    if element.width is None or element.height is None:
        raise source.error(f"the {element.type} has no width and height", named(number, name))
    at = _positions([element.center], source, Drawn(number, name))
    x, y = at[0].tolist()
    return (x, y), element.width, element.height, element.rotation or 0.0


def _positions(positions: Positions, source: Source, found: Drawn) -> Floats:
    """x and y of positions that have a z as well, None as NaN, float64 (n, 2)."""
    if any(len(position) < 2 for position in positions):
        raise source.error("a position has no x and y", found.named())
    both = np.array([position[:2] for position in positions], np.float64)
    return both.reshape(-1, 2)
