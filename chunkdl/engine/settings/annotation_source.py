"""Where the annotations of a dataset are, and how each slide's are had from there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chunkdl.annotations.kept import AnnotationCache
from chunkdl.annotations.names import may_be
from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.shapes import Annotations
from chunkdl.annotations.sources import OwnAnnotations, file_of_each_slide, files_below
from chunkdl.annotations.use import Roi
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.errors import ConfigError
from chunkdl.slides.address import parse_address
from chunkdl.slides.slide import SlideInfo
from chunkdl.slides.suffixes import SLIDE_SUFFIXES
from chunkdl.system.printing import printable
from chunkdl.system.steady_log import steady_logger

FOLDER = "annotations"
"""Of kept annotations, in the folder of the tissue mask cache where one is given."""

MOST_NAMED = 5

log = steady_logger("chunkdl")


@dataclass(frozen=True, slots=True)
class AnnotationSource:
    """Gives the annotations of a slide; can be sent to another process.

    Attributes:
        of_slide: the file of each slide that has one, by the path of the slide; of all slides, the
            function of the user.
        options: how files are read.
        cache: where they are kept.
    """

    of_slide: Mapping[str, str] | OwnAnnotations
    options: ReadingOptions
    cache: AnnotationCache

    def __call__(self, entry: SlideEntry, info: SlideInfo) -> Annotations | None:
        """Those of a slide with these facts; None: it has none.

        Raises:
            AnnotationError: they cannot be read.
        """
        size, corner = _size(info), _corner(info, self.options)
        if isinstance(self.of_slide, OwnAnnotations):
            return self.cache.of_call(
                self.of_slide, entry.path, self.options, size=size, offset=corner
            )
        path = self.of_slide.get(entry.path)
        if path is None:
            return None
        slide = parse_address(entry.path).path
        return self.cache.of_file(path, self.options, size=size, slide=slide, offset=corner)


def annotation_source(
    slides: Sequence[SlideEntry], arguments: Arguments
) -> AnnotationSource | None:
    """What gives the annotations of slides; None: nothing is asked for.

    Raises:
        AnnotationError: it is not clear which file belongs to which slide.
        ConfigError: something needs annotations, and there are none.
    """
    given, options, roi = arguments.annotations, arguments.annotation_reading, arguments.roi
    options = ReadingOptions() if options is None else options
    assert isinstance(options, ReadingOptions), "checked"
    uses = [
        name
        for name, is_used in (
            ("roi", isinstance(roi, Roi) and roi.where != "ignore"),
            ("regions", arguments.regions is not None),
            ("label_mask", arguments.label_mask),
            ("region_label", arguments.region_label != "centre"),
            ("region_shares", arguments.region_shares),
            ("cells", arguments.cells is not None),
            ("region_names", bool(arguments.region_names)),
            ("annotation_reading", arguments.annotation_reading is not None),
        )
        if is_used
    ]
    in_manifest = any(entry.annotations is not None for entry in slides)
    if given is None and not in_manifest:
        if uses:
            raise ConfigError(
                f"{uses[0]} needs annotations: give annotations= a folder, a function as "
                "OwnAnnotations, or name the file of each slide in the column annotations of the "
                "manifest"
            )
        return None
    cache = AnnotationCache(_folder(arguments))
    if isinstance(given, OwnAnnotations):
        return AnnotationSource(given, options, cache)
    paths = [entry.annotations for entry in slides]
    if given is not None:
        every, files = [entry.path for entry in slides], files_below(os.fspath(given))
        paths = list(file_of_each_slide(every, files, options))
        _tell_of_names(every, paths, files, options)
    named = zip((entry.path for entry in slides), paths, strict=True)
    of_slide = {slide: path for slide, path in named if path is not None}
    return AnnotationSource(of_slide, options, cache)


def _tell_of_names(
    slides: Sequence[str],
    paths: Sequence[str | None],
    files: Sequence[str],
    options: ReadingOptions,
) -> None:
    """Log what has no counterpart: a name that is written otherwise looks like a slide on which
    nothing is annotated."""
    without = [slide for slide, path in zip(slides, paths, strict=True) if path is None]
    known = {*paths, *(os.path.realpath(parse_address(one).path) for one in slides)}
    alone = [
        file
        for file in files
        if file not in known
        and os.path.realpath(file) not in known
        and may_be(os.path.basename(file), options.format)
        and os.path.splitext(file)[1].lower() not in SLIDE_SUFFIXES
    ]
    if without and alone:
        log.warning(
            "%d of %d slides have no file of annotations (%s), and %d files have the name of no "
            "slide (%s); a file must be named like its slide",
            len(without),
            len(slides),
            ", ".join(map(printable, without[:MOST_NAMED])),
            len(alone),
            ", ".join(map(printable, alone[:MOST_NAMED])),
        )


def _size(info: SlideInfo) -> tuple[int, int]:
    return info.levels[0].width, info.levels[0].height


def _corner(info: SlideInfo, options: ReadingOptions) -> tuple[float, float]:
    """Where the coordinates of a file begin, in the level-0 frame."""
    if options.origin == "scanned":
        return info.scanned_from
    if not options.origin and any(info.scanned_from):
        log.warning(
            "%s states that its scanned part begins at %s, where QuPath begins to count; its "
            "annotations are taken to count from the corner of level 0: give "
            'annotation_reading={"origin": "scanned"}, or "level0" to have this line no more',
            printable(info.path),
            info.scanned_from,
        )
    return 0.0, 0.0


def _folder(arguments: Arguments) -> Path | None:
    given = arguments.mask_cache
    return None if given is None else Path(given) / FOLDER
