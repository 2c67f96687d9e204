"""Windows: the closed forms against looking at every window, every position and every block."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.work.crop_rows import fill_rows
from chunkdl.engine.work.load_bigchunk import load_bigchunk
from chunkdl.engine.work.planned_slide import PlannedSlide
from chunkdl.sampling.grid import GridWindow
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.windows import Axis, Draws, Lattice, Window
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.slide import Level, Pixels
from chunkdl.slides.synthetic.writing import CoordinateSlide
from chunkdl.transport.memory.layouts import BatchLayout, BigChunkLayout
from chunkdl.transport.protocol.engine_messages import LoadBigChunk, RowGroup
from chunkdl.transport.row_format import RowFormat
from tests.sampling.small_plans import (
    EXAMPLES,
    Flags,
    SmallSlide,
    accepted,
    all_of,
    lattices,
    small_slides,
    stream_config,
)
from tests.slides.tissue.memory_slide import MemorySlide

DRAWS = 40


def lattice_of(tile: int, factor: float, window_px: int, smallchunk_px: int) -> Lattice:
    grid = TargetGrid(0, factor, 9000, 9000, factor, None)
    return Lattice.of(Level(9000, 9000, 1.0, tile, tile), grid, window_px, smallchunk_px)


def drawn(slide: SmallSlide, lattice: Lattice, seed: int) -> tuple[Window, Draws]:
    """A window of the slide and positions in it, as a loader draws them."""
    rng = np.random.default_rng(seed)
    window = lattice.draw_window(slide.anchors, rng)
    return window, lattice.content(slide.positions, window).draw(DRAWS, rng)


def corners_in(positions: Flags, window: Window, smallchunk_px: int) -> list[tuple[int, int]]:
    """The accepted corners whose whole footprint lies in the window."""
    reach = window.side_px - smallchunk_px
    return [
        (int(x), int(y))
        for y, x in np.argwhere(positions)
        if 0 <= x - window.x <= reach and 0 <= y - window.y <= reach
    ]


def blocks_under(corners: list[tuple[int, int]], window: Window, lattice: Lattice) -> Flags:
    """Blocks that the footprints at the corners touch, from the block of the window's origin on.

    Painted pixel by pixel on the whole blocks that the window has a part of.
    """
    across, down = lattice.across.stride_px, lattice.down.stride_px
    left, top = window.x // across * across, window.y // down * down
    columns = -(-(window.x + window.side_px - left) // across)
    rows = -(-(window.y + window.side_px - top) // down)
    painted = np.zeros((rows * down, columns * across), dtype=np.bool_)
    side = lattice.across.smallchunk_px
    for x, y in corners:
        painted[y - top : y - top + side, x - left : x - left + side] = True
    return np.asarray(painted.reshape(rows, down, columns, across).any(axis=(1, 3)))


@given(
    smallchunk=st.integers(1, 30),
    slack=st.integers(0, 60),
    data=st.data(),
)
def test_the_closed_forms_count_the_windows_around_a_position(
    smallchunk: int, slack: int, data: st.DataObject
) -> None:
    """First, count and weight of an axis, against trying every window."""
    stride = data.draw(st.integers(1, slack + 1))
    axis = Axis(stride, smallchunk + slack, smallchunk)
    for position in range(2 * stride + 3):
        around = [
            index
            for index in range(-axis.window_px // stride - 1, position // stride + 2)
            if index * stride <= position
            and position + smallchunk <= index * stride + axis.window_px
        ]
        assert around[0] == axis.first(position)
        assert len(around) == axis.count(position) > 0
        assert len(around) in (axis.fewest, axis.fewest + 1)
        scale = axis.fewest * (axis.fewest + 1)
        assert axis.weights(np.array([position])) * len(around) == scale


@given(
    smallchunk=st.integers(1, 1024),
    slack=st.integers(0, 4096),
    tile=st.integers(1, 5000) | st.integers(-2, 2),
    factor=st.just(1.0) | st.floats(1, 8),
)
def test_every_position_lies_in_a_window_whatever_the_sizes(
    smallchunk: int, slack: int, tile: int, factor: float
) -> None:
    """Neighbouring windows overlap by at least a SmallChunk less one pixel."""
    # Small numbers stand for tiles about as large as the largest stride that there may be.
    tile = tile if tile > 2 else max(1, slack + 1 + tile)
    lattice = lattice_of(tile, factor, smallchunk + slack, smallchunk)
    for axis in (lattice.across, lattice.down):
        assert 1 <= axis.stride_px <= slack + 1
        assert axis.fewest >= 1


@pytest.mark.parametrize(
    ("tile", "factor", "window", "smallchunk", "stride"),
    [
        pytest.param(256, 1.0, 2048, 224, 256, id="a tile"),
        pytest.param(512, 2.0, 2048, 224, 256, id="a tile of a reduced level"),
        pytest.param(240, 1.0, 2048, 224, 240, id="a tile that does not divide the window"),
        pytest.param(240, 1.37, 2048, 224, 175, id="a tile rounded to target pixels"),
        pytest.param(8, 1.0, 2048, 224, 256, id="strips, several together"),
        pytest.param(100, 1.0, 2048, 224, 200, id="small tiles, several together"),
        pytest.param(4096, 1.0, 2048, 224, 1366, id="a tile larger than the window, cut in three"),
        pytest.param(256, 1.0, 300, 300, 1, id="a window of one SmallChunk"),
    ],
)
def test_windows_begin_at_whole_tiles_where_these_fit(
    tile: int, factor: float, window: int, smallchunk: int, stride: int
) -> None:
    """The stride of the lattice for the usual kinds of file."""
    lattice = lattice_of(tile, factor, window, smallchunk)
    assert lattice.across == lattice.down == Axis(stride, window, smallchunk)


def test_the_lattice_has_the_strides_of_tiles_that_are_not_square() -> None:
    """The width of a tile is for x, its height for y."""
    grid = TargetGrid(0, 1.0, 9000, 9000, 1.0, None)
    lattice = Lattice.of(Level(9000, 9000, 1.0, 512, 300), grid, 2048, 224)
    assert (lattice.across.stride_px, lattice.down.stride_px) == (512, 300)


@EXAMPLES
@given(slide=small_slides(), data=st.data(), seed=st.integers(0, 2**32))
def test_draws_are_positions_of_the_window(
    slide: SmallSlide, data: st.DataObject, seed: int
) -> None:
    """The window is on the lattice; each footprint has tissue and lies in slide and window."""
    assume(slide.anchors.count)
    lattice = data.draw(lattices(slide.smallchunk_px))
    window, draws = drawn(slide, lattice, seed)
    assert window.x % lattice.across.stride_px == window.y % lattice.down.stride_px == 0
    assert window.side_px == lattice.across.window_px

    possible = set(corners_in(accepted(slide.positions), window, slide.smallchunk_px))
    assert len(draws.x) == len(draws.y) == len(draws.fraction) == DRAWS
    assert set(zip(draws.x.tolist(), draws.y.tolist(), strict=True)) <= possible
    for x, y in possible:
        assert x + slide.smallchunk_px <= slide.grid.width
        assert y + slide.smallchunk_px <= slide.grid.height
    assert (draws.fraction >= np.float32(slide.threshold)).all()


@EXAMPLES
@given(slide=small_slides(), data=st.data(), seed=st.integers(0, 2**32))
def test_a_draw_has_the_fraction_of_its_own_cell(
    slide: SmallSlide, data: st.DataObject, seed: int
) -> None:
    """Fractions stay with the positions that they belong to."""
    positions = slide.positions
    assume(slide.anchors.count)
    _, draws = drawn(slide, data.draw(lattices(slide.smallchunk_px)), seed)
    rows, columns = draws.y // positions.down.cell_px, draws.x // positions.across.cell_px
    left, right = positions.across.ends(columns.astype(np.int64))
    top, bottom = positions.down.ends(rows.astype(np.int64))
    own = slide.mask.fraction(left, top, right, bottom)[np.arange(DRAWS), np.arange(DRAWS)]
    assert np.array_equal(draws.fraction, own)


@EXAMPLES
@given(slide=small_slides(), data=st.data(), seed=st.integers(0, 2**32))
def test_useful_blocks_are_those_under_any_position_of_the_window(
    slide: SmallSlide, data: st.DataObject, seed: int
) -> None:
    """And touched blocks those under the draws; so what is touched is useful."""
    assume(slide.anchors.count)
    lattice = data.draw(lattices(slide.smallchunk_px))
    window, draws = drawn(slide, lattice, seed)
    useful = lattice.content(slide.positions, window).useful_blocks()
    possible = corners_in(accepted(slide.positions), window, slide.smallchunk_px)
    assert np.array_equal(useful, blocks_under(possible, window, lattice))
    seen = pixels_of(useful, window, lattice)[: slide.grid.height, : slide.grid.width]
    assert lattice.content(slide.positions, window).useful_px() == seen.sum()

    touched = lattice.touched_blocks(draws, window)
    corners = list(zip(draws.x.tolist(), draws.y.tolist(), strict=True))
    assert np.array_equal(touched, blocks_under(corners, window, lattice))
    assert not (touched & ~useful).any()


@EXAMPLES
@given(slide=small_slides(most_positions=60), data=st.data())
def test_touched_blocks_of_a_grid_window_count_from_the_block_of_its_origin(
    slide: SmallSlide, data: st.DataObject
) -> None:
    """Windows of a grid pass do not begin on the lattice."""
    lattice = data.draw(lattices(slide.smallchunk_px))
    side = lattice.across.window_px
    for found in all_of(slide.grid_windows(side)):
        corners = list(zip(found.draws.x.tolist(), found.draws.y.tolist(), strict=True))
        expected = blocks_under(corners, found.window, lattice)
        assert np.array_equal(lattice.touched_blocks(found.draws, found.window), expected)


def planned(slide: SmallSlide, lattice: Lattice, seed: int, grid: bool) -> list[GridWindow]:
    """The windows and draws that the plan has for BigChunk 0, or for all of a grid pass."""
    if grid:
        return all_of(slide.grid_windows(lattice.across.window_px))
    window = lattice.draw_window(slide.anchors, generator(seed, Purpose.WINDOW))
    rng = generator(seed, Purpose.POSITIONS)
    return [GridWindow(window, lattice.content(slide.positions, window).draw(DRAWS, rng))]


def load(
    slide: SmallSlide, lattice: Lattice, seed: int, plan: list[GridWindow], number: int
) -> tuple[MemorySlide, Pixels]:
    """The slide, and the rows cut out of one of its windows after a loader has read it."""
    width, height = slide.grid.width, slide.grid.height
    opened = MemorySlide([CoordinateSlide(width, height, (1,)).pixels(0, 0, 0, width, height)])
    config = stream_config(
        grid=len(plan) > 1,
        seed=seed,
        smallchunk_px=slide.smallchunk_px,
        bigchunk_px=lattice.across.window_px,
    )
    facts = SimpleNamespace(
        slide=opened,
        grid=slide.grid,
        lattice=lattice,
        positions=slide.positions,
        places=slide.anchors,
        grid_windows=SimpleNamespace(window=plan.__getitem__),
        entry=SlideEntry("memory.svs", 0, None, None),
    )
    calls = len(plan[number].draws.x)
    layout = BigChunkLayout(lattice.across.window_px, calls)
    view = layout.view(np.zeros(layout.slot_bytes, dtype=np.uint8))
    ticket = LoadBigChunk(0, 0, 0, number, calls, 0, 0)
    load_bigchunk(cast(PlannedSlide, facts), ticket, config, 0, view)

    rows = BatchLayout(calls, RowFormat.of_crops(slide.smallchunk_px))
    batch = rows.view(np.zeros(rows.slot_bytes, dtype=np.uint8))
    numbers = np.arange(calls, dtype=np.int32).tobytes()
    fill_rows(RowGroup(0, 0, numbers, numbers), view, batch)
    return opened, batch.columns["image"]


@EXAMPLES
@given(
    slide=small_slides(most_positions=40),
    data=st.data(),
    seed=st.integers(0, 2**32),
    grid=st.booleans(),
)
def test_a_loader_reads_the_blocks_under_its_draws_once_and_nothing_else(
    slide: SmallSlide, data: st.DataObject, seed: int, grid: bool
) -> None:
    """Every crop has the slide's pixels; reads stay in slide and window."""
    assume(slide.anchors.count)
    lattice = data.draw(lattices(slide.smallchunk_px))
    plan = planned(slide, lattice, seed, grid)
    assume(grid == (len(plan) > 1))
    side = slide.smallchunk_px
    for number, part in enumerate(plan):
        window, draws = part.window, part.draws
        opened, images = load(slide, lattice, seed, plan, number)
        corners = list(zip(draws.x.tolist(), draws.y.tolist(), strict=True))
        for (x, y), image in zip(corners, images, strict=True):
            assert np.array_equal(image, opened.levels[0][y : y + side, x : x + side])

        times_read = np.zeros((slide.grid.height, slide.grid.width), dtype=np.int64)
        for _, x, y, width, height in opened.reads:
            times_read[y : y + height, x : x + width] += 1
        wanted = pixels_of(blocks_under(corners, window, lattice), window, lattice)
        assert np.array_equal(times_read, wanted[: slide.grid.height, : slide.grid.width])


def pixels_of(blocks: Flags, window: Window, lattice: Lattice) -> Flags:
    """The pixels of the slide, and some beyond, that lie in the blocks and in the window."""
    across, down = lattice.across.stride_px, lattice.down.stride_px
    y, x = np.indices((120, 120))
    row, column = y // down - window.y // down, x // across - window.x // across
    reach = window.side_px
    inside = (y >= window.y) & (y < window.y + reach) & (x >= window.x) & (x < window.x + reach)
    inside[inside] = blocks[row[inside], column[inside]]
    return np.asarray(inside)
