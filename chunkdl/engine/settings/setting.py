"""How a setting is declared: once, with all that its check, its file and its page need.

A setting is a field whose type is annotated with a `Setting`: of
`chunkdl.engine.settings.arguments.Arguments` for a stream, of `chunkdl.service.settings` for a
service. The checks, the keys of a daemon's file, ``chunkdl config --explain``, the flags of the
command line, ``docs/settings.md`` and the identity of the stream are made from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta

from chunkdl.engine.settings.checks import checked_float, checked_int, choice, flag

Instance = TypeVar("Instance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is declared of a setting beside its name, its type and its default.

    Attributes:
        meaning: one sentence or less, for people.
        table: of a daemon's file that has it; empty where only Python does.
        identity: what changes with it, and is refused in a saved state: the rows of the stream, or
            only how they are cut into batches; empty for what changes nothing.
        unit: of the number; empty for what has none.
        least, above, most: bounds of a number; at least, more than, at most.
        check: instead of that by type and bounds: from name and value to the value that counts.
        example: a value to show where the default is that nothing is given.
        key: in the file, where it is another: a unit is in the names there.
        file_type, file_default: in the file, where TOML has no such type or value.
    """

    meaning: str
    table: Literal["stream", "run", "service", "group", ""] = ""
    identity: Literal["rows", "batches", ""] = ""
    unit: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    check: Callable[[str, Any], Any] | None = None
    example: object = UNSET
    key: str = ""
    file_type: Any = UNSET
    file_default: Any = UNSET


@dataclass(frozen=True, slots=True)
class Declared:
    """A setting with its name.

    Attributes:
        name: of the field; of a stream also the argument of `LightDL`.
        kind: its type; None is left out of it.
        optional: whether None may be given.
        default: where nothing is given.
        setting: the rest.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    setting: Setting

    @property
    def key(self) -> str:
        """Its name in a daemon's file."""
        return self.setting.key or self.name

    def checked(self, value: Any, where: str = "") -> Any:
        """The value that counts.

        Args:
            value: that was given.
            where: before the name in messages, such as "groups.train.".

        Raises:
            ConfigError: it may not be that; names the setting.
        """
        setting, name = self.setting, where + self.name
        if value is None and self.optional:
            return None
        if setting.check is not None:
            return setting.check(name, value)
        if get_origin(self.kind) is Literal:
            return choice(name, value, get_args(self.kind))
        if self.kind is bool:
            return flag(name, value)
        if self.kind is int:
            most = None if setting.most is None else int(setting.most)
            return checked_int(name, value, int(setting.least or 0), most)
        return checked_float(name, value, setting.unit, setting.least, setting.above, setting.most)

    def file_field(self) -> tuple[str, Any, Any]:
        """Key, annotated type and default, as `msgspec.defstruct` takes them."""
        setting = self.setting
        kind = self.kind if setting.file_type is UNSET else setting.file_type
        default = self.default if setting.file_default is UNSET else setting.file_default
        if default is None:
            kind = kind | None if not isinstance(kind, str) else kind
        meta = describe(setting.meaning, setting.unit, setting.example)
        return self.key, Annotated[kind, meta], default


def describe(meaning: str, unit: str = "", example: object = UNSET) -> Meta:
    """What people are told of a key of a file.

    Args:
        meaning: one sentence or less.
        unit: of the number; empty for what has none.
        example: a value to show where the default is that nothing is given.
    """
    return Meta(description=meaning, extra={"unit": unit, "example": example})


def declared(kind: type[Any]) -> Iterator[Declared]:
    """The settings of a class, in their order; its fields without a `Setting` are none."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated:
            continue
        given, setting, *_ = get_args(hint)
        options = get_args(given) if get_origin(given) in (Union, UnionType) else (given,)
        kinds = [option for option in options if option is not NoneType]
        of = kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007 - made at run time
        yield Declared(field.name, of, NoneType in options, field.default, setting)


def checked(given: Instance, where: str = "") -> Instance:
    """The same with every setting checked by itself, as the value that counts.

    Args:
        given: an object of a class with settings.
        where: before the names in messages, such as "groups.train.".

    Raises:
        ConfigError: one may not be what it is; names the setting.
    """
    values = {
        one.name: one.checked(getattr(given, one.name), where) for one in declared(type(given))
    }
    return dataclasses.replace(given, **values)  # type: ignore[type-var]


def identity(given: Any, of: Literal["rows", "batches"]) -> list[list[Any]]:
    """Names and values of the settings that the rows, or the batches, of a stream depend on."""
    return [
        [one.name, _plain(getattr(given, one.name))]
        for one in declared(type(given))
        if one.setting.identity == of
    ]


def _plain(value: Any) -> Any:
    return getattr(value, "key", value)


def file_table(
    name: str,
    table: str,
    kind: type[Any],
    meaning: str,
    more: tuple[tuple[str, Any, Any], ...] = (),
) -> type[msgspec.Struct]:
    """The table of a daemon's file that has the settings of a class.

    Args:
        name: of the struct that is made.
        table: which settings, by `Setting.table`.
        kind: the class.
        meaning: of the table, for people.
        more: keys beside the settings: name, annotated type, default.
    """
    fields = [one.file_field() for one in declared(kind) if one.setting.table == table]
    return msgspec.defstruct(
        name,
        [*fields, *more],
        namespace={"__doc__": meaning},
        frozen=True,
        forbid_unknown_fields=True,
        kw_only=True,
    )
