"""Who gets which rows, against lists of rows."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from chunkdl.sampling.shares import Remainder, Rows, Share, merged, undelivered


@st.composite
def remainders(draw: st.DrawFn) -> Remainder:
    """Sound ones, with gaps."""
    edges = sorted(draw(st.sets(st.integers(0, 60), max_size=8)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    tail = max([60, *(end for _, end in pairs)]) if pairs else draw(st.integers(0, 60))
    return Remainder(draw(st.integers(0, 2)), tuple(pairs), tail + draw(st.integers(0, 5)))


WORLDS = st.integers(1, 5)
BATCHES = st.integers(1, 6)
LEFT = remainders()


def listed(intervals: tuple[Rows, ...]) -> list[int]:
    """The rows one by one."""
    return [row for first, end in intervals for row in range(first, end)]


def rows_of(left: Remainder, count: int) -> list[int]:
    """The first rows that are left."""
    return [*listed(left.left), *range(left.tail, left.tail + count)][:count]


@settings(deadline=None)
@given(LEFT, WORLDS, BATCHES, st.integers(1, 6))
def test_an_endless_stream_is_dealt_out_in_order(
    left: Remainder, world_size: int, batch_rows: int, steps: int
) -> None:
    """All ranks together get what is left, each row once, and each rank full batches."""
    got: list[int] = []
    for step in range(steps):
        for rank in range(world_size):
            cut = Share(rank, world_size, batch_rows).cut(left, step, None, drop_last=False)
            assert len(listed(cut.rows)) == batch_rows
            assert cut.left_out == 0
            got += listed(cut.rows)
    assert got == rows_of(left, steps * world_size * batch_rows)


@settings(deadline=None)
@given(LEFT, WORLDS, BATCHES, st.integers(0, 90), st.booleans())
def test_a_pass_is_dealt_out_to_its_end(
    left: Remainder, world_size: int, batch_rows: int, total: int, drop_last: bool
) -> None:
    """Every rank gets as many batches, none is empty, and the rows left out are told."""
    shares = [Share(rank, world_size, batch_rows) for rank in range(world_size)]
    got: list[int] = []
    step = 0
    while True:
        cuts = [share.cut(left, step, total, drop_last=drop_last) for share in shares]
        if not any(cut.rows for cut in cuts):
            break
        sizes = [len(listed(cut.rows)) for cut in cuts]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch_rows
        got += [row for cut in cuts for row in listed(cut.rows)]
        step += 1
    assert step == shares[0].steps(total, drop_last=drop_last)
    out = {cut.left_out for cut in cuts}
    assert out == {total - len(got)}
    assert total - len(got) < (world_size * batch_rows if drop_last else world_size)
    assert got == rows_of(left, total)[: len(got)]


@settings(deadline=None)
@given(LEFT, st.sampled_from([1, 2, 3, 4, 6, 12]), st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_a_step_has_the_same_rows_for_any_number_of_ranks(
    left: Remainder, one: int, other: int
) -> None:
    """Where ranks times rows of a batch is the same."""
    for step in range(3):
        unions = [
            [
                row
                for rank in range(size)
                for row in listed(
                    Share(rank, size, 12 // size).cut(left, step, None, drop_last=False).rows
                )
            ]
            for size in (one, other)
        ]
        assert unions[0] == unions[1]


@settings(deadline=None)
@given(LEFT, st.integers(0, 80), st.integers(0, 80))
def test_what_is_left_after_some_rows_is_the_rest(left: Remainder, count: int, more: int) -> None:
    """`after` and `take` agree with the list; what comes out is sound."""
    rest = left.after(count)
    assert rest.is_sound()
    assert rest.epoch == left.epoch
    assert rows_of(rest, more) == rows_of(left, count + more)[count:]
    assert listed(left.take(count, count + more)) == rows_of(left, count + more)[count:]
    assert rest.first == rows_of(left, count + 1)[-1]
    total = left.tail + more
    assert left.total(total) == len([row for row in rows_of(left, 300) if row < total])


@settings(deadline=None)
@given(
    LEFT,
    BATCHES,
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.none() | st.integers(0, 90),
    st.booleans(),
)
def test_what_no_rank_has_had_is_undelivered(
    left: Remainder, batch_rows: int, reached: list[int], total: int | None, drop_last: bool
) -> None:
    """Wherever the ranks stand, short steps included, as the complement of their cuts."""
    size = len(reached)
    if total is not None:
        most = Share(0, size, batch_rows).steps(total, drop_last=drop_last)
        reached = [min(steps, most) for steps in reached]
    had = {
        row
        for rank, steps in enumerate(reached)
        for step in range(steps)
        for row in listed(
            Share(rank, size, batch_rows).cut(left, step, total, drop_last=drop_last).rows
        )
    }
    rest = undelivered(left, dict(enumerate(reached)), batch_rows, total, drop_last=drop_last)
    assert rest.is_sound()
    all_rows = rows_of(left, 400) if total is None else rows_of(left, total)
    expected = [row for row in all_rows if row not in had]
    assert rows_of(rest, len(expected)) == expected
    if total is not None and not drop_last:
        assert rest.total(left.tail + max(0, total - left.before_tail)) >= 0


@settings(deadline=None)
@given(
    LEFT,
    WORLDS,
    BATCHES,
    st.integers(0, 4),
    st.tuples(st.integers(0, 90), st.integers(1, 12)),
    st.none() | st.integers(0, 90),
)
def test_a_rank_needs_the_rows_of_its_steps_to_come(
    left: Remainder,
    world_size: int,
    batch_rows: int,
    step: int,
    rows: tuple[int, int],
    total: int | None,
) -> None:
    """And no others; of a short last step every rank needs all of it."""
    first, end = rows[0], rows[0] + rows[1]
    size = world_size * batch_rows
    numbered = rows_of(left, 300 if total is None else total)
    wanted = set()
    for at, row in enumerate(numbered):
        number, inside = divmod(at, size)
        short = total is not None and (number + 1) * size > total
        for rank in range(world_size):
            if number >= step and (short or inside // batch_rows == rank):
                wanted.add((rank, row))
    for rank in range(world_size):
        needed = any((rank, row) in wanted for row in range(first, end))
        assert Share(rank, world_size, batch_rows).needs(left, step, (first, end), total) == needed


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=8))
def test_merging_keeps_every_row(pairs: list[tuple[int, int]]) -> None:
    """In as few intervals as possible, in order."""
    intervals = [(first, first + count) for first, count in pairs]
    out = merged(intervals)
    assert listed(out) == sorted(set(listed(tuple(intervals))))
    assert all(a[1] < b[0] for a, b in pairwise(out))


def test_a_remainder_that_cannot_be_is_not_sound() -> None:
    """Out of order, empty, negative, or beyond the tail."""
    assert Remainder(0, ((1, 2), (2, 5)), 5).is_sound()
    for left in (((3, 2),), ((3, 3),), ((4, 5), (1, 2)), ((1, 9),), ((-1, 2),)):
        assert not Remainder(0, left, 6).is_sound()
    assert not Remainder(-1).is_sound()
    assert not Remainder(0, (), -1).is_sound()
