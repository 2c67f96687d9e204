"""How one BigChunk gets into its slot: decode what the SmallChunks of its window need."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from chunkdl.engine.config import Colour, StreamConfig
from chunkdl.engine.work.planned_slide import PlannedSlide
from chunkdl.engine.work.window_plans import DrawnWindows, window_plan
from chunkdl.sampling.windows import Draws, Window
from chunkdl.slides.resolution import TargetGrid
from chunkdl.transport.memory.layouts import Array, BigChunkView, Strips
from chunkdl.transport.protocol.engine_messages import LoadBigChunk, SurveyWindow


class BigChunkPx(NamedTuple):
    """What reading a BigChunk has cost, and for what.

    Attributes:
        decoded: pixels that were decoded, whole tiles counted, at the level that was read.
        target: target pixels that its SmallChunks can show.
    """

    decoded: int
    target: int


def survey_window(planned: PlannedSlide, ticket: SurveyWindow, config: StreamConfig) -> int:
    """Target pixels that the SmallChunks of a BigChunk's window can show.

    Raises:
        SlideError: the slide cannot be used.
    """
    return DrawnWindows(config).content(planned, ticket.ordinal, ticket.attempt).useful_px()


def load_bigchunk(
    planned: PlannedSlide,
    ticket: LoadBigChunk,
    config: StreamConfig,
    slide: int,
    view: BigChunkView,
) -> BigChunkPx:
    """Fill a slot with the records and the pixels of a BigChunk.

    Only the blocks that some position touches are decoded; the rest of the slot keeps what it had
    and is never looked at.

    Args:
        planned: the slide.
        ticket: what to load.
        config: of the stream.
        slide: index of the slide.
        view: of the slot; it belongs to this call.

    Raises:
        SlideError: the slide or the region cannot be used.
        HookError: the user's pixel filter raised.
    """
    before = planned.slide.decoded_px

    def room(strip_px: int) -> Strips:
        view.strip_px[0] = strip_px
        return view.strips()

    region = window_plan(config).read(planned, ticket, room)
    if config.on_grid and config.edge == "pad":
        fill_outside(planned.grid, region.window, view.strips(), config.edge_fill)
    draws = region.draws
    describe(planned, ticket, slide, region.window, draws, view.records[: len(draws.x)])
    describe_regions(planned, region.window, draws, view)
    return BigChunkPx(planned.slide.decoded_px - before, region.target_px)


def fill_outside(grid: TargetGrid, window: Window, strips: Strips, colour: Colour) -> None:
    """Give what a window has to the right of its slide and below it that colour."""
    count, _, width, _ = strips.array.shape
    right, bottom = grid.width - window.x, grid.height - window.y
    for strip in range(count):
        strips.array[strip, :, max(0, right - strip * width) :] = colour
    strips.array[:, bottom:] = colour


def describe_regions(
    planned: PlannedSlide, window: Window, draws: Draws, view: BigChunkView
) -> None:
    """Fill in the classes of the draws and of the pixels, where the stream has them."""
    wanted = view.label_mask is not None or view.columns
    regions = planned.opened.regions if wanted else None
    if regions is None:
        return
    classes = regions.window_classes(planned.grid, window)
    if view.label_mask is not None:
        view.label_mask[:] = classes
    side_px = planned.lattice.across.smallchunk_px
    columns = regions.columns(classes, window, draws, planned.grid, side_px)
    columns["drawn_region"] = np.full(len(draws.x), planned.region)
    for name, of_calls in view.columns.items():
        of_calls[: len(draws.x)] = columns[name]


def describe(
    planned: PlannedSlide,
    ticket: LoadBigChunk,
    slide: int,
    window: Window,
    draws: Draws,
    records: Array,
) -> None:
    """Fill in the records of the draws, `chunkdl.transport.memory.layouts.RECORD` of shape (n,)."""
    grid = planned.grid
    records["x"] = np.rint(draws.x * grid.downsample)
    records["y"] = np.rint(draws.y * grid.downsample)
    records["bigchunk"] = ticket.ordinal
    records["level"] = grid.level
    records["slide"] = slide
    records["patient"] = planned.entry.patient
    records["call"] = np.arange(len(draws.x))
    records["mpp"] = np.nan if grid.mpp is None else grid.mpp
    records["tissue_fraction"] = draws.fraction
    records["left"] = draws.x - window.x
    records["top"] = draws.y - window.y
