"""OME-TIFF: the XML says which images there are, and which directory holds which plane of them.

OME-XML 2016-06 (Open Microscopy Environment): Image, Pixels, Channel, TiffData; an attribute that
is left out has the default of the schema. Reduced levels are SubIFDs of the planes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from chunkdl.slides.microns import Claim, believed, is_overview, microns_of_unit, number_in
from chunkdl.slides.readers.described import (
    Described,
    ImageSource,
    Streams,
    described,
    level_pages,
    page_of,
    role_by_name,
    role_of_name,
    slide_image,
)
from chunkdl.slides.readers.directories import Directory, resolution_claims
from chunkdl.slides.readers.pyramids import POWERS, pyramid, whole_factor
from chunkdl.slides.readers.refusals import Refused
from chunkdl.slides.readers.xml_text import named, parse_xml
from chunkdl.slides.structure import Page, Role, SlideImage, same_aspect

MOST_PLANES = 4096
REDUCED = 1
"""Bit of NewSubfileType."""
MOST_IMAGES = 1024
SMALL_SHARE = 0.25
"""Share of the area of the largest image below which one that has no pixel size and no name of its
own is not taken for a slide."""
LARGEST_MACRO_PX = 4096 * 4096
SAME_MPP = 1.05
"""Factor by which two pixel sizes may differ and be the same."""


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One Image element.

    Attributes:
        name: what it is called.
        width, height: pixels of a plane.
        planes: the directory of each plane, by (channel group, z, t).
        channel_names: of the channels, one for each Channel element.
        sizes: channel groups, focal planes, time points.
        mpp: microns per pixel as (x, y), None where it is not said.
        magnification: of the objective, None where it is not said.
    """

    name: str
    width: int
    height: int
    planes: Mapping[tuple[int, int, int], int]
    channel_names: tuple[str, ...]
    sizes: tuple[int, int, int]
    mpp: tuple[float, float] | None
    magnification: float | None


def is_kind(directories: Sequence[Directory]) -> bool:
    """Whether the first description is OME-XML."""
    text = directories[0].description
    return re.search(r"<(?:\w+:)?OME[\s>]", text[:8192]) is not None


def describe(path: str, directories: Sequence[Directory]) -> Described:
    """The roles of the pages.

    Raises:
        Refused: the XML cannot be read, or contradicts the file.
    """
    try:
        root = parse_xml(directories[0].description)
    except ValueError as error:
        raise Refused(f"its OME-XML is damaged: {error}") from error
    chain = {one.number: one for one in directories if one.sub is None}
    images = [image for image in _images(root, len(chain)) if image.planes]
    if not images:
        raise Refused("its OME-XML names no image whose planes are in this file")
    pages: dict[str, Page] = {}
    slides: list[OmeImage] = []
    finest = min((image.mpp[0] for image in images if image.mpp), default=None)
    for image in images:
        role = _role_by_size(image, finest, images)
        if called := role_of_name(image.name):
            role = called, f"the XML calls it {image.name!r}"
        if role is None:
            slides.append(image)
        else:
            _name_pages(image, role, directories, pages)
    reduced: dict[int, list[OmeImage]] = {}
    found: list[tuple[SlideImage, ImageSource]] = []
    kept: list[OmeImage] = []
    for image in sorted(slides, key=lambda one: -one.width * one.height):
        whole = next((one for one in kept if _is_reduced(image, one)), None)
        if whole is not None:
            reduced.setdefault(id(whole), []).append(image)
        elif kept and (role := _role_beside(image, kept)):
            _name_pages(image, role, directories, pages)
        else:
            kept.append(image)
    chosen = {id(image) for image in kept}
    slides = [image for image in slides if id(image) in chosen]
    claimed = {number for image in images for number in image.planes.values()}
    free = []
    for key, one in chain.items():
        if key not in claimed and (says := role_by_name(one)):
            pages[one.name] = page_of(one, *says)
        elif key not in claimed:
            free.append(one)
    for number, image in enumerate(slides):
        parts = [chain[part.planes[0, 0, 0]] for part in reduced.get(id(image), ())]
        if number == 0:
            # Pages that the XML does not name are levels where they are marked or halved exactly.
            base = chain[image.planes[0, 0, 0]]
            parts += [
                one
                for one in free
                if one.subfile_type & REDUCED or whole_factor(base, one) in POWERS
            ]
        found.append(_slide(image, number, chain, directories, parts, pages))
    return described(path, "OME-TIFF", directories, pages, found)


def _name_pages(
    image: OmeImage,
    role: tuple[Role, str],
    directories: Sequence[Directory],
    pages: dict[str, Page],
) -> None:
    """Give the planes of an image, and their reduced pictures, its role."""
    numbers = {*image.planes.values()}
    for one in directories:
        if one.number in numbers:
            pages[one.name] = page_of(one, *role)


def _role_by_size(
    image: OmeImage, finest: float | None, images: Sequence[OmeImage]
) -> tuple[Role, str] | None:
    """Pixels that are far too large for a slide are those of the macro, or of a reduced level."""
    if image.mpp is None or finest is None or not is_overview(image.mpp[0], finest):
        return None
    if any(_is_reduced(image, other) for other in images):
        return None
    return "macro", f"its pixels are {image.mpp[0]:g} um, the finest of the file {finest:g} um"


def _is_reduced(image: OmeImage, whole: OmeImage) -> bool:
    """Whether an image is a level of another one that was written as an image of its own."""
    size, whole_size = (image.width, image.height), (whole.width, whole.height)
    if image.sizes != (1, 1, 1) or whole.sizes != (1, 1, 1) or not same_aspect(size, whole_size):
        return False
    downsample = (whole.width / image.width + whole.height / image.height) / 2
    if downsample <= 1.5:
        return False
    if image.mpp and whole.mpp:
        return _about_equal(image.mpp[0] / whole.mpp[0], downsample)
    return any(_about_equal(downsample, power) for power in POWERS)


def _role_beside(image: OmeImage, larger: Sequence[OmeImage]) -> tuple[Role, str] | None:
    """The role of an image that is not a slide beside larger ones; None for one that is."""
    area = image.width * image.height
    for other in larger:
        if image.mpp and other.mpp and _about_equal(image.mpp[0], other.mpp[0]):
            continue
        shapes = (image.width, image.height), (other.width, other.height)
        if area < other.width * other.height and same_aspect(*shapes):
            return "thumbnail", f"it has the shape of image {other.name!r} and fewer pixels"
    largest = larger[0].width * larger[0].height
    if image.mpp is None and area < SMALL_SHARE * largest and area <= LARGEST_MACRO_PX:
        return "unknown", "it is small, and nothing says what it is"
    return None


def _about_equal(one: float, other: float) -> bool:
    return max(one / other, other / one) <= SAME_MPP


def _slide(
    image: OmeImage,
    number: int,
    chain: Mapping[int, Directory],
    directories: Sequence[Directory],
    beside: Sequence[Directory],
    pages: dict[str, Page],
) -> tuple[SlideImage, ImageSource]:
    """An image that is a slide; the roles of its planes and of their SubIFDs go into `pages`.

    `beside` are pages of the main chain that may be reduced levels of it.
    """
    groups, depth, times = image.sizes
    streams = [chain[image.planes[group, 0, 0]] for group in range(groups)]
    base = streams[0]
    if (image.width, image.height) != base.size:
        raise Refused(
            f"its OME-XML says {image.width}x{image.height} pixels for {base.name}, which has "
            f"{base.width}x{base.height}"
        )
    below = [one for one in directories if one.sub is not None and one.number == base.number]
    levels = pyramid(base, [*below, *beside])
    sources: list[Streams] = [tuple(streams)]
    for one in levels.directories[1:]:
        rest = [_at_same_place(one, plane, directories) for plane in streams[1:]]
        sources.append((one, *rest))
    pages |= level_pages(levels, number)
    for level, together in enumerate(sources):
        for channel in together[1:]:
            pages[channel.name] = page_of(channel, "channel", "the XML says so", number, level)
    for one in (*below, *beside):
        if why := levels.rejected.get(one.name):
            pages[one.name] = page_of(one, "unknown", why)
    for (_, z, t), key in image.planes.items():
        if z or t:
            pages[chain[key].name] = page_of(
                chain[key], "focal plane", f"the XML says plane {z} at time {t}"
            )
    refused = ""
    if depth > 1 or times > 1:
        refused = (
            f"it has {depth} focal planes and {times} time points: write one of them into a file "
            "of its own"
        )
    claims = [Claim(*image.mpp, "the OME-XML")] if image.mpp else []
    claims += resolution_claims(base)
    microns = believed(claims, image.magnification)
    slide = slide_image(number, image.name, levels, microns, image.magnification)
    return slide, ImageSource(tuple(sources), image.channel_names, refused)


def _at_same_place(
    level: Directory, plane: Directory, directories: Sequence[Directory]
) -> Directory:
    """The reduced picture of another channel that belongs to a level of the first channel."""
    for one in directories:
        if one.number == plane.number and one.sub == level.sub and one.size == level.size:
            return one
    raise Refused(f"{plane.name} has no reduced picture of the size of {level.name}")


# ---- The XML


def _images(root: Element, directories: int) -> list[OmeImage]:
    powers = {
        objective.get("ID", ""): number_in(objective.get("NominalMagnification", ""))
        for instrument in named(root, "Instrument")
        for objective in named(instrument, "Objective")
    }
    elements = named(root, "Image")
    if len(elements) > MOST_IMAGES:
        raise Refused(f"its OME-XML has {len(elements)} images; at most {MOST_IMAGES} are read")
    images = []
    following = 0
    for element in elements:
        for pixels in named(element, "Pixels")[:1]:
            settings = [*named(element, "ObjectiveSettings"), *named(element, "ObjectiveRef")]
            power = powers.get(settings[0].get("ID", "")) if settings else None
            image = _image(element, pixels, power, (root.get("UUID") or ""), following, directories)
            following += len(image.planes)
            images.append(image)
    return images


def _image(
    element: Element,
    pixels: Element,
    power: float | None,
    uuid: str,
    following: int,
    directories: int,
) -> OmeImage:
    width, height, channels, depth, times = (_size(pixels, f"Size{axis}") for axis in "XYCZT")
    elements = named(pixels, "Channel")
    per_plane = max(1, _whole(elements[0].get("SamplesPerPixel"), 1)) if elements else 1
    if elements and len(elements) * per_plane != channels:
        per_plane = max(1, channels // len(elements))
    groups = max(1, channels // per_plane)
    if groups * depth * times > MOST_PLANES:
        raise Refused(
            f"its OME-XML has {groups * depth * times} planes; at most {MOST_PLANES} are read"
        )
    order = pixels.get("DimensionOrder") or "XYCZT"
    planes = _planes(pixels, order, (groups, depth, times), uuid, following)
    if any(not 0 <= directory < directories for directory in planes.values()):
        raise Refused(
            f"its OME-XML names directories that do not exist: the file has {directories}"
        )
    if planes and any((group, 0, 0) not in planes for group in range(groups)):
        raise Refused(
            f"its OME-XML has {groups} channels for image {element.get('Name')!r} and not all "
            "are in this file: OME-TIFF of several files is not read, convert it to one file"
        )
    return OmeImage(
        name=element.get("Name") or "",
        width=width,
        height=height,
        planes=planes,
        channel_names=tuple(_channel_name(one) for one in elements),
        sizes=(groups, depth, times),
        mpp=_physical_size(pixels),
        magnification=power,
    )


def _planes(
    pixels: Element, order: str, sizes: tuple[int, int, int], uuid: str, following: int
) -> dict[tuple[int, int, int], int]:
    """The directory of each plane by (channel group, z, t)."""
    groups, depth, times = sizes
    extents = {"C": groups, "Z": depth, "T": times}
    axes = [axis for axis in order.upper() if axis in extents]
    if sorted(axes) != ["C", "T", "Z"]:
        raise Refused(f"its OME-XML has the dimension order {order!r}")
    total = groups * depth * times
    planes: dict[tuple[int, int, int], int] = {}
    elements = named(pixels, "TiffData")
    for element in elements:
        if any((one.text or "").strip().lower() != uuid.lower() for one in named(element, "UUID")):
            continue
        ifd, count = element.get("IFD"), element.get("PlaneCount")
        first = _whole(ifd, following if len(elements) == 1 else 0)
        planes_here = _whole(count, 1 if ifd is not None else total)
        at = {axis: _whole(element.get(f"First{axis}"), 0) for axis in extents}
        if at["C"] >= groups:
            at["C"] //= max(1, _size(pixels, "SizeC") // groups)
        start = 0
        for axis in reversed(axes):
            start = start * extents[axis] + min(at[axis], extents[axis] - 1)
        for step in range(max(0, min(planes_here, total - start))):
            rest, place = start + step, {}
            for axis in axes:
                rest, place[axis] = divmod(rest, extents[axis])
            planes[place["C"], place["Z"], place["T"]] = first + step
    if not elements:
        return {(0, 0, 0): following} if total == 1 else {}
    return planes


def _channel_name(channel: Element) -> str:
    """The name of a channel; its colour where it has none and the colour is a pure one."""
    pure = {0xFF0000FF: "red", 0x00FF00FF: "green", 0x0000FFFF: "blue"}
    # Colours are signed numbers of 32 bits, red in the highest byte.
    colour = _whole(channel.get("Color"), 0) & 0xFFFFFFFF
    return channel.get("Name") or pure.get(colour, "")


def _physical_size(pixels: Element) -> tuple[float, float] | None:
    sizes = []
    for axis in "XY":
        value = number_in(pixels.get(f"PhysicalSize{axis}") or "")
        unit = microns_of_unit(pixels.get(f"PhysicalSize{axis}Unit") or "\u00b5m")
        if value is None or unit is None:
            return None
        sizes.append(value * unit)
    return sizes[0], sizes[1]


def _size(pixels: Element, name: str) -> int:
    return max(1, _whole(pixels.get(name), 1))


def _whole(text: str | None, default: int) -> int:
    try:
        value = int(text) if text is not None else default
    except ValueError:
        raise Refused(f"its OME-XML has {text!r} instead of a whole number") from None
    if abs(value) > 2**33:
        raise Refused(f"its OME-XML has the number {value}")
    return value
