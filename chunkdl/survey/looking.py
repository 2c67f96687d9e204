"""One look at a slide: as a loader would use it, but nothing ends it that can be said in words."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from chunkdl.annotations.shapes import Annotations
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.config import StreamConfig
from chunkdl.engine.settings.annotation_source import AnnotationSource
from chunkdl.engine.settings.usable_slides import refusal_of
from chunkdl.engine.work.judge import FilterLooks
from chunkdl.engine.work.open_slides import OpenSlide
from chunkdl.engine.work.window_plans import window_plan
from chunkdl.errors import (
    AnnotationError,
    ChunkdlError,
    ConfigError,
    HookError,
    NoTissueError,
    ResolutionError,
    SlideError,
)
from chunkdl.slides.address import parse_address
from chunkdl.slides.header_facts import KeptFacts
from chunkdl.slides.readers.registry import read_structure
from chunkdl.slides.slide import Slide, SlideInfo
from chunkdl.slides.small_picture import small_picture
from chunkdl.slides.tissue.cache import MaskCache, default_folder
from chunkdl.slides.tissue.mask import TissueMask
from chunkdl.survey.look import Kind, Look, Problem
from chunkdl.survey.read_regions import regions_to_read
from chunkdl.system.printing import printable

MOST_CHARACTERS = 2_000
"""Of a sentence: texts of files have any length."""
MOST_SENTENCES = 50

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is given that looks at slides.

    Attributes:
        entries: all slides, by index.
        stream: that the slides are looked at for.
        source: of annotations; None: they are not looked at.
        mask_cache: folder of tissue masks and header facts; None: the user's.
    """

    entries: tuple[SlideEntry, ...]
    stream: StreamConfig
    source: AnnotationSource | None
    mask_cache: Path | None


class Looking:
    """Looks at slides, one after the other.

    Args:
        task: which slides, and for what.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        stream = task.stream
        folder = default_folder() if task.mask_cache is None else task.mask_cache
        self._cache = MaskCache(folder)
        self._facts = KeptFacts(folder, stream.reader, stream.pixels)

    def look(self, index: int) -> Look:
        """What is found out about the slide with that index."""
        entry = self._task.entries[index]
        found = _Found()
        with suppress(OSError):
            found.file_bytes = os.path.getsize(parse_address(entry.path).path)
        found.format, found.stored_as = _stored(entry.path)
        opened = found.tried("not opened", lambda: self._opened(entry))
        if opened is None:
            return found.look()
        try:
            self._look(entry, opened, found)
        finally:
            opened.slide.close()
        return found.look()

    def _opened(self, entry: SlideEntry) -> OpenSlide:
        try:
            key = self._facts.key(entry.path)
        except OSError as error:
            raise SlideError(f"no such file: {error.strerror}", slide=entry.path) from error
        opened = OpenSlide(0, entry, self._task.stream, self._cache, FilterLooks(), lambda: None)
        # Streams find the facts there, and open no slide for them.
        self._facts.keep(entry.path, dataclasses.replace(opened.slide.info, path=entry.path), key)
        return opened

    def _look(self, entry: SlideEntry, opened: OpenSlide, found: _Found) -> None:
        stream, slide = self._task.stream, opened.slide
        info = found.info = slide.info
        refusal, warning = refusal_of(entry, info, stream)
        if refusal:
            found.problem("resolution", refusal)
        kind: Kind = "not read" if entry.tissue_mask is None else "given mask"
        mask = found.tried(kind, lambda: opened.mask)
        if mask is not None:
            cell_px = mask.width0 * mask.height0 / mask.cells.size
            found.tissue_px = float(np.count_nonzero(mask.cells) * cell_px)
            if not refusal:
                found.tried("not read", lambda: window_plan(stream).find_places(opened))
        self._look_at_annotations(entry, info, found)
        _read(slide, mask, found)
        gaps = slide.gaps.counts.items()
        notes = (f"{what} ({count:,} times)" if count > 1 else what for what, count in gaps)
        found.notes = [*info.notes, *([warning] if warning else []), *notes]
        # What it meets was met before, or is of the picture alone.
        with suppress(SlideError):
            found.picture = small_picture(slide, mask)

    def _look_at_annotations(self, entry: SlideEntry, info: SlideInfo, found: _Found) -> None:
        source = self._task.source
        if source is None:
            return
        annotations = found.tried("annotations", lambda: source(entry, info))
        if annotations is not None:
            found.annotated_px = areas_of(annotations)


class _Found:
    """What was found so far."""

    def __init__(self) -> None:
        self.info: SlideInfo | None = None
        self.file_bytes: int | None = None
        self.format = self.stored_as = ""
        self.regions_read = self.regions_unreadable = 0
        self.tissue_px: float | None = None
        self.annotated_px: dict[str, float] | None = None
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.picture = b""

    def problem(self, kind: Kind, text: str) -> None:
        """One more problem."""
        self.problems.append(Problem(kind, _short(text)))

    def tried(self, kind: Kind, work: Callable[[], Result]) -> Result | None:
        """What `work` gives; None: it has failed, which is a problem of that kind or its own."""
        try:
            return work()
        except ChunkdlError as error:
            self.problem(kind_of(error, kind), str(error))
            return None

    def look(self) -> Look:
        """As a value; all texts are printable."""
        info = self.info
        if info is not None:
            notes = tuple(map(_short, info.notes[:MOST_SENTENCES]))
            info = dataclasses.replace(info, path="", notes=notes)
        return Look(
            info,
            self.file_bytes,
            _short(self.format),
            _short(self.stored_as),
            self.regions_read,
            self.regions_unreadable,
            self.tissue_px,
            self.annotated_px,
            tuple(self.problems),
            tuple(map(_short, self.notes[:MOST_SENTENCES])),
            self.picture,
        )


def kind_of(error: ChunkdlError, otherwise: Kind) -> Kind:
    """Which kind of problem an error is."""
    kinds: Iterable[tuple[type[ChunkdlError], Kind]] = (
        (NoTissueError, "no tissue"),
        (ResolutionError, "resolution"),
        (SlideError, otherwise),
        (AnnotationError, "annotations"),
        (HookError, "own code"),
        (ConfigError, "own code"),
    )
    return next((kind for one, kind in kinds if isinstance(error, one)), otherwise)


def areas_of(annotations: Annotations) -> dict[str, float]:
    """The area of each class on a slide, level-0 pixels; what a program detected does not count."""
    drawn = ~annotations.detected
    count = len(annotations.classes)
    areas = np.bincount(
        annotations.class_of[drawn], weights=annotations.areas[drawn], minlength=count
    )
    there = np.bincount(annotations.class_of[drawn], minlength=count) > 0
    return {
        printable(name): float(areas[index])
        for index, name in enumerate(annotations.classes)
        if there[index]
    }


def _stored(path: str) -> tuple[str, str]:
    """The kind of a file, and how the pixels of its level 0 are stored; empty where unknown."""
    try:
        structure = read_structure(path)
    except SlideError:
        return "", ""
    number = parse_address(path).image or 0
    stored = (page.pixels for page in structure.pages if (page.image, page.level) == (number, 0))
    return structure.format, next(stored, "")


def _read(slide: Slide, mask: TissueMask | None, found: _Found) -> None:
    """Read some regions, and say which cannot be read."""
    first = ""
    for level, x, y, width, height in regions_to_read(slide.info, mask):
        found.regions_read += 1
        try:
            slide.read_into(np.empty((height, width, 3), np.uint8), level, x, y)
        except SlideError as error:
            found.regions_unreadable += 1
            first = first or str(error)
    if first:
        found.problem(
            "not read",
            f"{found.regions_unreadable} of {found.regions_read} regions that were tried cannot be "
            f"read; a stream takes others instead. The first: {first}",
        )


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} ..."
