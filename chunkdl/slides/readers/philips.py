"""Philips TIFF: what the directories are, by the XML of the first one.

Reduced levels are stored padded to whole tiles, so that neither their sizes nor the ratios of
these say where a pixel lies. The XML has the pixel spacing of each level, in millimetres.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from chunkdl.slides.microns import Claim, believed, number_in
from chunkdl.slides.readers.directories import Directory, pixels_text
from chunkdl.slides.readers.refusals import Refused
from chunkdl.slides.readers.xml_text import named, parse_xml
from chunkdl.slides.slide import Level
from chunkdl.slides.structure import Page, Role, SlideImage, Structure

LEVEL = re.compile(r"\blevel=([0-9]+)\b")
LENS = re.compile(r"\blevels=([0-9]{1,2})\b")
MICRONS_PER_MM = 1000.0
WHOLE_TOLERANCE = 0.01
"""Relative distance from a whole number within which a ratio of spacings is that number: they are
written with few digits, and all levels are whole times coarser."""

Spacing = tuple[float, float]
"""Millimetres per pixel, as (x, y)."""


def is_kind(directories: Sequence[Directory]) -> bool:
    """Whether the file is a Philips TIFF, by its Software tag and the root of its XML."""
    return (
        bool(directories)
        and directories[0].software.startswith("Philips")
        and "DPUfsImport" in directories[0].description[:1000]
    )


def structure_of(
    path: str, directories: Sequence[Directory]
) -> tuple[Structure, tuple[tuple[Directory, ...], ...]]:
    """What the directories are, by their descriptions, and the true sizes of the levels.

    Args:
        path: the file, for the model.
        directories: all of the file.

    Returns:
        The model, and for its image the directories of the levels, finest first.

    Raises:
        ValueError: the XML cannot be read.
        Refused: the XML does not say where the pixels of a level lie, or contradicts its size.
    """
    scans = _scans(parse_xml(directories[0].description))
    slides = [scan for scan in scans if _text(scan, "PIM_DP_IMAGE_TYPE") == "WSI"]
    if len(slides) != 1:
        raise Refused(
            f"the Philips XML describes {len(slides)} slides instead of one, so it is unknown "
            "which of them the levels belong to; convert the file to another format"
        )
    pages: list[Page] = []
    levels: list[Directory] = []
    numbers: list[int] = []
    for directory in directories:
        role, why, number = _role(directory, following=len(levels))
        is_level = role == "level"
        pages.append(
            Page(
                name=directory.name,
                width=directory.width,
                height=directory.height,
                pixels=pixels_text(directory),
                role=role,
                why=why,
                image=0 if is_level else None,
                level=len(levels) if is_level else None,
            )
        )
        if is_level:
            levels.append(directory)
            numbers.append(number)
    types = {_text(scan, "PIM_DP_IMAGE_TYPE") for scan in scans}
    notes = tuple(
        f"The {part} is in the XML only, as a picture that is not read."
        for part in ("label", "macro")
        if f"{part.upper()}IMAGE" in types and all(page.role != part for page in pages)
    )
    image = _image(slides[0], levels, numbers)
    return Structure(path, "Philips TIFF", tuple(pages), (image,), notes), (tuple(levels),)


def _role(directory: Directory, following: int) -> tuple[Role, str, int]:
    """The part a directory plays, why, and the number of its level; -1 where it is none."""
    text = directory.description
    if directory.number == 0 and directory.sub is None:
        return "level", "it has the XML of the slide", 0
    if text.startswith("Label"):
        return "label", "its description begins with Label", -1
    if text.startswith("Macro"):
        return "macro", "its description begins with Macro", -1
    found = LEVEL.search(text)
    if found:
        return "level", f"its description says {found.group()}", int(found.group(1))
    if directory.sub is None and directory.tile_width and directory.subfile_type & 1:
        return "level", "it is a reduced image in tiles, as only levels are", following
    return "unknown", "its description names no level, label or macro", -1


def _image(slide: Element, levels: Sequence[Directory], numbers: Sequence[int]) -> SlideImage:
    spacings = _level_spacings(slide)
    base = levels[0]
    whole = _spacing(_text(slide, "DICOM_PIXEL_SPACING"))
    first = spacings.get(0) or whole
    claims = []
    if first is not None:
        x, y = first[0] * MICRONS_PER_MM, first[1] * MICRONS_PER_MM
        claims.append(Claim(x, y, "the pixel spacing in the Philips XML"))
    lens = LENS.search(_text(slide, "DICOM_DERIVATION_DESCRIPTION"))
    magnification = float(lens.group(1)) if lens else None
    microns = believed(claims, magnification)
    found = [Level(*base.size, 1.0, *base.block)]
    for directory, number in zip(levels[1:], numbers[1:], strict=True):
        own = spacings.get(number)
        if first is None or own is None:
            raise Refused(
                f"the Philips XML has no pixel spacing of level {number}, whose size is padded to "
                "whole tiles, so it is unknown where its pixels are; convert the file to another "
                "format"
            )
        found.append(_level(directory, base, (own[0] / first[0], own[1] / first[1])))
    return SlideImage(
        number=0,
        name="",
        levels=tuple(found),
        mpp=microns.mpp,
        mpp_source=microns.source,
        magnification=magnification,
        notes=microns.notes,
    )


def _level(directory: Directory, base: Directory, ratios: tuple[float, float]) -> Level:
    """The level without its padding; `ratios` are those of the pixel spacings, as (x, y)."""
    factors = [_whole(ratio) for ratio in ratios]
    size = int(base.width / factors[0]), int(base.height / factors[1])
    for true, stored, side in zip(size, directory.size, directory.block, strict=True):
        if not (0 < true <= stored < true + 2 * side):
            raise Refused(
                f"the Philips XML says that {directory.name} is {factors[0]:g} x {factors[1]:g} "
                f"times coarser than the slide of {base.width}x{base.height} pixels, and it has "
                f"{directory.width}x{directory.height}; convert the file to another format"
            )
    return Level(*size, (factors[0] + factors[1]) / 2, *directory.block)


def _whole(ratio: float) -> float:
    nearest = max(1, round(ratio))
    return float(nearest) if abs(ratio / nearest - 1) <= WHOLE_TOLERANCE else ratio


# ---- The XML: objects of attributes, some of which hold arrays of objects


def _scans(root: Element) -> list[Element]:
    return _objects(root, "PIM_DP_SCANNED_IMAGES")


def _objects(element: Element, name: str) -> list[Element]:
    return [
        found
        for attribute in _attributes(element, name)
        for array in named(attribute, "Array")
        for found in named(array, "DataObject")
    ]


def _attributes(element: Element, name: str) -> list[Element]:
    return [below for below in named(element, "Attribute") if below.get("Name") == name]


def _text(element: Element, name: str) -> str:
    found = _attributes(element, name)
    return (found[0].text or "").strip() if found else ""


def _level_spacings(slide: Element) -> dict[int, Spacing]:
    """The pixel spacing of each level that has one, by the number of the level."""
    found = {}
    for level in _objects(slide, "PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"):
        number = _text(level, "PIIM_PIXEL_DATA_REPRESENTATION_NUMBER")
        spacing = _spacing(_text(level, "DICOM_PIXEL_SPACING"))
        if number.isdecimal() and spacing is not None:
            found[int(number)] = spacing
    return found


def _spacing(text: str) -> Spacing | None:
    """Two quoted numbers; DICOM names the distance of the rows first, which is y."""
    parts = text.replace('"', " ").split()
    if len(parts) != 2:
        return None
    y, x = number_in(parts[0]), number_in(parts[1])
    return None if x is None or y is None else (x, y)
