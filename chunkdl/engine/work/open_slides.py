"""The slides that one loader has open, with everything the plan wants to know about each.

Opening a slide and finding its tissue costs far more than reading one region, so the slides used
last stay open, up to a bound on handles and on memory.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from chunkdl.annotations.kept_file import kept_annotations
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.config import StreamConfig
from chunkdl.engine.work.given_masks import given_mask
from chunkdl.engine.work.judge import FilterLooks
from chunkdl.engine.work.planned_slide import PlannedSlide
from chunkdl.engine.work.slide_regions import SlideRegions
from chunkdl.errors import AnnotationError, ResolutionError, SlideError
from chunkdl.sampling.strata import NO_REGION
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.resolution import Resolution, TargetGrid, resolve
from chunkdl.slides.slide import Slide
from chunkdl.slides.tissue.cache import MaskCache
from chunkdl.slides.tissue.mask import (
    TissueMask,
    compute_mask,
    mask_settings,
    whole_slide_mask,
    within,
)
from chunkdl.slides.watched import WatchedSlide
from chunkdl.system.awake_clock import deadline_of
from chunkdl.system.steady_log import steady_logger

MOST_OPEN = 32
"""Handles that one loader keeps; each holds a file descriptor or more."""
MOST_BYTES = 96 * 2**20
"""Memory for the slides that one loader keeps: tables of tiles, masks, what the plan looks up. The
slide in hand is kept whatever it takes; where it alone takes more the log says so."""
CACHED_BYTES = 64 * 2**20
"""Decoded tiles that the direct readers and OpenSlide hold for all slides, half of it each."""
SCRATCH_BYTES = 256 * 2**20
"""What work on one slide takes until it is done: finding tissue on the largest thumbnail, or the
largest tile, and the tables of a slide before others have made way for it."""
MOST_PLANS = 8
"""Resolutions and classes for which one slide is planned at a time, those used last."""
PAUSES_S = (0.2, 0.8, 3.2)
"""Before a slide that the system would not give is tried again, seconds."""
BEAT_S = 0.05

_LOG = steady_logger(__name__)

Result = TypeVar("Result")


def _nothing() -> None:
    """For those whose silence nobody counts."""


class OpenSlide:
    """An open slide: its pixels, its tissue, and the plan at each resolution that is read.

    Args:
        index: of the slide.
        entry: which slide it is.
        config: of the stream.
        cache: of tissue masks.
        looks: counts what the pixel filter says.
        on_progress: called again and again while the slide is read.

    Raises:
        SlideError: the slide cannot be opened.
    """

    def __init__(
        self,
        index: int,
        entry: SlideEntry,
        config: StreamConfig,
        cache: MaskCache,
        looks: FilterLooks,
        on_progress: Callable[[], None],
    ) -> None:
        self.index = index
        self.entry = entry
        self.config = config
        self.looks = looks
        self.on_progress = on_progress
        self.cache = cache
        self.slide: Slide = WatchedSlide(
            open_slide(entry.path, config.reader, config.pixels), on_progress
        )
        self._plans: OrderedDict[tuple[Resolution, int], PlannedSlide] = OrderedDict()

    def at(self, resolution: Resolution, region: int = NO_REGION) -> PlannedSlide:
        """The slide at that resolution, drawn from that class; borrowed until the next call.

        Raises:
            ResolutionError: it cannot give it.
        """
        key = resolution, region
        if key in self._plans:
            self._plans.move_to_end(key)
        else:
            self._plans[key] = PlannedSlide(self, resolution, region)
            while len(self._plans) > MOST_PLANS:
                self._plans.popitem(last=False)
        return self._plans[key]

    def has_room(self, resolution: Resolution) -> bool:
        """Whether the slide can give that resolution, and holds a SmallChunk at it.

        True of a resolution that is the only one: its error says why it cannot be had.
        """
        if self.config.resolution.only is not None:
            return True
        grid = self._grid(resolution)
        return grid is not None and min(grid.width, grid.height) >= self.config.least_side_px

    def _grid(self, resolution: Resolution) -> TargetGrid | None:
        try:
            return resolve(self.slide.info, resolution, self.entry.mpp)
        except ResolutionError:
            return None

    @property
    def nbytes(self) -> int:
        """Memory of the open slide and of what was computed so far, bytes."""
        mask = self.mask.nbytes if "mask" in self.__dict__ else 0
        if "regions" in self.__dict__ and self.regions is not None:
            mask += self.regions.nbytes
        return self.slide.nbytes + mask + sum(plan.nbytes for plan in self._plans.values())

    def tell_size(self) -> None:
        """Put among the news, once, that it alone takes more than all slides may."""
        gaps = self.slide.gaps
        what = (
            f"its tissue mask and tables take more than the {MOST_BYTES // 2**20} MiB that are "
            "promised for all slides of a loader (give a tissue_mask of fewer cells, 8 microns "
            "each are enough)"
        )
        if what not in gaps.counts:
            gaps.met(what)

    @cached_property
    def regions(self) -> SlideRegions | None:
        """What is annotated on the slide; None: the stream does not look at it."""
        use = self.config.annotations
        if use is None:
            return None
        finest0 = min(
            grid.downsample
            for example in self.config.resolution.examples
            if (grid := self._grid(example)) is not None
        )
        given = self.entry.annotations
        try:
            annotations = kept_annotations(given) if isinstance(given, str) else given
        except AnnotationError as error:
            raise SlideError(str(error), slide=self.entry.path) from error
        return SlideRegions(annotations, use, self.slide.info, finest0 * self.config.smallchunk_px)

    @cached_property
    def mask(self) -> TissueMask:
        """The tissue of the slide, in the level-0 frame."""
        info = self.slide.info
        if self.entry.tissue_mask is not None:
            mask = given_mask(self.entry.tissue_mask, info, self.cache.folder)
            return within(mask, self.slide.scanned())
        detector = self.config.tissue
        if detector is None:
            return within(whole_slide_mask(info), self.slide.scanned())

        def compute() -> TissueMask:
            mask = compute_mask(self.slide, detector, self.entry.mpp)
            self.on_progress()
            return mask

        return self.cache.get_or_compute(
            self.entry.path,
            detector,
            compute,
            settings=mask_settings(info, self.entry.mpp, self.config.pixels) + self.slide.state,
        )


class OpenSlides:
    """The open slides of one loader, the least recently used closed first.

    Args:
        entries: all slides of the dataset.
        config: of the stream.
        mask_cache: folder of the tissue mask cache; None: the user's cache folder.
        on_progress: called again and again while a slide is read or waited for; what it raises
            ends that.
    """

    def __init__(
        self,
        entries: Sequence[SlideEntry],
        config: StreamConfig,
        mask_cache: Path | None,
        on_progress: Callable[[], None] = _nothing,
    ) -> None:
        self._entries = entries
        self._config = config
        self._on_progress = on_progress
        self._cache = MaskCache(mask_cache, on_progress)
        self._open: OrderedDict[int, OpenSlide] = OrderedDict()
        self._told: set[tuple[int, str]] = set()
        self.looks = FilterLooks()
        """What the pixel filter has said of anchors."""

    def get(self, index: int) -> OpenSlide:
        """The slide with that index, opened where it is not; borrowed until the next call.

        Raises:
            SlideError: it cannot be opened, now or after `PAUSES_S`, or cannot give the wished
                resolution.
        """
        return self.use(index, lambda opened: opened)

    def use(self, index: int, work: Callable[[OpenSlide], Result]) -> Result:
        """What `work` makes of a slide; it is borrowed until the next call.

        Where the system does not give the file (it is not there, the file server is away, there are
        no descriptors), it is opened anew and the work done again after growing pauses.

        Raises:
            SlideError: the work cannot be done, at last.
        """
        for pause_s in PAUSES_S:
            try:
                return self._worked(index, work)
            except SlideError as error:
                if not error.may_pass:
                    raise
                _LOG.warning("%s; it is tried again in %g s", error, pause_s)
            # A descriptor of a file server that was away stays of no use, and those of the other
            # slides may be the ones that are missing.
            self.close()
            self._pause(pause_s)
        return self._worked(index, work)

    def news(self) -> Iterator[tuple[int, str, int]]:
        """What was met and mended in the open slides and not told yet: slide, sentence, count."""
        for index, opened in self._open.items():
            for what, count in opened.slide.gaps.counts.items():
                if (index, what) not in self._told:
                    self._told.add((index, what))
                    yield index, what, count

    @property
    def nbytes(self) -> int:
        """Memory of the slides that are open, bytes."""
        return sum(opened.nbytes for opened in self._open.values())

    def _worked(self, index: int, work: Callable[[OpenSlide], Result]) -> Result:
        opened = self._borrow(index)
        try:
            return work(opened)
        finally:
            self._make_room(MOST_OPEN)
            if opened.nbytes > MOST_BYTES:
                opened.tell_size()

    def _borrow(self, index: int) -> OpenSlide:
        if index in self._open:
            self._open.move_to_end(index)
            self._make_room(MOST_OPEN)
            return self._open[index]
        self._make_room(MOST_OPEN - 1)
        entry = self._entries[index]
        opened = OpenSlide(index, entry, self._config, self._cache, self.looks, self._on_progress)
        self._open[index] = opened
        self._on_progress()
        return opened

    def _pause(self, seconds: float) -> None:
        # A job that is stopped meanwhile must not give the slide up for it.
        left = deadline_of(seconds)
        while piece_s := left(BEAT_S):
            self._on_progress()
            time.sleep(piece_s)

    def _make_room(self, most_open: int) -> None:
        """Close slides until the others are within the bounds; the one used last stays."""
        while len(self._open) > 1 and (len(self._open) > most_open or self.nbytes > MOST_BYTES):
            self._open.popitem(last=False)[1].slide.close()

    def close(self) -> None:
        """Close every slide."""
        while self._open:
            self._open.popitem()[1].slide.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
