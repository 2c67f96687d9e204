"""The user's transform in a collector: seeded by the name of the SmallChunk, named in errors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from chunkdl.errors import HookError
from chunkdl.transforms import Transform


class OwnGenerator:
    """A transform that keeps a generator of its own, as albumentations' do."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng()

    def set_random_seed(self, seed: int) -> None:
        """What albumentations calls it."""
        self.rng = np.random.default_rng(seed)

    def __call__(self, data: int) -> float:
        return data + float(self.rng.random())


class Pipeline:
    """A user's class around transforms."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps

    def __call__(self, data: Any) -> Any:
        for step in self.steps:
            data = step(data)
        return data


own = OwnGenerator()


def by_a_global(data: int) -> float:
    """A function that reaches its transform through a global name."""
    return own(data)


def by_a_closure(step: OwnGenerator) -> Any:
    """A function that reaches its transform through its closure."""
    return lambda data: step(data)


@pytest.mark.parametrize(
    "transform",
    [OwnGenerator(), Pipeline(abs, OwnGenerator()), by_a_global, by_a_closure(OwnGenerator())],
    ids=["itself", "inside an object", "a global", "a closure"],
)
def test_a_generator_inside_a_transform_gives_the_same_numbers_for_the_same_smallchunk(
    transform: Any,
) -> None:
    """However often and in whatever order; and other numbers for another SmallChunk."""
    applied = Transform(transform, seed=5)
    first = applied.apply(1, 3, 0, 7, "p")
    others = [applied.apply(1, *name, "p") for name in ((4, 0, 7), (3, 1, 7), (3, 0, 8))]
    assert applied.apply(1, 3, 0, 7, "p") == first
    assert len({first, *others}) == 4
    assert Transform(transform, seed=6).apply(1, 3, 0, 7, "p") != first


def test_the_global_generators_give_the_same_numbers_for_the_same_smallchunk() -> None:
    """Python's, numpy's and torch's."""

    def draw(call: int) -> tuple[float, float, float]:
        transform.seed(3, 0, call)
        return transform.apply(0, 3, 0, call, "p")  # type: ignore[no-any-return]

    transform = Transform(lambda _: (random.random(), np.random.random(), float(torch.rand(1))), 5)
    first = draw(0)
    assert all(a != b for a, b in zip(first, draw(1), strict=True))
    assert draw(0) == first


def test_an_exception_names_transform_and_patient() -> None:
    """With the class of what was raised, whose traceback is the cause."""

    def fails(data: int) -> int:
        raise KeyError(data)

    with pytest.raises(HookError, match=r"KeyError: 1 \[.*fails, patient Ada\]") as caught:
        Transform(fails, 0).apply(1, 0, 0, 0, "Ada")
    assert caught.value.kind == "KeyError"
    assert isinstance(caught.value.__cause__, KeyError)
