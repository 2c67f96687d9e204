"""Code of the user runs with every generator set from the plan, whatever it draws from.

Two kinds: the global generators of Python, numpy and torch, which programs use without asking, and
those that an object keeps for itself (`chunkdl.patches.generator_search`). Beside them numpy asks
the system for entropy where a generator is made without a seed; while code of the user runs, this
too comes from the plan, so that ``numpy.random.default_rng()`` inside a function is
not an exception.
"""

from __future__ import annotations

import hashlib
import random
import re
import secrets
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import bit_generator

from chunkdl.patches.generator_search import Search
from chunkdl.patches.random_generators import (
    Found,
    Generator,
    NumpyRandomState,
    PythonGenerator,
    SeededByMethod,
    TorchGenerator,
)
from chunkdl.sampling.seeding import Purpose, nth, number

Place = tuple[tuple[str, int], ...]
"""In code: file and instruction of the innermost calls."""


def _calling() -> Place:
    """Where the code of the user is that asks; two calls up as well, as it may have a helper."""
    frame, place = sys._getframe(2), []
    for _ in range(3):
        place.append((f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}", frame.f_lasti))
        if frame.f_back is None:
            break
        frame = frame.f_back
    return tuple(place)


class NumpyEntropy:
    """Entropy for generators that numpy makes without a seed; each gets another."""

    def __init__(self) -> None:
        self._number = 0
        self._asked = 0
        self._places: set[Place] = set()

    def seed(self, number: int) -> None:
        """Begin anew; see `Generator`."""
        self._number, self._asked = number, 0

    def state(self) -> Any:
        """See `Generator`."""
        return self._number, self._asked

    def restore(self, state: Any) -> None:
        """See `Generator`."""
        self._number, self._asked = state

    def places(self) -> set[Place]:
        """Where in the code it was asked since this was last called."""
        places, self._places = self._places, set()
        return places

    def __call__(self, bits: int) -> int:
        """A number of so many bits, in place of `secrets.randbits`."""
        self._asked += 1
        self._places.add(_calling())
        name = struct.pack("<2Q", self._number, self._asked)
        digest = hashlib.shake_128(name).digest((bits + 7) // 8)
        return int.from_bytes(digest, "little") >> (-bits % 8)


_entropy = NumpyEntropy()


def unseeded_generators() -> set[Place]:
    """Where numpy has made generators without a seed since this was last called."""
    return _entropy.places()


def _globals() -> list[Generator]:
    """The generators that programs use without asking, as far as they are loaded."""
    found: list[Generator] = [PythonGenerator(random), NumpyRandomState(np.random), _entropy]
    torch = sys.modules.get("torch")
    if torch is not None:
        # Not torch.manual_seed: it takes a hundred times as long, and seeds the training's GPUs.
        found.append(TorchGenerator(torch.default_generator))
    return found


def _cuda() -> Any:
    """torch.cuda where it is in use here."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def seed_globals(
    seed: int, purpose: Purpose, ordinal: int, attempt: int, call: int, *, gpus: bool = True
) -> None:
    """Seed the generators that programs use without asking, for one call of a hook.

    In the training process only under `globals_kept`, and without its GPUs.
    """
    value = number(seed, purpose, ordinal, attempt, call)
    _replace_entropy(_entropy)
    for generator in _globals():
        generator.seed(value)
    cuda = _cuda() if gpus else None
    if cuda is not None:
        cuda.manual_seed_all(value)


def seed_torch(seed: int, purpose: Purpose, ordinal: int, attempt: int, call: int) -> None:
    """Seed torch's global generator alone, where torch came after `seed_globals`."""
    generator = sys.modules["torch"].default_generator
    TorchGenerator(generator).seed(number(seed, purpose, ordinal, attempt, call))


def _replace_entropy(source: Any) -> None:
    setattr(bit_generator, "randbits", source)  # noqa: B010 - numpy does not declare it


@contextmanager
def globals_kept(own: Sequence[Generator] = (), *, gpus: bool) -> Iterator[None]:
    """Afterwards the generators stand where they stood before.

    Args:
        own: others that are kept beside the global ones, as far as their state can be asked.
        gpus: those of the GPUs as well.
    """
    generators = [*_globals(), *own]
    states = [generator.state() for generator in generators]
    cuda = _cuda() if gpus else None
    on_gpus = None if cuda is None else cuda.get_rng_state_all()
    entropy = getattr(bit_generator, "randbits", secrets.randbits)
    try:
        yield
    finally:
        _replace_entropy(entropy)
        for generator, state in zip(generators, states, strict=True):
            generator.restore(state)
        if cuda is not None:
            cuda.set_rng_state_all(on_gpus)


@dataclass(frozen=True, slots=True)
class Made:
    """Where generators lie that code of the user has made since it was last looked through.

    Attributes:
        replaced: in place of others, which are gone.
        added: beside the others.
    """

    replaced: tuple[str, ...]
    added: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.replaced or self.added)


class SeededCode:
    """The generators that objects of the user keep for themselves.

    Args:
        seed: of the stream.
        roots: the objects in which they are looked for, and what messages call them.
        warn: takes a sentence about each that cannot be seeded.
        before: what was found before; it is not taken again.
        ignored: an object that is not looked into.
    """

    def __init__(
        self,
        seed: int,
        roots: Sequence[tuple[str, Any]],
        warn: Callable[[str], None],
        before: SeededCode | None = None,
        ignored: Any = None,
    ) -> None:
        self._seed = seed
        self._roots = roots
        self._warn = warn
        self._first: int = 0 if before is None else before._first + len(before.own)
        self.search: Search = Search(None if before is None else before.search)
        self.search.ignore(ignored)
        self._look(self.search)
        self.own: tuple[Found, ...] = tuple(self.search.generators)
        """The generators, in an order that is the same in every process."""
        self._places = tuple(self.search.places)
        self._numbers = tuple(range(self._first, self._first + len(self.own)))
        self._told: set[str] = set()
        self._tell(self.search)

    def _tell(self, search: Search) -> None:
        for problem in search.problems:
            if problem not in self._told:
                self._told.add(problem)
                self._warn(f"{problem}; so its random numbers differ from run to run")

    def _look(self, search: Search) -> None:
        # It tries methods of the user that seed, and these may draw from the global generators.
        with globals_kept(gpus=True):
            for name, root in self._roots:
                search.look(root, name)

    @classmethod
    def of_class(
        cls, seed: int, kind: type[Any], settings: Any, warn: Callable[[str], None]
    ) -> SeededCode:
        """What all objects of a hook class share: the class, and the user's settings."""
        roots = [(kind.__qualname__, kind), ("const_global_info", settings)]
        return cls(seed, roots, warn)

    def of_object(self, hook: Any) -> SeededCode:
        """The additional code of one object of the class; what the engine gave it is not seeded."""
        roots = [(type(hook).__qualname__, hook)]
        return SeededCode(self._seed, roots, self._warn, self, hook._tools)

    def look_again(self) -> Made:
        """Take in what code of the user has made since, as many do in the first call.

        One that lies where another lay gets the number of that one. Others get one by where they
        lie: which is made first is another one in each process.
        """
        search = Search()
        self._look(search)
        self._tell(search)
        own, places, numbers = list(self.own), list(self._places), list(self._numbers)
        known = {id(generator.source) for generator in own}
        there = {id(generator.source) for generator in search.generators}
        gone = [index for index, one in enumerate(own) if id(one.source) not in there]
        replaced, added = [], []
        for generator, place in zip(search.generators, search.places, strict=True):
            if id(generator.source) in known:
                continue
            index = next((index for index in gone if places[index] == place), None)
            if index is None:
                own.append(generator)
                numbers.append(_number_of(place, places.count(place)))
                places.append(place)
                added.append(place)
            else:
                gone.remove(index)
                own[index] = generator
                replaced.append(place)
        self.own, self._places, self._numbers = tuple(own), tuple(places), tuple(numbers)
        return Made(tuple(replaced), tuple(added))

    def seed_own(self, purpose: Purpose, ordinal: int, attempt: int, call: int) -> None:
        """Set each to a number of its own, of that name."""
        if self.own:
            value = number(self._seed, purpose, ordinal, attempt, call)
            # Methods come last, the outer before the inner: what they set is not undone.
            for by_method in (False, True):
                for generator, index in zip(self.own, self._numbers, strict=True):
                    if isinstance(generator, SeededByMethod) == by_method:
                        generator.seed(nth(value, index))


def _number_of(place: str, others: int) -> int:
    """A number for a generator by where it lies, and how many lie there besides."""
    # Addresses, in the repr of a key, are others in each process.
    name = re.sub(r"0x[0-9a-fA-F]+", "", f"{others} {place}").encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
