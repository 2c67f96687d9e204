"""What a stream makes of annotations, as users say it: where it draws, and what it calls things."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from chunkdl.annotations.shapes import MOST_CLASSES, Objects
from chunkdl.errors import ConfigError

Where = Literal["inside", "outside", "auto", "ignore"]
Label = Literal["centre", "largest"]
Within = Literal["stream", "slide"]
Draw = Literal["places", "annotations", "centroids"]
MOST_JITTER_PX = 2**14
SMALLEST_SHARE = 1e-6
"""Shares are 32-bit floats, and with less nothing at all would do."""


@dataclass(frozen=True, slots=True)
class Roi:
    """Where a slide is drawn from.

    Attributes:
        where: "inside" of what is annotated, "outside" of it, "auto": inside where the slide has
            any of it, else anywhere; or "ignore".
        classes: which classes count; empty: all.
        share: of a SmallChunk that has to lie there at least, above 0, to 1.

    Raises:
        ConfigError: one of them is not what it has to be.
    """

    where: Where
    classes: tuple[str, ...] = ()
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.where not in get_args(Where):
            raise ConfigError(
                f"roi={self.where!r:.80} is unknown; choose one of "
                f"{', '.join(map(repr, get_args(Where)))}"
            )
        object.__setattr__(self, "classes", _names("roi: classes", self.classes))
        object.__setattr__(self, "share", _share("roi", self.share))

    @property
    def key(self) -> str:
        """What it says, for the identity of the stream."""
        return repr(self)


@dataclass(frozen=True, slots=True)
class Regions:
    """Which classes SmallChunks are drawn from, and how often each.

    Attributes:
        weights: by class; BigChunks of a class are as frequent as its weight says.
        share: of a SmallChunk that has to lie in its class at least, above 0, to 1.
        within: "stream": the weights hold over the stream, and a slide is drawn among those that
            have the class; "slide": slides come as often as without weights, and each gives the
            classes that it has in the proportions of the weights.
        draw: "places": every place of the class is equally likely; "annotations": each annotation
            of the class, of whatever size, and in it every place that holds the centre of the
            SmallChunk; "centroids": each annotation, with its centroid in the middle of the
            SmallChunk. Points are in the middle in both cases.
        area_power: annotations come in proportion to their area to that power, 0 to 1: 0: equally
            often; 1: by area. Above 0 points, which have none, do not come.
        jitter_px: how far the middle of the SmallChunk may be from a point or centroid, in x and
            in y, target pixels; every distance is equally likely.
        objects: "annotations", "detections" (what a program found, such as the cells of QuPath),
            or "all"; other than "annotations" with `draw="centroids"` only.

    Raises:
        ConfigError: one of them is not what it has to be.
    """

    weights: Mapping[str, float]
    share: float = 0.5
    within: Within = "stream"
    draw: Draw = "places"
    area_power: float = 0.0
    jitter_px: int = 0
    objects: Objects = "annotations"

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise ConfigError(
                f'regions={self.weights!r:.80} must be weights by class, such as {{"tumor": 1, '
                '"stroma": 2}'
            )
        names = _names("regions", tuple(self.weights))
        object.__setattr__(
            self, "weights", {name: _weight(name, self.weights[name]) for name in sorted(names)}
        )
        object.__setattr__(self, "share", _share("regions", self.share))
        if self.within not in get_args(Within):
            raise ConfigError(f'regions: within={self.within!r:.80} must be "stream" or "slide"')
        self._check_draw()

    def _check_draw(self) -> None:
        for name, kind in (("draw", Draw), ("objects", Objects)):
            if (given := getattr(self, name)) not in get_args(kind):
                raise ConfigError(
                    f"regions: {name}={given!r:.80} is unknown; choose one of "
                    f"{', '.join(map(repr, get_args(kind)))}"
                )
        power, jitter = self.area_power, self.jitter_px
        right = isinstance(power, int | float) and not isinstance(power, bool)
        if not right or not 0 <= power <= 1:
            raise ConfigError(f"regions: area_power={power!r:.80} must be a number from 0 to 1")
        object.__setattr__(self, "area_power", float(power))
        whole = isinstance(jitter, int) and not isinstance(jitter, bool)
        if not whole or not 0 <= jitter <= MOST_JITTER_PX:
            raise ConfigError(
                f"regions: jitter_px={jitter!r:.80} must be a whole number from 0 to "
                f"{MOST_JITTER_PX}"
            )
        if self.draw == "places" and (power or jitter):
            raise ConfigError(
                'regions: area_power and jitter_px need draw="annotations" or "centroids"'
            )
        if self.draw != "places" and self.share != 0.5:
            raise ConfigError(
                f'regions: share={self.share} needs draw="places"; with draw={self.draw!r} the '
                "centre of a SmallChunk is what counts"
            )
        if self.draw != "centroids" and self.objects != "annotations":
            raise ConfigError(f'regions: objects={self.objects!r} needs draw="centroids"')

    @property
    def key(self) -> str:
        """What it says, for the identity of the stream."""
        return repr(self)

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of their names."""
        return tuple(self.weights)


def checked_roi(name: str, value: Any) -> Roi:
    """A `Roi` by its word, by a table, or as an object."""
    if isinstance(value, Roi):
        return value
    table = {"where": value} if isinstance(value, str) else value
    return Roi(**_table(Roi, name, table, ("where",)))


def checked_regions(name: str, value: Any) -> Regions:
    """`Regions` by the weights alone, by a table, or as an object."""
    if isinstance(value, Regions):
        return value
    if isinstance(value, Mapping) and not isinstance(value.get("weights"), Mapping):
        return Regions(dict(value))
    return Regions(**_table(Regions, name, value, ("weights",)))


def checked_names(name: str, value: Any) -> dict[str, str] | tuple[str, ...]:
    """What the classes of the files are called, by their names there, empty: left out; or all
    classes that count, in their order."""
    if isinstance(value, list | tuple):
        if not value:
            raise ConfigError(f"{name}=[] leaves no class; list those that count, or leave it out")
        return _names(name, value)
    right = isinstance(value, Mapping) and all(
        isinstance(one, str) and isinstance(other, str) for one, other in value.items()
    )
    if not right:
        raise ConfigError(
            f'{name}={value!r:.80} must map names of classes in files to yours, such as {{"Tumor": '
            '"tumor", "DCIS": "tumor", "Ignore*": ""}, or be a list of the classes that count'
        )
    return dict(sorted(value.items()))


def _table(kind: Any, name: str, value: Any, needed: tuple[str, ...]) -> dict[str, Any]:
    fields = tuple(kind.__dataclass_fields__)
    if not isinstance(value, Mapping) or not set(needed) <= set(value) <= set(fields):
        raise ConfigError(
            f"{name}={value!r:.80} must be a table of {', '.join(fields)}, with "
            f"{needed[0]} at least"
        )
    return dict(value)


def _names(what: str, given: Any) -> tuple[str, ...]:
    names = () if isinstance(given, str) else tuple(given)
    right = all(isinstance(name, str) and 0 < len(name) <= 200 for name in names)
    if isinstance(given, str) or not right or len(names) > MOST_CLASSES:
        raise ConfigError(
            f"{what} must be at most {MOST_CLASSES} names of classes, each of 1 to 200 letters, "
            f"not {given!r:.80}"
        )
    return tuple(dict.fromkeys(names))


def _share(what: str, value: Any) -> float:
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not right or not SMALLEST_SHARE <= value <= 1:
        raise ConfigError(f"{what}: share={value!r:.80} must be above 0, to 1")
    return float(value)


def _weight(name: str, value: Any) -> float:
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not right or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"regions: the weight of {name!r} must be above 0, not {value!r:.80}")
    return float(value)


@dataclass(frozen=True, slots=True)
class AnnotationUse:
    """What a stream makes of annotations.

    Attributes:
        names: of all classes of the stream, in the order of the column ``region``.
        renamed: what classes of files are called here; those that are not named keep their name.
            What is not among `names` then is left out.
        roi: where slides are drawn from.
        regions: what is drawn, and how often; None: whatever is there.
        label_mask: each row has the class of each of its pixels.
        label: whether the column ``region`` has the class at the centre, or the one with the
            largest share of the pixels.
        shares: each row has the share of each class.
        cells: each row has the objects of that kind whose centroid lies in it; None: it has not.
        most_cells: that a row can have.
    """

    names: tuple[str, ...]
    renamed: Mapping[str, str]
    roi: Roi
    regions: Regions | None
    label_mask: bool
    label: Label = "centre"
    shares: bool = False
    cells: Objects | None = None
    most_cells: int = 0

    def named(self, in_file: str) -> int:
        """The index of a class of a file among `names`; -1: it is left out."""
        name = self.renamed.get(in_file, in_file)
        return self.names.index(name) if name in self.names else -1
