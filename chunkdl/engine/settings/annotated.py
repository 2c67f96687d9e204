"""What the annotations of a dataset mean for a stream: read once, checked, and kept for loaders."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chunkdl.annotations.kept import AnnotationCache
from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.shapes import MOST_CLASSES, Annotations
from chunkdl.annotations.sources import OwnAnnotations, file_of_each_slide, files_below
from chunkdl.annotations.use import AnnotationUse, Regions, Roi
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.errors import ConfigError, SlideError
from chunkdl.slides.address import parse_address
from chunkdl.slides.header_facts import header_facts
from chunkdl.slides.slide import PixelRule, SlideInfo
from chunkdl.system.printing import printable
from chunkdl.system.steady_log import steady_logger

FOLDER = "annotations"
"""Of kept annotations, in the folder of the tissue mask cache where one is given."""
MOST_NAMED = 10

log = steady_logger("chunkdl")


@dataclass(frozen=True, slots=True)
class Annotated:
    """What was found.

    Attributes:
        slides: those that stay, with what loaders need of their annotations.
        use: what the stream makes of them; None: it does not look at annotations.
        regions_of_slide: where weights hold over the stream, the classes of each slide, as indices.
        digests: of the annotations of each slide, in hex, for the identity of the stream.
    """

    slides: tuple[SlideEntry, ...]
    use: AnnotationUse | None = None
    regions_of_slide: tuple[tuple[int, ...], ...] = ()
    digests: tuple[str, ...] = ()


def annotated(
    slides: Sequence[SlideEntry], arguments: Arguments, pixels: PixelRule, mask_cache: Path | None
) -> Annotated:
    """Read the annotations of all slides, and leave out slides that have nothing to give.

    Args:
        slides: that can be used otherwise.
        arguments: of the user, each checked by itself.
        pixels: how slides are opened.
        mask_cache: folder of the tissue mask cache; None: the user's.

    Raises:
        AnnotationError: a file cannot be read, or it is not clear which belongs to which slide.
        ConfigError: settings contradict each other, or name classes that there are not.
    """
    roi, regions = arguments.roi, arguments.regions
    assert isinstance(roi, Roi), "checked"
    assert regions is None or isinstance(regions, Regions), "checked"
    source = annotation_source(slides, arguments)
    if source is None:
        return Annotated(tuple(slides))
    facts = header_facts([one.path for one in slides], arguments.reader, mask_cache, pixels)
    found = [
        None
        if isinstance(fact, SlideError)
        else source(entry, (fact.levels[0].width, fact.levels[0].height))
        for entry, fact in zip(slides, facts, strict=True)
    ]
    if not any(found):
        raise ConfigError(
            "none of the slides has annotations; files must have the names of their slides, or be "
            "named in the column annotations of the manifest"
        )
    given = arguments.region_names or {}
    renamed, only = (given, None) if isinstance(given, Mapping) else ({}, tuple(given))
    classes = [_classes(one, renamed, only) for one in found]
    names = _names(classes, only, roi, regions)
    use = AnnotationUse(
        names,
        renamed,
        roi,
        regions,
        arguments.label_mask,
        arguments.region_label,
        arguments.region_shares,
    )
    stays = [_gives_something(one, roi, regions) for one in classes]
    _tell_left_out(slides, stays, roi, regions)
    kept = [index for index, stay in enumerate(stays) if stay]
    over_stream = regions is not None and regions.within == "stream"
    return Annotated(
        tuple(
            dataclasses.replace(slides[index], annotations=_for_loaders(found[index]))
            for index in kept
        ),
        use,
        tuple(
            tuple(names.index(name) for name in sorted(classes[index] & set(regions.classes)))
            for index in kept
        )
        if over_stream and regions is not None
        else (),
        tuple("" if (one := found[index]) is None else one.digest().hex() for index in kept),
    )


def _size(info: SlideInfo) -> tuple[int, int]:
    return info.levels[0].width, info.levels[0].height


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

    def __call__(self, entry: SlideEntry, size: tuple[int, int]) -> Annotations | None:
        """Those of a slide of that width and height, level-0 pixels; None: it has none.

        Raises:
            AnnotationError: they cannot be read.
        """
        if isinstance(self.of_slide, OwnAnnotations):
            return self.cache.of_call(self.of_slide, entry.path, self.options, size=size)
        path = self.of_slide.get(entry.path)
        if path is None:
            return None
        slide = parse_address(entry.path).path
        return self.cache.of_file(path, self.options, size=size, slide=slide)


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
        every = [entry.path for entry in slides]
        paths = list(file_of_each_slide(every, files_below(os.fspath(given)), options))
    named = zip((entry.path for entry in slides), paths, strict=True)
    of_slide = {slide: path for slide, path in named if path is not None}
    return AnnotationSource(of_slide, options, cache)


def _folder(arguments: Arguments) -> Path | None:
    given = arguments.mask_cache
    return None if given is None else Path(given) / FOLDER


def _classes(
    annotations: Annotations | None, renamed: Mapping[str, str], only: tuple[str, ...] | None
) -> set[str]:
    """The classes that have an area on a slide and count, as the stream calls them."""
    if annotations is None:
        return set()
    has_area = (annotations.features[1:] > annotations.features[:-1]) & ~annotations.detected
    indices = np.unique(annotations.class_of[has_area]).tolist()
    names = (annotations.classes[index] for index in indices)
    found = {renamed.get(name, name) for name in names} - {""}
    return found if only is None else found & set(only)


def _names(
    classes: Sequence[set[str]], only: tuple[str, ...] | None, roi: Roi, regions: Regions | None
) -> tuple[str, ...]:
    """All classes of the stream: as they were listed, else in the order of their names.

    Raises:
        ConfigError: there are too many, or a setting names one that no slide has.
    """
    there = sorted(set().union(*classes))
    asked = (("roi", roi.classes), ("regions", () if regions is None else regions.classes))
    for setting, wanted in asked:
        if missing := [name for name in wanted if name not in there]:
            raise ConfigError(
                f"{setting}: no slide has the class {missing[0]!r}; there are "
                f"{', '.join(map(repr, there[:MOST_NAMED])) or 'none'} (region_names gives classes "
                "other names)"
            )
    if len(there) > MOST_CLASSES:
        raise ConfigError(
            f"the annotations have {len(there)} classes, and at most {MOST_CLASSES} are possible; "
            "put some together with region_names, or leave some out"
        )
    return tuple(there) if only is None else only


def _gives_something(classes: set[str], roi: Roi, regions: Regions | None) -> bool:
    if roi.where == "inside" and not (classes & set(roi.classes) if roi.classes else classes):
        return False
    return regions is None or bool(classes & set(regions.classes))


def _tell_left_out(
    slides: Sequence[SlideEntry], stays: Sequence[bool], roi: Roi, regions: Regions | None
) -> None:
    """Log the slides that are left out.

    Raises:
        ConfigError: none is left.
    """
    left_out = [printable(one.path) for one, stay in zip(slides, stays, strict=True) if not stay]
    if not left_out:
        return
    wanted = roi.classes if regions is None else regions.classes
    what = ", ".join(map(repr, wanted)) or "any class"
    if len(left_out) == len(slides):
        raise ConfigError(f"no slide has an annotated area of {what}, so nothing can be drawn")
    more = f", and {len(left_out) - MOST_NAMED} more" if len(left_out) > MOST_NAMED else ""
    log.warning(
        "%d of %d slides have no annotated area of %s and are left out: %s%s",
        len(left_out),
        len(slides),
        what,
        ", ".join(left_out[:MOST_NAMED]),
        more,
    )


def _for_loaders(annotations: Annotations | None) -> Any:
    """The file that loaders map, or the value itself where it could not be kept."""
    return None if annotations is None else annotations.kept_in or annotations


def check_annotations(arguments: Arguments, annotations: Annotated, *, are_crops: bool) -> None:
    """Refuse what annotations cannot be used with.

    Raises:
        ConfigError: says what to change.
    """
    use = annotations.use
    if use is None:
        return
    of_rows = {
        "label_mask": use.label_mask,
        "regions": use.regions is not None,
        "region_label": use.label != "centre",
        "region_shares": use.shares,
    }
    name = next((name for name, is_asked in of_rows.items() if is_asked), None)
    if not are_crops and name is not None:
        raise ConfigError(
            f"{name} gives columns beside the image, and rows that your own classes or transforms "
            "make have no place for them: apply the transform to the batches in the training "
            "loop, or give tfms_in='consumer'"
        )
    if use.regions is None:
        return
    if arguments.grid or not arguments.replacement:
        raise ConfigError(
            "regions draws classes by weight, and a grid has each position once; give roi=, and "
            "read the class of each row in the column region"
        )
    if use.regions.within == "stream" and arguments.schedule is not None:
        raise ConfigError(
            "weights of regions over the stream choose the slides, so there can be no schedule; "
            'leave it out, or give Regions(weights, within="slide")'
        )
