"""What the annotations of a dataset mean for a stream: read once, checked, and kept for loaders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.annotations.centres import centres_of, most_together
from chunkdl.annotations.shapes import MOST_CLASSES, Annotations, Objects
from chunkdl.annotations.use import AnnotationUse, Regions, Roi
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.config import StreamConfig
from chunkdl.engine.settings.annotation_source import annotation_source
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.errors import ConfigError, SlideError
from chunkdl.slides.header_facts import header_facts
from chunkdl.slides.resolution import resolve
from chunkdl.slides.slide import SlideInfo
from chunkdl.system.printing import printable
from chunkdl.system.steady_log import steady_logger

MOST_NAMED = 10
MOST_CELLS = 2**14
"""Of a row, 16 bytes each."""

Flags = npt.NDArray[np.bool_]
POINTS = "; points have no area, so area_power must be 0 for them"
NO_FLAGS: Flags = np.zeros(0, np.bool_)

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
    slides: Sequence[SlideEntry],
    arguments: Arguments,
    stream: StreamConfig,
    mask_cache: Path | None,
) -> Annotated:
    """Read the annotations of all slides, and leave out slides that have nothing to give.

    Args:
        slides: that can be used otherwise.
        arguments: of the user, each checked by itself.
        stream: made of the arguments, but for what annotations add.
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
    facts = header_facts([one.path for one in slides], arguments.reader, mask_cache, stream.pixels)
    found = [
        None if isinstance(fact, SlideError) else source(entry, fact)
        for entry, fact in zip(slides, facts, strict=True)
    ]
    if not any(found):
        raise ConfigError(
            "none of the slides has annotations; files must have the names of their slides, or be "
            "named in the column annotations of the manifest"
        )
    given = arguments.region_names or {}
    renamed, only = (given, None) if isinstance(given, Mapping) else ({}, tuple(given))
    _tell_unknown_names(found, renamed, only)
    naming = _Naming(renamed, only)
    classes = [naming.classes(one, _with_area(one)) for one in found]
    drawn = [naming.classes(one, _drawn(one, regions)) for one in found]
    listed = (naming.classes(one, _objects(one, arguments.cells)) for one in found)
    names = _names(classes, drawn, set().union(*listed), only, roi, regions)
    use = AnnotationUse(
        names,
        renamed,
        roi,
        regions,
        arguments.label_mask,
        arguments.region_label,
        arguments.region_shares,
        arguments.cells,
        _most_cells(slides, facts, found, arguments.cells, stream),
    )
    # The user's own classes read what they like.
    stays = [
        stream.rows.by_hooks or _gives_something(area, of_slide, roi, regions)
        for area, of_slide in zip(classes, drawn, strict=True)
    ]
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
            tuple(names.index(name) for name in sorted(drawn[index] & set(regions.classes)))
            for index in kept
        )
        if over_stream and regions is not None
        else (),
        tuple("" if (one := found[index]) is None else one.digest().hex() for index in kept),
    )


@dataclass(frozen=True, slots=True)
class _Naming:
    """What classes of files are called in the stream, and which of them count; None: all."""

    renamed: Mapping[str, str]
    only: tuple[str, ...] | None

    def classes(self, annotations: Annotations | None, which: Flags) -> set[str]:
        """The classes of some features of a slide."""
        if annotations is None:
            return set()
        names = (annotations.classes[one] for one in np.unique(annotations.class_of[which]))
        found = {self.renamed.get(name, name) for name in names} - {""}
        return found if self.only is None else found & set(self.only)


def _with_area(annotations: Annotations | None) -> Flags:
    """The annotations that have an area."""
    if annotations is None:
        return NO_FLAGS
    return (annotations.features[1:] > annotations.features[:-1]) & ~annotations.detected


def _drawn(annotations: Annotations | None, regions: Regions | None) -> Flags:
    """What regions may draw; points too, where annotations are drawn one by one."""
    if annotations is None or regions is None or regions.draw == "places":
        return _with_area(annotations)
    found = _objects(annotations, regions.objects)
    if regions.area_power:
        found &= annotations.areas > 0
    return found


def _objects(annotations: Annotations | None, objects: Objects | None) -> Flags:
    if annotations is None or objects is None:
        return NO_FLAGS if annotations is None else np.zeros(len(annotations), np.bool_)
    found: Flags = np.ones(len(annotations), np.bool_)
    if objects != "all":
        found &= annotations.detected == (objects == "detections")
    return found


def _most_cells(
    slides: Sequence[SlideEntry],
    facts: Sequence[SlideInfo | SlideError],
    found: Sequence[Annotations | None],
    cells: Objects | None,
    stream: StreamConfig,
) -> int:
    """A bound of the objects whose centroid lies in one SmallChunk, of any slide.

    Raises:
        ConfigError: so many have no place in a row.
    """
    if cells is None:
        return 0
    most = 1
    for entry, fact, drawn_on in zip(slides, facts, found, strict=True):
        if drawn_on is None or isinstance(fact, SlideError):
            continue
        downsample = resolve(fact, stream.resolution.coarsest, entry.mpp).downsample
        side0 = downsample * stream.smallchunk_px
        together = most_together(centres_of(drawn_on, cells).places, side0)
        if together > MOST_CELLS:
            raise ConfigError(
                f"cells: a SmallChunk of {printable(entry.path)} may have {together:,} objects, "
                f"and at most {MOST_CELLS:,} are possible; lower smallchunk_size, or ask for a "
                "finer resolution"
            )
        most = max(most, together)
    return most


def _names(
    areas: Sequence[set[str]],
    drawn: Sequence[set[str]],
    listed: set[str],
    only: tuple[str, ...] | None,
    roi: Roi,
    regions: Regions | None,
) -> tuple[str, ...]:
    """All classes of the stream: as they were listed, else in the order of their names.

    Raises:
        ConfigError: there are too many, or a setting names one that no slide has.
    """
    with_area, to_draw = set().union(*areas), set().union(*drawn)
    asked = (
        ("roi", roi.classes, with_area),
        ("regions", () if regions is None else regions.classes, to_draw),
    )
    for setting, wanted, there in asked:
        if missing := [name for name in wanted if name not in there]:
            points = setting == "regions" and regions is not None and regions.area_power > 0
            raise ConfigError(
                f"{setting}: no slide has the class {missing[0]!r}; there are "
                f"{', '.join(map(repr, sorted(there)[:MOST_NAMED])) or 'none'} (region_names gives "
                f"classes other names{POINTS if points else ''})"
            )
    every = sorted(with_area | listed | (set() if regions is None else to_draw))
    if len(every) > MOST_CLASSES:
        raise ConfigError(
            f"the annotations have {len(every)} classes, and at most {MOST_CLASSES} are possible; "
            "put some together with region_names, or leave some out"
        )
    return tuple(every) if only is None else only


def _tell_unknown_names(
    found: Sequence[Annotations | None], renamed: Mapping[str, str], only: tuple[str, ...] | None
) -> None:
    """Warn of names that are in no file.

    Raises:
        ConfigError: none of the listed classes is in any file.
    """
    there = set().union(*(one.classes for one in found if one is not None))
    asked = tuple(renamed) if only is None else only
    unknown = [name for name in asked if name not in there]
    if not unknown:
        return
    listed = ", ".join(map(repr, sorted(there)[:MOST_NAMED])) or "none"
    what = f"region_names: no file has the class {', '.join(map(repr, unknown[:MOST_NAMED]))}"
    if only is not None and len(unknown) == len(only):
        raise ConfigError(f"{what}; there are {listed}")
    log.warning("%s; there are %s", what, listed)


def _gives_something(areas: set[str], drawn: set[str], roi: Roi, regions: Regions | None) -> bool:
    if roi.where == "inside" and not (areas & set(roi.classes) if roi.classes else areas):
        return False
    return regions is None or bool(drawn & set(regions.classes))


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


def check_annotations(arguments: Arguments, annotations: Annotated, stream: StreamConfig) -> None:
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
        "cells": use.cells is not None,
    }
    name = next((name for name, is_asked in of_rows.items() if is_asked), None)
    if name is not None and stream.rows.by_hooks:
        raise ConfigError(
            f"{name} gives columns beside the image, and rows that your own classes make have no "
            "place for them; use the built-in classes, and a transform (tfms)"
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
