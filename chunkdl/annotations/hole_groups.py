"""Holes that are drawn as polygons of their own, in a format that has none."""

from __future__ import annotations

from typing import Any

import numpy as np

from chunkdl.annotations.drawn import Drawn, Floats, Source
from chunkdl.annotations.mending import shapely_module


def with_holes(drawn: list[Drawn], holes: list[Drawn], source: Source) -> list[Drawn]:
    """The features, with each hole cut out of every polygon that holds a point inside it.

    A hole that lies in no polygon is left out with a note. The point is one well inside the hole;
    what of the hole reaches beyond the polygon is outside of both.
    """
    shapely = shapely_module()
    outer = [(feature, polygon) for feature in drawn for polygon in feature.polygons]
    areas = [_area(shapely, polygon[0]) for _, polygon in outer]
    tree = shapely.STRtree(areas)
    for hole in holes:
        ring = hole.polygons[0][0]
        area = _area(shapely, ring)
        inside = () if area.is_empty else tree.query(area.point_on_surface(), predicate="within")
        for index in sorted(map(int, inside)):
            outer[index][1].append(ring)
        if not len(inside):
            source.notes.tell("it is a hole and lies in no polygon; left out", hole.named())
    return drawn


def _area(shapely: Any, ring: Floats) -> Any:
    """What a ring goes around, mended; empty where that is nothing."""
    if len(ring) < 3 or not np.isfinite(ring).all():
        return shapely.Polygon()
    area = shapely.Polygon(ring)
    return area if area.is_valid else shapely.make_valid(area, method="structure")
