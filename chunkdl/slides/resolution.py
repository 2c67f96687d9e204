"""Which level serves a wished resolution, and the grid of target pixels that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from chunkdl.errors import ConfigError, ResolutionError
from chunkdl.slides.microns import MPP_TIMES_POWER
from chunkdl.slides.slide import SlideInfo

Unit = Literal["level", "mpp", "downsample"]
LevelPolicy = Literal["error", "nearest", "floor", "ceil", "resample"]


MATCH_LIMIT = 0.01
"""Relative difference up to which a level is the wished resolution, under every policy: scanners do
not know their microns per pixel better, and levels are rounded to whole pixels."""
EQUAL_LIMIT = 1e-6
"""Relative difference of numbers that differ by their rounding only."""
MOST_DEVIATION = 0.05
"""Of `Resolution.most_deviation`, where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """A wished resolution.

    Attributes:
        unit: of the value.
        value: the wish.
        policy: what is read where no level is at it; see `resolve`.
        near_is_level: a level within `MATCH_LIMIT` of it, and a level 0 that is up to
            `most_deviation` coarser, are taken as they are. False: only what is delivered at
            exactly this resolution.
        most_deviation: relative difference up to which "nearest" takes a level, and "resample" a
            level 0 that is too coarse.
        by_objective: a slide that states the power of its objective and no microns per pixel has
            `MPP_TIMES_POWER` / power of them.
    """

    unit: Unit
    value: float
    policy: LevelPolicy
    near_is_level: bool = True
    most_deviation: float = MOST_DEVIATION
    by_objective: bool = False

    @property
    def match_limit(self) -> float:
        """Relative difference up to which a level is the wish."""
        return MATCH_LIMIT if self.near_is_level else EQUAL_LIMIT


@dataclass(frozen=True, slots=True)
class TargetGrid:
    """The pixels of one slide at the wished resolution: the *target frame* of the plan.

    Target pixel (X, Y) covers the level's area [X·factor, (X+1)·factor) × [Y·factor, (Y+1)·factor).

    Attributes:
        level: the level that is read.
        factor: level pixels per target pixel; 1.0 means that the level is delivered as it is.
        width, height: target pixels that lie wholly inside the level.
        downsample: level-0 pixels per target pixel.
        mpp: microns per target pixel, None where the slide does not say.
    """

    level: int
    factor: float
    width: int
    height: int
    downsample: float
    mpp: float | None


def wished_resolution(
    level: int | None,
    mpp: float | None,
    downsample: float | None,
    policy: LevelPolicy | None = None,
    most_deviation: float = MOST_DEVIATION,
) -> Resolution:
    """The resolution that the arguments of a user mean; level 0 where none is given.

    Raises:
        ConfigError: there are several, or one is not a number that it may be.
    """
    wishes: dict[Unit, float | None] = {"level": level, "mpp": mpp, "downsample": downsample}
    given = {unit: value for unit, value in wishes.items() if value is not None}
    if len(given) > 1:
        raise ConfigError(f"give one of level, mpp and downsample, not {', '.join(given)}")
    level_0: tuple[Unit, float] = ("level", 0)
    unit, value = next(iter(given.items()), level_0)
    if policy is None:
        policy = "error" if unit == "level" else "resample"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{unit}={value!r} is not a number")
    resolution = Resolution(unit, value, policy, most_deviation=most_deviation)
    check_resolution(resolution)
    return resolution


GIVE_MPP = (
    "give mpp for such slides in the dataset (Record(..., {'mpp': 0.25}) or the column mpp of the "
    "manifest)"
)
"""What to do about a file that does not say its microns per pixel."""


def resolve(
    info: SlideInfo, resolution: Resolution, mpp: tuple[float, float] | None = None
) -> TargetGrid:
    """Choose the level that serves the wish, and lay the grid of target pixels on it.

    Let r be the wish and v the value of a level in the same unit: its index, its microns per
    pixel, or its downsample. A level within 1 % of r is taken as it is under
    every policy. Else

    ========== ====================================================================
    error      no level
    nearest    the smallest abs(v - r), if it is at most `most_deviation` (5 %) of r
    floor      the smallest v >= r: not finer than asked; the coarsest if there is none
    ceil       the largest v <= r: not coarser than asked; level 0 if there is none
    resample   as ceil, reduced by the factor r / v; level 0 as it is where it is up to
               `most_deviation` coarser than r (0.2528 for 0.25); a finer wish is an error
    ========== ====================================================================

    A slide has one mpp here, the mean of x and y. `TargetGrid.mpp` and `TargetGrid.downsample`
    tell what is delivered, not what was asked for.

    Args:
        info: the facts of the slide.
        resolution: the wish, the same for every slide.
        mpp: microns per pixel of level 0 as (x, y), in place of what the file says.

    Raises:
        ConfigError: the wish makes no sense for any slide.
        ResolutionError: this slide cannot serve it.
    """
    check_resolution(resolution)
    base_mpp = mean_mpp(info, resolution, mpp)
    values = _values(info, resolution, base_mpp)
    level = _choose(info, resolution, values)
    factor = 1.0
    if resolution.policy == "resample":
        factor = _reduction(info, resolution, values[level])
    chosen = info.levels[level]
    width, height = math.floor(chosen.width / factor), math.floor(chosen.height / factor)
    if min(width, height) < 1:
        raise _unserved(info, resolution, values, "the slide is smaller than one target pixel")
    downsample = factor * chosen.downsample
    return TargetGrid(
        level=level,
        factor=factor,
        width=width,
        height=height,
        downsample=downsample,
        mpp=None if base_mpp is None else base_mpp * downsample,
    )


def check_resolution(resolution: Resolution) -> None:
    """Check what can be checked without a slide.

    Raises:
        ConfigError: the wish makes no sense for any slide.
    """
    unit, value, policy = resolution.unit, resolution.value, resolution.policy
    if unit != "level":
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{unit}={value!r} is not a resolution; give a number above 0")
        return
    if not (math.isfinite(value) and value >= 0 and value == int(value)):
        raise ConfigError(f"level={value!r} is not a level; give an integer of at least 0")
    if policy == "resample":
        raise ConfigError(
            "level= needs no resampling; with the policy 'resample' give mpp= or downsample=, or "
            "choose another policy for level="
        )


def mean_mpp(
    info: SlideInfo, resolution: Resolution, override: tuple[float, float] | None
) -> float | None:
    """Microns per pixel of level 0, the mean of x and y; None where nothing says it.

    Args:
        info: the facts of the slide.
        resolution: says whether the power of the objective counts.
        override: as (x, y), in place of what the file says.

    Raises:
        ConfigError: what was given is not above 0.
    """
    given = info.mpp if override is None else override
    if given is None:
        if resolution.by_objective and info.magnification:
            return MPP_TIMES_POWER / info.magnification
        return None
    if not all(math.isfinite(value) and value > 0 for value in given):
        raise ConfigError(f"the mpp {given} given for slide {info.path} is not above 0")
    return (given[0] + given[1]) / 2


def _values(info: SlideInfo, resolution: Resolution, base_mpp: float | None) -> tuple[float, ...]:
    """The value of every level in the unit of the wish."""
    if resolution.unit == "level":
        return tuple(float(index) for index in range(len(info.levels)))
    if resolution.unit == "downsample":
        return tuple(level.downsample for level in info.levels)
    if base_mpp is None:
        raise ResolutionError(
            f"mpp={resolution.value:g} was asked for, but the file does not state microns per "
            f"pixel{' or an objective' * resolution.by_objective}: {GIVE_MPP}, or ask for level= "
            "or downsample=",
            slide=info.path,
        )
    return tuple(base_mpp * level.downsample for level in info.levels)


def _choose(info: SlideInfo, resolution: Resolution, values: tuple[float, ...]) -> int:
    """Index of the level to read."""
    wish, policy = resolution.value, resolution.policy
    nearest = min(range(len(values)), key=lambda index: abs(values[index] - wish))
    away = abs(values[nearest] - wish)
    if away <= resolution.match_limit * wish:
        return nearest
    if resolution.unit == "level" or policy == "error":
        raise _unserved(info, resolution, values, "no level matches")
    if policy == "nearest":
        if away > resolution.most_deviation * wish:
            limit = f"no level is within {resolution.most_deviation * 100:g} % of it"
            raise _unserved(info, resolution, values, f"{limit} (max_relative_deviation)")
        return nearest
    if policy == "floor":
        coarser = [index for index, value in enumerate(values) if value >= wish]
        return min(coarser or [_coarsest(values)], key=lambda index: values[index])
    finer = [index for index, value in enumerate(values) if value <= wish]
    return max(finer or [0], key=lambda index: values[index])


def _coarsest(values: tuple[float, ...]) -> int:
    return max(range(len(values)), key=lambda index: values[index])


def _reduction(info: SlideInfo, resolution: Resolution, value: float) -> float:
    """Level pixels per target pixel under the policy "resample"."""
    wish = resolution.value
    coarser = resolution.most_deviation if resolution.near_is_level else EQUAL_LIMIT
    if abs(value - wish) <= resolution.match_limit * wish or wish < value <= wish * (1 + coarser):
        return 1.0
    if value > wish:
        raise ResolutionError(
            f"{resolution.unit}={wish:g} is finer than level 0, which is at {value:g}; chunkdl "
            "does not enlarge pixels. Ask for a coarser resolution, or leave this slide out "
            "(with on_error='substitute')",
            slide=info.path,
        )
    return wish / value


def _unserved(
    info: SlideInfo, resolution: Resolution, values: tuple[float, ...], why: str
) -> ResolutionError:
    have = ", ".join(
        f"level {index}: {value:g} ({level.width}x{level.height})"
        for index, (value, level) in enumerate(zip(values, info.levels, strict=True))
    )
    return ResolutionError(
        f"{resolution.unit}={resolution.value:g} with the policy {resolution.policy!r}: {why}; in "
        f"this unit the slide has {have}",
        slide=info.path,
    )
