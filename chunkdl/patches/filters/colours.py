"""Filters by colour: the share of the pixels of a SmallChunk that lie in a range."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.patches.filters.pixel_filter import (
    Flags,
    PixelShare,
    Plane,
    Planes,
    set_number,
    set_range,
    set_share,
    set_step,
)
from chunkdl.slides.slide import Pixels


@dataclass(frozen=True, slots=True)
class HsvShare(PixelShare):
    """Passes if the share of pixels in ranges of hue, saturation and value lies in bounds.

    The defaults are the tile filter of the Midnight foundation models (Karasikov et al., arXiv
    2504.05186): at least 60 % of the pixels in [90-180, 8-255, 103-255] of OpenCV's scales.

    Attributes:
        hue: whole degrees, 0 to 360, ends included; if the first number is larger, the range goes
            through 0 (red). Hues are below 360, and greys have the hue 0.
        saturation, value: 0 to 1, in steps of 1/255, ends included.
        least, most: bounds of the share, 0 to 1, ends included.
        step: looks at every n-th pixel of every n-th row; 1 at all of them.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    hue: tuple[float, float] = (180.0, 360.0)
    saturation: tuple[float, float] = (8 / 255, 1.0)
    value: tuple[float, float] = (103 / 255, 1.0)
    least: float = 0.6
    most: float = 1.0
    step: int = 1

    name: ClassVar[str] = "hsv"

    def __post_init__(self) -> None:
        set_range(self, "hue", 0, 360)
        if not all(degrees.is_integer() for degrees in self.hue):
            raise ConfigError(f"pixel filter hsv: hue must be whole degrees, not {self.hue}")
        for name in ("saturation", "value"):
            set_range(self, name, 0, 1)
            if getattr(self, name)[0] > getattr(self, name)[1]:
                raise ConfigError(
                    f"pixel filter hsv: {name} must be (low, high), not {getattr(self, name)}"
                )
        set_share(self, "least")
        set_share(self, "most")
        set_step(self)
        if self.least > self.most or (self.least, self.most) == (0, 1):
            raise ConfigError(
                f"pixel filter hsv: with least={self.least:g} and most={self.most:g} every "
                "SmallChunk has the same answer"
            )

    def accepts(self, share: float) -> bool:
        """See `PixelShare.accepts`."""
        return self.least <= share <= self.most

    def marked(self, rgb: Pixels) -> Flags:
        """Which pixels lie in the ranges, shape (h, w)."""
        planes = Planes.of(rgb)
        brightest = planes.brightest
        low, high = (round(255 * end) for end in self.value)
        inside = self._in_hue(planes)
        if low > 0:
            inside &= brightest >= low
        if high < 255:
            inside &= brightest <= high
        low, high = (round(255 * end) for end in self.saturation)
        if low > 0 or high < 255:
            chroma: Plane = brightest - planes.darkest
            if low > 0:
                inside &= chroma >= _by_brightness(brightest, _least_chromas(low))
            if high < 255:
                # Less than what a pixel of the next saturation has.
                inside &= chroma < _by_brightness(brightest, _least_chromas(high + 1))
        return inside

    def _in_hue(self, planes: Planes) -> Flags:
        low, high = (int(degrees) for degrees in self.hue)
        # Hues from 0 on and below 180, and greys.
        lower = planes.green > planes.blue
        lower |= (planes.green == planes.blue) & (planes.red >= planes.green)
        from_low, to_high = _from(planes, lower, low), _to(planes, lower, high)
        if from_low is None:
            return np.ones(lower.shape, np.bool_) if to_high is None else to_high
        if to_high is None:
            return from_low
        return from_low & to_high if low <= high else from_low | to_high


@lru_cache(maxsize=16)
def _least_chromas(saturation: int) -> bytes:
    """By brightest colour, the least difference to the darkest that gives a saturation, in 255
    steps: 255 c / v, rounded, so c >= (saturation v - v // 2) / 255. Black has none, and of these
    nothing is compared with 256, so 255 for black is never reached.
    """
    least = [-(-(saturation * v - v // 2) // 255) for v in range(1, 256)]
    return bytes([255, *(min(255, one) for one in least)])


def _by_brightness(brightest: Plane, table: bytes) -> Plane:
    """The entry of each pixel; quicker than by numpy, which first makes an index of 64 bits."""
    found = np.frombuffer(brightest.tobytes().translate(table), np.uint8)
    return found.reshape(brightest.shape)


def _from(planes: Planes, lower: Flags, low: int) -> Flags | None:
    """Which pixels have a hue of at least `low`; None: all."""
    if low == 0:
        return None
    if low == 360:
        return np.zeros(lower.shape, np.bool_)
    if low == 180:
        return ~lower
    if low > 180:
        return np.asarray(~lower & (_turn(planes, low) >= 0))
    # Greys lie on every side.
    beyond = (_turn(planes, low) >= 0) & (planes.brightest > planes.darkest)
    return np.asarray(~lower | beyond)


def _to(planes: Planes, lower: Flags, high: int) -> Flags | None:
    """Which pixels have a hue of at most `high`; None: all."""
    if high == 360:
        return None
    before = _turn(planes, high) <= 0
    return np.asarray(lower & before if high < 180 else lower | before)


_FULL_HUES = (
    *(lambda n: (60, n, 0), lambda n: (60 - n, 60, 0), lambda n: (0, 60, n)),
    *(lambda n: (0, 60 - n, 60), lambda n: (n, 0, 60), lambda n: (60, 0, 60 - n)),
)
"""By sextant, the colour of full saturation whose hue lies n degrees in it, in sixtieths."""


def _turn(planes: Planes, hue: int) -> npt.NDArray[np.int16]:
    """Above 0 where a pixel's hue is less than 180 degrees beyond `hue`, below 0 where it is less
    than 180 before it; 0 for that hue, the opposite one and greys.

    Opposite hues and the greys lie in one plane of the colour space, so no hue is computed: this is
    the product of the pixel with the normal of that plane.
    """
    red, green, blue = _FULL_HUES[hue // 60 % 6](hue % 60)
    normal = zip(
        (planes.red, planes.green, planes.blue),
        (blue - green, red - blue, green - red),
        strict=True,
    )
    turn = np.zeros(planes.red.shape, np.int16)
    for plane, weight in normal:
        if weight:
            turn += plane * np.int16(weight)
    return turn


@dataclass(frozen=True, slots=True)
class PenMarks(PixelShare):
    """Passes if few pixels have a colour of pen that stains do not have, or are as dark as ink.

    Green and blue pens are found by their hue and a strong saturation. Red pens are not: eosin and
    blood have their colours. Blue chromogens of immunohistochemistry, and folds, may be taken for
    pen; look at the pictures of ``chunkdl inspect`` first.

    Attributes:
        most: largest share of such pixels, 0 to 1.
        hue: of pens, whole degrees, as of `HsvShare`.
        saturation: least saturation of a pen, 0 to 1.
        ink: pixels whose brightest colour is not above this are ink, 0 to 1; 0 is black only.
        step: looks at every n-th pixel of every n-th row; 1 at all of them.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    most: float = 0.01
    hue: tuple[float, float] = (70.0, 225.0)
    saturation: float = 0.4
    ink: float = 0.12
    step: int = 1

    name: ClassVar[str] = "pen"

    def __post_init__(self) -> None:
        for name in ("most", "saturation", "ink"):
            set_share(self, name)
        set_range(self, "hue", 0, 360)
        set_step(self)
        _ = self._of_pens

    @property
    def _of_pens(self) -> HsvShare:
        return HsvShare(self.hue, (self.saturation, 1), (self.ink, 1), least=0.5)

    def accepts(self, share: float) -> bool:
        """See `PixelShare.accepts`."""
        return share <= self.most

    def marked(self, rgb: Pixels) -> Flags:
        """Which pixels look like pen, shape (h, w)."""
        ink = Planes.of(rgb).brightest <= round(255 * self.ink)
        return np.asarray(self._of_pens.marked(rgb) | ink)


@dataclass(frozen=True, slots=True)
class GreyShare(PixelShare):
    """Passes if not too many pixels are grey: slideflow's grayspace filter, with its defaults.

    Attributes:
        most: largest share of grey pixels (`grayspace_fraction`), 0 to 1.
        saturation: HSV saturation below which a pixel is grey (`grayspace_threshold`), 0 to 1.
        step: looks at every n-th pixel of every n-th row; 1 at all of them.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    most: float = 0.6
    saturation: float = 0.05
    step: int = 1

    name: ClassVar[str] = "grey"

    def __post_init__(self) -> None:
        set_share(self, "most")
        set_share(self, "saturation")
        set_step(self)

    def accepts(self, share: float) -> bool:
        """See `PixelShare.accepts`."""
        return share <= self.most

    def marked(self, rgb: Pixels) -> Flags:
        """Which pixels are grey, shape (h, w)."""
        planes = Planes.of(rgb)
        brightest = planes.brightest
        chroma: Plane = brightest - planes.darkest
        # Black has the saturation 0.
        least_chroma = np.maximum(brightest, 1) * np.float32(self.saturation)
        return np.asarray(chroma < least_chroma)


@dataclass(frozen=True, slots=True)
class WhiteShare(PixelShare):
    """Passes if not too many pixels are white: slideflow's whitespace filter.

    slideflow's own default is a share of 1, which refuses nothing, so `most` has to be given.

    Attributes:
        most: largest share of white pixels (`whitespace_fraction`), 0 to 1.
        brightness: mean of red, green and blue above which a pixel is white
            (`whitespace_threshold`), 0 to 255.
        step: looks at every n-th pixel of every n-th row; 1 at all of them.

    Raises:
        ConfigError: a number is out of its bounds.
    """

    most: float
    brightness: float = 230.0
    step: int = 1

    name: ClassVar[str] = "white"

    def __post_init__(self) -> None:
        set_share(self, "most")
        set_number(self, "brightness", 0, 255)
        set_step(self)

    def accepts(self, share: float) -> bool:
        """See `PixelShare.accepts`."""
        return share <= self.most

    def marked(self, rgb: Pixels) -> Flags:
        """Which pixels are white, shape (h, w)."""
        planes = Planes.of(rgb)
        total = planes.red.astype(np.uint16)
        total += planes.green
        total += planes.blue
        return np.asarray(total > 3 * self.brightness)
