"""An open slide at one resolution, drawn from one class: its part of the plan."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from chunkdl.engine.work.probes import refusal_of
from chunkdl.errors import NoTissueError, ResolutionError
from chunkdl.patches.filters.pixel_filter import PixelFilter
from chunkdl.sampling.anchors import Anchors
from chunkdl.sampling.grid import GridWindows
from chunkdl.sampling.positions import Area, PositionSet, positions_of
from chunkdl.sampling.windows import Lattice, Places
from chunkdl.slides.resolution import Resolution, TargetGrid, resolve
from chunkdl.slides.tissue.mask import TissueMask

if TYPE_CHECKING:
    from chunkdl.engine.work.open_slides import OpenSlide

_COMPUTED = "positions", "places", "grid_windows"


class PlannedSlide:
    """An open slide at one resolution, drawn from one class: its part of the plan.

    Args:
        open_slide: the slide.
        resolution: that is wished.
        region: index of the class that SmallChunks are drawn from; -1: of none.

    Raises:
        ResolutionError: the slide cannot give it.
    """

    def __init__(self, open_slide: OpenSlide, resolution: Resolution, region: int) -> None:
        self._open = open_slide
        config = open_slide.config
        self.resolution = resolution
        self.region = region
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
        return positions_of(
            self.grid, self.mask, config.smallchunk_px, config.tissue_threshold, self._areas
        )

    @property
    def _areas(self) -> tuple[Area, ...]:
        regions = self._open.regions
        return () if regions is None else regions.areas(self.region)

    @cached_property
    def places(self) -> Places:
        """What is drawn, of which there is something.

        Raises:
            NoTissueError: there is nothing.
            SlideError: its annotations need too much memory.
        """
        regions = self._open.regions
        if regions is not None and regions.by_annotation(self.region):
            spots = regions.spots(self.region, self.positions, self._open.on_progress)
            if spots is None:
                raise self._no_tissue()
            return spots
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
            (opened.index, self.resolution, self.region),
            lambda: refusal_of(self, opened, pixel_filter),
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
            self.grid,
            self.mask,
            shape,
            config.tissue_threshold,
            self._open.on_progress,
            self._areas,
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
            f"{config.tissue_threshold:.0%} tissue{self._besides()}; the slide has "
            f"{self.grid.width}x{self.grid.height} px at this resolution (lower tissue_threshold "
            "or smallchunk_size, or give another tissue detector or mask)",
            slide=self.entry.path,
        )

    def _besides(self) -> str:
        """What else a place needs, for people."""
        use = self._open.config.annotations
        if use is None:
            return ""
        words = ""
        if use.roi.where != "ignore":
            words = f" and {use.roi.share:.0%} of it {use.roi.where} what is annotated (roi)"
        if self.region >= 0 and use.regions is not None:
            name = use.names[self.region]
            share = f" and {use.regions.share:.0%} of it in {name!r} (regions)"
            by_annotation = f", around an annotation of {name!r} (regions)"
            words += share if use.regions.draw == "places" else by_annotation
        return words
