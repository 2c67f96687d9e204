"""Grid passes: every grid position with enough tissue exactly once, in batches of known size."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.grid import GridWindow, GridWindows, covered_px
from chunkdl.sampling.grid_pass import GridPass, slide_order
from chunkdl.sampling.grid_shape import GridShape
from chunkdl.sampling.grid_stream import GridStream
from chunkdl.sampling.windows import Draws, Window
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.tissue.mask import TissueMask
from tests.sampling.small_plans import EXAMPLES, SmallSlide, all_of, small_slides, stream_config

SURVEYS = st.lists(st.lists(st.integers(1, 9), max_size=5), min_size=1, max_size=6)
"""Positions of every window of every slide; a slide that cannot be used has no windows."""
PASSES = settings(EXAMPLES, max_examples=150)

# ---- The windows of a slide.


def places(length: int, side: int, stride: int, *, pads: bool) -> list[int]:
    """Multiples of the stride whose footprint is in the slide; with `pads` until one reaches its
    edge.
    """
    found: list[int] = []
    for corner in range(0, length, stride):
        if corner + side > length and (not pads or (found and found[-1] + side >= length)):
            break
        found.append(corner)
    return found


def expected_positions(
    slide: SmallSlide, stride: int = 0, *, pads: bool = False
) -> dict[tuple[int, int], float]:
    """The grid positions whose footprint, or its part in the slide, has enough tissue."""
    side = slide.smallchunk_px
    found = {}
    for y in places(slide.grid.height, side, stride or side, pads=pads):
        for x in places(slide.grid.width, side, stride or side, pads=pads):
            share = float(slide.share(np.array([2 * x]), np.array([2 * y]))[0, 0])
            if np.float32(share) >= np.float32(slide.threshold):
                found[x, y] = share
    return found


@EXAMPLES
@given(
    slide=small_slides(most_positions=70),
    slack=st.integers(0, 60),
    stride=st.integers(0, 40),
    pads=st.booleans(),
)
def test_the_windows_hold_every_grid_position_with_tissue_exactly_once(
    slide: SmallSlide, slack: int, stride: int, pads: bool
) -> None:
    """Each with its tissue fraction, its whole footprint in its window; no window is empty. With
    any overlap, with gaps, and with footprints that overhang the slide."""
    side, window_px = slide.smallchunk_px, slide.smallchunk_px + slack
    windows = all_of(slide.grid_windows(window_px, stride, pads=pads))
    found: Counter[tuple[int, int]] = Counter()
    expected = expected_positions(slide, stride, pads=pads)
    for part in windows:
        window, draws = part.window, part.draws
        assert window.side_px == window_px
        assert len(draws.x) == len(draws.y) == len(draws.fraction) > 0
        for x, y, fraction in zip(draws.x, draws.y, draws.fraction, strict=True):
            assert window.x <= x <= window.x + window_px - side
            assert window.y <= y <= window.y + window_px - side
            found[int(x), int(y)] += 1
            assert fraction == pytest.approx(expected[int(x), int(y)], rel=1e-6)
    assert found == dict.fromkeys(expected, 1)


@EXAMPLES
@given(slide=small_slides(most_positions=70), slack=st.integers(0, 60))
def test_windows_are_as_full_as_they_can_be_and_come_row_by_row(
    slide: SmallSlide, slack: int
) -> None:
    """Windows are disjoint, at multiples of the whole SmallChunks that fit into one."""
    side, window_px = slide.smallchunk_px, slide.smallchunk_px + slack
    step = window_px // side * side
    windows = all_of(slide.grid_windows(window_px))
    origins = [(part.window.y, part.window.x) for part in windows]
    assert all(y % step == x % step == 0 for y, x in origins)
    assert all(earlier < later for earlier, later in pairwise(origins))


def listed(slide: SmallSlide, window_px: int) -> list[GridWindow]:
    """The windows as they were made before, from a list of all positions of a slide."""
    side, grid = slide.smallchunk_px, slide.grid
    x = np.arange(grid.width // side, dtype=np.int64) * side
    y = np.arange(grid.height // side, dtype=np.int64) * side
    left, top = (corner.astype(np.float64) * grid.downsample for corner in (x, y))
    fraction = interpolated(slide.mask, left, top, side * grid.downsample)
    rows, columns = np.nonzero(fraction >= slide.threshold)
    per_window = window_px // side
    windows_across = -(-len(x) // per_window)
    group = rows // per_window * windows_across + columns // per_window
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    found = []
    for members in np.split(order, starts[1:]) if len(order) else []:
        row, column = divmod(int(group[members[0]]), windows_across)
        step = per_window * side
        draws = Draws(
            x[columns[members]].astype(np.int32),
            y[rows[members]].astype(np.int32),
            fraction[rows[members], columns[members]],
        )
        found.append(GridWindow(Window(column * step, row * step, window_px), draws))
    return found


def interpolated(
    mask: TissueMask, left: npt.NDArray[np.float64], top: npt.NDArray[np.float64], side: float
) -> npt.NDArray[np.float32]:
    """Shares of tissue in boxes, from one table of sums, interpolated between its corners."""
    rows, columns = mask.cells.shape
    table = np.pad(mask.cells.cumsum(0).cumsum(1), ((1, 0), (1, 0))).astype(np.float64)
    ends = []
    for begin, cells, length0 in ((left, columns, mask.width0), (top, rows, mask.height0)):
        ends.append([np.clip(e * cells / length0, 0, cells) for e in (begin, begin + side)])
    (x0, x1), (y0, y1) = ends

    def at(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        low_x = np.minimum(x.astype(int), columns - 1)
        low_y = np.minimum(y.astype(int), rows - 1)
        part_x, part_y = (x - low_x)[None, :], (y - low_y)[:, None]
        upper, lower = (table[which][:, [*low_x]] for which in (low_y, low_y + 1))
        upper_next, lower_next = (table[which][:, [*(low_x + 1)]] for which in (low_y, low_y + 1))
        first = upper * (1 - part_x) + upper_next * part_x
        second = lower * (1 - part_x) + lower_next * part_x
        return np.asarray(first * (1 - part_y) + second * part_y)

    tissue = at(x1, y1) - at(x0, y1) - at(x1, y0) + at(x0, y0)
    area = (y1 - y0)[:, None] * (x1 - x0)[None, :]
    share = np.where(tissue < 1e-7, 0, tissue / np.where(area > 0, area, 1))
    return np.minimum(share, 1).astype(np.float32)


@PASSES
@given(slide=small_slides(most_positions=70), slack=st.integers(0, 60))
def test_a_pass_is_what_it_was_when_all_positions_were_listed(
    slide: SmallSlide, slack: int
) -> None:
    """The same windows, positions and order, and as many in each as is said before."""
    window_px = slide.smallchunk_px + slack
    windows = slide.grid_windows(window_px)
    before = listed(slide, window_px)
    assert windows.counts.tolist() == [len(one.draws.x) for one in before]
    for now, then in zip(all_of(windows), before, strict=True):
        assert now.window == then.window
        assert np.array_equal(now.draws.x, then.draws.x)
        assert np.array_equal(now.draws.y, then.draws.y)
        assert now.draws.fraction == pytest.approx(then.draws.fraction, rel=1e-6)


def test_a_slide_of_gigapixels_is_counted_with_signs_of_life_and_little_memory() -> None:
    """Two million positions of 64 px, and the count can be broken off."""
    cells = np.zeros((2_500, 3_125), np.bool_)
    cells[100:2_000, 500:] = True
    mask = TissueMask(cells, 100_000, 80_000)
    grid = TargetGrid(0, 1.0, 100_000, 80_000, 1.0, None)
    shape = GridShape(64, 2048, 64, pads=False)
    signs = []
    windows = GridWindows(grid, mask, shape, 0.5, lambda: signs.append(1))
    assert windows.at(3 * 49 + 20).draws.x.size == 32 * 32
    assert not signs
    assert windows.counts.sum() == (100_000 - 16_000) // 64 * (1_900 * 32 // 64)
    assert len(signs) >= 40
    assert windows.nbytes < 1.01 * cells.size + 2**16

    def recalled() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _ = GridWindows(grid, mask, shape, 0.5, recalled).counts


@EXAMPLES
@given(length=st.integers(1, 60), side=st.integers(1, 20), stride=st.integers(1, 20))
def test_a_padded_grid_without_gaps_covers_the_slide(length: int, side: int, stride: int) -> None:
    """Every pixel is in a footprint; each begins in the slide, and only the last one overhangs."""
    shape = GridShape(side, side, stride, pads=True)
    corners = [number * stride for number in range(shape.positions(length))]
    covered = {pixel for corner in corners for pixel in range(corner, corner + side)}
    assert stride > side or set(range(length)) <= covered
    assert corners[-1] < length
    assert all(corner + side <= length for corner in corners[:-1])


def test_a_grid_with_too_many_positions_or_windows_is_refused() -> None:
    """With the number, and what to do."""
    large = TargetGrid(0, 1.0, 100_000, 80_000, 1.0, None)
    assert not GridShape(224, 2048, 56, pads=True).excess(large)
    dense = GridShape(224, 512, 1, pads=False).excess(large)
    assert dense.startswith("stride=1 makes 7,959,")
    assert "raise stride" in dense
    small = GridShape(32, 32, 32, pads=False).excess(large)
    assert "bigchunk_size=32 holds 1 positions" in small
    assert "raise bigchunk_size" in small


def test_positions_of_a_window_are_in_reading_order() -> None:
    """A full slide of 5 x 3 SmallChunks in windows of 2 x 2."""
    mask = TissueMask(np.ones((1, 1), dtype=np.bool_), 54, 31)
    grid = TargetGrid(0, 1.0, 54, 31, 1.0, None)
    shape = GridShape(10, 25, 10, pads=False)
    windows = all_of(GridWindows(grid, mask, shape, 1.0, lambda: None))
    origins = [(part.window.x, part.window.y) for part in windows]
    assert origins == [(0, 0), (20, 0), (40, 0), (0, 20), (20, 20), (40, 20)]
    corners = list(zip(windows[0].draws.x.tolist(), windows[0].draws.y.tolist(), strict=True))
    assert corners == [(0, 0), (10, 0), (0, 10), (10, 10)]
    assert [len(part.draws.x) for part in windows] == [4, 4, 2, 2, 2, 1]


def test_every_epoch_visits_all_slides_in_another_order() -> None:
    """And another seed in another; the order is the same whenever it is asked for."""
    orders = [tuple(slide_order(9, epoch, 12).tolist()) for epoch in range(20)]
    assert len(set(orders)) == 20
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert tuple(slide_order(9, 3, 12).tolist()) == orders[3]
    assert tuple(slide_order(10, 3, 12).tolist()) != orders[3]


def test_a_pass_in_the_order_of_the_dataset_begins_with_its_first_slide() -> None:
    """Whatever the seed and the number of the pass."""
    config = stream_config(grid=True, grid_order="dataset")
    for epoch in range(2):
        stream = GridStream(config, Cursor(plan_hash="", seed=5), 7, epoch)
        assert stream.unsurveyed == tuple(range(7))


# ---- The rows of a pass.


def all_rows(surveys: list[list[int]]) -> list[tuple[int, int]]:
    """Ordinal and call of each row, window after window."""
    counts = [count for survey in surveys for count in survey]
    return [(k, call) for k, count in enumerate(counts) for call in range(count)]


@PASSES
@given(surveys=SURVEYS, data=st.data())
def test_the_rows_of_a_pass_are_its_windows_one_after_the_other(
    surveys: list[list[int]], data: st.DataObject
) -> None:
    """Any rows, against putting all windows of all slides behind each other."""
    order = data.draw(st.permutations(range(len(surveys))))
    rows_of_pass = GridPass(order)
    for slide in order:
        assert rows_of_pass.next_slide == slide == rows_of_pass.upcoming[0]
        rows_of_pass.add(surveys[slide])
    assert rows_of_pass.next_slide is None
    assert rows_of_pass.upcoming == ()

    rows = all_rows([surveys[slide] for slide in order])
    assert rows_of_pass.rows == len(rows)
    sources = [(slide, window) for slide in order for window in range(len(surveys[slide]))]
    assert [rows_of_pass.source(k) for k in range(rows_of_pass.windows)] == sources
    for k in range(rows_of_pass.windows):
        first, last = rows_of_pass.span(k)
        assert [ordinal for ordinal, _ in rows[first:last]] == [k] * (last - first)
        assert last - first == surveys[sources[k][0]][sources[k][1]]

    first = data.draw(st.integers(0, len(rows)))
    count = data.draw(st.integers(0, len(rows) - first))
    ordinal, call = rows_of_pass.ordinals(first, count)
    assert list(zip(ordinal.tolist(), call.tolist(), strict=True)) == rows[first : first + count]


# ---- The stream of a pass: batches, from a cursor on, while slides are still surveyed.


def stream_of(
    surveys: list[list[int]], batch_size: int, drop_last: bool, cursor: Cursor | None = None
) -> GridStream:
    """The stream of a pass of which no slide is known yet."""
    config = stream_config(grid=True, batch_size=batch_size, drop_last=drop_last)
    return GridStream(config, cursor or Cursor(plan_hash="", seed=5), len(surveys), 0)


def survey_all(stream: GridStream, surveys: list[list[int]]) -> list[tuple[int, int]]:
    """Survey every slide in the order of the stream; all rows of the pass, short batch included."""
    order = list(stream.unsurveyed)
    for slide in order:
        stream.add(surveys[slide])
    return all_rows([surveys[slide] for slide in order])


@PASSES
@given(surveys=SURVEYS, batch_size=st.integers(1, 12), drop_last=st.booleans())
def test_the_batches_of_a_pass_hold_all_its_rows_in_order(
    surveys: list[list[int]], batch_size: int, drop_last: bool
) -> None:
    """All full but the last, which is short, or left out with `drop_last`; then the pass ends."""
    stream = stream_of(surveys, batch_size, drop_last)
    rows = survey_all(stream, surveys)
    kept = len(rows) // batch_size * batch_size if drop_last else len(rows)
    delivered: list[tuple[int, int]] = []
    for batch in range(stream.batches()):
        assert stream.knows(batch)
        assert not stream.ended(batch)
        ordinal, call = stream.rows(batch)
        assert len(ordinal) == min(batch_size, kept - batch * batch_size) > 0
        delivered += zip(ordinal.tolist(), call.tolist(), strict=True)
    assert delivered == rows[:kept]
    assert stream.ended(stream.batches())
    assert not stream.knows(stream.batches())


@PASSES
@given(surveys=SURVEYS, batch_size=st.integers(1, 12), drop_last=st.booleans())
def test_a_batch_that_is_known_never_changes_when_more_slides_are_surveyed(
    surveys: list[list[int]], batch_size: int, drop_last: bool
) -> None:
    """It is known as soon as all its rows are, and not before; BigChunks keep their source."""
    stream, whole = (stream_of(surveys, batch_size, drop_last) for _ in range(2))
    survey_all(whole, surveys)
    known = 0
    for position, slide in enumerate(tuple(stream.unsurveyed)):
        assert not stream.ended(stream.batches())
        stream.add(surveys[slide])
        known += sum(surveys[slide])
        complete = position + 1 == len(surveys)
        assert stream.batches() == (whole.batches() if complete else known // batch_size)
        for batch in range(stream.batches()):
            for now, later in zip(stream.rows(batch), whole.rows(batch), strict=True):
                assert np.array_equal(now, later)
        for k in range(stream.windows):
            assert stream.has(k)
            assert stream.source(k) == whole.source(k)
        assert not stream.has(stream.windows)


@PASSES
@given(surveys=SURVEYS, batch_size=st.integers(1, 12), drop_last=st.booleans(), data=st.data())
def test_the_stream_counts_the_rows_that_are_left_from_its_cursor_on(
    surveys: list[list[int]], batch_size: int, drop_last: bool, data: st.DataObject
) -> None:
    """Without delivered batches, batches delivered before their turn, and rows left out."""
    whole = stream_of(surveys, batch_size, drop_last)
    survey_all(whole, surveys)
    batches = whole.batches()
    next_batch = data.draw(st.integers(0, batches))
    later = st.integers(next_batch + 1, max(next_batch + 1, batches - 1))
    ahead = data.draw(st.sets(later, max_size=3)) if next_batch + 1 < batches else set()
    cursor = Cursor(plan_hash="", seed=5, next_batch=next_batch, ahead=tuple(sorted(ahead)))

    left: Counter[int] = Counter()
    for batch in set(range(next_batch, batches)) - ahead:
        left.update(whole.rows(batch)[0].tolist())
    stream = stream_of(surveys, batch_size, drop_last, cursor)
    for slide in tuple(stream.unsurveyed):
        stream.add(surveys[slide])
        # Until the last slide is known the short batch at the end may still become full.
        for k in range(stream.windows):
            assert stream.uses(k) >= left[k]
            assert drop_last or stream.uses(k) == left[k]
    for k in range(stream.windows):
        assert stream.uses(k) == left[k]


def test_a_pass_without_a_single_position_ends_at_once() -> None:
    """As soon as the last slide is known to have none, and not before."""
    stream = stream_of([[], []], 4, drop_last=False)
    stream.add([])
    assert not stream.ended(0)
    stream.add([])
    assert stream.ended(0)
    assert stream.batches() == 0


@PASSES
@given(surveys=SURVEYS, batch_size=st.integers(1, 12), start=st.integers(0, 20))
def test_a_window_knows_the_batches_that_it_is_in(
    surveys: list[list[int]], batch_size: int, start: int
) -> None:
    """Its first, its last, which batch closes it, and where it goes on behind a cursor."""
    cursor = Cursor(plan_hash="", seed=5, next_batch=start)
    stream = stream_of(surveys, batch_size, drop_last=False, cursor=cursor)
    survey_all(stream, surveys)
    batches_of: dict[int, list[int]] = {}
    calls_left: dict[int, list[int]] = {}
    for batch in range(stream.batches()):
        for ordinal, call in zip(*(part.tolist() for part in stream.rows(batch)), strict=True):
            batches_of.setdefault(ordinal, []).append(batch)
            if batch >= start:
                calls_left.setdefault(ordinal, []).append(call)
    closing: dict[int, list[int]] = {}
    for ordinal, batches in batches_of.items():
        assert stream.first_batch(ordinal) == batches[0]
        assert stream.last_batch(ordinal) == batches[-1]
        closing.setdefault(batches[-1], []).append(ordinal)
        assert stream.first_call(ordinal) == 0
        if ordinal in calls_left:
            assert stream.next_call(ordinal) == calls_left[ordinal][0]
    for batch in range(stream.batches()):
        assert list(stream.closes(batch)) == closing.get(batch, [])


@given(
    corners=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), min_size=1, max_size=12),
    side_px=st.integers(1, 15),
)
def test_the_pixels_under_footprints_are_counted_once(
    corners: list[tuple[int, int]], side_px: int
) -> None:
    """However they overlap; what overhangs the slide does not count."""
    painted = np.zeros((21, 31), dtype=bool)
    for x, y in corners:
        painted[y : y + side_px, x : x + side_px] = True
    x, y = np.array(corners, dtype=np.int32).T
    draws = Draws(x, y, np.ones(len(x), dtype=np.float32))
    assert covered_px(draws, side_px, 31, 21) == painted.sum()
