"""The user's transform as it is called: seeded by the name of the SmallChunk, checked, named."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from chunkdl.errors import HookError
from chunkdl.patches.same_results import same
from chunkdl.patches.seeded_code import SeededCode, globals_kept, seed_globals
from chunkdl.patches.transforms import Transform, TransformHere
from chunkdl.sampling.seeding import Purpose

CROP = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


pytestmark = pytest.mark.usefixtures("generators_stay")


class OwnGenerator:
    """A transform that keeps a generator of its own, as albumentations' do."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng()

    def set_random_seed(self, seed: int) -> None:
        """What albumentations calls it."""
        self.rng = np.random.default_rng(seed)

    def __call__(self, data: Any) -> float:
        return float(self.rng.random())


class Collector:
    """A transform in a collector."""

    def __init__(self, call: Any, seed: int = 5) -> None:
        self.told: list[str] = []
        self.seed = seed
        self.transform = Transform(call, seed, self.told.append)

    def row(self, call: int, ordinal: int = 3, attempt: int = 0, data: Any = CROP) -> Any:
        """What it makes."""
        seed_globals(self.seed, Purpose.SMALLCHUNK, ordinal, attempt, call)
        given = data.copy() if isinstance(data, np.ndarray) else data
        return self.transform.apply(given, ordinal, attempt, call, "Ada", lambda: None)


def by_globals(data: Any) -> list[float]:
    """The generators that programs use without asking, and one that is made here."""
    made = np.random.default_rng().random(), np.random.default_rng().random()
    return [random.random(), float(np.random.random()), float(torch.rand(1)), *made]


own_generators = random.Random(1), np.random.default_rng(1), torch.Generator()
another = random.Random(1)


def by_own(data: Any) -> list[float]:
    """Four generators of the module, two of them alike."""
    python, numpy, of_torch = own_generators
    return [
        another.random(),
        python.random(),
        float(numpy.random()),
        float(torch.rand(1, generator=of_torch)),
    ]


@pytest.mark.parametrize(
    "call", [OwnGenerator(), by_globals, by_own], ids=["method", "globals", "own"]
)
def test_a_transform_draws_the_same_numbers_for_the_same_smallchunk(call: Any) -> None:
    """However often and in whatever order; others for another SmallChunk, and another seed."""
    collector = Collector(call)
    first = collector.row(7)
    others = [collector.row(8), collector.row(7, ordinal=4), collector.row(7, attempt=1)]
    others.append(Collector(call, 6).row(7))
    assert collector.row(7) == first
    assert Collector(call).row(7) == first
    numbers = np.concatenate([np.atleast_1d(row) for row in (first, *others)])
    assert len(set(numbers.tolist())) == len(numbers)
    assert collector.told == []


def test_the_first_rows_are_made_twice_and_later_ones_once() -> None:
    """From the crop as it was, though the transform writes into it; the last is delivered."""
    seen = []

    def call(data: Any) -> Any:
        seen.append(data.copy())
        data += 1
        return data

    collector = Collector(call)
    for number in range(6):
        assert np.array_equal(collector.row(number), CROP + 1)
    assert len(seen) == 4 * 2 + 2
    assert all(np.array_equal(data, CROP) for data in seen)
    assert collector.told == []


def test_rows_that_come_out_differently_are_told_once() -> None:
    """With the name of the transform."""
    counter = iter(range(1000))
    collector = Collector(lambda data: np.array([next(counter)]))
    for number in range(6):
        collector.row(number)
    (told,) = collector.told
    assert "made two different rows from one SmallChunk" in told
    assert "<lambda>" in told


class Lazy:
    """Makes its generators in the first call, as one does for the workers of a DataLoader."""

    def __init__(self) -> None:
        self.rngs: list[Any] = []

    def __call__(self, data: Any) -> list[float]:
        if not self.rngs:
            self.rngs += [random.Random(), np.random.default_rng(), np.random.RandomState()]
        return [float(rng.random()) for rng in self.rngs]


def test_generators_that_the_first_call_makes_are_seeded_from_the_first_row() -> None:
    """Each collector makes its own, and has other rows behind it."""
    one, other = Collector(Lazy()), Collector(Lazy())
    rows = [one.row(number) for number in range(6)]
    assert [other.row(number) for number in reversed(range(6))] == rows[::-1]
    assert one.told == other.told == []


class OneForEach:
    """Makes a generator for each label that comes by."""

    def __init__(self) -> None:
        self.rngs: dict[int, random.Random] = {}

    def __call__(self, data: Any) -> float:
        return self.rngs.setdefault(int(data[0]), random.Random()).random()


def test_generators_are_seeded_the_same_in_whatever_order_calls_make_them() -> None:
    """Each collector sees other rows first."""
    one, other = Collector(OneForEach()), Collector(OneForEach())
    rows = [one.row(number, data=np.array([number % 3])) for number in range(4)]
    backwards = [other.row(number, data=np.array([number % 3])) for number in reversed(range(4))]
    assert backwards == rows[::-1]
    assert len(set(rows)) == 4
    assert one.told == other.told == []


class Late:
    """Makes generators in a branch that is seldom entered."""

    def __init__(self, make: Any, at: int) -> None:
        self.make, self.at = make, at
        self.rng: Any = None

    def __call__(self, data: Any) -> list[float]:
        if data[0] == self.at and self.rng is None:
            self.rng = self.make()
        made = float(np.random.default_rng().random()) if data[0] % 2 else 0.0
        return [made, 0.0 if self.rng is None else float(draw(self.rng))]


def draw(generator: Any) -> float:
    """A number of any generator."""
    if isinstance(generator, torch.Generator):
        return float(torch.rand(1, generator=generator))
    return float(generator.random())


@pytest.mark.parametrize(
    ("make", "at", "same_from"),
    [
        (np.random.default_rng, 10, 11),
        (np.random.RandomState, 11, 12),
        (random.Random, 10, 16),
        (lambda: torch.Generator().manual_seed(random.SystemRandom().getrandbits(60)), 10, 16),
    ],
    ids=["numpy", "numpy, beside one of the call", "Python", "torch"],
)
def test_generators_that_a_later_call_makes_are_seeded_and_told(
    make: Any, at: int, same_from: int
) -> None:
    """numpy's from the next row on, others from the next power of two on."""
    one, other = Collector(Late(make, at)), Collector(Late(make, at))
    rows = [one.row(number, data=np.array([number])) for number in range(24)]
    for number in (0, 1, 2, 3, 4, 5, at, *range(same_from - 1, 16)):
        other.row(number, data=np.array([number]))
    later = range(same_from, 24)
    assert [other.row(number, data=np.array([number])) for number in later] == rows[same_from:]
    (told,) = one.told
    assert "Late made generators in a call (Late.rng)" in told
    assert "make them in __init__" in told


def test_generators_that_numpy_makes_in_every_call_cost_no_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where each takes the place of the last; they are seeded by numpy's entropy."""
    looks = []
    look = SeededCode.look_again

    def counted(code: SeededCode) -> Any:
        looks.append(code)
        return look(code)

    monkeypatch.setattr(SeededCode, "look_again", counted)

    class Keeps:
        def __call__(self, data: Any) -> float:
            self.rng = np.random.default_rng()
            return float(self.rng.random())

    for call in (by_globals, Keeps()):
        looks.clear()
        collector, again = Collector(call), Collector(call)
        rows = [collector.row(number) for number in range(31)]
        # The first four rows, rows 8 and 16.
        assert len(looks) == 4 + 2
        assert collector.told == []
        assert len(collector.transform._code.own) <= 1
        assert [again.row(number) for number in reversed(range(31))] == rows[::-1]


def test_generators_that_a_call_in_the_training_process_makes_to_keep_are_told() -> None:
    """No row is made twice there; the next ones are those of any other process."""
    told: list[str] = []
    here = TransformHere(Lazy(), 5, told.append)
    rows = here.apply([CROP] * 3, [3] * 3, range(3), ["Ada"] * 3)
    collector = Collector(Lazy())
    assert rows[1:] == [collector.row(number) for number in range(3)][1:]
    assert "Lazy made generators in a call" in told[0]


def test_what_a_call_makes_and_nobody_can_seed_is_told() -> None:
    """Once, as what was there from the start."""

    class Makes:
        def __call__(self, data: Any) -> int:
            self.rng = random.SystemRandom()
            return 1

    collector = Collector(Makes())
    for number in range(9):
        collector.row(number)
    (told,) = collector.told
    assert "Makes.rng is a random.SystemRandom" in told


def test_looking_for_generators_draws_from_none() -> None:
    """A method that seeds may do so, and so may a library below it."""

    class Draws:
        def seed(self, seed: int) -> None:
            random.random()
            np.random.RandomState(seed)
            self.entropy = np.random.SeedSequence().entropy

        def __call__(self, data: Any) -> list[float]:
            return by_globals(data)

    collector, again = Collector(Draws()), Collector(Draws())
    rows = [collector.row(number) for number in range(6)]
    assert [again.row(number) for number in reversed(range(6))] == rows[::-1]
    random.seed(1)
    Collector(Draws())
    assert random.random() == random.Random(1).random()


def test_generators_that_every_call_makes_anew_are_told() -> None:
    """Also where the object keeps them."""

    class Anew:
        def __call__(self, data: Any) -> float:
            self.rng = random.Random()
            return self.rng.random()

    collector = Collector(Anew())
    collector.row(0)
    assert "made two different rows" in collector.told[0]


def test_none_is_refused_with_what_to_do() -> None:
    """Each SmallChunk has to become a row."""
    with pytest.raises(HookError, match=r"returned None, .*extract_smallchunk.*patient Ada"):
        Collector(lambda data: None).row(0)


def test_an_exception_names_transform_and_patient() -> None:
    """With the class of what was raised, whose traceback is the cause."""

    def fails(data: Any) -> int:
        raise KeyError(1)

    with pytest.raises(HookError, match=r"KeyError: 1 \[.*fails, patient Ada\]") as caught:
        Collector(fails).row(0)
    assert caught.value.kind == "KeyError"
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), True),
        (np.array([1.0]), np.array([2.0]), False),
        (np.zeros(1), np.zeros(2), False),
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.zeros(2), False),
        ([np.zeros(1), "a"], [np.zeros(1), "a"], True),
        ([np.zeros(1), "a"], [np.zeros(1), "b"], False),
        ({"a": (1, 2)}, {"a": (1, 3)}, False),
        ({"a": 1}, {"b": 1}, False),
        (1.5, 1.5, True),
        (object(), object(), True),
    ],
)
def test_results_are_compared_by_what_is_in_them(one: Any, other: Any, equal: bool) -> None:
    """What nobody can look into is no reason for an alarm."""
    assert same(one, other) is equal


# ------------------------------------------------------------------ in the training process


def test_a_transform_in_the_training_process_makes_the_rows_of_a_collector() -> None:
    """Once each, with the same random numbers."""
    seen = []

    def call(data: Any) -> list[float]:
        seen.append(data)
        return by_globals(data) + by_own(data)

    here = TransformHere(call, 5, pytest.fail)
    rows = here.apply([CROP] * 6, [3] * 6, range(6), ["Ada"] * 6)
    assert len(seen) == 6
    collector = Collector(call)
    assert rows == [collector.row(number) for number in range(6)]


def test_the_training_draws_as_if_there_were_no_transform() -> None:
    """From the global generators, and from those that it shares with the transform."""

    def draws() -> list[float]:
        return [*by_own(None), random.random(), float(np.random.rand()), float(torch.rand(1))]

    here = TransformHere(lambda data: by_globals(data) + by_own(data), 5, pytest.fail)
    draws()
    with globals_kept(here._transform._code.own, gpus=False):
        expected = draws()
    here.apply([CROP], [0], [0], ["Ada"])
    assert draws() == expected
    # A generator without a seed is the system's matter again.
    here.apply([CROP], [0], [0], ["Ada"])
    one = np.random.default_rng().random()
    here.apply([CROP], [0], [0], ["Ada"])
    assert np.random.default_rng().random() != one


def test_an_exception_in_the_training_process_gives_the_generators_back() -> None:
    """And has the name of the transform and of the patient."""

    def fails(data: Any) -> int:
        raise ValueError(data.shape)

    here = TransformHere(fails, 5, pytest.fail)
    random.seed(1)
    with pytest.raises(HookError, match=r"ValueError: \(2, 2, 3\) \[.*fails, patient Ada\]"):
        here.apply([CROP], [0], [0], ["Ada"])
    assert random.random() == random.Random(1).random()
