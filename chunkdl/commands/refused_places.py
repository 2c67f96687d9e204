"""Why places of a slide are no positions: how many each rule takes away, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from chunkdl.engine.config import StreamConfig
from chunkdl.engine.work.planned_slide import PlannedSlide
from chunkdl.sampling.positions import PositionSet, positions_of

Codes = npt.NDArray[np.uint8]

ACCEPTED, NO_TISSUE, ELSEWHERE = range(3)
"""What becomes of a place: it is a position, it lacks tissue, or it lies outside of `roi` or of all
classes of `regions`."""
ACROSS = 160
"""Places that are looked at along the longer side of a slide."""


@dataclass(frozen=True, slots=True)
class Audit:
    """How many places of a slide, or of several, each rule takes away, in this order.

    A place is a corner, in target pixels, whose SmallChunk lies inside the slide.

    Attributes:
        places: all.
        lack_tissue: have less tissue than `tissue_threshold`.
        lie_elsewhere: have the tissue, and lie outside of `roi` or of all classes of `regions`.
        positions: are left.
    """

    places: int = 0
    lack_tissue: int = 0
    lie_elsewhere: int = 0
    positions: int = 0

    def __add__(self, other: Audit) -> Audit:
        names = (field.name for field in fields(self))
        return Audit(*(getattr(self, name) + getattr(other, name) for name in names))

    def __str__(self) -> str:
        if not self.places:
            return "no place for a SmallChunk"
        parts = [f"{self.places:,} places", f"{self.lack_tissue / self.places:.1%} lack tissue"]
        if self.lie_elsewhere:
            parts.append(f"{self.lie_elsewhere / self.places:.1%} lie outside of what is annotated")
        return f"{', '.join(parts)}, {self.positions:,} positions are left"


def audit_of(planned: PlannedSlide, config: StreamConfig) -> Audit:
    """The audit of a slide at one resolution; a pixel filter is not asked.

    Raises:
        SlideError: nothing of it can be drawn.
    """
    with_tissue, kept = _sets(planned, config)
    places = with_tissue.across.extent * with_tissue.down.extent
    widths = with_tissue.across.widths(np.asarray(with_tissue.columns, dtype=np.int64))
    tissue = left = 0
    for row in with_tissue.rows:
        rows = range(row, row + 1)
        height = int(with_tissue.down.widths(np.array([row]))[0])
        has_tissue = with_tissue.accepted(rows, with_tissue.columns)[0]
        of_any = np.zeros_like(has_tissue)
        for one in kept:
            of_any |= one.accepted(rows, with_tissue.columns)[0]
        tissue += int(has_tissue @ widths) * height
        left += int((has_tissue & of_any) @ widths) * height
    return Audit(places, places - tissue, tissue - left, left)


def codes_of(planned: PlannedSlide, config: StreamConfig) -> tuple[Codes, float]:
    """What becomes of places on a lattice over the slide.

    Returns:
        Shape (rows, columns); and the distance of the places, target pixels: entry (j, i) is that
        of the SmallChunk around the middle of its square of the lattice.
    """
    with_tissue, kept = _sets(planned, config)
    grid, side = planned.grid, config.smallchunk_px
    step = max(grid.width, grid.height) / ACROSS
    rows, columns = (max(1, round(length / step)) for length in (grid.height, grid.width))
    x, y = ((np.arange(count) + 0.5) * step - side / 2 for count in (columns, rows))
    left, top = (np.clip(np.rint(at), 0, None).astype(np.int64) for at in (x, y))
    across, down = np.meshgrid(
        np.minimum(left, max(0, with_tissue.across.extent - 1)),
        np.minimum(top, max(0, with_tissue.down.extent - 1)),
    )
    found = np.full(across.size, NO_TISSUE, np.uint8)
    if with_tissue.across.extent and with_tissue.down.extent:
        corners = across.ravel(), down.ravel()
        has_tissue = with_tissue.hold(*corners)
        accepted = np.zeros_like(has_tissue)
        for one in kept:
            accepted |= one.hold(*corners)
        found[has_tissue] = ELSEWHERE
        found[accepted] = ACCEPTED
    return found.reshape(rows, columns), step


def _sets(planned: PlannedSlide, config: StreamConfig) -> tuple[PositionSet, Sequence[PositionSet]]:
    """The positions by tissue alone, and those that are left, of each class that is drawn."""
    least = config.tissue_threshold
    with_tissue = positions_of(planned.grid, planned.mask, config.smallchunk_px, least)
    use = config.annotations
    if use is None or use.regions is None:
        return with_tissue, (planned.positions,)
    opened = planned.opened
    here = opened.regions
    wanted = [use.names.index(name) for name in use.regions.classes]
    return with_tissue, [
        opened.at(planned.resolution, index).positions
        for index in wanted
        if here is not None and here.has(index)
    ]
