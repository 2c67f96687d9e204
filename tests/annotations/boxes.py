"""Annotations of rectangles, as QuPath writes them."""

from __future__ import annotations

import json
from typing import Any


def box(x: float, y: float, width: float, height: float, name: str) -> dict[str, Any]:
    """A rectangle of a class, level-0 pixels."""
    corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }


def geojson_of(*features: dict[str, Any]) -> bytes:
    """A file of them."""
    return json.dumps({"type": "FeatureCollection", "features": list(features)}).encode()
