"""The filters that a file can say, by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from chunkdl.errors import ConfigError
from chunkdl.patches.filters.colours import GreyShare, HsvShare, PenMarks, WhiteShare
from chunkdl.patches.filters.combined import AllOf, AnyOf, Not
from chunkdl.patches.filters.own_filter import OwnFilter
from chunkdl.patches.filters.pixel_filter import PixelFilter
from chunkdl.patches.filters.structure import Contrast, Sharpness

_BY_NAME: Mapping[str, type[PixelFilter]] = {
    "midnight": HsvShare,
    "hsv": HsvShare,
    "grey": GreyShare,
    "white": WhiteShare,
    "contrast": Contrast,
    "blur": Sharpness,
    "pen": PenMarks,
}
_SEVERAL: Mapping[str, Callable[..., PixelFilter]] = {"all": AllOf, "any": AnyOf}
MOST_DEPTH = 8
"""Of filters in filters."""


def filter_of(given: str | Mapping[str, Any] | PixelFilter, depth: int = 0) -> PixelFilter:
    """The filter of a name, of a name with parameters, or one that is a filter already.

    ``"midnight"``, ``{"name": "hsv", "least": 0.8}``,
    ``{"name": "all", "filters": ["midnight", {"name": "not", "filter": "pen"}]}``.

    Args:
        given: what the user said.
        depth: of filters that this one is in.

    Raises:
        ConfigError: there is none, or it has no such parameter; names those that there are.
    """
    if isinstance(given, PixelFilter):
        return given
    parameters = {"name": given} if isinstance(given, str) else dict(given)
    name = parameters.pop("name", None)
    if depth > MOST_DEPTH:
        raise ConfigError(f"pixel filters lie in each other more than {MOST_DEPTH} deep")
    if isinstance(name, str) and (name in _SEVERAL or name == "not"):
        return _combined(name, parameters, depth)
    if name == OwnFilter.name:
        raise ConfigError(
            "a pixel filter of your own cannot be said in a file, because a function is code: give "
            'pixel_filter=chunkdl.OwnFilter(function, version="1") in Python'
        )
    if not isinstance(name, str) or name not in _BY_NAME:
        known = ", ".join(map(repr, (*_BY_NAME, *_SEVERAL, "not")))
        raise ConfigError(
            f"there is no pixel filter {name!r:.80}; choose one of {known}, or give your own "
            "function as chunkdl.OwnFilter"
        )
    return _single(name, _BY_NAME[name], parameters)


def _single(name: str, kind: type[PixelFilter], parameters: dict[str, Any]) -> PixelFilter:
    declared = fields(kind)  # type: ignore[arg-type]
    names = [field.name for field in declared]
    if unknown := [key for key in parameters if key not in names]:
        raise ConfigError(
            f"the pixel filter {name!r} has no parameter {unknown[0]!r}; it has {', '.join(names)}"
        )
    needed = [field.name for field in declared if field.default is MISSING]
    if missing := [one for one in needed if one not in parameters]:
        raise ConfigError(f"the pixel filter {name!r} needs the parameter {missing[0]!r}")
    return kind(**parameters)


def _combined(name: str, parameters: dict[str, Any], depth: int) -> PixelFilter:
    wanted = "filter" if name == "not" else "filters"
    inner = parameters.pop(wanted, None)
    several = isinstance(inner, list | tuple)
    if parameters or inner is None or several == (name == "not"):
        shape = '"pen"' if name == "not" else '["midnight", {"name": "grey", "most": 0.5}]'
        raise ConfigError(
            f"the pixel filter {name!r} has one parameter: {{name = {name!r}, {wanted} = {shape}}}"
        )
    if name == "not":
        return Not(_inner(inner, depth))
    return _SEVERAL[name](*(_inner(one, depth) for one in inner))


def _inner(given: Any, depth: int) -> PixelFilter:
    if not isinstance(given, str | Mapping | PixelFilter):
        raise ConfigError(f"{given!r:.80} is no pixel filter; give a name, or a name with numbers")
    return filter_of(given, depth + 1)
