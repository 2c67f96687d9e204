"""How one BigChunk gets into its slot: decode what the SmallChunks of its window need."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from chunkdl.engine.config import Colour, StreamConfig
from chunkdl.engine.work.open_slides import PlannedSlide
from chunkdl.engine.work.window_plans import DrawnWindows, window_plan
from chunkdl.sampling.windows import Draws, Lattice, Window
from chunkdl.slides.resampling import read_target_into
from chunkdl.slides.resolution import TargetGrid
from chunkdl.transport.memory.layouts import Array, BigChunkView, Strips
from chunkdl.transport.protocol.engine_messages import LoadBigChunk, SurveyWindow


def survey_window(planned: PlannedSlide, ticket: SurveyWindow, config: StreamConfig) -> float:
    """Pixels that the whole useful part of a BigChunk's window would make us decode.

    Raises:
        SlideError: the slide cannot be used.
    """
    window = DrawnWindows(config).window(planned, ticket.ordinal, ticket.attempt)
    useful = planned.lattice.useful_blocks(planned.positions, window)
    return _area(useful, planned.lattice) * planned.grid.factor**2


def load_bigchunk(
    planned: PlannedSlide,
    ticket: LoadBigChunk,
    config: StreamConfig,
    slide: int,
    view: BigChunkView,
) -> int:
    """Fill a slot with the records and the pixels of a BigChunk.

    Only the blocks that some position touches are decoded; the rest of the slot keeps what it had
    and is never looked at.

    Args:
        planned: the slide.
        ticket: what to load.
        config: of the stream.
        slide: index of the slide.
        view: of the slot; it belongs to this call.

    Returns:
        Pixels decoded.

    Raises:
        SlideError: the slide or the region cannot be used.
    """
    window, draws = window_plan(config).of(planned, ticket)
    before = planned.slide.decoded_px
    view.strip_px[0] = strip_width(planned.lattice, window)
    read_draws(planned, window, draws, view.strips())
    if config.on_grid and config.edge == "pad":
        fill_outside(planned.grid, window, view.strips(), config.edge_fill)
    describe(planned, ticket, slide, window, draws, view.records[: len(draws.x)])
    return planned.slide.decoded_px - before


def read_draws(planned: PlannedSlide, window: Window, draws: Draws, strips: Strips) -> None:
    """Decode the blocks of a window that its draws touch.

    Args:
        planned: the slide.
        window, draws: of the BigChunk.
        strips: of `strip_width`, for the whole window.
    """
    width = strips.array.shape[2]
    for x, y, right, bottom in _regions(planned, window, draws):
        strip, within = divmod(x - window.x, width)
        out = strips.array[strip, y - window.y : bottom - window.y, within : within + right - x]
        read_target_into(planned.slide, planned.grid, out, x, y)


def fill_outside(grid: TargetGrid, window: Window, strips: Strips, colour: Colour) -> None:
    """Give what a window has to the right of its slide and below it that colour."""
    count, _, width, _ = strips.array.shape
    right, bottom = grid.width - window.x, grid.height - window.y
    for strip in range(count):
        strips.array[strip, :, max(0, right - strip * width) :] = colour
    strips.array[:, bottom:] = colour


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


def strip_width(lattice: Lattice, window: Window) -> int:
    """Strips as wide as a block where the blocks fill the window, else the window in one."""
    stride = lattice.across.stride_px
    fits = window.side_px % stride == 0 and window.x % stride == 0
    return stride if fits else window.side_px


def _regions(
    planned: PlannedSlide, window: Window, draws: Draws
) -> Iterator[tuple[int, int, int, int]]:
    """The target regions [x, right) × [y, bottom) that the draws touch, column by column.

    They are the touched blocks inside window and slide; blocks below each other are one region:
    fewer calls, and in a strip they are one piece of memory.
    """
    across, down = planned.lattice.across.stride_px, planned.lattice.down.stride_px
    column, row = window.x // across, window.y // down
    for beside, blocks in enumerate(planned.lattice.touched_blocks(draws, window).T.tolist()):
        x = max((column + beside) * across, window.x, 0)
        right = min((column + beside + 1) * across, window.x + window.side_px, planned.grid.width)
        for first, last in _runs(blocks):
            y = max((row + first) * down, window.y, 0)
            bottom = min((row + last) * down, window.y + window.side_px, planned.grid.height)
            if x < right and y < bottom:
                yield x, y, right, bottom


def _runs(flags: list[bool]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of the true elements."""
    end = 0
    for wanted, group in itertools.groupby(flags):
        start, end = end, end + len(list(group))
        if wanted:
            yield start, end


def _area(blocks: npt.NDArray[np.bool_], lattice: Lattice) -> int:
    """Target pixels of the chosen blocks of a window, whole tiles counted at the slide's edge."""
    return int(blocks.sum()) * lattice.across.stride_px * lattice.down.stride_px
