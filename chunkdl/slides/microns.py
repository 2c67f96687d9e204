"""Microns per pixel: which of the things that a file says is believed, and what contradicts it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMALLEST = 1e-12
FINEST_MPP, COARSEST_MPP = 0.05, 50.0
"""Beyond these no slide was scanned; 72 dots an inch, one pixel a millimetre and the other values
that writers leave where they know nothing lie beyond them."""
MPP_TIMES_POWER = 10.0
"""Microns per pixel times the power of the objective, of all scanners about: 0.25 at 40x."""
POWER_TOLERANCE = 1.6
"""Factor by which that product may be off before it is a contradiction."""
SOURCES_TOLERANCE = 1.05
"""Factor by which two sources of one file may differ."""
SQUARE_TOLERANCE = 1.01
OVERVIEW_MPP, OVERVIEW_TIMES = 4.0, 8.0
"""A picture whose pixels are at least so large, and so many times those of the finest picture of
the file, shows the glass and is not a slide to train on."""

MICRONS_PER_UNIT = {
    **dict.fromkeys(("µm", "μm", "um", "mcm", "µ", "micron", "micrometer", "micrometre"), 1.0),
    # The micro sign as it looks after text went through a wrong encoding.
    **dict.fromkeys(("\u00c2\u00b5m", "\u00ce\u00bcm", "\ufffdm", "?m"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("å", "ångström", "angstrom"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("dm", "decimeter", "decimetre"), 1e5),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch", "inches", '"'), 25_400.0),
    **dict.fromkeys(("thou", "mil"), 25.4),
    "pt": 25_400.0 / 72,
    "ft": 304_800.0,
    "yd": 914_400.0,
}
"""Microns of a unit, by its name in lower case; a plural s does not count."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one part of a file says.

    Attributes:
        x, y: microns per pixel of level 0.
        source: which part, for people, such as "the Aperio description".
    """

    x: float
    y: float
    source: str


@dataclass(frozen=True, slots=True)
class Microns:
    """What is believed.

    Attributes:
        mpp: as (x, y); None where nothing believable was said.
        source: which part of the file said it; empty for None.
        notes: contradictions and oddities, each a whole sentence.
    """

    mpp: tuple[float, float] | None
    source: str
    notes: tuple[str, ...]


def microns_of_unit(unit: str) -> float | None:
    """Microns of a unit in any spelling, None for one that is not a length."""
    name = unit.strip().casefold()
    # casefold turns the micro sign into the Greek letter.
    known = {key.casefold(): value for key, value in MICRONS_PER_UNIT.items()}
    return known.get(name, known.get(name.removesuffix("s")))


def is_overview(mpp: float, finest: float) -> bool:
    """Whether a picture of these microns per pixel shows the whole glass.

    Args:
        mpp: of the picture.
        finest: of all pictures of the file.
    """
    return mpp >= max(OVERVIEW_MPP, OVERVIEW_TIMES * finest)


def number_in(text: str) -> float | None:
    """A number above 0 as files write it, None for anything else; a decimal comma is one.

    What is below 1e-12 or above 1e12 is nothing that a slide measures, and no number to divide by.
    """
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return value if is_measure(value) else None


def is_measure(value: float) -> bool:
    """Whether a number from a file can be a length, a power or a resolution in any unit."""
    return SMALLEST <= value <= 1 / SMALLEST


def believed(claims: Sequence[Claim], magnification: float | None) -> Microns:
    """The first claim that can be true, with notes about all that speaks against it.

    Args:
        claims: in the order in which they are trusted.
        magnification: power of the objective that the file states, None where it states none.
    """
    notes = []
    possible = [
        claim
        for claim in claims
        if all(FINEST_MPP <= value <= COARSEST_MPP for value in (claim.x, claim.y))
    ]
    if not possible:
        notes += [
            f"{claim.source} says {claim.x:g} x {claim.y:g} microns per pixel, which is "
            "impossible for a slide, so it counts as unknown; give mpp for this slide in the "
            "dataset"
            for claim in claims
        ]
        return Microns(None, "", tuple(notes))
    first = possible[0]
    for other in possible[1:]:
        if _apart(first.x, other.x) > SOURCES_TOLERANCE or (
            _apart(first.y, other.y) > SOURCES_TOLERANCE
        ):
            notes.append(
                f"{first.source} says {first.x:g} x {first.y:g} microns per pixel and "
                f"{other.source} {other.x:g} x {other.y:g}; the first is used (to use another, "
                "give mpp for this slide in the dataset)"
            )
    mean = (first.x + first.y) / 2
    if magnification is not None and _apart(mean * magnification, MPP_TIMES_POWER) > (
        POWER_TOLERANCE
    ):
        notes.append(
            f"{first.source} says {mean:g} microns per pixel, but the file states an objective of "
            f"{magnification:g}x, which has about {MPP_TIMES_POWER / magnification:g}; one of "
            "them is wrong; give mpp for this slide in the dataset"
        )
    if _apart(first.x, first.y) > SQUARE_TOLERANCE:
        notes.append(
            f"its pixels are not square: {first.x:g} x {first.y:g} microns; patches are read as "
            "they are stored, and mpp is the mean of both"
        )
    return Microns((first.x, first.y), first.source, tuple(notes))


def _apart(one: float, other: float) -> float:
    """The factor between two numbers, at least 1; without end where one of them is not positive."""
    if min(one, other) <= 0:
        return math.inf
    return max(one / other, other / one)
