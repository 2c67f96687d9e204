"""What a tissue detector is, and how large the pixels are that it looks at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import Pixels

Cells = npt.NDArray[np.bool_]
"""One bool per thumbnail pixel, shape (height, width); True is tissue."""


class TissueDetector(Protocol):
    """Finds tissue in a thumbnail; equal thumbnails give equal answers in every process."""

    @property
    def name(self) -> str:
        """A short name for logs and reports."""

    @property
    def key(self) -> str:
        """Name, revision and parameters: detectors of equal keys give equal answers."""

    def __call__(self, rgb: Pixels) -> Cells:
        """The tissue of a thumbnail: (h, w, 3) uint8, about 8 microns per pixel, to (h, w) bool."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a pixel of a thumbnail is.

    Attributes:
        across, down: level-0 pixels that it stands for, in each direction.
        microns: mean of its sides; None where the resolution of the slide is unknown.
        slide: path of the slide, for messages.
    """

    across: float = 16.0
    down: float = 16.0
    microns: float | None = None
    slide: str = ""


class ScaledDetector(ABC):
    """A detector that has to know the scale of the thumbnail."""

    name: ClassVar[str]

    @property
    def key(self) -> str:
        """Name, revision and parameters: detectors of equal keys give equal answers."""
        return f"{self.name}/1 {self!r}"

    @abstractmethod
    def find(self, rgb: Pixels, scale: Scale) -> Cells:
        """The tissue of a thumbnail.

        Args:
            rgb: of shape (h, w, 3), uint8; only read.
            scale: of its pixels.

        Returns:
            Shape (h, w), bool.
        """

    def __call__(self, rgb: Pixels) -> Cells:
        """The same where nothing is known of the slide: 16 level-0 pixels stand for one."""
        return self.find(rgb, Scale())


def find_tissue(detector: TissueDetector, rgb: Pixels, scale: Scale) -> Cells:
    """What a detector says of a thumbnail, checked.

    Raises:
        ConfigError: it is no bool array of the thumbnail's shape.
    """
    found: Any = (
        detector.find(rgb, scale) if isinstance(detector, ScaledDetector) else detector(rgb)
    )
    if not isinstance(found, np.ndarray) or found.dtype != np.bool_:
        raise ConfigError(f"tissue detector {detector.name!r} must return a bool array")
    if found.shape != rgb.shape[:2]:
        raise ConfigError(
            f"tissue detector {detector.name!r} returned shape {found.shape} for a thumbnail of "
            f"shape {rgb.shape}; it must be {rgb.shape[:2]}"
        )
    return found


class Checked:
    """Checks of parameters in a frozen detector. A number is kept in one kind: equal detectors have
    equal keys, whatever kinds of numbers they were given.

    Args:
        detector: that has the parameters as attributes.
    """

    def __init__(self, detector: Any) -> None:
        self._detector = detector

    def number(self, name: str, least: float, most: float) -> Self:
        """A number in bounds, kept as a float.

        Raises:
            ConfigError: it is none.
        """
        value = getattr(self._detector, name)
        right = isinstance(value, int | float | np.integer | np.floating)
        if isinstance(value, bool) or not right or not least <= float(value) <= most:
            raise self._error(name, f"a number from {least:g} to {most:g}", value)
        return self._keep(name, float(value))

    def whole(self, name: str, least: int, most: int, *, odd: bool = False) -> Self:
        """A whole number in bounds, kept as an int.

        Raises:
            ConfigError: it is none, or not odd.
        """
        value = getattr(self._detector, name)
        right = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not right or not least <= value <= most or (odd and value % 2 == 0):
            kind = "an odd number" if odd else "a whole number"
            raise self._error(name, f"{kind} from {least} to {most}", value)
        return self._keep(name, int(value))

    def flag(self, name: str) -> Self:
        """True or False.

        Raises:
            ConfigError: it is neither.
        """
        value = getattr(self._detector, name)
        if not isinstance(value, bool):
            raise self._error(name, "true or false", value)
        return self

    def _keep(self, name: str, value: float) -> Self:
        object.__setattr__(self._detector, name, value)
        return self

    def _error(self, name: str, wanted: str, value: object) -> ConfigError:
        kind = self._detector.name
        return ConfigError(f"tissue detector {kind}: {name} must be {wanted}, not {value!r:.80}")
