"""A TIFF whose pages have their roles: the model for people, and the directories to read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chunkdl.slides.microns import Microns
from chunkdl.slides.readers.directories import Directory, pixels_text
from chunkdl.slides.readers.pyramids import Pyramid
from chunkdl.slides.readers.tiled import TiledLevel
from chunkdl.slides.slide import PixelRule
from chunkdl.slides.structure import Page, Role, SlideImage, Structure

PAGE_NAME = 285
_ROLE_OF_WORD: Mapping[str, Role] = {
    "label": "label",
    "barcode": "label",
    "macro": "macro",
    "overview": "macro",
    "thumbnail": "thumbnail",
    "thumb": "thumbnail",
    "preview": "thumbnail",
}
_WORDS = "|".join(_ROLE_OF_WORD)
_BEGINS = re.compile(rf"(?:slide[ _]+)?({_WORDS})(?=[\s:;,|=(\[]|$)", re.IGNORECASE)
_ENDS = re.compile(rf"(?:^|[\W_])({_WORDS})[\s_]*(?:image)?[\W_\d]*$", re.IGNORECASE)
_SUFFIX = re.compile(r"\.(?:tiff?|jpe?g|png|bmp)$", re.IGNORECASE)
MOST_NAME_CHARACTERS = 200
"""Longer texts are no names."""

Streams = tuple[Directory, ...]
"""The directories that together hold the tiles of a level: one, or one for each channel."""


LevelMaker = Callable[[str, Sequence[Directory], PixelRule], list[TiledLevel]]
"""The tiled levels of an image: path, directories of the levels, rule for its pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageSource:
    """Where the pixels of one slide of the file are.

    Attributes:
        levels: the directories of each level, finest first, as in `SlideImage.levels`.
        channel_names: of its samples where the file names them.
        refused: why no reader may take it, empty where one may.
        not_taken: why another reader has to take it, empty where this one does.
        tiles: makes the levels where their tiles are not those of the directories.
    """

    levels: tuple[Streams, ...]
    channel_names: tuple[str, ...] = ()
    refused: str = ""
    not_taken: str = ""
    tiles: LevelMaker | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """A file whose pages have their roles.

    Attributes:
        structure: the model for people.
        sources: for each image of the model where its pixels are.
    """

    structure: Structure
    sources: tuple[ImageSource, ...]


def role_of_name(name: str) -> Role | None:
    """The role that a picture of that name has, None where the name gives none.

    It gives one at its beginning, as in "Label 387x463", or at its end, as in "case 12 [macro]";
    "macrophages", "label-free" and "macro_dissected.svs" give none.
    """
    text = _SUFFIX.sub("", name.strip())
    if len(text) > MOST_NAME_CHARACTERS:
        return None
    found = _BEGINS.match(text) or _ENDS.search(text)
    return _ROLE_OF_WORD[found[1].lower()] if found else None


def role_by_name(directory: Directory) -> tuple[Role, str] | None:
    """The role that the page's own words give it, and which words; None: they give none."""
    texts = (directory.description, str(directory.tags.get(PAGE_NAME) or ""))
    for text in texts:
        name = text.strip().partition("\n")[0].strip()
        if role := role_of_name(name):
            return role, f"it is called {name!r}"
    return None


def page_of(
    directory: Directory, role: Role, why: str, image: int | None = None, level: int | None = None
) -> Page:
    """The page of the model that a directory is."""
    return Page(
        name=directory.name,
        width=directory.width,
        height=directory.height,
        pixels=pixels_text(directory),
        role=role,
        why=why,
        image=image,
        level=level,
    )


def level_pages(levels: Pyramid, image: int) -> dict[str, Page]:
    """The pages of the levels of an image, by the names of their directories."""
    return {
        directory.name: page_of(directory, "level", why, image, index)
        for index, (directory, why) in enumerate(
            zip(levels.directories, levels.reasons, strict=True)
        )
    }


def described(
    path: str,
    format_name: str,
    directories: Sequence[Directory],
    pages: Mapping[str, Page],
    images: Sequence[tuple[SlideImage, ImageSource]],
    notes: Sequence[str] = (),
) -> Described:
    """The file, its pages in the order of its directories; a page without a role is unknown."""
    ordered = tuple(
        pages.get(directory.name) or page_of(directory, "unknown", "nothing says what it is")
        for directory in directories
    )
    structure = Structure(
        path, format_name, ordered, tuple(image for image, _ in images), tuple(notes)
    )
    return Described(structure, tuple(source for _, source in images))


def slide_image(
    number: int,
    name: str,
    levels: Pyramid,
    microns: Microns,
    magnification: float | None,
    notes: Sequence[str] = (),
) -> SlideImage:
    """An image of the model."""
    return SlideImage(
        number=number,
        name=name,
        levels=levels.levels,
        mpp=microns.mpp,
        mpp_source=microns.source,
        magnification=magnification,
        notes=(*notes, *microns.notes),
    )
