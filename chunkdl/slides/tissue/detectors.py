"""Tissue detectors: which pixels of a thumbnail are tissue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import Pixels

Cells = npt.NDArray[np.bool_]
"""One bool per thumbnail pixel, shape (height, width); True is tissue."""

MOST_GAP_PX = 4096
"""Widest gap, in thumbnail pixels; closing wider ones would take too long."""
_BLOCK_PX = 2**20


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
class Otsu:
    """Otsu's threshold on HSV saturation: glass is grey, stained tissue is coloured.

    Otsu's threshold (Otsu, "A threshold selection method from gray-level histograms", IEEE
    Trans. SMC 9(1), 1979) always splits the pixels into two classes, even on a slide of only glass
    or only tissue. So it is limited to a range. Pixels of pure white or pure black are filling of
    the file format; they have no saturation and do not count for the threshold.

    Attributes:
        lowest: saturation, 0 to 1, below which nothing is tissue.
        highest: saturation above which everything is tissue. The threshold lies between `lowest`
            and `highest`, and is `highest` if the two classes differ by less than `separation`.
        separation: minimum difference between the mean saturations of the two classes.
        closing: gaps up to this many thumbnail pixels wide are closed; 0 closes none.
        smallest: minimum size of a piece of tissue, and of a hole in it, in thumbnail pixels;
            smaller ones are removed.
    """

    lowest: float = 0.03
    highest: float = 0.12
    separation: float = 0.03
    closing: int = 4
    smallest: int = 64

    name: ClassVar[str] = "otsu"

    def __post_init__(self) -> None:
        if not 0 <= self.lowest <= self.highest <= 1:
            raise ConfigError(
                f"Otsu: lowest and highest must be saturations with 0 <= lowest <= highest <= 1, "
                f"not {self.lowest} and {self.highest}"
            )
        if not 0 <= self.separation <= 1:
            raise ConfigError(f"Otsu: separation must lie from 0 to 1, not {self.separation}")
        if not 0 <= self.closing <= MOST_GAP_PX or not 0 <= self.smallest <= MOST_GAP_PX**2:
            raise ConfigError(
                f"Otsu: closing must be 0 to {MOST_GAP_PX} thumbnail pixels, and smallest 0 to "
                f"{MOST_GAP_PX**2}, not {self.closing} and {self.smallest}"
            )
        # Equal detectors have equal keys, whatever kinds of numbers they were given.
        for name in ("lowest", "highest", "separation"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("closing", "smallest"):
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def key(self) -> str:
        """Revision 1 of the method, with all parameters."""
        return f"otsu/1 {self!r}"

    def __call__(self, rgb: Pixels) -> Cells:
        """The tissue of a thumbnail: (h, w, 3) uint8 to (h, w) bool."""
        saturation = np.empty(rgb.shape[:2], dtype=np.uint8)
        counts = np.zeros(256, dtype=np.intp)
        for rows in _row_blocks(rgb.shape):
            # One row more at each end, for the blur.
            above = max(0, rows.start - 1)
            blurred = _smoothed(_saturation(rgb[above : rows.stop + 1]))
            saturation[rows] = blurred[rows.start - above :][: rows.stop - rows.start]
            counts += np.bincount(saturation[rows][~_is_fill(rgb[rows])], minlength=256)
        tissue = _close_gaps(saturation > self._threshold(counts) * 255, self.closing)
        tissue = _without_small_pieces(tissue, self.smallest)
        return ~_without_small_pieces(~tissue, self.smallest)

    def _threshold(self, counts: npt.NDArray[np.intp]) -> float:
        """The saturation above which a pixel is tissue, from the histogram of 256 bins."""
        pixels_below = np.cumsum(counts)[:-1]
        sum_below = np.cumsum(counts * np.arange(256))
        sum_above = sum_below[-1] - sum_below[:-1]
        pixels_above = counts.sum() - pixels_below
        mean_below = sum_below[:-1] / np.maximum(pixels_below, 1)
        mean_above = sum_above / np.maximum(pixels_above, 1)
        spread = pixels_below * pixels_above.astype(np.float64) * (mean_above - mean_below) ** 2
        best = int(np.argmax(spread))
        one_class = spread[best] == 0
        if one_class or mean_above[best] - mean_below[best] < self.separation * 255:
            return self.highest
        # Bins are whole numbers: every threshold in [best, best + 1) splits alike.
        return min(max((best + 0.5) / 255, self.lowest), self.highest)


@dataclass(frozen=True, slots=True)
class HsvRange:
    """Pixels whose hue, saturation and value all lie in given ranges, ends included.

    The defaults are those of wsistream's HSV detector (OpenCV scales 90-180, 8-255, 103-255),
    an approximation of the tile filter of the Midnight pathology foundation models.

    Attributes:
        hue: degrees, 0 to 360; if the first number is larger, the range goes through 0 (red).
        saturation: 0 to 1.
        value: 0 to 1.
    """

    hue: tuple[float, float] = (180.0, 360.0)
    saturation: tuple[float, float] = (8 / 255, 1.0)
    value: tuple[float, float] = (103 / 255, 1.0)

    name: ClassVar[str] = "hsv"

    def __post_init__(self) -> None:
        for name in ("hue", "saturation", "value"):
            try:
                low, high = (float(one) for one in getattr(self, name))
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"HsvRange: {name} must be two numbers, not {getattr(self, name)!r}"
                ) from error
            # Equal detectors have equal keys, whatever kinds of numbers they were given.
            object.__setattr__(self, name, (low, high))
        if not all(0 <= degrees <= 360 for degrees in self.hue):
            raise ConfigError(f"HsvRange: hue must be two angles from 0 to 360, not {self.hue}")
        for name, (low, high) in (("saturation", self.saturation), ("value", self.value)):
            if not 0 <= low <= high <= 1:
                raise ConfigError(
                    f"HsvRange: {name} must be (low, high) with 0 <= low <= high <= 1, not "
                    f"{(low, high)}"
                )

    @property
    def key(self) -> str:
        """Revision 1 of the method, with all parameters."""
        return f"hsv/1 {self!r}"

    def __call__(self, rgb: Pixels) -> Cells:
        """The tissue of a thumbnail: (h, w, 3) uint8 to (h, w) bool."""
        tissue = np.empty(rgb.shape[:2], dtype=np.bool_)
        for rows in _row_blocks(rgb.shape):
            tissue[rows] = self._in_range(rgb[rows])
        return tissue

    def _in_range(self, rgb: Pixels) -> Cells:
        pixels = rgb.astype(np.float32) / np.float32(255)
        value = pixels.max(axis=2)
        chroma = value - pixels.min(axis=2)
        saturation = chroma / np.maximum(value, 1e-6)
        hue = _hue(pixels, value, chroma)
        low, high = self.hue
        in_hue = (hue >= low) & (hue <= high) if low <= high else (hue >= low) | (hue <= high)
        # Half a grey step, so that rounding does not move the ends.
        slack = 0.5 / 255
        for channel, (least, most) in ((saturation, self.saturation), (value, self.value)):
            in_hue &= (channel >= least - slack) & (channel <= most + slack)
        return in_hue


def detector_of(given: str | Mapping[str, Any]) -> TissueDetector:
    """The detector of a name, or of a name with parameters: {"name": "hsv", "hue": [90, 360]}.

    Raises:
        ConfigError: there is none, or it has no such parameter; names those that there are.
    """
    known: dict[str, type[Otsu] | type[HsvRange]] = {"otsu": Otsu, "hsv": HsvRange}
    parameters = {"name": given} if isinstance(given, str) else dict(given)
    name = parameters.pop("name", None)
    if not isinstance(name, str) or name not in known:
        raise ConfigError(
            f"there is no tissue detector {name!r}; choose one of {', '.join(map(repr, known))} "
            "or give your own TissueDetector"
        )
    names = [field.name for field in fields(known[name])]
    if unknown := [key for key in parameters if key not in names]:
        raise ConfigError(
            f"the tissue detector {name!r} has no parameter {unknown[0]!r}; it has "
            f"{', '.join(names)}"
        )
    try:
        return msgspec.convert(parameters, known[name])
    except msgspec.ValidationError as error:
        raise ConfigError(f"the tissue detector {name!r}: {error}") from error


def _row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of an image, some at a time, so that what is computed for them stays small."""
    rows = max(1, _BLOCK_PX // max(1, shape[1]))
    for top in range(0, shape[0], rows):
        yield slice(top, min(top + rows, shape[0]))


def _is_fill(rgb: Pixels) -> Cells:
    darkest, brightest = rgb.min(axis=2), rgb.max(axis=2)
    return np.asarray((darkest == 255) | (brightest == 0))


def _saturation(rgb: Pixels) -> npt.NDArray[np.uint8]:
    """HSV saturation in 255 steps; that of nearly black pixels, which is noise, is damped."""
    brightest = rgb.max(axis=2)
    chroma = (brightest - rgb.min(axis=2)).astype(np.uint16)
    return np.asarray(chroma * np.uint16(255) // np.maximum(brightest, 64), dtype=np.uint8)


def _smoothed(plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A 3 x 3 binomial blur (1 2 1 each way), the outermost pixels repeated outwards."""
    padded = np.pad(plane, 1, mode="edge").astype(np.uint16)
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    both = columns[:-2] + 2 * columns[1:-1] + columns[2:]
    return np.asarray((both + 8) // 16, dtype=np.uint8)


def _hue(
    pixels: npt.NDArray[np.float32], value: npt.NDArray[np.float32], chroma: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Hue in degrees, 0 for greys (Smith, "Color gamut transform pairs", SIGGRAPH 1978)."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    divisor = np.where(chroma == 0, np.float32(1), chroma)
    sextant = np.select(
        [chroma == 0, value == red, value == green],
        [np.float32(0), (green - blue) / divisor, (blue - red) / divisor + 2],
        (red - green) / divisor + 4,
    )
    return np.asarray((sextant * 60) % 360, dtype=np.float32)


def _close_gaps(tissue: Cells, gap: int) -> Cells:
    """Morphological closing with a square that bridges gaps of up to `gap` pixels."""
    reach = (gap + 1) // 2
    return ~_grown(~_grown(tissue, reach), reach)


def _grown(tissue: Cells, reach: int) -> Cells:
    """Each True pixel made a square of True pixels that reaches `reach` to every side."""
    grown = tissue.copy()
    for _ in range(reach):
        before = grown.copy()
        grown[:, 1:] |= before[:, :-1]
        grown[:, :-1] |= before[:, 1:]
        before = grown.copy()
        grown[1:] |= before[:-1]
        grown[:-1] |= before[1:]
    return grown


def _without_small_pieces(tissue: Cells, smallest: int) -> Cells:
    """`tissue` without its connected pieces of fewer than `smallest` pixels, in linear time."""
    # Imported here because a process that only takes masks from the cache never needs it (0.3 s
    # and 40 MB for scipy).
    from skimage.measure import label

    pieces = label(tissue, connectivity=1)  # type: ignore[no-untyped-call]
    sizes = np.zeros(int(pieces.max(initial=0)) + 1, dtype=np.intp)
    for rows in _row_blocks(pieces.shape):
        sizes += np.bincount(pieces[rows].ravel(), minlength=len(sizes))
    keep = sizes >= smallest
    keep[0] = False
    return np.asarray(keep[pieces], dtype=np.bool_)
