"""PerkinElmer and Akoya QPTIFF: what the directories are, by the XML that each of them has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chunkdl.slides.microns import believed, number_in
from chunkdl.slides.readers.directories import Directory, pixels_text, resolution_claims
from chunkdl.slides.readers.xml_text import local_name, parse_xml, text_at
from chunkdl.slides.slide import Level
from chunkdl.slides.structure import (
    Page,
    Role,
    SlideImage,
    Structure,
    downsamples,
    same_aspect,
)

ROOT = "PerkinElmer-QPI-ImageDescription"
POWER = re.compile(r"\s*([0-9.,]+)\s*x", re.IGNORECASE)
ROLES: dict[str, Role] = {
    "FullResolution": "level",
    "ReducedResolution": "level",
    "Thumbnail": "thumbnail",
    "Overview": "macro",
    "Label": "label",
}
"""The part that a directory plays, by its ImageType."""


def is_kind(directories: Sequence[Directory]) -> bool:
    """Whether the file is a QPTIFF, by the root of the first description."""
    return bool(directories) and f"<{ROOT}" in directories[0].description[:2000]


@dataclass(frozen=True, slots=True)
class _Described:
    """A directory and what its XML says."""

    directory: Directory
    kind: str
    objective: str


def structure_of(
    path: str, directories: Sequence[Directory]
) -> tuple[Structure, tuple[tuple[Directory, ...], ...]]:
    """What the directories are, by the ImageType that each states.

    Args:
        path: the file, for the model.
        directories: all of the file.

    Returns:
        The model, and for its image the directories of the levels, finest first. A file of
        channels that are stored one by one has no image.

    Raises:
        ValueError: the XML of a directory cannot be read.
    """
    described = [_described(directory) for directory in directories]
    full = [each for each in described if each.kind == "FullResolution"]
    coloured = len(full) == 1 and full[0].directory.is_rgb
    levels: list[_Described] = []
    if coloured:
        base = full[0].directory
        reduced = [
            each
            for each in described
            if each.kind == "ReducedResolution"
            and each.directory.is_rgb
            and each.directory.width < base.width
            and same_aspect(each.directory.size, base.size)
        ]
        levels = [full[0], *sorted(reduced, key=lambda each: -each.directory.width)]
    pages = tuple(_page(each, levels, coloured=coloured) for each in described)
    chosen = tuple(each.directory for each in levels)
    if not coloured:
        note = (
            f"It has {len(full)} pictures of full resolution, each of one channel, and none in "
            "RGB: it is not read; convert it to an OME-TIFF."
            if full
            else "No directory says that it has the full resolution."
        )
        return Structure(path, "PerkinElmer QPTIFF", pages, (), (note,)), ()
    image = _image(levels[0], chosen)
    return Structure(path, "PerkinElmer QPTIFF", pages, (image,)), (chosen,)


def _described(directory: Directory) -> _Described:
    if f"<{ROOT}" not in directory.description[:2000]:
        return _Described(directory, "", "")
    root = parse_xml(directory.description)
    if local_name(root) != ROOT:
        return _Described(directory, "", "")
    return _Described(directory, text_at(root, "ImageType"), text_at(root, "Objective"))


def _page(each: _Described, levels: Sequence[_Described], *, coloured: bool) -> Page:
    directory = each.directory
    role = ROLES.get(each.kind, "unknown")
    why = f"its ImageType is {each.kind}" if each.kind else "its description states no ImageType"
    is_level = each in levels
    if role == "level" and not is_level:
        role = "unknown" if coloured else "channel"
        why += f", its pixels are {directory.samples} samples of {directory.width}x"
        why += f"{directory.height} pixels"
    return Page(
        name=directory.name,
        width=directory.width,
        height=directory.height,
        pixels=pixels_text(directory),
        role=role,
        why=why,
        image=0 if is_level else None,
        level=levels.index(each) if is_level else None,
    )


def _image(base: _Described, levels: Sequence[Directory]) -> SlideImage:
    found = POWER.match(base.objective)
    power = number_in(found.group(1)) if found else None
    microns = believed(resolution_claims(base.directory), power)
    sizes = [level.size for level in levels]
    return SlideImage(
        number=0,
        name="",
        levels=tuple(
            Level(*level.size, downsample, *level.block)
            for level, downsample in zip(levels, downsamples(sizes), strict=True)
        ),
        mpp=microns.mpp,
        mpp_source=microns.source,
        magnification=power,
        notes=microns.notes,
    )
