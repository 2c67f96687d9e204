"""The kinds of random generators that programs keep, and how each is set to a number.

A generator that is set to the same number draws the same again, whatever it has drawn before.
"""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

METHODS = ("set_random_seed", "set_random_state", "set_seed", "manual_seed", "seed", "seed_")
"""What libraries call the method that seeds an object; the first that it has is taken.

albumentations: set_random_seed. MONAI: set_random_state, which albumentations has with another
meaning.
"""
NUMBER_NAMES = ("a", "entropy", "n", "number", "s", "value")
"""What the argument of such a method is called, besides all names with "seed" in them."""


class Generator(Protocol):
    """Something that draws random numbers."""

    def seed(self, number: int) -> None:
        """Set it to a number, 0 to 2**64 - 1."""

    def state(self) -> Any:
        """Where it stands, for `restore`; None where nobody can say."""

    def restore(self, state: Any) -> None:
        """Let it stand there again; None is left alone."""


@dataclass(frozen=True, slots=True)
class PythonGenerator:
    """A `random.Random`, or the module `random` itself."""

    source: random.Random | ModuleType

    def seed(self, number: int) -> None:
        """See `Generator`."""
        self.source.seed(number)

    def state(self) -> Any:
        """See `Generator`."""
        return self.source.getstate()

    def restore(self, state: Any) -> None:
        """See `Generator`."""
        self.source.setstate(state)


@dataclass(frozen=True, slots=True)
class NumpyBits:
    """A bit generator of numpy, which a `numpy.random.Generator` draws from."""

    source: np.random.BitGenerator

    def seed(self, number: int) -> None:
        """See `Generator`."""
        kind: Callable[[int], np.random.BitGenerator] = type(self.source)
        self.source.state = kind(number).state

    def state(self) -> Any:
        """See `Generator`."""
        return self.source.state

    def restore(self, state: Any) -> None:
        """See `Generator`."""
        self.source.state = state


@dataclass(frozen=True, slots=True)
class NumpyRandomState:
    """A `numpy.random.RandomState`, or the module `numpy.random` itself."""

    source: Any

    def seed(self, number: int) -> None:
        """See `Generator`."""
        state = self.source.get_state(legacy=False)
        if state["bit_generator"] == "MT19937":
            self.source.seed(number & 0xFFFFFFFF)
            return
        fresh = getattr(np.random, state["bit_generator"])(number)
        self.source.set_state({**fresh.state, "has_gauss": 0, "gauss": 0.0})

    def state(self) -> Any:
        """See `Generator`."""
        return self.source.get_state(legacy=False)

    def restore(self, state: Any) -> None:
        """See `Generator`."""
        self.source.set_state(state)


@dataclass(frozen=True, slots=True)
class TorchGenerator:
    """A `torch.Generator` of any device."""

    source: Any

    def seed(self, number: int) -> None:
        """See `Generator`."""
        self.source.manual_seed(number)

    def state(self) -> Any:
        """See `Generator`."""
        return self.source.get_state()

    def restore(self, state: Any) -> None:
        """See `Generator`."""
        self.source.set_state(state)


@dataclass(frozen=True, slots=True)
class SeededByMethod:
    """An object with a method that seeds it.

    Attributes:
        source: the object.
        method: name of the method.
        keyword: of its argument; empty where it has to be given by position.
    """

    source: Any
    method: str
    keyword: str

    def seed(self, number: int) -> None:
        """See `Generator`; libraries take 31 bits."""
        method, number = getattr(self.source, self.method), number & 0x7FFFFFFF
        if self.keyword:
            method(**{self.keyword: number})
        else:
            method(number)

    def state(self) -> Any:
        """See `Generator`."""
        return None

    def restore(self, state: Any) -> None:
        """See `Generator`."""


Found = PythonGenerator | NumpyBits | NumpyRandomState | TorchGenerator | SeededByMethod


def generator_of(value: Any) -> Found | None:
    """How an object is seeded that is a generator, or has a method for it; None for others."""
    if isinstance(value, random.Random):
        return PythonGenerator(value)
    if isinstance(value, np.random.Generator):
        return NumpyBits(value.bit_generator)
    if isinstance(value, np.random.BitGenerator):
        return NumpyBits(value)
    if isinstance(value, np.random.RandomState):
        return NumpyRandomState(value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Generator):
        return TorchGenerator(value)
    return _by_method(value)


def _by_method(value: Any) -> SeededByMethod | None:
    if isinstance(value, type | ModuleType):
        return None
    for name in METHODS:
        # Of the class: an object may answer to any name, and an attribute may be called seed.
        method = getattr(type(value), name, None)
        if inspect.isroutine(method) and (keyword := _keyword_of(method)) is not None:
            return SeededByMethod(value, name, keyword)
    return None


def _keyword_of(method: Any) -> str | None:
    """What the first argument after self is called, if it takes a number; None: it does not."""
    try:
        _, *parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(
        p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        for p in parameters[1:]
    ):
        return None
    if not parameters or not ("seed" in parameters[0].name or parameters[0].name in NUMBER_NAMES):
        return None
    return "" if parameters[0].kind is inspect.Parameter.POSITIONAL_ONLY else parameters[0].name


def is_global(value: Any) -> bool:
    """Whether it is one of the generators that programs use without asking."""
    torch = sys.modules.get("torch")
    return (
        value is getattr(random.random, "__self__", None)
        or value is getattr(np.random.random, "__self__", None)
        or (torch is not None and value is torch.default_generator)
    )
