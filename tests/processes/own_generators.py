"""Classes of a user that keep random generators of their own, and one that no seed reaches."""

from __future__ import annotations

import itertools
import random
import uuid
from typing import Any

import numpy as np

from chunkdl import BigChunkLoader, Policy, SmallChunk, SmallChunkCollector
from chunkdl.sampling.policies.policy import Situation

RNG = np.random.default_rng(0)


class OwnLoader(BigChunkLoader):
    """Draws from a global of its module, and from what it made in its constructor."""

    shared = random.Random(0)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.own = np.random.RandomState(0)

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """Five numbers; the last of a generator that is made here without a seed."""
        made = np.random.default_rng().random()
        settings = self.const_global_info["rng"].random()
        return [RNG.random(), self.shared.random(), self.own.rand(), settings, made]


class OwnCollector(SmallChunkCollector):
    """Draws in every way that the loader does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps = [{"rng": random.Random(0)}]
        self.first = self.const_global_info["rng"].random()

    def extract_smallchunk(self, call_count: int, bigchunk: Any, last_message_fromroot: Any) -> Any:
        """The loader's numbers and its own."""
        own = [
            self.steps[0]["rng"].random(),
            self.const_global_info["rng"].random(),
            helper(),
            np.random.default_rng().random(),
            self.first,
        ]
        return SmallChunk(np.array([*bigchunk, *own]), {}, {}, self.patient)


def helper() -> float:
    """What a method reaches only through a function."""
    return float(RNG.random())


class OwnPolicy(Policy):
    """Takes its chance from a generator of its own."""

    def __init__(self) -> None:
        self.rng = random.Random(0)

    def choose(self, now: Situation) -> int:
        """Any that waits."""
        return self.rng.choice(now.waiting)


class Unseedable:
    """A transform whose rows nobody can make again."""

    def __call__(self, crop: Any) -> Any:
        return np.array([uuid.uuid4().int % 2**31])


class Counting:
    """A transform that goes on from what it did for other rows."""

    def __init__(self) -> None:
        self.rows = itertools.count()

    def __call__(self, crop: Any) -> Any:
        return np.array([next(self.rows)])


class System:
    """A transform with a generator that takes no seed."""

    rng = random.SystemRandom()

    def __call__(self, crop: Any) -> Any:
        return np.array([self.rng.random() < 2])
