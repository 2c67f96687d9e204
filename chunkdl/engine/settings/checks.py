"""The checks that are the same for many settings."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Sequence
from pathlib import Path

from chunkdl.errors import ConfigError


def checked_int(name: str, value: object, least: int, most: int | None = None) -> int:
    """`value` as an int in its bounds."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise ConfigError(f"{name}={value!r} must be an integer of at least {least}")
    if most is not None and number > most:
        raise ConfigError(f"{name}={value!r} must be at most {most}")
    return number


def checked_float(name: str, value: object) -> float:
    """`value` as a finite float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name}={value!r} must be a number")
    return float(value)


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r} must be True or False")
    return value


def folder(name: str, value: str | os.PathLike[str] | None) -> Path | None:
    if value is not None and not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name}={value!r} is no path")
    return None if value is None else Path(value)


def choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise ConfigError(f"{name}={value!r} is unknown; choose one of {known}")


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(size: int | str, setting: str) -> int:
    """Bytes of a size like 4294967296, "4GiB", "4G" or "512 MiB" (powers of 1024).

    Raises:
        ConfigError: it is no such size; names the setting.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(size), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f'{setting}={size!r} is no size; give bytes or a text like "4GiB"')
    return int(float(match[1]) * _UNITS[match[2].upper()])
