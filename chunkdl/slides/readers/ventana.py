"""Ventana BIF: what the directories are, and whether the tiles of a slide are a plain grid.

The scanner photographs tiles that overlap, and the XML of level 0 says by how much. Where they
overlap, or where several areas were scanned, a place on the slide is not a place in the grid of
tiles: such files are left to readers that put tiles together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from chunkdl.slides.microns import Claim, believed, number_in
from chunkdl.slides.readers.directories import Directory, pixels_text
from chunkdl.slides.readers.refusals import NotTaken
from chunkdl.slides.readers.xml_text import local_name, named, parse_xml
from chunkdl.slides.slide import Level
from chunkdl.slides.structure import Page, Role, SlideImage, Structure

LEVEL = re.compile(r"\blevel=([0-9]+)\b")
POWER = re.compile(r"\bmag=([0-9.]+)")
FLAT_ROLES: dict[str, Role] = {
    "Label": "macro",
    "Thumbnail": "thumbnail",
    "Probability": "map",
}
"""The part that a directory plays, by how its description begins. What Ventana calls the label
image shows the whole glass."""


def is_kind(directories: Sequence[Directory]) -> bool:
    """Whether the file is a Ventana BIF or TIFF, by the XML that the scanner puts into it."""
    return bool(directories) and b"<iScan" in directories[0].xmp


def structure_of(
    path: str, directories: Sequence[Directory]
) -> tuple[Structure, tuple[tuple[Directory, ...], ...]]:
    """What the directories are, by their descriptions; `check_readable` says what can be read.

    Args:
        path: the file, for the model.
        directories: all of the file.

    Returns:
        The model, and for its image the directories of the levels, finest first.

    Raises:
        ValueError: the XML cannot be read, or the levels are not those that the descriptions say.
    """
    found: dict[int, Directory] = {}
    for directory in directories:
        number = _level_number(directory)
        if number is not None and found.setdefault(number, directory) is not directory:
            raise ValueError(
                f"{directory.name} says that it is level {number}, but another directory says so "
                "too"
            )
    if sorted(found) != list(range(len(found))):
        raise ValueError(f"the file has the levels {sorted(found)}: it is damaged, copy it again")
    pages = tuple(_page(directory) for directory in directories)
    if not found:
        return Structure(path, "Ventana BIF", pages, ()), ()
    levels = tuple(found[number] for number in range(len(found)))
    image = _image(_scan(directories[0]), levels)
    return Structure(path, "Ventana BIF", pages, (image,)), (levels,)


def check_readable(directories: Sequence[Directory]) -> None:
    """Check that the tiles of the slide are a plain grid.

    Raises:
        NotTaken: they overlap, or lie in several areas, in several focal planes or in another
            order.
        ValueError: the XML cannot be read.
    """
    scan = _scan(directories[0])
    planes = scan.get("Z-layers", "1").strip()
    if planes not in ("", "0", "1"):
        raise NotTaken(f"the Ventana file has {planes} focal planes")
    for directory in directories:
        if _level_number(directory) == 0 and directory.xmp:
            _check_encoding(parse_xml(directory.xmp.decode("utf-8", "replace")), directory)


def _level_number(directory: Directory) -> int | None:
    found = LEVEL.search(directory.description)
    return int(found.group(1)) if found else None


def _page(directory: Directory) -> Page:
    number = _level_number(directory)
    role: Role = "unknown"
    why = "its description names no level and no other part"
    if number is not None:
        role, why = "level", f"its description says level={number}"
    for start, part in FLAT_ROLES.items():
        if number is None and directory.description.startswith(start):
            role, why = part, f"its description begins with {start}"
    return Page(
        name=directory.name,
        width=directory.width,
        height=directory.height,
        pixels=pixels_text(directory),
        role=role,
        why=why,
        image=None if number is None else 0,
        level=number,
    )


def _scan(first: Directory) -> Element:
    """The element of the scanner, which is the root or below it."""
    root = parse_xml(first.xmp.decode("utf-8", "replace"))
    found = [root] if local_name(root) == "iScan" else named(root, "iScan")
    if not found:
        raise ValueError("the Ventana XML has no iScan element")
    return found[0]


def _image(scan: Element, levels: Sequence[Directory]) -> SlideImage:
    power = number_in(scan.get("Magnification", ""))
    resolution = number_in(scan.get("ScanRes", ""))
    claims = [Claim(resolution, resolution, "ScanRes in the Ventana XML")] if resolution else []
    microns = believed(claims, power)
    powers = [_power(level) for level in levels]
    return SlideImage(
        number=0,
        name="",
        levels=tuple(
            _level(level, levels[0], powers[0] / own)
            for level, own in zip(levels, powers, strict=True)
        ),
        mpp=microns.mpp,
        mpp_source=microns.source,
        magnification=power,
        notes=microns.notes,
    )


def _power(directory: Directory) -> float:
    found = POWER.search(directory.description)
    power = number_in(found.group(1)) if found else None
    if power is None:
        raise ValueError(f"{directory.name} is a level and states no magnification")
    return power


def _level(directory: Directory, base: Directory, downsample: float) -> Level:
    """The level without its padding to whole tiles."""
    width, height = int(base.width / downsample), int(base.height / downsample)
    # A side that was rounded up has at most a pixel more than the slide.
    if directory.width < width - 1 or directory.height < height - 1 or min(width, height) <= 0:
        raise ValueError(
            f"{directory.name} is {downsample:g} times coarser than the slide of {base.width}x"
            f"{base.height} pixels, and has {directory.width}x{directory.height}"
        )
    size = min(width, directory.width), min(height, directory.height)
    return Level(*size, downsample, *directory.block)


def _check_encoding(root: Element, base: Directory) -> None:
    infos = [
        info
        for stitch in named(root, "SlideStitchInfo")
        for info in named(stitch, "ImageInfo")
        if info.get("AOIScanned") != "0"
    ]
    if len(infos) != 1:
        raise NotTaken(f"the Ventana file has {len(infos)} areas of tiles instead of one")
    info = infos[0]
    across, down = -(-base.width // base.block[0]), -(-base.height // base.block[1])
    grid = info.get("NumCols"), info.get("NumRows")
    if grid != (str(across), str(down)):
        raise NotTaken(f"the area of the Ventana file does not fill the grid of {across}x{down}")
    origins = [
        origin.get(axis, "0")
        for each in named(root, "AoiOrigin")
        for origin in each
        for axis in ("OriginX", "OriginY")
    ]
    if any(_distance(text) for text in (*origins, info.get("Pos-X", "0"))):
        raise NotTaken("the area of the Ventana file does not begin at the corner of the grid")
    joints = named(info, "TileJointInfo")
    if across * down > 1 and not joints:
        raise NotTaken("the Ventana file does not say whether its tiles overlap")
    for joint in joints:
        for axis in ("OverlapX", "OverlapY"):
            if _distance(joint.get(axis, "0")):
                raise NotTaken(
                    f"tiles of the Ventana file overlap ({axis} is {joint.get(axis)} pixels)"
                )
    frames = [
        frame.get("XY", "").replace(" ", "")
        for each in named(info, "FrameInfo")
        for frame in named(each, "Frame")
    ]
    rows_follow = [f"{index % across},{index // across}" for index in range(len(frames))]
    if frames and frames != rows_follow:
        raise NotTaken("the tiles of the Ventana file do not lie row by row")


def _distance(text: str) -> float:
    """Pixels of an attribute; what is not a number is some distance, and not none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return float("nan")
