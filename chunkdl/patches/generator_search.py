"""Finds the random generators that an object of the user keeps, in an order that never varies.

Looked through: attributes and slots, sequences, sets, keys and values of dicts, arrays of objects,
`functools.partial`, bound methods, closures, defaults, attributes of classes, and the globals that
functions name, through the functions that they name. The functions of installed libraries are not
entered, nor is anything that only a call would make.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.patches.random_generators import (
    Found,
    SeededByMethod,
    generator_of,
    is_global,
)

MOST_OBJECTS = 20_000
"""Objects that are looked into; more end the search, which is said."""

Part = tuple[str, Any]
"""Where it lies, as one would write it, and what lies there."""

_LEAVES = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray, memoryview, range, slice),
    *(np.generic, np.dtype, np.random.SeedSequence, types.ModuleType, types.CodeType),
    *(Path, Patient, Record, Dataset),
)
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_QUIET = {*sys.stdlib_module_names, "numpy", "torch", "scipy", "chunkdl"} - {"__main__"}
"""Top-level modules whose classes keep no generators of their own beside the global ones."""


class Search:
    """A walk through objects.

    Args:
        before: a search that went before; what it has seen is not looked at again.

    Attributes:
        generators: that were found; one that lies in several places is there once.
        places: where each lies, as one would write it.
        problems: what cannot be seeded, a sentence each.
    """

    def __init__(self, before: Search | None = None) -> None:
        self.generators: list[Found] = []
        self.places: list[str] = []
        self.problems: list[str] = []
        # The objects are held, so that no other gets their id.
        self._seen: dict[int, Any] = {}
        self._before = before
        self._ignored: list[Any] = []
        self._tries = True
        self._packages: set[str] = set()
        self._full = False

    def ignore(self, value: Any) -> None:
        """Leave an object out."""
        self._ignored.append(value)
        self._seen[id(value)] = value

    def look(self, root: Any, name: str) -> None:
        """Look through an object.

        Args:
            root: the object.
            name: what messages call it.
        """
        self._packages.add(_package(root if hasattr(root, "__qualname__") else type(root)))
        first = len(self.generators)
        self._walk(root, name)
        if self._tries:
            self._leave_out_replaced(root, name, first)

    def _walk(self, root: Any, name: str) -> None:
        stack: list[Part] = [(name, root)]
        while stack and not self._full:
            where, value = stack.pop()
            if self._is_known(value):
                continue
            self._seen[id(value)] = value
            if len(self._seen) > MOST_OBJECTS:
                self._full = True
                self.problems.append(
                    f"more than {MOST_OBJECTS} objects are in {name}; generators beyond these are "
                    "not seeded"
                )
            elif not is_global(value):
                parts = list(self._parts(value, where))
                stack += [part for part in reversed(parts) if not _is_leaf(part[1])]

    def _leave_out_replaced(self, root: Any, name: str, first: int) -> None:
        """Drop the generators that a method which seeds makes anew: it takes care of them."""
        found = self.generators[first:]
        methods = [generator for generator in found if isinstance(generator, SeededByMethod)]
        if not methods or len(methods) == len(found):
            return
        for method in methods:
            method.seed(0)
        again = Search(self._before)
        again._tries = False
        again._packages = self._packages
        for value in self._ignored:
            again.ignore(value)
        again.look(root, name)
        still = {id(generator.source) for generator in again.generators}
        kept = [
            (generator, place)
            for generator, place in zip(found, self.places[first:], strict=True)
            if isinstance(generator, SeededByMethod) or id(generator.source) in still
        ]
        self.generators[first:] = [generator for generator, _ in kept]
        self.places[first:] = [place for _, place in kept]

    def saw(self, module: str) -> bool:
        """Whether an object of a class of that module, or of one in it, was looked at."""
        names = (f"{type(value).__module__}." for value in self._seen.values())
        return any(name.startswith(f"{module}.") for name in names)

    def _is_known(self, value: Any) -> bool:
        before = self._before
        return id(value) in self._seen or (before is not None and before._is_known(value))

    def _parts(self, value: Any, where: str) -> Iterator[Part]:
        """What lies in an object; the object itself is noted if it is a generator."""
        generator = generator_of(value)
        is_taken = generator is not None and self._take(generator, value, where)
        # A method may seed some of the generators that its object holds, and leave others.
        if not is_taken or isinstance(generator, SeededByMethod):
            yield from self._inside(value, where)

    def _take(self, generator: Found, value: Any, where: str) -> bool:
        """Note a generator that can be seeded, after a trial; say why another one cannot."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if kind == "random.SystemRandom":
            self.problems.append(f"{where} is a {kind}, which accepts no seed; use random.Random")
            return True
        if any(generator.source is other.source for other in self._all()):
            return True
        try:
            if self._tries:
                state = generator.state()
                generator.seed(0)
                generator.restore(state)
        except Exception as error:
            self.problems.append(
                f"{where}, of class {kind}, cannot be seeded: {type(error).__name__}: {error}"
            )
            return False
        self.generators.append(generator)
        self.places.append(where)
        return True

    def _all(self) -> Iterator[Found]:
        yield from self.generators
        if self._before is not None:
            yield from self._before._all()

    def _inside(self, value: Any, where: str) -> Iterator[Part]:
        if isinstance(value, types.FunctionType):
            yield from self._in_function(value, where)
        elif isinstance(value, type):
            yield from self._in_class(value, where)
        elif isinstance(value, types.MethodType | types.BuiltinMethodType):
            yield where, value.__self__
            yield where, getattr(value, "__func__", None)
        elif isinstance(value, functools.partial):
            yield from ((where, part) for part in (value.func, value.args, value.keywords))
        elif isinstance(value, staticmethod | classmethod):
            yield where, value.__func__
        elif isinstance(value, property):
            yield from ((where, part) for part in (value.fget, value.fset))
        elif isinstance(value, functools.cached_property):
            yield where, value.func
        else:
            yield from _in_container(value, where, self.problems)
            yield from _in_attributes(value, where)
            yield f"{where}.__class__", type(value)

    def _in_class(self, kind: type, where: str) -> Iterator[Part]:
        for base in kind.__mro__:
            if _package(base) in _QUIET:
                continue
            enters = self._enters(base)
            for name, value in vars(base).items():
                is_data = not name.startswith("__") and not hasattr(type(value), "__get__")
                if is_data or (enters and _is_code(value)):
                    yield f"{where}.{name}", value

    def _in_function(self, function: types.FunctionType, where: str) -> Iterator[Part]:
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            # A cell is empty while what it names is being made.
            if cell != types.CellType():
                yield f"{where}: {name}", cell.cell_contents
        yield where, function.__defaults__
        yield where, function.__kwdefaults__
        yield where, vars(function)
        if self._enters(function):
            names = list(dict.fromkeys(_names(function.__code__)))
            for name in names:
                if name in function.__globals__:
                    yield from _named(function.__globals__[name], name, names, set())

    def _enters(self, code: Any) -> bool:
        """Whether the functions of its module are looked through, not only its data."""
        package = _package(code)
        if package in _QUIET:
            return False
        return package in self._packages or not _is_installed(package)


def _named(value: Any, name: str, names: list[str], modules: set[int]) -> Iterator[Part]:
    """A global that a function names; of a module what the function names in it."""
    if not isinstance(value, types.ModuleType):
        yield name, value
    elif id(value) not in modules:
        modules.add(id(value))
        for inner in names:
            if inner in vars(value):
                yield from _named(vars(value)[inner], f"{name}.{inner}", names, modules)


def _names(code: types.CodeType) -> Iterator[str]:
    """The globals and attributes that code names, and that functions in it name."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _in_container(value: Any, where: str, problems: list[str]) -> Iterator[Part]:
    # The methods of dict and list, not of the class: one of the user may load what is asked for.
    if isinstance(value, dict):
        for key, part in dict.items(value):
            if not _is_leaf(key):
                yield f"{where}: a key", key
            if not _is_leaf(part):
                yield f"{where}[{key!r:.40}]", part
    if isinstance(value, types.MappingProxyType):
        yield where, dict(value)
    if isinstance(value, np.ndarray):
        yield from _in_array(value, where)
    kinds: tuple[Any, ...] = (list, tuple, deque)
    for kind in kinds:
        if isinstance(value, kind):
            for index, part in enumerate(kind.__iter__(value)):
                if not _is_leaf(part):
                    yield f"{where}[{index}]", part
    if isinstance(value, set | frozenset):
        parts = [part for part in value if not _is_leaf(part)]
        keys = {id(part): _content(part) for part in parts}
        if len(set(keys.values())) < len(parts):
            problems.append(
                f"{where} is a set, and its order differs between processes; use a list"
            )
        yield from ((where, part) for part in sorted(parts, key=lambda part: keys[id(part)]))


def _in_array(array: np.ndarray[Any, Any], where: str) -> Iterator[Part]:
    """The objects of an array that holds some, and those in its fields."""
    for name in array.dtype.names or ():
        yield f"{where}[{name!r}]", array[name]
    if array.dtype == object:
        for index, part in enumerate(array.flat):
            if not _is_leaf(part):
                yield f"{where}.flat[{index}]", part


def _content(part: Any) -> tuple[str, bytes]:
    """Something to sort by that is the same in every process."""
    try:
        content = pickle.dumps(part)
    except Exception:
        # Whatever it raises: it is one that cannot be told from others.
        content = b""
    return f"{type(part).__module__}.{type(part).__qualname__}", content


def _in_attributes(value: Any, where: str) -> Iterator[Part]:
    # By object's own means: what a class of the user does to look a name up is not for here.
    with contextlib.suppress(AttributeError):
        attributes = object.__getattribute__(value, "__dict__")
        if isinstance(attributes, dict):
            yield from ((f"{where}.{name}", part) for name, part in attributes.items())
    for base in type(value).__mro__:
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):
                    yield f"{where}.{name}", member.__get__(value)


def _is_leaf(value: Any) -> bool:
    if isinstance(value, _LEAVES):
        return True
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_code(value: Any) -> bool:
    return isinstance(
        value,
        types.FunctionType | staticmethod | classmethod | property | functools.cached_property,
    )


def _package(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "").partition(".")[0]


@functools.cache
def _is_installed(package: str) -> bool:
    module = sys.modules.get(package)
    places = [getattr(module, "__file__", None) or "", *(getattr(module, "__path__", None) or ())]
    return any(str(place).startswith(_LIBRARIES) for place in places)
