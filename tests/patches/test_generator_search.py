"""Which generators are found in an object, in which order, and what of them cannot be seeded."""

from __future__ import annotations

import functools
import os
import pickle
import random
import subprocess
import sys
from collections import deque
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from chunkdl.patches import generator_search
from chunkdl.patches.generator_search import Search
from chunkdl.patches.random_generators import generator_of
from chunkdl.patches.seeded_code import SeededCode
from chunkdl.sampling.seeding import Purpose, nth
from chunkdl.sampling.seeding import number as seed_number

REPOSITORY = Path(__file__).parents[2]


def found(root: Any, name: str = "transform") -> Search:
    """What is found in an object."""
    search = Search()
    search.look(root, name)
    return search


def sources(root: Any) -> list[Any]:
    """The generators in an object."""
    return [generator.source for generator in found(root).generators]


def rng() -> random.Random:
    """A generator."""
    return random.Random(0)


OF_MODULE = rng()
THROUGH_FUNCTIONS = rng()
SPACE = SimpleNamespace(deep={"rng": rng()})


def inner() -> float:
    """Names a generator."""
    return THROUGH_FUNCTIONS.random()


def outer(data: Any) -> Any:
    """Names a function, in a function."""
    return [(lambda: inner())() for _ in range(2)]


class WithClassAttribute:
    """A generator of the class, one of the base class, one that a method names."""

    rng: ClassVar[random.Random] = rng()

    def __call__(self, data: Any) -> Any:
        return self.helper()

    @staticmethod
    def helper() -> float:
        """What the call reaches."""
        return OF_MODULE.random()


class Derived(WithClassAttribute):
    """Nothing of its own."""


class Slots:
    """No dict of attributes."""

    __slots__ = ("missing", "rng")

    def __init__(self) -> None:
        self.rng = rng()


def closing_over(value: Any) -> Any:
    """A function with a closure."""
    return lambda data: value.random()


def with_default(data: Any, *, draw: Any = OF_MODULE) -> Any:
    """A default that is a generator."""
    return draw.random()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: value,
        lambda value: SimpleNamespace(a=SimpleNamespace(b=value)),
        lambda value: [[(value,)]],
        lambda value: {"a": {"b": deque([value])}},
        lambda value: {value: 0.5},
        lambda value: {("a", value): 0.5},
        lambda value: MappingProxyType({"a": value}),
        lambda value: np.array([None, [value]], dtype=object),
        lambda value: np.array((1, value), dtype=[("weight", float), ("draw", object)]),
        lambda value: {value},
        lambda value: frozenset([value]),
        lambda value: functools.partial(print, value, a=1),
        lambda value: functools.partial(print, a=value),
        lambda value: value.random,
        lambda value: torch.nn.Sequential(torch.nn.Identity(), holding(value)),
        closing_over,
        lambda value: functools.lru_cache(closing_over(value)),
        lambda value: type("Made", (), {"rng": value})(),
        lambda value: type("Made", (), {"rng": value}),
    ],
    ids=lambda wrap: "",
)
def test_a_generator_is_found_wherever_an_object_keeps_it(wrap: Any) -> None:
    """And nothing else is."""
    value = rng()
    assert sources(wrap(value)) == [value]


def holding(value: Any) -> torch.nn.Module:
    """A module of torch with a generator."""
    module = torch.nn.ReLU()
    module.rng = value
    return module


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        (outer, [THROUGH_FUNCTIONS]),
        (with_default, [OF_MODULE]),
        (Derived(), [WithClassAttribute.rng, OF_MODULE]),
        (Derived().__call__, [WithClassAttribute.rng, OF_MODULE]),
        (lambda _: SPACE.deep["rng"], [SPACE.deep["rng"]]),
        (lambda _: generator_search.Search, []),
        (lambda _: np.random.random(), []),
        (lambda _: (random.random(), np.random.rand(), torch.rand(1)), []),
    ],
    ids=[
        *("through functions", "a default", "a class", "a bound method", "in a global object"),
        *("a class of ours", "numpy's global one", "the global ones"),
    ],
)
def test_what_a_function_names_is_found_through_the_functions_that_it_names(
    root: Any, expected: list[Any]
) -> None:
    """But not the global generators, which are seeded as such."""
    assert sources(root) == expected


def test_slots_are_looked_into() -> None:
    """Also when some of them are empty."""
    value = Slots()
    assert sources(value) == [value.rng]


@pytest.mark.parametrize(
    "make",
    [
        lambda: random.Random(1),
        lambda: np.random.default_rng(1),
        lambda: np.random.Generator(np.random.Philox(1)),
        lambda: np.random.Generator(np.random.MT19937(1)),
        lambda: np.random.Generator(np.random.SFC64(1)),
        lambda: np.random.RandomState(1),
        lambda: np.random.RandomState(np.random.PCG64(1)),
        lambda: torch.Generator().manual_seed(1),
        lambda: ByMethod("set_random_seed"),
    ],
    ids=lambda make: "",
)
def test_a_generator_set_to_a_number_draws_the_same_again(make: Any) -> None:
    """Whatever it drew before; other numbers for another number; as before when it is restored."""
    source = make()
    generator = generator_of(source)
    assert generator is not None

    def draws() -> list[float]:
        if isinstance(source, torch.Generator):
            return torch.rand(3, generator=source).tolist()
        # An odd count of normal numbers leaves one behind in some generators.
        normal = getattr(source, "standard_normal", None) or source.random
        return [float(normal()) for _ in range(3)]

    state = generator.state()
    before = draws()
    drawn = []
    for number in (2**64 - 1, 2**64 - 1, 5):
        generator.seed(number)
        drawn.append(draws())
        draws()
    assert drawn[0] == drawn[1] != drawn[2]
    if state is not None:
        generator.restore(state)
        assert draws() == before


class ByMethod:
    """An object with a method that seeds it."""

    def __init__(self, name: str) -> None:
        self.rng = random.Random(1)
        self.name = name

    def random(self) -> float:
        """A number."""
        return self.rng.random()

    def set_random_seed(self, seed: int) -> None:
        """What albumentations calls it."""
        self.rng = random.Random(seed)


class ByKeyword:
    """As MONAI's transforms."""

    def set_random_state(self, seed: int | None = None, state: Any = None) -> None:
        """With a keyword that is none of ours."""
        self.R = np.random.RandomState(seed)


class ByGenerators:
    """As albumentations has it beside set_random_seed: no number is wanted."""

    def set_random_state(self, random_generator: Any, py_random: Any) -> None:
        """Takes generators."""
        raise AssertionError


class Grower:
    """Its seed is a place; its other one an attribute."""

    def __init__(self) -> None:
        self.set_seed = 5

    def seed(self, point: Any) -> None:
        """No seed of random numbers."""
        raise AssertionError


def test_only_methods_that_take_a_number_are_taken_for_seeding() -> None:
    """Not classes, not attributes of that name, not methods that mean something else."""
    one, other = ByMethod("a"), ByKeyword()
    assert sources([one, ByGenerators(), Grower(), ByMethod, other]) == [one, other]
    other_found = found(other).generators[0]
    other_found.seed(2**63 + 5)
    assert other.R.rand() == np.random.RandomState(5).rand()


class Half:
    """Its method seeds one generator in place, makes one anew, and forgets two."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng()
        self.place = random.Random()
        self.R = np.random.RandomState()
        self.helper = SimpleNamespace(rng=random.Random())

    def set_random_state(self, seed: int | None = None) -> None:
        """As MONAI calls it."""
        self.place.seed(seed)
        self.R = np.random.RandomState(seed)

    def __call__(self, data: Any) -> list[float]:
        drawing = (self.R, self.place, self.rng, self.helper.rng)
        return [float(generator.random()) for generator in drawing]


def test_generators_that_a_method_forgets_are_seeded_beside_it() -> None:
    """What the method seeds is as it left it; what it makes anew costs nothing more."""
    one = Half()
    expected = [one, one.rng.bit_generator, one.place, one.helper.rng]
    assert sources(one) == expected
    code, other = (SeededCode(5, [("Half", half)], pytest.fail) for half in (one, Half()))
    rows = []
    for call in (1, 2, 1):
        code.seed_own(Purpose.TRANSFORM, 0, 0, call)
        rows.append(one(None))
    other.seed_own(Purpose.TRANSFORM, 0, 0, 2)
    assert rows[0] == rows[2]
    assert not set(rows[0]) & set(rows[1])
    assert other._roots[0][1](None) == rows[1]
    number = nth(seed_number(5, Purpose.TRANSFORM, 0, 0, 1), 0) & 0x7FFFFFFF
    drawn = float(np.random.RandomState(number).random()), random.Random(number).random()
    assert tuple(rows[0][:2]) == drawn


def test_a_generator_that_lies_in_two_places_is_seeded_once() -> None:
    """Also when two generators of numpy draw from one bit generator."""
    one, other = rng(), np.random.default_rng(0)
    double = np.random.Generator(other.bit_generator)
    assert sources([one, {"again": one}, other, double]) == [one, other.bit_generator]


def test_a_further_search_finds_only_what_is_new() -> None:
    """So that what all objects of a class share keeps its number."""
    shared, own = rng(), rng()
    first = found({"shared": shared})
    then = Search(first)
    then.look([shared, own], "hook")
    assert [generator.source for generator in then.generators] == [own]


def test_what_cannot_be_seeded_is_named() -> None:
    """With the place where it lies and what to do."""

    class Bits(np.random.PCG64):
        def __init__(self) -> None:
            super().__init__(0)

    root = SimpleNamespace(a=random.SystemRandom(), b=[np.random.Generator(Bits())])
    search = found(root)
    assert search.generators == []
    first, second = search.problems
    assert first == "transform.a is a random.SystemRandom, which accepts no seed; use random.Random"
    assert second.startswith("transform.b[0], of class numpy.random")
    assert "cannot be seeded: TypeError" in second


def test_more_objects_than_are_looked_into_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and texts do not count."""
    monkeypatch.setattr(generator_search, "MOST_OBJECTS", 100)
    assert found([*range(1000), "text"]).problems == []
    (problem,) = found([[] for _ in range(200)]).problems
    assert "more than 100 objects are in transform" in problem


def test_the_search_leaves_generators_as_they_stand() -> None:
    """It tries whether they can be seeded."""
    one, other = random.Random(3), np.random.default_rng(3)
    found([one, other])
    assert one.random() == random.Random(3).random()
    assert other.random() == np.random.default_rng(3).random()


IN_ANOTHER_PROCESS = """
import pickle, sys
from chunkdl.patches.generator_search import Search

search = Search()
search.look(pickle.load(sys.stdin.buffer), "transform")
print([generator.source.random() for generator in search.generators])
"""


def test_the_order_is_the_same_in_every_process() -> None:
    """Also of sets, whose own order is not; attributes and dicts have theirs."""
    generators = {(f"name {seed}", random.Random(seed)) for seed in range(12)}
    blob = pickle.dumps({"set": generators, "dict": {"b": random.Random(20), "a": rng()}})
    orders = {
        subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS],
            input=blob,
            capture_output=True,
            check=True,
            timeout=60,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(REPOSITORY)},
        ).stdout
        for hash_seed in (1, 2, 3)
    }
    assert len(orders) == 1
