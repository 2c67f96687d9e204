"""TIFF of no vendor: levels are reduced pages of the shape of the largest.

A page is reduced where its NewSubfileType says so, or where nothing is said and it has the size of
the largest page divided by a power of two, stored in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

from chunkdl.slides.microns import COARSEST_MPP, believed, is_overview
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
from chunkdl.slides.readers.pyramids import POWERS, Pyramid, pyramid, whole_factor
from chunkdl.slides.readers.refusals import Refused
from chunkdl.slides.structure import Page, same_aspect

REDUCED, MASK = 1, 4
"""Bits of NewSubfileType."""
MOST_PAGES, MOST_SLIDES = 1024, 16
"""Of a file; each slide is compared with each page."""
SMALL_SHARE = 0.25
"""Share of the area of the largest page below which an unmarked page is not taken for a slide,
unless it is larger than any picture of a label or of the whole glass."""
LARGEST_MACRO_PX = 4096 * 4096
MOST_LARGEST = 16
"""Pages that a coarse one is compared with; a damaged file may have thousands."""
MPP_TOLERANCE = 0.1
"""Relative difference between the ratio of two pixel sizes and that of the sides."""


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
    rest = [*_without_macros(rest, pages)]
    largest = max(rest, key=lambda one: one.width * one.height)
    bases, reduced = [], []
    for directory in rest:
        marked = directory.sub is not None or bool(directory.subfile_type & REDUCED)
        if directory is largest or not (marked or _is_small(directory, largest)):
            bases.append(directory)
        else:
            reduced.append((directory, marked or _looks_reduced(directory, largest)))
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
            if base.tile_width and not one.tile_width:
                # OpenSlide leaves such a page out as well: it is a picture for people to look at.
                why = "it is a reduced picture in strips, the slide is in tiles"
                pages[one.name] = page_of(one, "thumbnail", why)
                candidates.remove(one)
        levels, sources = _with_streams(base, streams, candidates, directories)
        pages |= level_pages(levels, number)
        for index, together in enumerate(sources):
            for channel in together[1:]:
                why = "one sample a pixel, as large as the first"
                pages[channel.name] = page_of(channel, "channel", why, number, index)
        for one in candidates:
            pages.setdefault(
                one.name, page_of(one, "unknown", levels.rejected.get(one.name, "of a channel"))
            )
        microns = believed(resolution_claims(base), None)
        image = slide_image(number, "", levels, microns, None)
        images.append((image, ImageSource(sources)))
    for one, marked in reduced:
        why = "it fits several slides" if marked else "it is small, and nothing says what it is"
        pages.setdefault(one.name, page_of(one, "unknown", why))
    return described(path, "TIFF", directories, pages, images)


def _without_macros(
    directories: Sequence[Directory], pages: dict[str, Page]
) -> Sequence[Directory]:
    """The pages without those whose pixels are far too large for a slide; these go into `pages`."""
    known = {one.name: mpp for one in directories if (mpp := _mpp(one)) is not None}
    near: list[Directory] = []
    far: list[Directory] = []
    for directory in directories:
        marked = directory.sub is not None or directory.subfile_type & REDUCED
        mpp = None if marked else known.get(directory.name)
        is_far = mpp is not None and is_overview(mpp, min(known.values()))
        (far if is_far else near).append(directory)
    largest = sorted(near, key=lambda one: -one.width * one.height)[:MOST_LARGEST]
    reduced = []
    for directory in far:
        if any(_looks_reduced(directory, other) for other in largest):
            reduced.append(directory)
        else:
            mpp, finest = known[directory.name], min(known.values())
            why = f"its pixels are {mpp:g} um, the finest of the file {finest:g}"
            pages[directory.name] = page_of(directory, "macro", why)
    return [*near, *reduced]


def _mpp(directory: Directory) -> float | None:
    """Microns per pixel by the tags, None where they do not say any that can be."""
    claims = resolution_claims(directory)
    return claims[0].x if claims and claims[0].x <= COARSEST_MPP else None


def _is_small(directory: Directory, largest: Directory) -> bool:
    area, whole = directory.width * directory.height, largest.width * largest.height
    # Two slides are of one shape, to the pixel, only where somebody cut them to one size.
    if area < whole and same_aspect(directory.size, largest.size):
        return True
    return area < SMALL_SHARE * whole and area <= LARGEST_MACRO_PX


def _looks_reduced(directory: Directory, largest: Directory) -> bool:
    """Whether a page that is not marked is a level all the same."""
    fine, own = _mpp(largest), _mpp(directory)
    factor = whole_factor(largest, directory)
    if factor not in POWERS or (largest.tile_width and not directory.tile_width):
        return False
    # A place of the same size elsewhere has the shape as well, and so may the whole glass.
    return fine is None or own is None or abs(own / fine / factor - 1) <= MPP_TOLERANCE


def _base_of(directory: Directory, bases: Sequence[Directory]) -> Directory | None:
    """The only slide that a reduced page may belong to."""
    if directory.sub is not None:
        fitting = [one for one in bases if one.number == directory.number]
    elif len(bases) == 1:
        fitting = [*bases]
    else:
        fitting = [one for one in bases if len(pyramid(one, [directory]).levels) == 2]
    return fitting[0] if len(fitting) == 1 else None


def _with_streams(
    base: Directory,
    streams: Sequence[Directory],
    candidates: Sequence[Directory],
    directories: Sequence[Directory],
) -> tuple[Pyramid, tuple[Streams, ...]]:
    """The levels of an image, and for each the directories of all its channels."""
    if len(streams) == 1:
        levels = pyramid(base, candidates)
        return levels, tuple((directory,) for directory in levels.directories)
    # A reduced page of one channel does not say which channel it is; only the SubIFDs do.
    below = {(one.number, one.sub): one for one in directories}
    complete = [
        one
        for one in candidates
        if one.sub is not None
        and all(
            (other := below.get((stream.number, one.sub))) is not None and other.size == one.size
            for stream in streams
        )
    ]
    levels = pyramid(base, complete)
    reduced = [
        tuple(below[stream.number, one.sub] for stream in streams) for one in levels.directories[1:]
    ]
    return levels, (tuple(streams), *reduced)
