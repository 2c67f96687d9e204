"""A filter of the user: any function of pixels, with a name and a version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from chunkdl.errors import ConfigError
from chunkdl.patches.filters.pixel_filter import Look, PixelFilter
from chunkdl.slides.slide import Pixels
from chunkdl.system.packed_function import PackedFunction, name_of_function, pickled_function


def _of_packed(pickled: bytes, version: str, title: str) -> OwnFilter:
    return OwnFilter(PackedFunction(pickled), version, title)


@dataclass(frozen=True, slots=True)
class OwnFilter(PixelFilter):
    """Passes what a function of the user passes.

    The function runs in the loaders. It gets a copy of the pixels, uint8 (h, w, 3), and returns
    True or False. Equal pixels must have the same answer in every process, or the stream cannot be
    made again: no random numbers, no counting. It is part of the identity of the stream by name and
    version only, so a function that is changed needs another version.

    Attributes:
        function: can be pickled; a function of the program, a class with ``__call__``, a model.
        version: any text; a saved state is refused where it differs.
        title: name in messages and in the identity; by default that of the function with its
            module. What has no name of its own (a lambda, an object with parameters) needs one.

    Raises:
        ConfigError: one of them is not what it has to be.
    """

    function: Callable[[Pixels], Any]
    version: str
    title: str = ""

    name: ClassVar[str] = "own"

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(f"OwnFilter: {self.function!r:.80} cannot be called")
        if not isinstance(self.version, str) or not self.version:
            raise ConfigError(
                f'OwnFilter: version={self.version!r} must be a text such as "1"; a saved state '
                "remembers it in place of the function"
            )
        if not isinstance(self.title, str):
            raise ConfigError(f"OwnFilter: title={self.title!r} must be a text")
        object.__setattr__(self, "title", self.title or self._name_of_function())

    def _name_of_function(self) -> str:
        name = name_of_function(self.function)
        if not name:
            raise ConfigError(
                f"OwnFilter: {self.function!r:.80} has no name that tells it from others of its "
                'kind; give title, such as OwnFilter(…, version="1", title="blur below 0.5")'
            )
        return name

    @property
    def key(self) -> str:
        """Name and version; what the function does may be anything."""
        return f"{self.name}/1 {self.title!r} {self.version!r}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_packed, (pickled_function(self.function), self.version, self.title)

    def prepare(self) -> None:
        """Unpack the function, and import what it needs."""
        if isinstance(self.function, PackedFunction):
            self.function.unpacked()

    def __repr__(self) -> str:
        return f"OwnFilter({self.title}, version={self.version!r})"

    def judge(self, look: Look) -> bool:
        """See `PixelFilter.judge`.

        Raises:
            TypeError: the function returned no answer.
            Exception: whatever the function raises.
        """
        answer = self.function(look.rgb.copy())
        if not isinstance(answer, bool | np.bool_):
            raise TypeError(
                f"it returned a {type(answer).__name__}; a filter returns True or False"
            )
        return bool(answer)
