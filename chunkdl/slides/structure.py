"""What is in a slide file: every picture of it, the part that each plays, and why.

The readers fill this model in from what the formats say. `chunkdl inspect --structure` prints it,
and what is read as a slide follows from it and from nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from chunkdl.errors import SlideError
from chunkdl.slides.slide import Level

Role = Literal["level", "label", "macro", "thumbnail", "focal plane", "channel", "map", "unknown"]
"""The part that a picture plays. "level" is a resolution of a slide; "macro" shows the whole glass;
"map" is a mask or probability map of the scanner. Only levels are ever read."""

ROUNDING_PX = 2
"""Pixels of a reduced level by which its sides may be off: each halving rounds one way or the
other. More would put patches far from their place, because one downsample holds for both axes."""


@dataclass(frozen=True, slots=True)
class Page:
    """One picture that the file stores.

    Attributes:
        name: where it is, such as "directory 2", "directory 0, SubIFD 1" or "level-1.dcm".
        width, height: stored pixels.
        pixels: how it is stored, such as "JPEG, 3 x 8 bit, tiles of 256x256".
        role: the part it plays.
        why: what says so, half a sentence.
        image: number of the image it belongs to, None for one that belongs to none.
        level: of that image, None for a picture that is not a level.
    """

    name: str
    width: int
    height: int
    pixels: str
    role: Role
    why: str
    image: int | None = None
    level: int | None = None


@dataclass(frozen=True, slots=True)
class SlideImage:
    """One slide in the file: what can be chosen with "#image=K".

    Attributes:
        number: K, counted from 0 over the slides of the file.
        name: what the file calls it, may be empty.
        levels: finest first.
        mpp: microns per pixel of level 0 as (x, y), None where it is unknown.
        mpp_source: where that was found.
        magnification: power of the objective, None where it is not stated.
        notes: what a user has to know, each a whole sentence.
    """

    number: int
    name: str
    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None = None
    mpp_source: str = ""
    magnification: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Structure:
    """The model of a file.

    Attributes:
        path: the file or folder.
        format: its kind, for people, such as "Aperio SVS".
        pages: every picture, in the order of the file.
        images: the slides in it; empty where it has none.
        notes: what a user has to know about the file as a whole.
    """

    path: str
    format: str
    pages: tuple[Page, ...]
    images: tuple[SlideImage, ...]
    notes: tuple[str, ...] = field(default=())


def chosen_image(structure: Structure, number: int | None) -> SlideImage:
    """The image of that number, or the only one where none was chosen.

    Raises:
        SlideError: there are several and none was chosen, or there is none of that number.
    """
    images = structure.images
    if not images:
        parts = ", ".join(f"{page.name}: {page.role}" for page in structure.pages[:8])
        raise SlideError(
            f"the {structure.format} file has no image that is a slide "
            f"({parts}){''.join(f'; {note}' for note in structure.notes)}; see chunkdl inspect "
            "--structure",
            slide=structure.path,
        )
    if number is None and len(images) == 1:
        return images[0]
    if number is None or not 0 <= number < len(images):
        have = ", ".join(_described(image) for image in images[:12])
        why = (
            f"the file has {len(images)} slides, and none was chosen"
            if number is None
            else f"the file has no image {number}"
        )
        raise SlideError(
            f"{why}; choose one with {structure.path}#image=K (or in the column 'image' of a "
            f"manifest). The file has {have}",
            slide=structure.path,
        )
    return images[number]


def _described(image: SlideImage) -> str:
    first = image.levels[0]
    name = f" {image.name!r}" if image.name else ""
    return f"#image={image.number}{name} of {first.width}x{first.height} pixels"


def same_aspect(size: tuple[int, int], base: tuple[int, int]) -> bool:
    """Whether a picture of `size` (width, height) can be the whole of `base`, reduced.

    The downsamples of both axes agree as well as sides of whole pixels can say.
    """
    (width, height), (base_w, base_h) = size, base
    if min(*size, *base) <= 0:
        return False
    across, down = base_w / width, base_h / height
    return abs(across / down - 1) <= ROUNDING_PX / width + ROUNDING_PX / height


def downsamples(sizes: Sequence[tuple[int, int]]) -> list[float]:
    """Level-0 pixels per pixel of each level of these sizes, the mean of both axes."""
    base_w, base_h = sizes[0]
    return [(base_w / width + base_h / height) / 2 for width, height in sizes]


def text_of(structure: Structure) -> str:
    """The model as lines for people."""
    lines = [f"{structure.path}: {structure.format}"]
    for page in structure.pages:
        part: str = page.role
        if page.image is not None and page.level is not None:
            channel = "a channel of " if page.role == "channel" else ""
            part = f"{channel}level {page.level} of image {page.image}"
        lines.append(
            f"  {page.name}: {page.width}x{page.height}, {page.pixels}: {part} ({page.why})"
        )
    for image in structure.images:
        name = f" {image.name!r}" if image.name else ""
        mpp = "mpp unknown"
        if image.mpp is not None:
            mpp = f"mpp {image.mpp[0]:.6g} x {image.mpp[1]:.6g} from {image.mpp_source}"
        power = "" if image.magnification is None else f", objective {image.magnification:g}x"
        lines.append(f"  image {image.number}{name}: {mpp}{power}")
        for index, level in enumerate(image.levels):
            lines.append(
                f"    level {index}: {level.width}x{level.height}, downsample "
                f"{level.downsample:.6g}, tiles {level.tile_width}x{level.tile_height}"
            )
        lines += [f"    note: {note}" for note in image.notes]
    lines += [f"  note: {note}" for note in structure.notes]
    return "\n".join(lines)
