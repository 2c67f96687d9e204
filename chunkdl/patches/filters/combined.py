"""Filters made of filters: all of them, any of them, not this one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from chunkdl.errors import ConfigError
from chunkdl.patches.filters.pixel_filter import Look, PixelFilter


@dataclass(frozen=True, slots=True)
class _Several(PixelFilter):
    filters: tuple[PixelFilter, ...]

    def __init__(self, *filters: PixelFilter) -> None:
        object.__setattr__(self, "filters", _checked(self.name, filters))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.filters))})"

    @property
    def key(self) -> str:
        """The keys of its filters, in their order."""
        return f"{self.name}/1 {[one.key for one in self.filters]!r}"

    @property
    def parts(self) -> tuple[PixelFilter, ...]:
        """See `PixelFilter.parts`."""
        return self.filters


class AllOf(_Several):
    """Passes what all of its filters pass; they are asked in their order, until one refuses.

    Args:
        filters: at least one.

    Raises:
        ConfigError: there is none, or one is no filter.
    """

    __slots__ = ()
    name: ClassVar[str] = "all"

    def judge(self, look: Look) -> bool:
        """See `PixelFilter.judge`."""
        return all(one.judge(look) for one in self.filters)


class AnyOf(_Several):
    """Passes what one of its filters passes; they are asked in their order, until one does.

    Args:
        filters: at least one.

    Raises:
        ConfigError: there is none, or one is no filter.
    """

    __slots__ = ()
    name: ClassVar[str] = "any"

    def judge(self, look: Look) -> bool:
        """See `PixelFilter.judge`."""
        return any(one.judge(look) for one in self.filters)


@dataclass(frozen=True, slots=True)
class Not(PixelFilter):
    """Passes what its filter refuses.

    Attributes:
        filter: the other.

    Raises:
        ConfigError: it is no filter.
    """

    filter: PixelFilter

    name: ClassVar[str] = "not"

    def __post_init__(self) -> None:
        _checked(self.name, (self.filter,))

    @property
    def key(self) -> str:
        """The key of the other."""
        return f"{self.name}/1 {self.filter.key!r}"

    @property
    def parts(self) -> tuple[PixelFilter, ...]:
        """See `PixelFilter.parts`."""
        return (self.filter,)

    def judge(self, look: Look) -> bool:
        """See `PixelFilter.judge`."""
        return not self.filter.judge(look)


def _checked(name: str, filters: Iterable[Any]) -> tuple[PixelFilter, ...]:
    found = tuple(filters)
    wrong = [one for one in found if not isinstance(one, PixelFilter)]
    if wrong or not found:
        raise ConfigError(
            f"pixel filter {name} is made of filters, such as HsvShare(), not of "
            f"{wrong[0] if wrong else 'nothing'!r:.80}"
        )
    return found
