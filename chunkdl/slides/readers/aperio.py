"""Aperio SVS: every page says in its description what it is.

The description of a picture of the slide has the size of the scan, the tiles and, for a reduced
one, the size after an arrow; label and macro begin with these words; fields follow behind bars.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from chunkdl.slides.microns import Claim, believed, number_in
from chunkdl.slides.readers.described import (
    Described,
    ImageSource,
    described,
    level_pages,
    page_of,
    slide_image,
)
from chunkdl.slides.readers.directories import Directory, resolution_claims
from chunkdl.slides.readers.pyramids import POWERS, pyramid, whole_factor
from chunkdl.slides.structure import Page, Role, same_aspect

LABEL, MACRO = 1, 9
"""Values of NewSubfileType that Aperio gives to these two."""
_NAMED = re.compile(r"(label|macro|thumbnail)\b", re.IGNORECASE)
_REDUCED_WITHOUT_TILES = re.compile(r"\d+x\d+\s*->\s*\d+x\d+\s*-")
_ROLES: dict[str, Role] = {"label": "label", "macro": "macro", "thumbnail": "thumbnail"}


def is_kind(directories: Sequence[Directory]) -> bool:
    """Whether a page calls itself Aperio's."""
    return any(map(_is_aperio, directories))


def _is_aperio(directory: Directory) -> bool:
    return directory.description.startswith("Aperio ")


def fields_of(description: str) -> dict[str, str]:
    """The named fields behind the bars."""
    pairs = (field.partition("=") for field in description.split("|")[1:])
    return {name.strip(): value.strip() for name, _, value in pairs}


def describe(path: str, directories: Sequence[Directory]) -> Described:
    """The roles of the pages of an SVS, or of a crop of one that kept its description."""
    pages: dict[str, Page] = {}
    rest = []
    for directory in directories:
        role = _role(directory)
        if role is None:
            rest.append(directory)
        else:
            pages[directory.name] = page_of(directory, *role)
    if not rest:
        return described(path, "Aperio SVS", directories, pages, ())
    base = _base(rest)
    others, planes = [], []
    for directory in rest:
        if directory is base:
            continue
        if directory.size == base.size:
            planes.append(directory)
        elif (
            base.tile_width and not directory.tile_width and same_aspect(directory.size, base.size)
        ):
            reason = "it shows the whole slide and is stored in strips, levels are in tiles"
            pages[directory.name] = page_of(directory, "thumbnail", reason)
        elif not _is_aperio(directory) and whole_factor(base, directory) not in POWERS:
            reason = "it has no description of Aperio's, and no usual fraction of level 0's size"
            pages[directory.name] = page_of(directory, _shape_role(directory), reason)
        else:
            others.append(directory)
    base, notes = _focal_planes(base, planes, pages)
    others = _of_plane(base, others, pages)
    levels = pyramid(base, others)
    pages |= level_pages(levels, 0)
    for directory in others:
        if why := levels.rejected.get(directory.name):
            pages[directory.name] = page_of(directory, _shape_role(directory), why)
    # Every picture of the slide repeats the facts of level 0.
    fields = fields_of(next((one.description for one in levels.directories if _is_aperio(one)), ""))
    power = number_in(fields.get("AppMag", ""))
    image = slide_image(0, "", levels, believed(_claims(base, fields), power), power, notes)
    source = ImageSource(tuple((directory,) for directory in levels.directories))
    return described(path, "Aperio SVS", directories, pages, [(image, source)])


def _base(directories: Sequence[Directory]) -> Directory:
    """The largest page that Aperio described, or the one without a description that it reduces."""
    by_area = sorted(directories, key=lambda one: -one.width * one.height)
    base = next((one for one in by_area if _is_aperio(one)), by_area[0])
    larger = by_area[: by_area.index(base)]
    return next((one for one in larger if whole_factor(one, base) in POWERS), base)


def _role(directory: Directory) -> tuple[Role, str] | None:
    """The role that a page's own words or type give it; None for a picture of the slide."""
    lines = directory.description.splitlines()
    for line in lines[:3]:
        if found := _NAMED.match(line.strip()):
            return _ROLES[found[1].lower()], f"its description says {line.strip()!r}"
    if directory.subfile_type == MACRO:
        return "macro", "NewSubfileType 9 is Aperio's macro"
    text = " ".join(lines[1:3])
    if not directory.tile_width and _REDUCED_WITHOUT_TILES.match(text):
        return "thumbnail", "its description says that it was reduced and has no tiles"
    return None


def _shape_role(directory: Directory) -> Role:
    return "label" if directory.subfile_type & 1 == LABEL else "unknown"


def _focal_planes(
    base: Directory, planes: list[Directory], pages: dict[str, Page]
) -> tuple[Directory, list[str]]:
    """The plane in focus where the file has several, and what to tell about the others."""
    if not planes:
        return base, []
    every = sorted([base, *planes], key=lambda one: abs(_offset(one)))
    for directory in every[1:]:
        pages[directory.name] = page_of(
            directory, "focal plane", f"as large as level 0, at OffsetZ {_offset(directory):g}"
        )
    return every[0], [
        f"the file has {len(every)} focal planes; the one at OffsetZ {_offset(every[0]):g} is read"
    ]


def _of_plane(
    base: Directory, others: Sequence[Directory], pages: dict[str, Page]
) -> list[Directory]:
    """The reduced pictures of the focal plane of `base`; those of others go into `pages`."""
    same = []
    for directory in others:
        if "OffsetZ" not in fields_of(directory.description) or _offset(directory) == _offset(base):
            same.append(directory)
        else:
            reason = f"reduced, at OffsetZ {_offset(directory):g}"
            pages[directory.name] = page_of(directory, "focal plane", reason)
    return same


def _offset(directory: Directory) -> float:
    """Microns of a focal plane from the one in focus."""
    text = fields_of(directory.description).get("OffsetZ", "0")
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return 0.0


def _claims(base: Directory, fields: dict[str, str]) -> list[Claim]:
    claims = []
    if value := number_in(fields.get("MPP", "")):
        claims.append(Claim(value, value, "the Aperio description"))
    claims += resolution_claims(base)
    return claims
