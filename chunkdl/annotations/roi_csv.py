"""Slideflow's ROI tables: a row a vertex, with `roi_name`, `x_base`, `y_base` and maybe `label`."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from chunkdl.annotations.drawn import Drawn, Floats, Source, named
from chunkdl.annotations.mending import shapely_module

NEEDED = ("roi_name", "x_base", "y_base")
_LABELS = ("label", "roi_label")


@dataclass(slots=True)
class _Roi:
    number: int
    name: str
    label: str
    flat: array[float] = field(default_factory=lambda: array("d"))
    """x and y in turns."""

    @property
    def at(self) -> Floats:
        return np.array(self.flat, np.float64).reshape(-1, 2)

    def named(self) -> str:
        return named(self.number, self.name)


def read_roi_csv(source: Source) -> Iterator[Drawn]:
    """The regions of a table, in the order of their first rows.

    As in slideflow, rows of one name are one outline, and a region that lies inside another one of
    the same label is a hole of it; one inside the hole is a region again.

    Raises:
        AnnotationError: it is no such table, or a number in it is none.
    """
    rois = _rois(source)
    holes_of, parent = _nested(rois)
    for index, roi in enumerate(rois):
        if parent[index] is None:
            rings = [rois[ring].at for ring in (index, *holes_of[index])]
            yield Drawn(roi.number, roi.name, roi.label, [rings])


def _rois(source: Source) -> list[_Roi]:
    rows = csv.reader(io.TextIOWrapper(io.BytesIO(source.data), "utf-8", newline=""))
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        missing = [name for name in NEEDED if name not in header]
        if missing:
            raise source.error(
                f"its first row has no column {', '.join(missing)}; a table of regions has "
                f"{', '.join(NEEDED)} and may have label"
            )
        name_at, x_at, y_at = (header.index(name) for name in NEEDED)
        label_at = next((header.index(name) for name in _LABELS if name in header), None)
        found: dict[str, _Roi] = {}
        for row in rows:
            if not any(map(str.strip, row)):
                continue
            where = f"{len(found)}, line {rows.line_num}"
            try:
                name, x, y = row[name_at], float(row[x_at]), float(row[y_at])
                label = "" if label_at is None else row[label_at].strip()
            except (IndexError, ValueError) as error:
                raise source.error(f"the row {row!r:.100} has no name, x and y", where) from error
            # What pandas writes for no label.
            label = "" if label.lower() in ("nan", "none") else label
            roi = found.setdefault(name, _Roi(len(found), name, label))
            if roi.label != label:
                raise source.error(
                    f"line {rows.line_num} gives it the label {label!r:.60}, and earlier ones "
                    f"{roi.label!r:.60}",
                    roi.named(),
                )
            roi.flat.extend((x, y))
    except UnicodeDecodeError as error:
        raise source.error(f"it is no text in UTF-8: {error}") from error
    except csv.Error as error:
        raise source.error(f"it is no table: line {rows.line_num}: {error}") from error
    return list(found.values())


def _nested(rois: list[_Roi]) -> tuple[list[list[int]], list[int | None]]:
    """The holes of each region, and the region that each hole is one of."""
    holes: list[list[int]] = [[] for _ in rois]
    parent: list[int | None] = [None] * len(rois)
    sound = [index for index, roi in enumerate(rois) if _has_inside(roi)]
    if len(sound) < 2:
        return holes, parent
    shapely = shapely_module()
    areas = [shapely.Polygon(rois[index].at) for index in sound]
    areas = [area if area.is_valid else shapely.make_valid(area) for area in areas]
    around: list[list[int]] = [[] for _ in rois]
    inner, outer = shapely.STRtree(areas).query(areas, predicate="within")
    for one, other in zip(inner.tolist(), outer.tolist(), strict=True):
        # Of two equal ones, neither is a hole of the other.
        within = areas[one].area < areas[other].area
        if within and rois[sound[one]].label == rois[sound[other]].label:
            around[sound[one]].append(sound[other])
    size = {index: area.area for index, area in zip(sound, areas, strict=True)}
    for index in sound:
        if len(around[index]) % 2:
            smallest = min(around[index], key=lambda other: (size[other], other))
            parent[index] = smallest
            holes[smallest].append(index)
    return holes, parent


def _has_inside(roi: _Roi) -> bool:
    return len(roi.at) >= 3 and bool(np.isfinite(roi.at).all())
