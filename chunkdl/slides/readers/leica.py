"""Leica SCN: what the directories are, by the XML of the first one.

A collection is the glass. An image that covers all of it is the macro; every other one is an area
that was scanned, and a slide of its own here: its level 0 begins at the corner of the area.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """One stored picture of an image: directory, resolution, channel, focal plane, (width, height).

    Its size in pixels is without the padding that the directory may have.
    """

    ifd: int
    resolution: int
    channel: int
    plane: int
    size: tuple[int, int]


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
        raise ValueError(f"the Leica XML has {len(collections)} collections instead of one")
    glass = (0.0, 0.0, _whole(collections[0], "sizeX"), _whole(collections[0], "sizeY"))
    by_number = {each.number: each for each in directories if each.sub is None}
    pages: dict[int, Page] = {}
    images: list[SlideImage] = []
    per_image: list[tuple[Directory, ...]] = []
    notes: list[str] = []
    for element in named(collections[0], "image"):
        area = _area(element)
        _check_sizes(area, by_number)
        is_macro = area.view == glass
        levels = () if is_macro else _levels(area, by_number)
        for dimension in area.dimensions:
            role, why = _role(dimension, is_macro=is_macro)
            pages[dimension.ifd] = _page(
                by_number[dimension.ifd],
                role,
                f"image {area.name!r}: {why}",
                (len(images), levels.index(dimension)) if dimension in levels else None,
            )
        if levels:
            images.append(_image(area, len(images), levels, by_number))
            per_image.append(tuple(by_number[level.ifd] for level in levels))
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
        raise ValueError(f"an image of the Leica XML has {len(views)} views instead of one")
    view = views[0]
    dimensions = [
        _dimension(each)
        for pixels in named(element, "pixels")
        for each in named(pixels, "dimension")
    ]
    if not dimensions:
        raise ValueError("an image of the Leica XML has no dimensions")
    settings = ("scanSettings", "illuminationSettings", "illuminationSource")
    return _Area(
        name=element.get("name", ""),
        view=(
            _whole(view, "offsetX"),
            _whole(view, "offsetY"),
            _whole(view, "sizeX"),
            _whole(view, "sizeY"),
        ),
        objective=number_in(text_at(element, "scanSettings", "objectiveSettings", "objective")),
        light=text_at(element, *settings),
        dimensions=tuple(dimensions),
    )


def _dimension(element: Element) -> _Dimension:
    return _Dimension(
        ifd=_index(element, "ifd"),
        resolution=_index(element, "r"),
        channel=_index(element, "c"),
        plane=_index(element, "z"),
        size=(_index(element, "sizeX"), _index(element, "sizeY")),
    )


def _check_sizes(area: _Area, by_number: Mapping[int, Directory]) -> None:
    """Check that the file has the pictures that the XML names, and all of their pixels."""
    for each in area.dimensions:
        directory = by_number.get(each.ifd)
        if directory is None:
            raise ValueError(
                f"the Leica XML names directory {each.ifd}, which the file does not have"
            )
        if not (0 < each.size[0] <= directory.width and 0 < each.size[1] <= directory.height):
            raise ValueError(
                f"the Leica XML says {each.size[0]}x{each.size[1]} pixels of {directory.name}, "
                f"which has {directory.width}x{directory.height}"
            )


def _role(dimension: _Dimension, *, is_macro: bool) -> tuple[Role, str]:
    if is_macro:
        return "macro", "its view is the whole glass"
    where = f"r={dimension.resolution} c={dimension.channel} z={dimension.plane}"
    if dimension.plane:
        return "focal plane", where
    if dimension.channel:
        return "channel", where
    return "level", where


def _levels(area: _Area, by_number: Mapping[int, Directory]) -> tuple[_Dimension, ...]:
    """The pictures of focal plane 0, finest first; none where they are no RGB."""
    if any(dimension.channel for dimension in area.dimensions):
        return ()
    planes = [dimension for dimension in area.dimensions if dimension.plane == 0]
    levels = sorted(planes, key=lambda dimension: dimension.resolution)
    if not levels or not all(by_number[level.ifd].is_rgb for level in levels):
        return ()
    widths = [level.size[0] for level in levels]
    if widths != sorted(set(widths), reverse=True):
        raise ValueError(f"the resolutions of image {area.name!r} do not become coarser")
    return tuple(levels)


def _image(
    area: _Area, number: int, levels: Sequence[_Dimension], by_number: Mapping[int, Directory]
) -> SlideImage:
    x, y, width, height = area.view
    claim = Claim(
        width * MICRONS_PER_NM / levels[0].size[0],
        height * MICRONS_PER_NM / levels[0].size[1],
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
            Level(*level.size, downsample, *by_number[level.ifd].block)
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


def _page(directory: Directory, role: Role, why: str, place: tuple[int, int] | None) -> Page:
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
        raise ValueError(f"the Leica XML has {name}={text!r} instead of a length")
    return value


def _index(element: Element, name: str) -> int:
    """An attribute that counts from 0; the old form of the XML leaves out those that are 0."""
    text = element.get(name, "" if name == "ifd" else "0")
    if not text.isdecimal():
        raise ValueError(f"the Leica XML has {name}={text!r} instead of a number")
    return int(text)
