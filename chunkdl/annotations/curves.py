"""Shapes that formats describe by numbers, as rings: rectangles and ellipses, turned or not."""

from __future__ import annotations

import math

import numpy as np

from chunkdl.annotations.drawn import Floats

SAGITTA_PX = 1 / 16
"""How far a chord may lie from its arc, level-0 pixels."""
_LEAST, _MOST = 16, 4096


def rectangle(
    centre: tuple[float, float], width: float, height: float, turned: float = 0.0
) -> Floats:
    """The corners of a rectangle, float64 (4, 2).

    Args:
        centre: x and y.
        width, height: of the rectangle before it is turned.
        turned: radians, from the x axis towards the y axis.
    """
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)
    return _turned(corners, turned) + centre


def ellipse(
    centre: tuple[float, float], width: float, height: float, turned: float = 0.0
) -> Floats:
    """A ring on an ellipse, float64 (n, 2), of chords within 1/16 pixel of the arc.

    Args:
        centre: x and y.
        width, height: both diameters, before it is turned.
        turned: radians, from the x axis towards the y axis.
    """
    radius = max(width, height) / 2
    count = _LEAST
    if math.isfinite(radius) and radius > SAGITTA_PX:
        # The sagitta of a chord over the angle a is r * (1 - cos(a / 2)).
        count = math.ceil(math.pi / math.acos(1 - SAGITTA_PX / radius))
    angles = np.linspace(0, 2 * math.pi, min(max(count, _LEAST), _MOST), endpoint=False)
    around = np.stack([np.cos(angles) * (width / 2), np.sin(angles) * (height / 2)], axis=1)
    return _turned(around, turned) + centre


def _turned(at: Floats, angle: float) -> Floats:
    cos, sin = math.cos(angle), math.sin(angle)
    turned: Floats = at @ np.array([(cos, sin), (-sin, cos)])
    return turned
