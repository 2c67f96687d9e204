"""The checks that are the same for many settings."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.sources import OwnAnnotations
from chunkdl.errors import ConfigError
from chunkdl.patches.filters.named import filter_of
from chunkdl.patches.filters.pixel_filter import PixelFilter
from chunkdl.sampling.resolutions import Mixture, Values, values_of
from chunkdl.slides.tissue.detectors.blurred_areas import BlurredAreas
from chunkdl.slides.tissue.detectors.combined import is_detector
from chunkdl.slides.tissue.detectors.detector import TissueDetector
from chunkdl.slides.tissue.detectors.named import detector_of
from chunkdl.slides.tissue.detectors.pen_areas import PenAreas


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


def checked_float(
    name: str,
    value: object,
    unit: str = "",
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> float:
    """`value` as a finite float in its bounds."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not isinstance(value, int | float) or not math.isfinite(number):
        raise ConfigError(f"{name}={_short(value)} must be a number")
    bounds = (
        (least, "at least", least is None or number >= least),
        (above, "above", above is None or number > above),
        (most, "at most", most is None or number <= most),
    )
    if not all(kept for _, _, kept in bounds):
        said = " and ".join(f"{word} {bound}" for bound, word, _ in bounds if bound is not None)
        raise ConfigError(f"{name}={value!r} must be {said}{f' ({unit})' if unit else ''}")
    return number


def _short(value: object) -> str:
    text = f"an int of {value.bit_length()} bits" if isinstance(value, int) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r} must be True or False")
    return value


def checked_path(name: str, value: str | os.PathLike[str] | None) -> Path | None:
    """`value` as a path, which need not be there."""
    if value is not None and not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name}={value!r} is not a path")
    return None if value is None else Path(value)


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """The one of the choices that `value` is, as plain text."""
    if not isinstance(value, str) or value not in choices:
        known = ", ".join(map(repr, choices))
        raise ConfigError(f"{name}={value!r} is unknown; choose one of {known}")
    return choices[choices.index(value)]


MOST_BYTES = 2**63
MOST_POWER = 1000
"""Of an objective."""
SHOWN = 80
"""Letters of a wrong value that a message shows."""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(size: int | str, setting: str) -> int:
    """Bytes of a size like 4294967296, "4GiB", "4G" or "512 MiB" (powers of 1024).

    Raises:
        ConfigError: it is not such a size; names the setting.
    """
    if isinstance(size, int) and not isinstance(size, bool) and 0 < size < MOST_BYTES:
        return int(size)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(size), re.IGNORECASE)
    try:
        found = 0 if match is None else int(float(match[1]) * _UNITS[match[2].upper()])
    except OverflowError:
        found = 0
    if not 1 <= found < MOST_BYTES:
        raise ConfigError(
            f'{setting}={_short(size)} is not a size; give bytes or a text like "4GiB"'
        )
    return found


def checked_size(name: str, value: Any) -> int:
    """Bytes; see `parse_bytes`."""
    return parse_bytes(value, name)


def checked_level(name: str, value: Any) -> int:
    """A level of the pyramid; 1.0 is 1."""
    whole = isinstance(value, float) and value.is_integer()
    return checked_int(name, int(value) if whole else value, 0)


def checked_channels(name: str, value: Any) -> tuple[int, ...]:
    """Three sample numbers, or one."""
    try:
        channels = tuple(operator.index(channel) for channel in value)
    except TypeError:
        channels = ()
    if len(channels) not in (1, 3) or not all(0 <= channel < 1000 for channel in channels):
        raise ConfigError(
            f"{name}={value!r} must be three sample numbers, such as (0, 1, 2) for red, green and "
            "blue, or one for a grey image, such as (0,)"
        )
    return channels


def checked_window(name: str, value: Any) -> tuple[float, float]:
    """The values that become 0 and 255."""
    try:
        low, high = (checked_float(name, one) for one in value)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name}={value!r} must be two numbers (low, high), the values that become 0 and 255"
        ) from error
    if not low < high:
        raise ConfigError(f"{name}={value!r}: the first number must be smaller than the second")
    return low, high


def checked_cycles(name: str, value: Any) -> int | None:
    """How many cycles; None: without end."""
    if value is None or value == "endless":
        return None
    if isinstance(value, str):
        raise ConfigError(f'{name}={value!r} must be an integer of at least 1, or "endless"')
    return checked_int(name, value, 1, 10**6)


def checked_colour(name: str, value: Any) -> tuple[int, int, int]:
    """Red, green and blue."""
    try:
        colour = tuple(operator.index(part) for part in value)
    except TypeError:
        colour = ()
    if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
        raise ConfigError(
            f"{name}={value!r} must be three integers from 0 to 255: red, green and blue"
        )
    red, green, blue = colour
    return red, green, blue


def checked_cores(name: str, value: Any) -> tuple[int, ...]:
    """Cores that this process may use."""
    try:
        cores = tuple(operator.index(core) for core in value)
    except TypeError as error:
        raise ConfigError(f"{name}={value!r} is not a sequence of core numbers") from error
    allowed = os.sched_getaffinity(0)
    if not set(cores) <= allowed:
        raise ConfigError(
            f"{name}={list(cores)} names cores that this process may not use; it may use "
            f"{sorted(allowed)}"
        )
    return cores


def checked_detector(name: str, value: Any) -> TissueDetector | None:
    """A detector by its name, by its name and parameters, or as an object; None: no detector."""
    if value is None or (isinstance(value, str) and value == "none"):
        return None
    if isinstance(value, str | Mapping):
        value = detector_of(value)
    if isinstance(value, PenAreas | BlurredAreas):
        raise ConfigError(
            f"{name}: {value.name} finds what is no tissue, so nothing else would be sampled; take "
            f'it away from tissue, as {{name = "without", detector = "otsu", remove = '
            f'["{value.name}"]}} or TissueWithout(Otsu(), {type(value).__name__}())'
        )
    if not is_detector(value):
        raise ConfigError(
            f'{name}={_short(value)} is not a detector; give a name such as "otsu", "clam" or '
            '"none", a name with parameters such as {"name": "hsv", "value": [0.4, 1]}, a detector '
            'such as Otsu(), or your own function as OwnTissue(function, version="1")'
        )
    detector: TissueDetector = value
    return detector


def checked_filter(name: str, value: Any) -> PixelFilter:
    """A pixel filter by its name, by its name and parameters, or as an object."""
    if isinstance(value, str | Mapping):
        return filter_of(value)
    if isinstance(value, PixelFilter):
        _check_ours(name, value)
        return value
    raise ConfigError(
        f'{name}={value!r:.80} is not a filter; give a name such as "midnight", a name with '
        'parameters such as {"name": "grey", "most": 0.5}, a filter such as HsvShare(), or your '
        'own function as OwnFilter(function, version="1")'
    )


def _check_ours(name: str, value: PixelFilter) -> None:
    """Refuse what derives from a filter: nobody knows when two of its objects are equal."""
    if not type(value).__module__.startswith("chunkdl."):
        kind = type(value).__name__
        raise ConfigError(
            f"{name}: {kind} is a class of yours; give OwnFilter({kind}(…), version=…), so that a "
            "saved state knows which filter it was"
        )
    for part in value.parts:
        _check_ours(name, part)


def checked_annotations(name: str, value: Any) -> Path | OwnAnnotations | None:
    """A folder, or a function of the user's."""
    if callable(value) and not isinstance(value, OwnAnnotations):
        raise ConfigError(
            f'{name}: give a function as OwnAnnotations(function, key="1"), so that its results '
            "can be kept"
        )
    return value if isinstance(value, OwnAnnotations) else checked_path(name, value)


def checked_reading(name: str, value: Any) -> ReadingOptions:
    """How annotations are read, as a table or as an object."""
    if isinstance(value, ReadingOptions):
        return value
    known = tuple(ReadingOptions.__dataclass_fields__)
    if not isinstance(value, Mapping) or not set(value) <= set(known):
        raise ConfigError(f"{name}={value!r:.80} must be a table of {', '.join(known)}")
    given = dict(value)
    if isinstance(given.get("hole_groups"), list):
        given["hole_groups"] = tuple(given["hole_groups"])
    if isinstance(given.get("mask_classes"), Mapping):
        # Keys of a file are text.
        given["mask_classes"] = {_number_of(k): v for k, v in given["mask_classes"].items()}
    return ReadingOptions(**given)


def _number_of(key: Any) -> Any:
    return int(key) if isinstance(key, str) and key.isascii() and key.isdigit() else key


def checked_mpp(name: str, value: Any) -> float | Values:
    """Microns per pixel: a number, or what is drawn for each BigChunk."""
    return _checked_resolution(name, value, "microns/pixel")


def checked_magnification(name: str, value: Any) -> float | Mixture:
    """The power of an objective, as 20, "20x" or weights by power."""
    if isinstance(value, Mixture):
        for power in value.weights:
            _power(name, power)
        return value
    if not isinstance(value, Mapping):
        return _power(name, value)
    powers = {_power(name, power): weight for power, weight in value.items()}
    if len(powers) < len(value):
        raise ConfigError(f"{name}={dict(value)!r:.200} names a power twice")
    try:
        return Mixture(powers)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _power(name: str, value: object) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*[x×]?\s*", str(value), re.IGNORECASE)
    number = 0.0 if found is None or isinstance(value, bool) else float(found[1])
    if not 0 < number <= MOST_POWER:
        raise ConfigError(
            f'{name}={_short(value)} is not the power of an objective; give "20x", 20, or weights '
            'such as {"20x": 1, "10x": 2}'
        )
    return number


def checked_downsample(name: str, value: Any) -> float | Values:
    """The reduction of level 0: a number, or what is drawn for each BigChunk."""
    return _checked_resolution(name, value, "level-0 pixels/pixel")


def _checked_resolution(name: str, value: Any, unit: str) -> float | Values:
    if isinstance(value, Values):
        return value
    if isinstance(value, Mapping):
        return values_of(name, value)
    return checked_float(name, value, unit, above=0)
