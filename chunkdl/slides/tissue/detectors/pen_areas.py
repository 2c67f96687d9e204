"""Where somebody has written on the glass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import Cells, Checked
from chunkdl.slides.tissue.detectors.shapes import grown, row_blocks, without_small_pieces

_ENDS: Mapping[str, Sequence[tuple[int, int, int]]] = {
    "red": (
        *((150, 80, 90), (110, 20, 30), (185, 65, 105), (195, 85, 125), (220, 115, 145)),
        *((125, 40, 70), (100, 50, 65), (85, 25, 45)),
    ),
    "green": (
        *((150, 160, 140), (70, 110, 110), (45, 115, 100), (30, 75, 60), (195, 220, 210)),
        *((225, 230, 225), (170, 210, 200), (20, 30, 20), (50, 60, 40), (30, 50, 35)),
        *((65, 70, 60), (100, 110, 105), (165, 180, 180), (140, 140, 150), (185, 195, 195)),
    ),
    "blue": (
        *((60, 120, 190), (120, 170, 200), (175, 210, 230), (145, 180, 210), (37, 95, 160)),
        *((30, 65, 130), (130, 155, 180), (40, 35, 85), (30, 20, 65), (90, 90, 140)),
        *((60, 60, 120), (110, 110, 175)),
    ),
}
"""By pen, colours: a pixel is of the pen if it is at least as much of it as one of them, in the
channels that have to be large and those that have to be small."""
_LARGE: Mapping[str, tuple[bool, bool, bool]] = {
    "red": (True, False, False),
    "green": (False, True, True),
    "blue": (False, False, True),
}
"""By pen, whether red, green and blue have to be large."""


@dataclass(frozen=True, slots=True)
class PenAreas:
    """Finds pen on the glass: wsi-patching's rule, with its colours, and a margin.

    A pixel is of a pen if its red, green and blue lie beyond one of some colours (those of
    histolab and deep-histopath, which wsi-patching uses): for red pens red at least as large and
    green and blue at most as large, for green pens red at most as large and the others at least,
    for blue pens only blue at least as large. Pixels darker than `diff_thresh` do not count. Pieces
    smaller than `smallest` are no pen, and what is left grows by `margin`, because the rim of a
    stroke is paler. The rule itself, pixel by pixel, is `smallest=0, margin=0`.

    Stains have such colours too: strong eosin and blood are "red", haematoxylin in thick places and
    blue chromogens of immunohistochemistry are "blue", bluish grey is "green", and most blue pens
    are "green" as well. Black pens are not found. Look at the pictures of ``chunkdl inspect``
    first. It is meant to be taken away from tissue:
    ``TissueWithout(Otsu(), PenAreas(("green", "blue")))``.

    Attributes:
        colours: of the pens, some of "red", "green" and "blue".
        diff_thresh: mean of red, green and blue below which a pixel is no pen, 0 to 255.
        smallest: least size of a piece of pen, thumbnail pixels.
        margin: thumbnail pixels around it that go with it, 0 to 255.

    Raises:
        ConfigError: a parameter is out of its bounds.
    """

    colours: tuple[str, ...] = ("red", "green", "blue")
    diff_thresh: float = 5.0
    smallest: int = 64
    margin: int = 2

    name: ClassVar[str] = "pen"

    def __post_init__(self) -> None:
        given = self.colours
        several = isinstance(given, list | tuple) and len(given) > 0
        if not several or not all(isinstance(one, str) and one in _ENDS for one in given):
            raise ConfigError(
                f'tissue detector pen: colours must be some of "red", "green" and "blue", such as '
                f'["green", "blue"], not {given!r:.80}'
            )
        # Equal detectors have equal keys, in whatever order the colours were given.
        object.__setattr__(self, "colours", tuple(one for one in _ENDS if one in given))
        Checked(self).number("diff_thresh", 0, 255).whole("smallest", 0, 2**24)
        Checked(self).whole("margin", 0, 255)

    @property
    def key(self) -> str:
        """Name, revision and parameters."""
        return f"{self.name}/1 {self!r}"

    def __call__(self, rgb: Pixels) -> Cells:
        """The pen of a thumbnail: (h, w, 3) uint8 to (h, w) bool."""
        pen = np.empty(rgb.shape[:2], np.bool_)
        for rows in row_blocks(rgb.shape):
            pen[rows] = self._of_pen(rgb[rows])
        if self.smallest > 1:
            pen = without_small_pieces(pen, self.smallest, connectivity=2)
        return grown(pen, self.margin)

    def _of_pen(self, rgb: Pixels) -> Cells:
        planes = [np.ascontiguousarray(rgb[..., colour]) for colour in range(3)]
        pen = np.zeros(rgb.shape[:2], np.bool_)
        for colour in self.colours:
            for ends in _ENDS[colour]:
                pen |= _beyond(planes, ends, _LARGE[colour])
        total = planes[0].astype(np.uint16)
        total += planes[1]
        total += planes[2]
        return pen & (total >= 3 * self.diff_thresh)


def _beyond(
    planes: Sequence[npt.NDArray[np.uint8]], ends: tuple[int, int, int], large: Sequence[bool]
) -> Cells:
    found = np.ones(planes[0].shape, np.bool_)
    for plane, end, at_least in zip(planes, ends, large, strict=True):
        found &= plane >= end if at_least else plane <= end
    return found
