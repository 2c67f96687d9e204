"""Seeding: a generator is its name, and its numbers stay what they are."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chunkdl.sampling.seeding import MAX_SEED, Purpose, generator, number

WORDS = st.integers(0, MAX_SEED)
NAMES = st.tuples(WORDS, st.sampled_from(Purpose), WORDS, WORDS, WORDS)
Name = tuple[int, Purpose, int, int, int]


def words(name: Name, count: int = 4) -> list[int]:
    """The first numbers of a generator as they leave the algorithm, 64 bits each."""
    numbers = generator(*name).bit_generator.random_raw(count)
    return [int(number) for number in numbers]


@given(name=NAMES)
def test_equal_names_give_equal_numbers(name: Name) -> None:
    """Made twice, and used in between: a generator has no memory of others."""
    first = generator(*name)
    numbers = first.random(8)
    generator(*name).random(3)
    assert np.array_equal(generator(*name).random(8), numbers)


@given(name=NAMES, part=st.integers(0, 4), other=NAMES)
def test_names_that_differ_in_one_part_give_different_numbers(
    name: Name, part: int, other: Name
) -> None:
    """Seed, purpose, ordinal, attempt and call each count, over their whole range."""
    changed = list(name)
    changed[part] = other[part]
    assume(tuple(changed) != name)
    seed, purpose, ordinal, attempt, call = changed
    assert words(name) != words((seed, Purpose(purpose), ordinal, attempt, call))


def test_neighbouring_generators_do_not_overlap() -> None:
    """No 64-bit word comes twice in the first 500 of generators whose names follow each other.

    Generators that are one behind the other in one sequence would share nearly all of theirs.
    """
    seen: set[int] = set()
    purposes = Purpose.WINDOW, Purpose.POSITIONS
    names = list(product((0, 1), purposes, range(4), range(3), range(2)))
    for name in names:
        seen.update(words(name, 500))
    assert len(seen) == 500 * len(names)


@pytest.mark.parametrize(
    "name", [(-1, 0, 0, 0), (MAX_SEED + 1, 0, 0, 0), (0, -1, 0, 0), (0, 0, -1, 0), (0, 0, 0, -1)]
)
def test_a_name_out_of_range_is_refused(name: tuple[int, int, int, int]) -> None:
    """Rather than taken for another one."""
    seed, ordinal, attempt, call = name
    with pytest.raises(OverflowError):
        generator(seed, Purpose.WINDOW, ordinal, attempt, call)


def test_the_numbers_of_purposes_are_part_of_every_saved_stream() -> None:
    """A purpose that changed its number would change all streams made with it."""
    assert {purpose.name: purpose.value for purpose in Purpose} == {
        "SCHEDULE": 1,
        "SUBSTITUTE": 2,
        "SLIDE": 3,
        "WINDOW": 4,
        "POSITIONS": 5,
        "ROTATION": 6,
        "GRID": 7,
        "BIGCHUNK": 8,
        "SMALLCHUNK": 9,
        "TRANSFORM": 10,
        "RESOLUTION": 11,
        "PROBE": 12,
        "REGION": 13,
        "STRATUM": 14,
        "CYCLE": 16,
    }


# Found with numpy 2.4. numpy promises the raw words for ever, but not what it makes of them
# (NEP 19); where one of these tests fails, plans of that numpy differ from those of others.


def test_the_raw_words_are_those_of_philox() -> None:
    """Pinned: the key is (seed, purpose), the counter (0, call, ordinal, attempt)."""
    assert words((1234, Purpose.WINDOW, 56, 7, 0)) == [
        16462691900627299670,
        14559870869453123693,
        528496389426474000,
        10155148857430257997,
    ]


def test_the_methods_that_the_plan_uses_give_the_pinned_numbers() -> None:
    """Bounded integers of 32 and 64 bits, one and many, and permutations."""

    def window() -> np.random.Generator:
        return generator(1234, Purpose.WINDOW, 56)

    assert window().integers(10, size=12).tolist() == [8, 8, 6, 8, 8, 3, 5, 4, 8, 2, 7, 1]
    assert window().integers(10**12, size=3).tolist() == [834424833043, 896797628053, 310810078141]
    one_by_one = window()
    mixed = [int(one_by_one.integers(bound)) for bound in (10**10, 3, 10**5, 7)]
    assert mixed == [8344248330, 1, 89679, 6]
    order = generator(1234, Purpose.ROTATION, 56).permutation(12)
    assert order.tolist() == [8, 10, 3, 4, 9, 2, 5, 11, 6, 1, 0, 7]


def test_a_number_for_a_library_of_others_is_pinned_and_counts_every_part_of_its_name() -> None:
    """It seeds generators that are not numpy's; other numbers would be other augmentations."""
    assert number(1234, Purpose.SMALLCHUNK, 56, 7, 3) == 2540665452917547339
    names = list(product((0, 1), (Purpose.BIGCHUNK, Purpose.SMALLCHUNK), (0, 1), (0, 1), (0, 1)))
    assert len({number(*name) for name in names}) == len(names)
