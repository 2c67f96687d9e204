"""Leica SCN: what the directories are, by the XML of the first one.

A collection is the glass. An image that covers all of it is the macro; every other one is an area
that was scanned, and a slide of its own here: its level 0 begins at the corner of the area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from chunkdl.slides.microns import Claim, believed, number_in
from chunkdl.slides.readers.directories import Directory, pixels_text
from chunkdl.slides.readers.xml_text import named, parse_xml, text_at
from chunkdl.slides.slide import Level
from chunkdl.slides.structure import Page, Role, SlideImage, Structure, downsamples

NAMESPACE = "http://www.leica-microsystems.com/scn/"
MICRONS_PER_NM = 1e-3


def is_kind(directories: Sequence[Directory]) -> bool:
    """Whether the file is a Leica SCN, by the namespace of its XML."""
    return bool(directories) and NAMESPACE in directories[0].description[:2000]


@dataclass(frozen=True, slots=True)
class _Dimension:
    """One stored picture of an image: directory, resolution, channel and focal plane."""

    ifd: int
    resolution: int
    channel: int
    plane: int


@dataclass(frozen=True, slots=True)
class _Area:
    """One image of the collection.

    Attributes:
        name: what the file calls it.
        view: (x, y, width, height) on the glass, nanometres.
        objective: power of the objective, None where it is not stated.
        light: the illumination, such as "brightfield".
        dimensions: its pictures.
    """

    name: str
    view: tuple[float, float, float, float]
    objective: float | None
    light: str
    dimensions: tuple[_Dimension, ...]


def structure_of(
    path: str, directories: Sequence[Directory]
) -> tuple[Structure, tuple[tuple[Directory, ...], ...]]:
    """What the directories are, by the images, views and dimensions of the XML.

    Args:
        path: the file, for the model.
        directories: all of the file.

    Returns:
        The model, and for each of its images the directories of the levels, finest first.

    Raises:
        ValueError: the XML cannot be read, or names a directory that the file does not have.
    """
    root = parse_xml(directories[0].description)
    collections = named(root, "collection")
    if len(collections) != 1:
        raise ValueError(f"the Leica XML has {len(collections)} collections and not one")
    whole = (0.0, 0.0, *(_whole(collections[0], name) for name in ("sizeX", "sizeY")))
    by_number = {each.number: each for each in directories if each.sub is None}
    pages: dict[int, Page] = {}
    images: list[SlideImage] = []
    per_image: list[tuple[Directory, ...]] = []
    notes: list[str] = []
    for element in named(collections[0], "image"):
        area = _area(element)
        missing = [d.ifd for d in area.dimensions if d.ifd not in by_number]
        if missing:
            raise ValueError(f"the Leica XML names directory {missing[0]}, which the file has not")
        is_macro = area.view == whole
        levels = () if is_macro else _levels(area, by_number)
        for dimension in area.dimensions:
            directory = by_number[dimension.ifd]
            role, why = ("macro", "its view is the whole glass") if is_macro else _role(dimension)
            is_level = directory in levels
            pages[dimension.ifd] = _page(
                directory,
                role,
                f"image {area.name!r}: {why}",
                (len(images), levels.index(directory)) if is_level else None,
            )
        if levels:
            images.append(_image(area, len(images), levels))
            per_image.append(levels)
        elif not is_macro:
            notes.append(_why_no_slide(area))
    named_pages = tuple(
        pages[each.number]
        if each.sub is None and each.number in pages
        else _page(each, "unknown", "the XML does not name it", None)
        for each in directories
    )
    if len(images) > 1:
        notes.append(f"The glass has {len(images)} areas; each is a slide that can be chosen.")
    structure = Structure(path, "Leica SCN", named_pages, tuple(images), tuple(notes))
    return structure, tuple(per_image)


def _area(element: Element) -> _Area:
    views = named(element, "view")
    if len(views) != 1:
        raise ValueError(f"an image of the Leica XML has {len(views)} views and not one")
    view = views[0]
    dimensions = [
        _Dimension(*(_index(each, name) for name in ("ifd", "r", "c", "z")))
        for pixels in named(element, "pixels")
        for each in named(pixels, "dimension")
    ]
    if not dimensions:
        raise ValueError("an image of the Leica XML has no dimensions")
    settings = ("scanSettings", "illuminationSettings", "illuminationSource")
    return _Area(
        name=element.get("name", ""),
        view=(
            *(_whole(view, name) for name in ("offsetX", "offsetY")),
            *(_whole(view, name) for name in ("sizeX", "sizeY")),
        ),
        objective=number_in(text_at(element, "scanSettings", "objectiveSettings", "objective")),
        light=text_at(element, *settings),
        dimensions=tuple(dimensions),
    )


def _role(dimension: _Dimension) -> tuple[Role, str]:
    where = f"r={dimension.resolution} c={dimension.channel} z={dimension.plane}"
    if dimension.plane:
        return "focal plane", where
    if dimension.channel:
        return "channel", where
    return "level", where


def _levels(area: _Area, by_number: dict[int, Directory]) -> tuple[Directory, ...]:
    """The directories of focal plane 0, finest first; none where they are no RGB."""
    if any(dimension.channel for dimension in area.dimensions):
        return ()
    planes = [dimension for dimension in area.dimensions if dimension.plane == 0]
    levels = [by_number[d.ifd] for d in sorted(planes, key=lambda d: d.resolution)]
    if not all(level.is_rgb for level in levels):
        return ()
    if [d.width for d in levels] != sorted({d.width for d in levels}, reverse=True):
        raise ValueError(f"the resolutions of image {area.name!r} do not become coarser")
    return tuple(levels)


def _image(area: _Area, number: int, levels: Sequence[Directory]) -> SlideImage:
    base = levels[0]
    x, y, width, height = area.view
    claim = Claim(
        width * MICRONS_PER_NM / base.width,
        height * MICRONS_PER_NM / base.height,
        "the view in the Leica XML",
    )
    microns = believed((claim,), area.objective)
    notes = [*microns.notes]
    place = f"{x * MICRONS_PER_NM:g}, {y * MICRONS_PER_NM:g}"
    notes.append(
        f"Level 0 begins at the corner of the scanned area, which lies at ({place}) microns on "
        "the glass; coordinates that OpenSlide shows count from the corner of the glass."
    )
    planes = {dimension.plane for dimension in area.dimensions} - {0}
    if planes:
        notes.append(f"It has {len(planes)} more focal planes, which are not read.")
    sizes = [level.size for level in levels]
    return SlideImage(
        number=number,
        name=area.name,
        levels=tuple(
            Level(*level.size, downsample, level.tile_width, level.tile_height)
            for level, downsample in zip(levels, downsamples(sizes), strict=True)
        ),
        mpp=microns.mpp,
        mpp_source=microns.source,
        magnification=area.objective,
        notes=tuple(notes),
    )


def _why_no_slide(area: _Area) -> str:
    channels = len({dimension.channel for dimension in area.dimensions})
    light = f" under {area.light}" if area.light else ""
    return (
        f"Image {area.name!r} was scanned{light} in {channels} channels and has no RGB pixels: "
        "it is not read; convert it to an OME-TIFF."
    )


def _page(
    directory: Directory, role: Role, why: str, place: tuple[int, int] | None
) -> Page:
    return Page(
        name=directory.name,
        width=directory.width,
        height=directory.height,
        pixels=pixels_text(directory),
        role=role,
        why=why,
        image=None if place is None else place[0],
        level=None if place is None else place[1],
    )


def _whole(element: Element, name: str) -> float:
    """An attribute in nanometres, 0 or more."""
    text = element.get(name, "")
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise ValueError(f"the Leica XML has {name}={text!r} where a length is due")
    return value


def _index(element: Element, name: str) -> int:
    """An attribute that counts from 0; the old form of the XML leaves out those that are 0."""
    text = element.get(name, "" if name == "ifd" else "0")
    if not text.isdecimal():
        raise ValueError(f"the Leica XML has {name}={text!r} where a number is due")
    return int(text)
