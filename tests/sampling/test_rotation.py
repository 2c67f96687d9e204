"""The rotation: its closed form against playing the rounds through, place by place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.rotation import Rotation, most_rows_of_one
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.streams import RandomStream
from tests.sampling.small_plans import EXAMPLES, stream_config

ROTATIONS = st.builds(
    Rotation, seed=st.integers(0, 2**64 - 1), places=st.integers(1, 9), calls=st.integers(1, 12)
)
PLANS = settings(EXAMPLES, max_examples=100)


def played(rotation: Rotation) -> Iterator[tuple[int, int]]:
    """Ordinal and call of every draw from the first on, without end, as the design says it.

    P places each hold one BigChunk. Place j begins at call n(P−1−j)/P, rounded down. In every round
    each place serves one draw, in the order of the round's permutation. After the round the places
    whose BigChunk has served its n calls get a fresh one each: the next ordinals, place by place.
    """
    p, n = rotation.places, rotation.calls
    ordinal = list(range(p))
    call = [n * (p - 1 - j) // p for j in range(p)]
    next_ordinal, round_ = p, 0
    while True:
        for j in generator(rotation.seed, Purpose.ROTATION, round_).permutation(p).tolist():
            yield ordinal[j], call[j]
        for j in range(p):
            call[j] += 1
            if call[j] == n:
                ordinal[j], call[j] = next_ordinal, 0
                next_ordinal += 1
        round_ += 1


def play(rotation: Rotation, generations: int = 3) -> list[tuple[int, int]]:
    """The draws of so many rounds that every place is through that many BigChunks."""
    draws = played(rotation)
    return [next(draws) for _ in range(rotation.places * rotation.calls * generations)]


@PLANS
@given(rotation=ROTATIONS, data=st.data())
def test_any_draws_are_those_that_playing_the_rounds_gives(
    rotation: Rotation, data: st.DataObject
) -> None:
    """Computed from the middle on, without what came before."""
    draws = play(rotation)
    first = data.draw(st.integers(0, len(draws) - 1))
    count = data.draw(st.integers(1, len(draws) - first))
    ordinal, call = rotation.rows(first, count)
    assert ordinal.dtype == call.dtype == np.int64
    assert list(zip(ordinal.tolist(), call.tolist(), strict=True)) == draws[first : first + count]


def test_draws_far_out_are_found_at_once_and_in_whole_numbers() -> None:
    """After 10^15 draws the counts of rounds and calls still agree to the last one."""
    rotation = Rotation(seed=1, places=64, calls=1000)
    rounds = 10**15 // 64
    ordinal, call = rotation.rows(rounds * 64, 64)
    for k, c in zip(ordinal.tolist(), call.tolist(), strict=True):
        generation, place = divmod(k, 64)
        assert generation * 1000 + c == rounds + 1000 * (63 - place) // 64
    assert sorted(ordinal % 64) == list(range(64))


@PLANS
@given(rotation=ROTATIONS)
def test_each_bigchunk_serves_each_of_its_calls_exactly_once(rotation: Rotation) -> None:
    """In order, up to call n − 1; from call 0, but from its offset in the first generation."""
    calls_of: dict[int, list[int]] = {}
    count = rotation.places * rotation.calls * 3
    ordinals, calls = rotation.rows(0, count)
    for k, call in zip(ordinals.tolist(), calls.tolist(), strict=True):
        calls_of.setdefault(k, []).append(call)
    for k in range(rotation.places * 2):
        first = rotation.offset(k) if k < rotation.places else 0
        assert calls_of[k] == list(range(first, rotation.calls))
        assert rotation.uses(k) == len(calls_of[k]) > 0


@PLANS
@given(rotation=ROTATIONS, batch=st.integers(1, 40), data=st.data())
def test_a_batch_holds_few_rows_of_one_bigchunk(
    rotation: Rotation, batch: int, data: st.DataObject
) -> None:
    """At most ⌈B/P⌉ + 1, wherever the batch begins."""
    first = data.draw(st.integers(0, 10_000))
    ordinal, _ = rotation.rows(first, batch)
    assert max(Counter(ordinal.tolist()).values()) <= -(-batch // rotation.places) + 1


@PLANS
@given(rotation=ROTATIONS, batch=st.integers(1, 40), number=st.integers(0, 2000))
def test_a_batch_holds_as_many_rows_of_one_bigchunk_as_its_beginning_allows(
    rotation: Rotation, batch: int, number: int
) -> None:
    """Batches begin at multiples of their size, which is better than anywhere."""
    ordinal, _ = rotation.rows(number * batch, batch)
    most = most_rows_of_one(batch, rotation.places)
    assert max(Counter(ordinal.tolist()).values()) <= most <= -(-batch // rotation.places) + 1


@pytest.mark.parametrize(
    ("batch", "places", "most"),
    [
        # One row of each in whole rounds, also where a round is several batches.
        (64, 64, 1), (64, 128, 1), (64, 192, 1), (64, 32, 2), (64, 16, 4), (96, 32, 3),
        # Batches that begin in the middle of a round may meet a BigChunk once more.
        (64, 96, 2), (64, 63, 2), (64, 33, 3), (5, 4, 2), (5, 3, 3), (7, 1, 7),
    ],
)  # fmt: skip
def test_the_most_rows_of_one_bigchunk_are_reached(batch: int, places: int, most: int) -> None:
    """In some of the first batches of a stream whose BigChunks last for ever."""
    rotation = Rotation(seed=3, places=places, calls=10**6)
    found = {
        max(Counter(rotation.rows(number * batch, batch)[0].tolist()).values())
        for number in range(200)
    }
    assert most_rows_of_one(batch, places) == max(found) == most


@PLANS
@given(rotation=ROTATIONS)
def test_bigchunks_are_needed_first_in_the_order_of_their_ordinals(rotation: Rotation) -> None:
    """To the round: the order inside a round is drawn. Rounds say when, and `first_draw` too."""
    first_round: dict[int, int] = {}
    for draw, (k, _) in enumerate(play(rotation)):
        first_round.setdefault(k, draw // rotation.places)
    assert sorted(first_round) == list(range(len(first_round)))
    rounds = [first_round[k] for k in sorted(first_round)]
    assert rounds == sorted(rounds)
    for k, round_ in first_round.items():
        assert rotation.first_draw(k) == round_ * rotation.places


def test_replacements_are_spread_evenly() -> None:
    """Over n rounds each place is replaced once; with n a multiple of P, one every n/P rounds."""
    rotation = Rotation(seed=0, places=8, calls=40)
    starts = [rotation.first_draw(k) // rotation.places for k in range(8, 40)]
    assert np.diff(starts).tolist() == [5] * 31


@PLANS
@given(rotation=ROTATIONS, data=st.data())
def test_used_before_counts_the_uses_before_a_draw(rotation: Rotation, data: st.DataObject) -> None:
    """For any draw, in the middle of a round as well, and any BigChunk, past or to come."""
    draws = play(rotation, generations=2)
    draw = data.draw(st.integers(0, len(draws)))
    used = Counter(k for k, _ in draws[:draw])
    for k in range(3 * rotation.places):
        assert rotation.used_before(k, draw) == used[k]


@PLANS
@given(rotation=ROTATIONS, data=st.data())
def test_first_needed_is_the_smallest_ordinal_still_to_come(
    rotation: Rotation, data: st.DataObject
) -> None:
    """For any draw, also for the last of a round in which places run out."""
    draws = play(rotation)
    draw = data.draw(st.integers(0, rotation.places * rotation.calls * 2))
    assert rotation.first_needed(draw) == min(k for k, _ in draws[draw:])


def test_the_places_are_taken_in_another_order_every_round() -> None:
    """And in another with another seed: a batch does not repeat a pattern."""
    rows = Rotation(seed=3, places=16, calls=100).rows(0, 160)[0].reshape(10, 16) % 16
    assert len({tuple(order) for order in rows.tolist()}) == 10
    assert (Rotation(seed=4, places=16, calls=100).rows(0, 160)[0] % 16 != rows.ravel()).any()


# ---- The random stream: batches of the rotation, from a cursor on.


@st.composite
def cursors(draw: st.DrawFn, most: int) -> Cursor:
    """Cursors up to `most` batches in, some with batches delivered ahead."""
    next_batch = draw(st.integers(0, most))
    ahead = draw(st.sets(st.integers(next_batch + 1, next_batch + 4)))
    return Cursor(plan_hash="", seed=0, next_batch=next_batch, ahead=tuple(sorted(ahead)))


@PLANS
@given(rotation=ROTATIONS, batch_size=st.integers(1, 20), data=st.data())
def test_the_stream_counts_the_rows_that_are_left_from_its_cursor_on(
    rotation: Rotation, batch_size: int, data: st.DataObject
) -> None:
    """Uses without those of delivered batches, also of batches delivered before their turn."""
    draws = play(rotation, generations=4)
    far = len(draws) // batch_size
    cursor = data.draw(cursors(max(0, far // 2 - 5)))
    config = stream_config(seed=rotation.seed, num_bigchunks=rotation.places, batch_size=batch_size)
    stream = RandomStream(config, cursor, rotation.calls)

    left: Counter[int] = Counter()
    last: dict[int, int] = {}
    for draw, (k, _) in enumerate(draws):
        batch = draw // batch_size
        last[k] = batch
        if batch >= cursor.next_batch and batch not in cursor.ahead:
            left[k] += 1
    # Of the BigChunks that the simulation saw through to the end.
    for k in range(rotation.places * 3):
        assert stream.uses(k) == left[k]
        assert last[k] <= stream.last_batch(k)
    assert all(stream.uses(k) == 0 for k in range(stream.first_ordinal))


@PLANS
@given(rotation=ROTATIONS, batch_size=st.integers(1, 20), batch=st.integers(0, 30))
def test_the_last_batch_of_a_bigchunk_is_known_to_the_round(
    rotation: Rotation, batch_size: int, batch: int
) -> None:
    """`last_batch` may name a later batch, but one that begins in the round of the last use."""
    config = stream_config(seed=rotation.seed, num_bigchunks=rotation.places, batch_size=batch_size)
    stream = RandomStream(config, Cursor(plan_hash="", seed=0), rotation.calls)
    for k in {int(k) for k in stream.rows(batch)[0]}:
        last_round = rotation.first_draw(k) // rotation.places + rotation.uses(k) - 1
        begins = stream.last_batch(k) * batch_size
        assert begins < (last_round + 1) * rotation.places


@pytest.mark.parametrize("batch", [0, 7])
def test_the_rows_of_a_batch_do_not_depend_on_the_cursor(batch: int) -> None:
    """A stream that goes on gives the batches of one that never stopped."""
    config = stream_config()
    fresh = RandomStream(config, Cursor(plan_hash="", seed=0), 10)
    later = RandomStream(config, Cursor(plan_hash="", seed=0, next_batch=batch), 10)
    for ours, theirs in zip(fresh.rows(batch), later.rows(batch), strict=True):
        assert np.array_equal(ours, theirs)
    assert later.knows(batch)
    assert not later.ended(10**9)
