"""A detector of the user: any function of a thumbnail, with a name and a version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from chunkdl.errors import ConfigError, HookError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import Cells, Scale, ScaledDetector
from chunkdl.system.packed_function import PackedFunction, name_of_function, pickled_function


def _of_packed(pickled: bytes, version: str, title: str) -> OwnTissue:
    return OwnTissue(PackedFunction(pickled), version, title)


@dataclass(frozen=True, slots=True)
class OwnTissue(ScaledDetector):
    """Calls tissue what a function of the user calls tissue.

    The function runs in the loaders, once for each slide; its masks are kept in the mask cache. It
    gets a copy of the thumbnail, uint8 (h, w, 3) of about 8 microns a pixel, and returns bools of
    shape (h, w). Equal thumbnails must have the same answer in every process: no random numbers, no
    counting. Masks on disk and the identity of a stream know it by name and version only, so a
    function that is changed needs another version, or its old masks are used.

    Attributes:
        function: can be pickled; a function of the program, a class with ``__call__``, a model.
        version: any text.
        title: name in messages and in the key; by default that of the function with its module.
            What has no name of its own (a lambda, an object with parameters) needs one.

    Raises:
        ConfigError: one of them is not what it has to be.
    """

    function: Callable[[Pixels], Any]
    version: str
    title: str = ""

    name: ClassVar[str] = "own"

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(f"OwnTissue: {self.function!r:.80} cannot be called")
        if not isinstance(self.version, str) or not self.version:
            raise ConfigError(
                f'OwnTissue: version={self.version!r} must be a text such as "1"; masks on disk '
                "and saved states remember it in place of the function"
            )
        if not isinstance(self.title, str):
            raise ConfigError(f"OwnTissue: title={self.title!r} must be a text")
        title = self.title or name_of_function(self.function)
        if not title:
            raise ConfigError(
                f"OwnTissue: {self.function!r:.80} has no name that tells it from others of its "
                'kind; give title, such as OwnTissue(…, version="1", title="dark above 0.5")'
            )
        object.__setattr__(self, "title", title)

    @property
    def key(self) -> str:
        """Name and version; what the function does may be anything."""
        return f"{self.name}/1 {self.title!r} {self.version!r}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_packed, (pickled_function(self.function), self.version, self.title)

    def __repr__(self) -> str:
        return f"OwnTissue({self.title}, version={self.version!r})"

    def find(self, rgb: Pixels, scale: Scale) -> Cells:
        """See `ScaledDetector.find`.

        Raises:
            HookError: the function raised, or returned something else; names the slide.
        """
        try:
            found = self.function(rgb.copy())
            fits = isinstance(found, np.ndarray) and found.shape == rgb.shape[:2]
            if not fits or found.dtype != np.bool_:
                raise TypeError(
                    f"it returned {_described(found)}; a detector returns an array of bool of "
                    f"shape {rgb.shape[:2]}"
                )
        except Exception as error:
            kind = type(error).__name__
            raise HookError(
                f"{kind}: {error}; on the thumbnail of slide {scale.slide or 'unknown'}",
                hook=f"tissue {self}"[:200],
                kind=kind,
            ) from error
        # It may keep the array, and write into it.
        return np.array(found)


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {value.shape}"
    return f"a {type(value).__name__}"
