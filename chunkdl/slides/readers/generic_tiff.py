"""TIFF of no vendor: levels are the pages marked as reduced that have the shape of the largest."""

from __future__ import annotations

from collections.abc import Sequence

from chunkdl.slides.microns import believed
from chunkdl.slides.readers.described import (
    Described,
    ImageSource,
    Streams,
    described,
    level_pages,
    page_of,
    role_by_name,
    slide_image,
)
from chunkdl.slides.readers.directories import Directory, resolution_claims
from chunkdl.slides.readers.pyramids import Pyramid, pyramid
from chunkdl.slides.readers.refusals import Refused
from chunkdl.slides.structure import Page, same_aspect

REDUCED, MASK = 1, 4
"""Bits of NewSubfileType."""
MOST_PAGES, MOST_SLIDES = 1024, 16
"""Of a file; each slide is compared with each page."""
SMALL_SHARE = 0.25
"""Share of the area of the largest page below which an unmarked page is not taken for a slide."""


def describe(path: str, directories: Sequence[Directory]) -> Described:
    """The roles of the pages.

    Raises:
        Refused: there are more pages or slides than a file of a scanner has.
    """
    if len(directories) > MOST_PAGES:
        raise Refused(f"it has {len(directories)} pages; at most {MOST_PAGES} are read")
    pages: dict[str, Page] = {}
    rest = []
    for directory in directories:
        if named := role_by_name(directory):
            pages[directory.name] = page_of(directory, *named)
        elif directory.subfile_type & MASK:
            pages[directory.name] = page_of(directory, "map", "NewSubfileType says it is a mask")
        else:
            rest.append(directory)
    if not rest:
        return described(path, "TIFF", directories, pages, ())
    largest = max(rest, key=lambda one: one.width * one.height)
    bases, reduced = [], []
    for directory in rest:
        marked = directory.sub is not None or bool(directory.subfile_type & REDUCED)
        if directory is not largest and (marked or _is_small(directory, largest)):
            reduced.append((directory, marked))
        else:
            bases.append(directory)
    planes = [one for one in bases if one.size == largest.size and one.samples == 1]
    if len(planes) > 1:
        # One channel or focal plane a page: they are one image, and the user says which is what.
        bases = [one for one in bases if one not in planes[1:]]
    if len(bases) > MOST_SLIDES:
        raise Refused(f"{len(bases)} of its pages may be slides; at most {MOST_SLIDES} are read")
    marked_pages = [one for one, marked in reduced if marked]
    of_base = {one.name: _base_of(one, bases) for one in marked_pages}
    images = []
    for number, base in enumerate(bases):
        streams = planes if len(planes) > 1 and base is planes[0] else [base]
        candidates = [one for one in marked_pages if of_base[one.name] is base]
        for one in tuple(candidates):
            if bool(one.tile_width) != bool(base.tile_width):
                # OpenSlide leaves such a page out as well: it is a picture for people to look at.
                why = "it is a reduced picture in strips, the slide is in tiles"
                pages[one.name] = page_of(one, "thumbnail", why)
                candidates.remove(one)
        levels, sources = _with_streams(base, streams, candidates)
        pages |= level_pages(levels, number)
        for channel in streams[1:]:
            pages[channel.name] = page_of(
                channel, "channel", "one sample a pixel, as large as the first", number, 0
            )
        for one in candidates:
            pages.setdefault(
                one.name, page_of(one, "unknown", levels.rejected.get(one.name, "of a channel"))
            )
        microns = believed(resolution_claims(base), None)
        image = slide_image(number, "", levels, microns, None)
        images.append((image, ImageSource(sources)))
    for one, marked in reduced:
        why = "it fits several slides" if marked else "it is not marked as a reduced picture"
        pages.setdefault(one.name, page_of(one, "unknown", why))
    return described(path, "TIFF", directories, pages, images)


def _is_small(directory: Directory, largest: Directory) -> bool:
    share = directory.width * directory.height / (largest.width * largest.height)
    # Two slides are of one shape, to the pixel, only where somebody cut them to one size.
    return share < SMALL_SHARE or (share < 1 and same_aspect(directory.size, largest.size))


def _base_of(directory: Directory, bases: Sequence[Directory]) -> Directory | None:
    """The only slide of which a reduced page may be a level."""
    if directory.sub is not None:
        fitting = [one for one in bases if one.number == directory.number]
    elif len(bases) == 1:
        fitting = [*bases]
    else:
        fitting = [one for one in bases if len(pyramid(one, [directory]).levels) == 2]
    return fitting[0] if len(fitting) == 1 else None


def _with_streams(
    base: Directory, streams: Sequence[Directory], candidates: Sequence[Directory]
) -> tuple[Pyramid, tuple[Streams, ...]]:
    """The levels of an image, and for each the directories of all its channels."""
    if len(streams) == 1:
        levels = pyramid(base, candidates)
        return levels, tuple((directory,) for directory in levels.directories)
    # Reduced pages of one channel do not say of which they are, so only level 0 is read.
    return pyramid(base, ()), (tuple(streams),)
