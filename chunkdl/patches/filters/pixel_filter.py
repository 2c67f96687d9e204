"""What a pixel filter is: a frozen value that looks at a SmallChunk and says yes or no.

Filters work on the three colours as planes, because numpy is many times slower at anything that
goes along the last axis of (h, w, 3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import Pixels

Plane = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
MOST_STEP = 64
"""Of a SmallChunk of 224 pixels that leaves 16."""


class Look(ABC):
    """What a filter sees of one SmallChunk."""

    @property
    @abstractmethod
    def rgb(self) -> Pixels:
        """Its pixels, (h, w, 3) uint8, which are only read."""

    @abstractmethod
    def share(self, of: PixelShare) -> float:
        """The share of its pixels that a filter marks, 0 to 1."""


class PixelFilter(ABC):
    """Looks at the pixels of a SmallChunk; equal pixels get equal answers in every process.

    A class of the user's is given as `OwnFilter(object, version)`: what else would say which of its
    objects are equal?
    """

    name: ClassVar[str]
    """In a file, and in messages."""

    @property
    def key(self) -> str:
        """Name, revision and parameters: filters of equal keys give equal answers."""
        return f"{self.name}/1 {self!r}"

    @property
    def parts(self) -> tuple[PixelFilter, ...]:
        """The filters that it is made of."""
        return ()

    @property
    def counted(self) -> tuple[PixelShare, ...]:
        """Those of its filters, itself included, whose marked pixels are counted."""
        return tuple(dict.fromkeys(one for part in self.parts for one in part.counted))

    def prepare(self) -> None:
        """Make ready for the first call, in the process that calls."""
        for part in self.parts:
            part.prepare()

    def __call__(self, rgb: Pixels) -> bool:
        """Whether a SmallChunk passes: (h, w, 3) uint8, which is only read."""
        return self.judge(LookAtPixels(rgb))

    @abstractmethod
    def judge(self, look: Look) -> bool:
        """Whether the SmallChunk that it looks at passes."""

    def __str__(self) -> str:
        return repr(self)


class PixelShare(PixelFilter):
    """Passes by the share of the pixels that are of some kind.

    Of what kind a pixel is does not depend on its neighbours. So the pixels of a window are looked
    at once, in however many SmallChunks they are shown.
    """

    step: int
    """Looks at every n-th pixel of every n-th row, from the first on; 1: at all."""

    @property
    def counted(self) -> tuple[PixelShare, ...]:
        """See `PixelFilter.counted`."""
        return (self,)

    @abstractmethod
    def marked(self, rgb: Pixels) -> Flags:
        """Which pixels of (h, w, 3) are of the kind, shape (h, w); leaves out none."""

    @abstractmethod
    def accepts(self, share: float) -> bool:
        """Whether a SmallChunk with that share of them passes."""

    def judge(self, look: Look) -> bool:
        """See `PixelFilter.judge`."""
        return self.accepts(look.share(self))


@dataclass(frozen=True, slots=True, eq=False)
class LookAtPixels(Look):
    """A SmallChunk of which nothing else is known.

    Attributes:
        rgb: its pixels.
    """

    rgb: Pixels

    def share(self, of: PixelShare) -> float:
        """See `Look.share`."""
        return share_in(self.rgb, of)


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """The colours of a SmallChunk, each of shape (h, w).

    Attributes:
        red, green, blue: uint8.
    """

    red: Plane
    green: Plane
    blue: Plane

    @classmethod
    def of(cls, rgb: Pixels) -> Self:
        """The planes of (h, w, 3) pixels."""
        return cls(*(np.ascontiguousarray(rgb[..., colour]) for colour in range(3)))

    @property
    def brightest(self) -> Plane:
        """The largest of the three colours: HSV value."""
        return np.maximum(np.maximum(self.red, self.green), self.blue)

    @property
    def darkest(self) -> Plane:
        """The smallest of the three colours."""
        return np.minimum(np.minimum(self.red, self.green), self.blue)

    @property
    def grey(self) -> Plane:
        """Luma of ITU-R BT.601, rounded down: (77 R + 150 G + 29 B) / 256."""
        weighed = self.red * np.uint16(77)
        weighed += self.green * np.uint16(150)
        weighed += self.blue * np.uint16(29)
        weighed >>= np.uint16(8)
        return weighed.astype(np.uint8)


def share_in(rgb: Pixels, of: PixelShare) -> float:
    """The share of pixels that a filter marks, of those that it looks at, 0 to 1."""
    marks = of.marked(rgb[:: of.step, :: of.step])
    return float(np.count_nonzero(marks) / max(1, marks.size))


def set_step(filter_: PixelShare) -> None:
    """Check the step of a frozen filter.

    Raises:
        ConfigError: it is no whole number from 1 to `MOST_STEP`.
    """
    step = filter_.step
    right = isinstance(step, int | np.integer) and not isinstance(step, bool)
    if not right or not 1 <= step <= MOST_STEP:
        raise ConfigError(
            f"pixel filter {filter_.name}: step must be a whole number from 1 (all pixels) to "
            f"{MOST_STEP}, not {step!r:.80}"
        )
    object.__setattr__(filter_, "step", int(step))


def set_share(filter_: PixelFilter, name: str) -> None:
    """Check a share of pixels in a frozen filter, and have it as a float: equal filters have equal
    keys, whatever kinds of numbers they were given.

    Raises:
        ConfigError: it does not lie from 0 to 1.
    """
    set_number(filter_, name, 0, 1)


def set_number(filter_: PixelFilter, name: str, least: float, most: float) -> None:
    """The same for a number with other bounds."""
    object.__setattr__(
        filter_, name, _number(f"{filter_.name}: {name}", getattr(filter_, name), least, most)
    )


def set_range(filter_: PixelFilter, name: str, least: float, most: float) -> None:
    """The same for a pair (low, high)."""
    given = getattr(filter_, name)
    what = f"{filter_.name}: {name}"
    try:
        low, high = given
    except (TypeError, ValueError) as error:
        raise ConfigError(f"pixel filter {what} must be two numbers, not {given!r:.80}") from error
    pair = _number(what, low, least, most), _number(what, high, least, most)
    object.__setattr__(filter_, name, pair)


def _number(what: str, value: Any, least: float, most: float) -> float:
    right = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not right or not least <= float(value) <= most:
        raise ConfigError(
            f"pixel filter {what} must be a number from {least:g} to {most:g}, not {value!r:.80}"
        )
    return float(value)
