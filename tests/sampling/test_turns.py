"""Rows of BigChunks of different sizes: which BigChunk, which call, from the sizes alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.sampling.turns import Turns
from tests.sampling.small_plans import EXAMPLES

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=14)
PLACES = st.integers(1, 6)
Row = tuple[int, int]


def turns_of(sizes: list[int], places: int, *, complete: bool = True) -> Turns:
    """The turns of BigChunks of these sizes."""
    turns = Turns(3, places)
    for size in sizes:
        turns.add(size)
    turns.is_complete = complete
    return turns


def listed(turns: Turns, first: int, count: int) -> list[Row]:
    """Ordinal and call of rows."""
    ordinals, calls = turns.rows(first, count)
    return list(zip(ordinals.tolist(), calls.tolist(), strict=True))


@EXAMPLES
@given(SIZES, PLACES)
def test_every_call_comes_once_while_its_bigchunk_is_open(sizes: list[int], places: int) -> None:
    """No turn has rows of more than P BigChunks; BigChunk k ends in turn k, and its calls come in
    their order from turn to turn."""
    turns = turns_of(sizes, places)
    rows = listed(turns, 0, sum(sizes))
    assert Counter(rows) == {(k, c): 1 for k, size in enumerate(sizes) for c in range(size)}
    for turn in range(len(sizes)):
        first, end = turns.before(turn), turns.before(turn + 1)
        open_ones = {ordinal for ordinal, _ in rows[first:end]}
        assert turn in open_ones
        assert open_ones <= set(range(turn, min(turn + places, len(sizes))))
    for ordinal in range(len(sizes)):
        of_turns = [turns.turn_of(row) for row, (k, _) in enumerate(rows) if k == ordinal]
        assert turns.first_turn(ordinal) <= of_turns[0]
        assert of_turns[-1] == ordinal
        by_turn = sorted((turns.turn_of(r), c) for r, (k, c) in enumerate(rows) if k == ordinal)
        assert [call for _, call in by_turn] == list(range(sizes[ordinal]))


@EXAMPLES
@given(SIZES, PLACES, st.data())
def test_any_rows_are_found_without_those_before(
    sizes: list[int], places: int, data: st.DataObject
) -> None:
    """And how much of a BigChunk comes before a row, also when early BigChunks are forgotten."""
    turns, total = turns_of(sizes, places), sum(sizes)
    rows = listed(turns, 0, total)
    first = data.draw(st.integers(0, total))
    turns.forget(data.draw(st.integers(0, turns.turn_of(first))))
    count = data.draw(st.integers(0, total - first))
    assert listed(turns, first, count) == rows[first : first + count]
    before = Counter(ordinal for ordinal, _ in rows[:first])
    for ordinal in range(turns.base, len(sizes)):
        assert turns.used_before(ordinal, first) == before[ordinal]


@EXAMPLES
@given(SIZES, PLACES, SIZES)
def test_what_is_settled_never_changes(sizes: list[int], places: int, more: list[int]) -> None:
    """Whatever comes behind it."""
    turns = turns_of(sizes, places, complete=False)
    settled = turns.settled
    whole = listed(turns_of(sizes + more, places), 0, sum(sizes + more))
    assert listed(turns, 0, settled) == whole[:settled]
    assert len(sizes) < places or settled == sum(sizes[: len(sizes) - places + 1])


def test_rows_of_many_bigchunks_are_mixed_from_the_first_batch_on() -> None:
    """Thirty-two of equal size: each batch has rows of most of them, and few of any."""
    turns = turns_of([81] * 400, 32)
    for batch in range(400):
        ordinals, _ = turns.rows(batch * 64, 64)
        _, counts = np.unique(ordinals, return_counts=True)
        assert len(counts) >= (12 if batch < 40 else 20)
        assert counts.max() <= (24 if batch < 40 else 10)
