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

from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.config import StreamConfig
from chunkdl.engine.work.judge import FilterLooks
from chunkdl.engine.work.probes import refusal_of
from chunkdl.errors import NoTissueError, ResolutionError, SlideError
from chunkdl.patches.filters.pixel_filter import PixelFilter
from chunkdl.sampling.anchors import Anchors
from chunkdl.sampling.grid import GridWindows
from chunkdl.sampling.positions import PositionSet, positions_of
from chunkdl.sampling.windows import Lattice
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.resolution import Resolution, TargetGrid, resolve
from chunkdl.slides.slide import Slide
from chunkdl.slides.tissue.cache import MaskCache
from chunkdl.slides.tissue.mask import (
    TissueMask,
    compute_mask,
    mask_from,
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
MOST_RESOLUTIONS = 8
"""At which one slide is planned at a time, those used last."""
PAUSES_S = (0.2, 0.8, 3.2)
"""Before a slide that the system would not give is tried again, seconds."""
BEAT_S = 0.05
_COMPUTED = "positions", "anchors", "grid_windows"

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
        self._plans: OrderedDict[Resolution, PlannedSlide] = OrderedDict()

    def at(self, resolution: Resolution) -> PlannedSlide:
        """The slide at that resolution; borrowed until the next call.

        Raises:
            ResolutionError: it cannot give it.
        """
        if resolution in self._plans:
            self._plans.move_to_end(resolution)
        else:
            self._plans[resolution] = PlannedSlide(self, resolution)
            while len(self._plans) > MOST_RESOLUTIONS:
                self._plans.popitem(last=False)
        return self._plans[resolution]

    def has_room(self, resolution: Resolution) -> bool:
        """Whether the slide can give that resolution, and holds a SmallChunk at it.

        True of a resolution that is the only one: its error says why it cannot be had.
        """
        if self.config.resolution.only is not None:
            return True
        try:
            grid = resolve(self.slide.info, resolution, self.entry.mpp)
        except ResolutionError:
            return False
        return min(grid.width, grid.height) >= self.config.least_side_px

    @property
    def nbytes(self) -> int:
        """Memory of the open slide and of what was computed so far, bytes."""
        mask = self.mask.nbytes if "mask" in self.__dict__ else 0
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
    def mask(self) -> TissueMask:
        """The tissue of the slide, in the level-0 frame."""
        info = self.slide.info
        if self.entry.tissue_mask is not None:
            return within(mask_from(self.entry.tissue_mask, info), self.slide.scanned())
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


class PlannedSlide:
    """An open slide at one resolution: its part of the plan.

    Args:
        open_slide: the slide.
        resolution: that is wished.

    Raises:
        ResolutionError: the slide cannot give it.
    """

    def __init__(self, open_slide: OpenSlide, resolution: Resolution) -> None:
        self._open = open_slide
        config = open_slide.config
        self.resolution = resolution
        self.entry = open_slide.entry
        self.slide = open_slide.slide
        info = self.slide.info
        self.grid: TargetGrid = resolve(info, resolution, self.entry.mpp)
        self.lattice = Lattice.of(
            info.levels[self.grid.level], self.grid, config.bigchunk_px, config.smallchunk_px
        )

    @property
    def mask(self) -> TissueMask:
        """See `OpenSlide.mask`."""
        return self._open.mask

    @cached_property
    def positions(self) -> PositionSet:
        """Every place where a SmallChunk may be taken; there may be none."""
        config = self._open.config
        return positions_of(self.grid, self.mask, config.smallchunk_px, config.tissue_threshold)

    @cached_property
    def anchors(self) -> Anchors:
        """Draws positions, of which there is at least one.

        Raises:
            NoTissueError: there is none.
        """
        anchors = Anchors(self.positions, self._open.on_progress)
        if not anchors.exist():
            raise self._no_tissue()
        return anchors

    def refusal(self, pixel_filter: PixelFilter) -> str:
        """Why nothing of the slide passes the pixel filter of the stream; empty: something does.

        Raises:
            NoTissueError: there is no position.
            SlideError, HookError: see `refusal_of`.
        """
        opened, known = self._open, self._open.looks.refusals
        return known.of(
            (opened.index, self.resolution), lambda: refusal_of(self, opened, pixel_filter)
        )

    @property
    def opened(self) -> OpenSlide:
        """The slide at any resolution."""
        return self._open

    @cached_property
    def grid_windows(self) -> GridWindows:
        """The windows of a grid, of which none may have a position.

        Raises:
            ResolutionError: there are too many.
        """
        config = self._open.config
        shape = config.grid_shape
        if excess := shape.excess(self.grid):
            raise ResolutionError(excess, slide=self.entry.path)
        return GridWindows(
            self.grid, self.mask, shape, config.tissue_threshold, self._open.on_progress
        )

    def count_grid(self) -> GridWindows:
        """The same with their positions counted, of which there is at least one.

        Raises:
            NoTissueError: there is none.
            ResolutionError: there are too many windows.
        """
        windows = self.grid_windows
        if not windows.all_counts.any():
            raise self._no_tissue()
        return windows

    @property
    def nbytes(self) -> int:
        """Memory of what was computed so far for this resolution, bytes."""
        computed: list[int] = [
            self.__dict__[name].nbytes for name in _COMPUTED if name in self.__dict__
        ]
        return sum(computed)

    def _no_tissue(self) -> NoTissueError:
        config = self._open.config
        side = config.smallchunk_px
        return NoTissueError(
            f"no place for a SmallChunk of {side}x{side} px with at least "
            f"{config.tissue_threshold:.0%} tissue; the slide has {self.grid.width}x"
            f"{self.grid.height} px at this resolution (lower tissue_threshold or "
            "smallchunk_size, or give another tissue detector or mask)",
            slide=self.entry.path,
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
