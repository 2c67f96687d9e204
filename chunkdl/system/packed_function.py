"""A function of the user on its way to another process, where it is unpacked when it is called."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle


class PackedFunction:
    """A function that is unpacked where it is called first: it may bring a model along, which the
    processes that only pass it on have no use for.

    Args:
        pickled: the function, by value where its module is not installed.
    """

    def __init__(self, pickled: bytes) -> None:
        self.pickled = pickled
        self._function: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        return self.unpacked()(*arguments)

    def unpacked(self) -> Callable[..., Any]:
        """The function."""
        if self._function is None:
            self._function = pickle.loads(self.pickled)  # noqa: S301 - made by our own parent
        return self._function


def pickled_function(function: Callable[..., Any]) -> bytes:
    """What a `PackedFunction` is made of; one that is packed already is not unpacked."""
    if isinstance(function, PackedFunction):
        return function.pickled
    pickled: bytes = cloudpickle.dumps(function)
    return pickled


def name_of_function(function: Any) -> str:
    """Its module and name; empty where it has no name that tells it from others of its kind."""
    name = getattr(function, "__qualname__", "")
    return f"{function.__module__}.{name}" if name and "<lambda>" not in name else ""
