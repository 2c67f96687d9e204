"""Which pictures of a DICOM series are the levels of a slide, and what the others are.

The part that a picture plays follows from its ImageType, never from its size alone. A level shows
the same area as level 0: same aspect, same orientation and origin on the glass, and a pixel spacing
that fits its size. What does not fit is left out with the reason; where an original picture is left
over, it is a slide of its own, and somebody has to choose.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from chunkdl.errors import SlideError
from chunkdl.slides.readers.dicom_header import Instance
from chunkdl.slides.readers.dicom_pixels import reason_against
from chunkdl.slides.structure import Role, same_aspect

ROLES: dict[str, Role] = {
    "LABEL": "label",
    "OVERVIEW": "macro",
    "MACRO": "macro",
    "LOCALIZER": "macro",
    "THUMBNAIL": "thumbnail",
}
"""Roles by the third value of ImageType (PS3.3, C.8.12.4.1.1); VOLUME is a level."""

SPACING_TOLERANCE = 0.02
"""Relative difference of two pixel spacings of one slide, beside the rounding of sizes."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a series: a file, or the parts of a concatenation.

    Attributes:
        parts: the files in the order of their frames.
        width, height: pixels that show the slide.
        role: the part it plays.
        why: what says so, half a sentence.
    """

    parts: tuple[Instance, ...]
    width: int
    height: int
    role: Role
    why: str

    @property
    def head(self) -> Instance:
        """The first file, which speaks for all."""
        return self.parts[0]

    @property
    def name(self) -> str:
        """Names of the files, for people."""
        more = f" and {len(self.parts) - 1} more" if len(self.parts) > 1 else ""
        return self.head.file + more

    @property
    def is_original(self) -> bool:
        """Whether it was not made from another picture by resampling."""
        return "RESAMPLED" not in self.head.image_type[3:]


@dataclass(frozen=True, slots=True)
class Pyramid:
    """One slide of a series.

    Attributes:
        levels: finest first.
        notes: what a user has to know, each a whole sentence.
    """

    levels: tuple[Picture, ...]
    notes: tuple[str, ...]


def pictures_of(instances: Sequence[Instance]) -> list[Picture]:
    """The pictures of a series, parts of a concatenation put together.

    Args:
        instances: the files, in any order.

    Raises:
        SlideError: a part of the level of a slide is missing.
    """
    found: list[Picture] = []
    parts: dict[str, list[Instance]] = {}
    seen: dict[str, Instance] = {}
    for instance in instances:
        copied = seen.setdefault(instance.uid, instance)
        if instance.uid and copied is not instance:
            why = f"a copy of {copied.file}: both have one SOPInstanceUID"
            found.append(Picture((instance,), instance.width, instance.height, "unknown", why))
        elif instance.concatenation is None:
            found.append(_picture((instance,)))
        else:
            parts.setdefault(instance.concatenation.uid, []).append(instance)
    found += [_joined(group) for group in parts.values()]
    return sorted(found, key=lambda picture: picture.head.file)


def _picture(parts: tuple[Instance, ...]) -> Picture:
    head = parts[0]
    kind = head.image_type[2] if len(head.image_type) > 2 else ""
    role: Role = "level" if kind == "VOLUME" else ROLES.get(kind, "unknown")
    why = f"its ImageType says {kind}" if kind else "its ImageType does not say what it is"
    return Picture(parts, head.width, head.height, role, why)


def _joined(parts: list[Instance]) -> Picture:
    """The picture of the parts of one concatenation."""
    by_number = {part.concatenation.number: part for part in parts if part.concatenation}
    ordered = tuple(by_number[number] for number in sorted(by_number))
    picture = _picture(ordered)
    problem = _broken(ordered)
    if len(by_number) < len(parts):
        problem = "two files are the same part of the concatenation"
    if problem and picture.role == "level":
        raise SlideError(
            f"{problem}; the others are {', '.join(part.file for part in ordered[:8])}",
            slide=ordered[0].path,
        )
    return picture


def _broken(parts: tuple[Instance, ...]) -> str:
    """What is wrong with a concatenation, empty where it is whole."""
    places = [part.concatenation for part in parts if part.concatenation is not None]
    total = max([len(parts), *(place.total for place in places if place.total is not None)])
    missing = sorted(set(range(1, total + 1)) - {place.number for place in places})
    if missing:
        numbers = ", ".join(map(str, missing[:8]))
        folder = os.path.dirname(parts[0].path) or "."
        return f"part {numbers} of {total} of a concatenation is not in the folder {folder}"
    expected = 0
    for part, place in zip(parts, places, strict=True):
        if place.frame_offset != expected:
            return (
                f"{part.file} says that {place.frame_offset} frames are before it in the "
                f"concatenation, but there are {expected}"
            )
        expected += part.frames
    if len({_stored_as(part) for part in parts}) > 1:
        return "the parts of a concatenation differ in size, frames or coding"
    if parts[0].organization == "TILED_FULL" and expected < parts[0].tiles:
        return (
            f"the parts of a concatenation have {expected} of {parts[0].tiles} frames: the last "
            "parts are missing"
        )
    return ""


def _stored_as(part: Instance) -> tuple[Hashable, ...]:
    """What all parts of a concatenation have in common."""
    frame = part.frame_width, part.frame_height, part.organization
    pixels = part.samples, part.bits_allocated, part.bits_stored, part.photometric, part.planar
    return (part.width, part.height, *frame, part.syntax, *pixels)


# ---- Pyramids


def pyramids_of(pictures: Sequence[Picture]) -> tuple[list[Pyramid], list[Picture]]:
    """The slides in the pictures of one series.

    Returns:
        (pyramids in the order of their first files, the pictures that are no level of any).
    """
    aside = [picture for picture in pictures if picture.role != "level"]
    groups = _groups([picture for picture in pictures if picture.role == "level"])
    if any(_has_original(group) for group in groups):
        for group in groups:
            if not _has_original(group):
                why = "of another pyramid of the series, which is resampled as a whole"
                aside += [replace(picture, role="unknown", why=why) for picture in group]
        groups = [group for group in groups if _has_original(group)]
    pyramids = []
    while groups:
        pyramid, left = _pyramid(groups.pop(0))
        pyramids.append(pyramid)
        if _has_original([picture for picture, _ in left]):
            groups.append([picture for picture, _ in left])
        else:
            aside += [replace(picture, role="unknown", why=why) for picture, why in left]
    pyramids.sort(key=lambda pyramid: min(level.head.file for level in pyramid.levels))
    return pyramids, aside


def _has_original(pictures: Sequence[Picture]) -> bool:
    return any(picture.is_original for picture in pictures)


def _groups(levels: list[Picture]) -> list[list[Picture]]:
    """Levels that say of themselves that they belong together."""
    aspects: list[Callable[[Instance], Hashable]] = [
        lambda head: head.pyramid,
        lambda head: head.frame_of_reference,
        lambda head: head.optical_path_ids,
    ]
    # Some writers give every file a frame of reference of its own, others state a UID in some of
    # the files only: neither says what belongs together.
    telling = [
        aspect
        for aspect in aspects
        if 1 < len({aspect(level.head) for level in levels} - {"", ()}) < len(levels)
    ]
    found: dict[Hashable, list[Picture]] = {}
    for level in levels:
        found.setdefault(tuple(aspect(level.head) for aspect in telling), []).append(level)
    return list(found.values())


def _pyramid(group: list[Picture]) -> tuple[Pyramid, list[tuple[Picture, str]]]:
    """The pyramid on the largest picture of a group, and what does not fit to it, and why."""
    ordered = sorted(group, key=lambda level: (-level.width, -level.height, not level.is_original))
    base = ordered[0]
    levels, notes = [base], []
    left: list[tuple[Picture, str]] = []
    if not base.is_original:
        notes.append(
            f"Level 0 ({base.name}) is resampled from a finer picture that is not in the folder; "
            "copy that there as well unless this resolution is meant."
        )
    sizes = [(level.width, level.height) for level in ordered]
    for level, size in zip(ordered[1:], sizes[1:], strict=True):
        fitted, note = _without_padding(level, base)
        why = _misfit(fitted, base)
        if size == sizes[0]:
            why = f"as large as {base.name}: a copy, another focal plane or channel"
        elif not why and sizes.count(size) > 1:
            why = (
                "another image has the same size, and nothing says which of them belongs to "
                f"{base.name}"
            )
        if why:
            left.append((level, why))
        else:
            levels.append(fitted)
            notes += [note] if note else []
    return Pyramid(tuple(levels), tuple(notes)), left


def _without_padding(level: Picture, base: Picture) -> tuple[Picture, str]:
    """The level without what fills its last frames, where its pixel spacing proves that.

    Some writers state sizes that are padded to whole frames; the downsample would be wrong.
    """
    spacing, finest = level.head.spacing, base.head.spacing
    stated, whole = (level.width, level.height), (base.width, base.height)
    if spacing is None or finest is None or _reduced_alike(stated, whole):
        return level, ""
    factors = [_snapped(coarse / fine) for coarse, fine in zip(spacing, finest, strict=True)]
    true = [math.ceil(round(size / factor, 3)) for size, factor in zip(whole, factors, strict=True)]
    frame = level.head.frame_width, level.head.frame_height
    for size, shown, side in zip(stated, true, frame, strict=True):
        is_padded = size % side == 0 and 0 < size - shown < side
        if shown <= 0 or not (is_padded or abs(size - shown) <= 1):
            return level, ""
    note = (
        f"The size of {level.name} is stated as {stated[0]}x{stated[1]}; by its pixel spacing "
        f"{true[0]}x{true[1]} of it show the slide, the rest is padding."
    )
    return replace(level, width=true[0], height=true[1]), note


def _reduced_alike(size: tuple[int, int], base: tuple[int, int]) -> bool:
    """Whether one factor explains both sides of a reduced size, each rounded to a pixel."""
    least = max(whole / (side + 1) for side, whole in zip(size, base, strict=True))
    most = min(whole / max(side - 1, 0.5) for side, whole in zip(size, base, strict=True))
    return least <= most


def _snapped(factor: float) -> float:
    """The whole number that a factor means, because spacings are written with few digits."""
    near = round(factor)
    return near if abs(factor - near) < 0.002 * factor else factor


def _misfit(level: Picture, base: Picture) -> str:
    """Why a picture is not a level of the slide with that level 0; empty where it is one."""
    one, other = level.head, base.head
    reason = reason_against(one)
    if reason and not reason_against(other):
        return reason
    if not same_aspect((level.width, level.height), (base.width, base.height)):
        return f"its {level.width}x{level.height} pixels have another aspect ratio than {base.name}"
    if one.orientation and other.orientation and _apart(one.orientation, other.orientation) > 0.01:
        return f"it has another orientation than {base.name}"
    if one.spacing is None or other.spacing is None:
        return ""
    sides = (level.width, base.width), (level.height, base.height)
    for axis, (size, whole) in enumerate(sides):
        ratio = one.spacing[axis] * size / (other.spacing[axis] * whole)
        if abs(ratio - 1) > SPACING_TOLERANCE + 1 / size:
            return (
                f"by its pixel spacing it shows {ratio:.3g} times the area of {base.name} along "
                f"{'xy'[axis]}"
            )
    same_frame = one.frame_of_reference == other.frame_of_reference
    if same_frame and one.origin is not None and other.origin is not None:
        slack = 2 * max(one.spacing) + SPACING_TOLERANCE * max(
            other.spacing[0] * base.width, other.spacing[1] * base.height
        )
        if _apart(one.origin, other.origin) > slack:
            return f"it begins at another place on the glass than {base.name}"
    return ""


def _apart(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
