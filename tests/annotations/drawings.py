"""What the tests of annotations draw: features as GeoJSON, and files of other formats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.rasterise import rasterise
from chunkdl.annotations.reading import annotations_of_geojson, read_annotations
from chunkdl.annotations.shapes import Annotations

Ring = Sequence[tuple[float, float]] | npt.NDArray[np.float64]


def square(x: float, y: float, side: float) -> list[tuple[float, float]]:
    """A ring that ends where it begins."""
    right, bottom = x + side, y + side
    return [(x, y), (right, y), (right, bottom), (x, bottom), (x, y)]


def closed(ring: Ring) -> list[list[float]]:
    """The ring, ending where it begins."""
    listed = [[float(x), float(y)] for x, y in ring]
    return listed if listed[0] == listed[-1] else [*listed, listed[0]]


def feature(*rings: Ring, name: str | None = None, kind: str = "annotation") -> dict[str, Any]:
    """One polygon with holes, as QuPath writes it."""
    properties: dict[str, Any] = {"objectType": kind}
    if name is not None:
        properties["classification"] = {"name": name, "color": [1, 2, 3]}
    geometry = {"type": "Polygon", "coordinates": [closed(ring) for ring in rings]}
    return {"type": "Feature", "id": "an id", "geometry": geometry, "properties": properties}


def collection(*features: dict[str, Any]) -> dict[str, Any]:
    """A file of them."""
    return {"type": "FeatureCollection", "features": list(features)}


def drawn(*features: dict[str, Any]) -> Annotations:
    """Their annotations."""
    return annotations_of_geojson(list(features), "the test")


def read_text(folder: Path, name: str, content: Any, **more: Any) -> Annotations:
    """What is read from a file of that name with that content; dicts and lists become JSON."""
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    options = more.pop("options", None)
    return read_annotations(path, options or ReadingOptions(), **more)


def asap(*annotations: str, groups: str = "") -> str:
    """An ASAP file."""
    return (
        '<?xml version="1.0"?>\n<ASAP_Annotations>\n<Annotations>'
        + "\n".join(annotations)
        + f"</Annotations>\n<AnnotationGroups>{groups}</AnnotationGroups>\n</ASAP_Annotations>\n"
    )


def asap_annotation(
    ring: Ring, group: str = "tumor", kind: str = "Polygon", name: str = "Annotation 0"
) -> str:
    """One annotation of it."""
    points = "".join(
        f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in enumerate(ring)
    )
    return (
        f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
        f"<Coordinates>{points}</Coordinates></Annotation>"
    )


def whole(annotations: Annotations, side: int = 64, **more: Any) -> npt.NDArray[np.uint8]:
    """The raster from 0 to `side` at downsample 1."""
    return rasterise(annotations, downsample=1, origin=(0, 0), size=(side, side), **more)


def star(
    rng: np.random.Generator, x: float, y: float, radius: float, corners: int
) -> npt.NDArray[np.float64]:
    """A ring around a point that no ray from it crosses twice: never crosses itself."""
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(0.1, 0.9, corners)) / corners
    lengths = radius * rng.uniform(0.5, 1, corners)
    return np.stack([x + lengths * np.cos(angles), y + lengths * np.sin(angles)], axis=1)
