"""How the user's transform is called in a collector: seeded from the plan, named in errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import getclosurevars, isfunction
from typing import Any

from chunkdl.hook_tools import named, seed_globals
from chunkdl.seeding import Purpose, number

DEPTH = 4
"""How far inside a transform generators of its own are looked for."""


class Transform:
    """A callable of the user on the data of one SmallChunk.

    Transforms that draw from `random`, numpy's or torch's global generator are reproducible as they
    are. Those of albumentations keep generators of their own, which are looked for once, in
    attributes, sequences, closures and the globals of functions, and seeded for each call.

    Args:
        call: the callable.
        seed: of the stream.
    """

    def __init__(self, call: Callable[[Any], Any], seed: int) -> None:
        self._call = call
        self._seed = seed
        self._own = list(_with_own_generator(call, DEPTH, set()))
        self.name = str(getattr(call, "__qualname__", type(call).__name__))

    def apply(self, data: Any, ordinal: int, attempt: int, call: int, patient: str) -> Any:
        """What the transform makes of `data`.

        Args:
            data: of the SmallChunk.
            ordinal, attempt, call: of the SmallChunk, the name of the random numbers.
            patient: its name, for errors.

        Raises:
            HookError: it raised.
        """
        with named(self.name, patient):
            if self._own:
                value = number(self._seed, Purpose.SMALLCHUNK, ordinal, attempt, call)
                for generator in self._own:
                    generator.set_random_seed(value & 0x7FFFFFFF)
            return self._call(data)

    def seed(self, ordinal: int, attempt: int, call: int) -> None:
        """Seed the global generators for a SmallChunk that no hook has seeded them for."""
        seed_globals(self._seed, Purpose.SMALLCHUNK, ordinal, attempt, call)


def _with_own_generator(value: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    """The outermost objects in `value` that can be seeded."""
    if id(value) in seen or depth == 0 or isinstance(value, str | bytes | int | float | type):
        return
    seen.add(id(value))
    if callable(getattr(value, "set_random_seed", None)):
        yield value
        return
    inside: list[Any] = []
    if isfunction(value):
        variables = getclosurevars(value)
        inside = [*variables.nonlocals.values(), *variables.globals.values()]
    elif isinstance(value, list | tuple):
        inside = list(value)
    elif isinstance(value, dict):
        inside = list(value.values())
    elif hasattr(value, "__dict__") and callable(value):
        inside = [*vars(value).values(), type(value).__call__]
    for part in inside:
        yield from _with_own_generator(part, depth - 1, seen)
