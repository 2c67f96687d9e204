"""Which annotations belong to which slide: those of a folder, or what a function says.

Deciding is apart from looking at the disk: `files_below` looks, the others decide.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chunkdl.annotations.names import may_be, stem_of
from chunkdl.annotations.options import ReadingOptions
from chunkdl.errors import AnnotationError, ConfigError
from chunkdl.slides.address import parse_address

_DICOM = ".dcm"


@dataclass(frozen=True, slots=True)
class OwnAnnotations:
    """A function of the user that says what is drawn on a slide.

    Attributes:
        function: gets the path of a slide, and returns the path of a file of annotations, GeoJSON
            as a dict or list, an `Annotations`, or None for a slide without any.
        key: stands for the function wherever its results are kept; change it when the results
            change.

    Raises:
        ConfigError: one of them is not what it has to be.
    """

    function: Callable[[str], Any]
    key: str

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(f"OwnAnnotations: {self.function!r:.80} cannot be called")
        if not isinstance(self.key, str) or not self.key:
            raise ConfigError(
                f'OwnAnnotations: key={self.key!r} must be a text such as "tumours 1"; results are '
                "kept under it"
            )


def files_below(folder: str) -> list[str]:
    """The files in a folder and its subfolders, sorted; hidden names are left out.

    Raises:
        AnnotationError: it cannot be looked at.
    """

    def refuse(error: OSError) -> None:
        raise AnnotationError(
            f"the folder of annotations cannot be read: {error.strerror}", file=folder
        ) from error

    found = []
    for top, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(top, name) for name in names if not name.startswith(".")]
    return sorted(found)


def file_of_each_slide(
    slides: Sequence[str], files: Sequence[str], options: ReadingOptions
) -> list[str | None]:
    """The file of annotations of each slide, by name.

    A file belongs to a slide if both have the same name without folder and suffixes; a DICOM slide
    may also have the name of its folder. Files whose suffix is none of the format's are passed
    over, and so are the slides themselves, which may lie in the same folder. Pictures are masks
    only if the options have `mask_classes`.

    Args:
        slides: paths of all slides.
        files: paths of all files that are there.
        options: how they are read.

    Returns:
        A path for each slide, None where there is no file.

    Raises:
        AnnotationError: two files have the name of one slide, or two slides the name of one file.
    """
    by_stem = _by_stem(slides, files, options)
    found: list[str | None] = []
    taken: dict[str, str] = {}
    for slide in slides:
        fitting = next((by_stem[stem] for stem in _stems(slide) if stem in by_stem), ())
        if len(fitting) > 1:
            raise AnnotationError(
                f"two files have the name of the slide {slide}: {fitting[0]} and {fitting[1]}. "
                "Remove one, choose a format, or give the file of each slide in a manifest",
                file=fitting[0],
            )
        file = fitting[0] if fitting else None
        if file is not None and taken.setdefault(file, slide) != slide:
            raise AnnotationError(
                f"two slides have the name of this file: {taken[file]} and {slide}. Give the file "
                "of each slide in a manifest",
                file=file,
            )
        found.append(file)
    return found


def _by_stem(
    slides: Sequence[str], files: Sequence[str], options: ReadingOptions
) -> Mapping[str, list[str]]:
    own = {os.path.normpath(parse_address(slide).path) for slide in slides}
    found: dict[str, list[str]] = {}
    for file in files:
        named = may_be(file, options.format)
        picture = may_be(file, "mask") and options.format == "auto" and not options.mask_classes
        if named and not picture and os.path.normpath(file) not in own:
            found.setdefault(stem_of(file), []).append(file)
    return found


def _stems(slide: str) -> list[str]:
    path = parse_address(slide).path
    stems = [stem_of(path)]
    if path.lower().endswith(_DICOM):
        stems.append(stem_of(os.path.dirname(path)))
    return stems
