"""Detectors made of detectors: tissue of all of them, of any of them, or of one without others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import (
    Cells,
    Scale,
    ScaledDetector,
    TissueDetector,
    find_tissue,
)


@dataclass(frozen=True, slots=True)
class _Several(ScaledDetector):
    detectors: tuple[TissueDetector, ...]

    def __init__(self, *detectors: TissueDetector) -> None:
        object.__setattr__(self, "detectors", _checked(self.name, detectors))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.detectors))})"

    @property
    def key(self) -> str:
        """The keys of its detectors, in their order."""
        return f"{self.name}/1 {[one.key for one in self.detectors]!r}"


class TissueAll(_Several):
    """What all of its detectors call tissue.

    Args:
        detectors: at least one.

    Raises:
        ConfigError: there is none, or one is no detector.
    """

    __slots__ = ()
    name: ClassVar[str] = "all"

    def find(self, rgb: Pixels, scale: Scale) -> Cells:
        """See `ScaledDetector.find`."""
        return reduce(np.logical_and, (find_tissue(one, rgb, scale) for one in self.detectors))


class TissueAny(_Several):
    """What one of its detectors, at least, calls tissue.

    Args:
        detectors: at least one.

    Raises:
        ConfigError: there is none, or one is no detector.
    """

    __slots__ = ()
    name: ClassVar[str] = "any"

    def find(self, rgb: Pixels, scale: Scale) -> Cells:
        """See `ScaledDetector.find`."""
        return reduce(np.logical_or, (find_tissue(one, rgb, scale) for one in self.detectors))


@dataclass(frozen=True, slots=True)
class TissueWithout(ScaledDetector):
    """What one detector calls tissue, without what others find: pen, blur, or something of yours.

    Attributes:
        detector: finds the tissue.
        remove: find what is taken away from it, at least one.

    Raises:
        ConfigError: there is none, or one is no detector.
    """

    detector: TissueDetector
    remove: tuple[TissueDetector, ...]

    name: ClassVar[str] = "without"

    def __init__(self, detector: TissueDetector, *remove: TissueDetector) -> None:
        _checked(self.name, (detector,))
        object.__setattr__(self, "detector", detector)
        object.__setattr__(self, "remove", _checked(self.name, remove))

    def __repr__(self) -> str:
        return f"TissueWithout({', '.join(map(repr, (self.detector, *self.remove)))})"

    @property
    def key(self) -> str:
        """The keys of its detectors, in their order."""
        return f"{self.name}/1 {self.detector.key!r} {[one.key for one in self.remove]!r}"

    def find(self, rgb: Pixels, scale: Scale) -> Cells:
        """See `ScaledDetector.find`."""
        tissue = find_tissue(self.detector, rgb, scale)
        for one in self.remove:
            tissue = tissue & ~find_tissue(one, rgb, scale)
        return tissue


def is_detector(value: Any) -> bool:
    """Whether it has what a `TissueDetector` has: a name, a key, and a call."""
    named = all(isinstance(getattr(value, one, None), str) for one in ("name", "key"))
    return named and callable(value) and not isinstance(value, type)


def _checked(name: str, detectors: tuple[Any, ...]) -> tuple[TissueDetector, ...]:
    wrong = [one for one in detectors if not is_detector(one)]
    if wrong or not detectors:
        raise ConfigError(
            f"tissue detector {name} is made of detectors, such as Otsu() and PenAreas(), not of "
            f"{repr(wrong[0])[:80] if wrong else 'nothing'}"
        )
    return detectors
