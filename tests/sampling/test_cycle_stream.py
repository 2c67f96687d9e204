"""The stream without replacement: batches, ranks and states of it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.cycle_stream import SPARE, CycleStream
from chunkdl.sampling.shares import Remainder, Share
from tests.sampling.small_plans import EXAMPLES, stream_config

Row = tuple[int, int, int, int]
"""Slide, cycle, window, and number of the position in the order of the cycle."""
PATIENTS = ((0, 2), (1,), (3, 4, 5))
COUNTS = ((3, 9, 1), (5,), (2, 2, 7, 4), (), (6, 1), (8, 3))
"""Positions per window; slide 3 has none."""


def stream_of(cursor: Cursor | None = None, epoch: int = 0, **changes: Any) -> CycleStream:
    """A stream of which no slide is known yet."""
    config = stream_config(**{"replacement": False, "num_bigchunks": 4, "batch_size": 5, **changes})
    return CycleStream(config, cursor or Cursor(plan_hash="", seed=5), PATIENTS, epoch)


def reach(stream: CycleStream, batch: int) -> bool:
    """Whether there is such a batch; slides are told when they are asked for."""
    while not stream.knows(batch):
        if stream.ended(batch):
            return False
        stream.add(COUNTS[stream.unsurveyed[0]])
    return True


def rows_of(stream: CycleStream, batch: int) -> list[Row]:
    """The rows of a batch that is there."""
    found: list[Any] = []
    for ordinal, call in zip(*(part.tolist() for part in stream.rows(batch)), strict=True):
        source = stream.source(ordinal)
        assert call < source.calls
        found.append((source.slide, source.cycle, source.window, source.first + call))
    return found


def batches_of(stream: CycleStream, first: int = 0, most: int = 10**6) -> list[list[Row]]:
    """The batches from one on."""
    found: list[Any] = []
    while len(found) < most and reach(stream, first + len(found)):
        found.append(rows_of(stream, first + len(found)))
    return found


def everything(cycles: range) -> Counter[Row]:
    """Every position of every cycle, once."""
    return Counter(
        (slide, cycle, window, number)
        for slide, windows in enumerate(COUNTS)
        for cycle in cycles
        for window, count in enumerate(windows)
        for number in range(count)
    )


@pytest.mark.parametrize("cycles", [1, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_pass_has_every_position_of_its_cycles_once(cycles: int, drop_last: bool) -> None:
    """Its length is known as soon as all slides are; with `drop_last` a short batch is left out."""
    for epoch in range(2):
        stream = stream_of(epoch=epoch, cycles=cycles, drop_last=drop_last)
        batches = batches_of(stream)
        assert stream.length == len(batches)
        assert {len(batch) for batch in batches[:-1]} == {5}
        rows = Counter(row for batch in batches for row in batch)
        expected = everything(range(epoch * cycles, (epoch + 1) * cycles))
        left_out = (expected - rows).total()
        assert rows - expected == Counter()
        assert left_out == (expected.total() % 5 if drop_last else 0)


def test_passes_have_orders_of_their_own_and_batches_mix_slides() -> None:
    """The same seed gives the same pass; another pass, or seed, another order."""
    passes = [batches_of(stream_of(epoch=epoch, cycles=1)) for epoch in (0, 0, 1)]
    without_cycle = [[[row[0::2] for row in batch] for batch in one] for one in passes]
    assert passes[0] == passes[1]
    assert without_cycle[0] != without_cycle[2]
    assert sum(len({row[0] for row in batch}) > 1 for batch in passes[0]) > len(passes[0]) / 2


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 4])
def test_ranks_get_every_position_once(world_size: int, rows: int) -> None:
    """As many batches each; fewer rows than ranks are left out, and counted."""
    plan = [row for batch in batches_of(stream_of(cycles=2)) for row in batch]
    seen: Counter[Row] = Counter()
    left_out = set()
    lengths = set()
    for rank in range(world_size):
        share = Share(rank, world_size, rows)
        step = 0
        while (cut := share.cut(Remainder(), step, len(plan), drop_last=False)).rows:
            seen.update(row for low, high in cut.rows for row in plan[low:high])
            step += 1
        left_out.add(cut.left_out)
        lengths.add(step)
    assert len(lengths) == len(left_out) == 1
    assert set(seen.values()) == {1}
    assert seen.total() + left_out.pop() == len(plan)
    assert len(plan) - seen.total() < world_size


@pytest.mark.parametrize("cycles", [2, None])
def test_a_stream_goes_on_from_every_batch(cycles: int | None) -> None:
    """From a state as plain data; slides that gave nothing are not looked at again."""
    whole = stream_of(cycles=cycles)
    batches = batches_of(whole, most=60)
    for first in range(len(batches) + 1):
        reached = stream_of(cycles=cycles)
        before = batches_of(reached, most=first)
        cursor = Cursor(
            plan_hash="a", seed=5, next_batch=len(before), substitutions=dict(reached.left_out)
        )
        state = json.loads(json.dumps(cursor.to_dict()))
        resumed = stream_of(Cursor.from_dict(state, "a"), cycles=cycles)
        assert batches_of(resumed, first, len(batches) - first) == batches[first:]
        assert 3 not in resumed.unsurveyed or 3 not in reached.left_out


@EXAMPLES
@given(
    first=st.integers(0, 30),
    ahead=st.sets(st.integers(1, 4), max_size=2),
    cycles=st.sampled_from([1, 2, None]),
    drop_last=st.booleans(),
)
def test_the_stream_counts_the_rows_that_are_left_from_its_cursor_on(
    first: int, ahead: set[int], cycles: int | None, drop_last: bool
) -> None:
    """Without what was delivered, before its turn or not, and what is left out at the end."""
    whole = stream_of(cycles=cycles, drop_last=drop_last)
    last = len(batches_of(whole, most=40))
    first = min(first, last)
    past = tuple(first + number for number in sorted(ahead) if first + number < last)
    left: Counter[int] = Counter()
    for batch in set(range(first, last)).difference(past):
        left.update(whole.rows(batch)[0].tolist())
    cursor = Cursor(plan_hash="", seed=5, next_batch=first, ahead=past, substitutions={3: 0})
    stream = stream_of(cursor, cycles=cycles, drop_last=drop_last)
    for slide in (0, 1, 2, 4, 5):
        stream._order.know(slide, COUNTS[slide])
    needed = [ordinal for ordinal, count in left.items() if count]
    assert not needed or stream.first_ordinal <= min(needed)
    for ordinal in range(max(needed, default=0)):
        assert stream.has(ordinal)
        assert cycles is None or stream.uses(ordinal) == left[ordinal]
        assert stream.uses(ordinal) >= left[ordinal]


def test_ten_thousand_slides_have_a_small_state_and_go_on_exactly() -> None:
    """A thousand of them gave nothing. The state is far below 200 KB, and what it goes on from is
    there in seconds."""
    slides = 10_000
    rng = np.random.default_rng(0)
    counts = [
        rng.integers(1, 82, size=30).tolist() if slide % 10 else [] for slide in range(slides)
    ]
    config = stream_config(replacement=False, cycles=None, num_bigchunks=32, batch_size=64)
    patients = [(slide,) for slide in range(slides)]

    def begin(cursor: Cursor) -> CycleStream:
        return CycleStream(config, cursor, patients, 0)

    def rows(stream: CycleStream, batch: int) -> list[Row]:
        while not stream.knows(batch):
            slide = stream.unsurveyed[0]
            stream.add(counts[slide])
        return rows_of(stream, batch)

    whole = begin(Cursor(plan_hash="a", seed=5))
    for batch in range(0, 12_000, 500):
        rows(whole, batch)
    expected = [rows(whole, batch) for batch in range(12_000, 12_004)]
    left_out = dict.fromkeys(range(0, slides, 10), 0)
    assert dict(whole.left_out) == left_out
    cursor = Cursor(plan_hash="a", seed=5, next_batch=12_000, substitutions=left_out)
    state = json.dumps(cursor.to_dict())
    assert len(state) < 20_000
    resumed = begin(Cursor.from_dict(json.loads(state), "a"))
    assert [rows(resumed, batch) for batch in range(12_000, 12_004)] == expected
    assert len(resumed._parts) <= 2 * SPARE


def test_a_slide_that_gave_rows_and_has_none_now_is_missing() -> None:
    """Rather than that other rows come; one that gave none before is not."""
    cursor = Cursor(plan_hash="", seed=5, next_batch=6, substitutions={3: 0})
    for bad, missing in ((None, None), (4, 4)):
        stream = stream_of(cursor, cycles=1)
        while not stream.knows(6) and stream.missing is None:
            slide = stream.unsurveyed[0]
            stream.add(() if slide == bad else COUNTS[slide])
        assert stream.missing == missing


def test_a_slide_whose_window_is_open_at_the_cursor_is_missing_too() -> None:
    """Many BigChunks are open at a time, and give rows long before those before them are over."""
    whole = stream_of(cycles=1)
    batches_of(whole, most=3)
    given = {o for number in range(3) for o in whole.rows(number)[0].tolist()}
    for bad in {whole.source(ordinal).slide for ordinal in given}:
        cursor = Cursor(plan_hash="", seed=5, next_batch=3, substitutions={3: 0})
        stream = stream_of(cursor, cycles=1)
        while not stream.knows(3) and stream.missing is None:
            slide = stream.unsurveyed[0]
            stream.add(() if slide == bad else COUNTS[slide])
        assert stream.missing == bad
