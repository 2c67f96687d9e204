"""What readers of annotation files are given, and what they yield: features as they were drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy.typing as npt
from numpy import float64

from chunkdl.annotations.options import ReadingOptions
from chunkdl.errors import AnnotationError
from chunkdl.system.printing import printable

Floats = npt.NDArray[float64]
_MOST_NAMED = 5
_LONGEST_NAME = 60


@dataclass(slots=True)
class Drawn:
    """One feature of a file, not checked yet.

    Attributes:
        number: place in the file, counted from 0.
        name: of the feature or its id, for messages; may be empty.
        class_name: empty where the file gives none.
        polygons: each a list of rings, the outer one first, then its holes; float64 (n, 2), x and
            y in level-0 pixels, not always finite. The parts of a feature together are one area.
        points: float64 (k, 2), or None.
        detected: whether a program has found it.
        must_close: whether the format asks that rings end where they begin.
        is_sound: whether it was made from pixels: even-odd is right for it, whatever it touches.
    """

    number: int
    name: str = ""
    class_name: str = ""
    polygons: list[list[Floats]] = field(default_factory=list)
    points: Floats | None = None
    detected: bool = False
    must_close: bool = False
    is_sound: bool = False

    def named(self) -> str:
        """The feature in messages: number and name."""
        return named(self.number, self.name)


def named(number: int, name: str = "") -> str:
    """A feature in messages, such as ``12 ('tumor 3')``."""
    if not name:
        return str(number)
    short = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    return printable(f"{number} ({short!r})")


class Notes:
    """What was mended or left out while a file was read, by kind, with the first features."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, list[str]]] = {}

    def tell(self, kind: str, feature: str) -> None:
        """Count one more of a kind.

        Args:
            kind: what it was and what was done about it, such as "its outline crosses itself and
                was mended".
            feature: as `named` gives it.
        """
        count, features = self._kinds.get(kind, (0, []))
        if count < _MOST_NAMED:
            features.append(feature)
        self._kinds[kind] = (count + 1, features)

    def sentences(self) -> tuple[str, ...]:
        """One sentence a kind, in the order in which they were met."""
        found = []
        for kind, (count, features) in self._kinds.items():
            more = f" and {count - len(features)} more" if count > len(features) else ""
            word = "features" if count > 1 else "feature"
            found.append(f"{word} {', '.join(features)}{more}: {kind}")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is being read.

    Attributes:
        file: its path, for messages.
        data: its content, uncompressed; empty for a raster mask, which is read by its path.
        options: how it is read.
        size: width and height of level 0 of the slide, pixels; None: not known.
        slide: name of the slide without folder and suffixes; empty: not known.
        offset: x and y that are added to all coordinates, level-0 pixels.
        notes: what was met.
    """

    file: str
    data: bytes
    options: ReadingOptions
    size: tuple[int, int] | None
    slide: str
    offset: tuple[float, float]
    notes: Notes

    def error(self, message: str, feature: str = "") -> AnnotationError:
        """The error to raise about this file."""
        return AnnotationError(message, file=self.file, feature=feature)


Reader = Callable[[Source], Iterator[Drawn]]
"""Yields the features of a file in its order; raises AnnotationError where it cannot be read."""
