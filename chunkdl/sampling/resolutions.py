"""Which resolution a BigChunk is read at: the same for all, one of a few, or any of a range.

The resolution is drawn for each BigChunk before its window is, so all its SmallChunks share it and
every position of a slide at that resolution is equally likely. A slide may not be able to give all
of them. What is drawn is then the first candidate that it can give, so that what it cannot give is
left out and the rest keeps its proportions.

`Continuous` has the densities of Moellers et al., arXiv 2601.02198: the signal at resolution y of
patches drawn with density p is S(y) = integral of p(x) K(x, y) dx, with K(x, y) = (min/max)**2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError
from chunkdl.slides.microns import MPP_TIMES_POWER
from chunkdl.slides.resolution import MOST_DEVIATION, LevelPolicy, Resolution, Unit

Density = Literal["uniform", "log", "maxavg", "minmax"]

MOST_CANDIDATES = 4096
"""Draws from a range for one BigChunk. Where a slide gives a hundredth of them, all fail once in
1e18 BigChunks; then another slide takes the turn."""
MOST_RATIO = 10_000
"""Of the ends of a range."""
MOST_VALUES = 100
"""Of a mixture."""
LOOKS = 33
"""Values of a range that are compared with what a slide can give, before anything starts."""
STEPS = 4096
"""Of the table of the density "maxavg"."""


class Values(ABC):
    """Values of mpp or downsample, with their probabilities.

    Attributes:
        exact: a slide that cannot give all of them is an error.
        near_is_level: a level within 1 % of a value is taken as it is.
    """

    exact: bool
    near_is_level: ClassVar[bool] = True

    @abstractmethod
    def in_order(self, rng: np.random.Generator) -> Iterator[float]:
        """The value that is drawn, then those for a slide that cannot give it."""

    @property
    @abstractmethod
    def examples(self) -> tuple[float, ...]:
        """Values by which it is found out what a slide can give, the finest first."""

    @property
    @abstractmethod
    def coarsest(self) -> float:
        """No value is larger."""

    @property
    @abstractmethod
    def key(self) -> list[Any]:
        """Plain data that is equal for equal values only."""


@dataclass(frozen=True)
class Mixture(Values):
    """A few values, each with a weight: ``Mixture({0.25: 1, 0.5: 2, 1.0: 1})``.

    Args:
        weights: by value; not all 0.
        exact: a slide that cannot give one of them is an error. False: it gives the others, in
            their proportions.

    Raises:
        ConfigError: a value is not above 0, a weight is negative, or all are 0.
    """

    weights: Mapping[float, float]
    exact: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping):
            raise ConfigError(f"Mixture({self.weights!r:.100}): give weights by value, as a dict")
        found = {_above_0("a resolution", value): weight for value, weight in self.weights.items()}
        for value, weight in found.items():
            if not (_is_number(weight) and 0 <= weight < math.inf):
                raise ConfigError(f"the weight {weight!r} of {value:g} is not a number from 0 on")
        kept = {value: float(found[value]) for value in sorted(found) if found[value]}
        object.__setattr__(self, "exact", flag_of("exact", self.exact))
        if not 0 < len(kept) <= MOST_VALUES or len(found) < len(self.weights):
            raise ConfigError(
                f"a mixture of {self.weights!r} is not one of 1 to {MOST_VALUES} different "
                "resolutions, each with a weight above 0"
            )
        object.__setattr__(self, "weights", kept)

    def __hash__(self) -> int:
        return hash((tuple(self.weights.items()), self.exact))

    def in_order(self, rng: np.random.Generator) -> Iterator[float]:
        """One by its weight, then one of the others by theirs, until there is none."""
        left = dict(self._of_the_largest)
        while left:
            values = list(left)
            until = np.cumsum([left[value] for value in values])
            ticket = rng.random() * until[-1]
            chosen = values[min(int(np.searchsorted(until, ticket, side="right")), len(left) - 1)]
            del left[chosen]
            yield chosen

    def __str__(self) -> str:
        return "{" + ", ".join(f"{one:g}: {n:g}" for one, n in self.weights.items()) + "}"

    @property
    def examples(self) -> tuple[float, ...]:
        """All of them."""
        return tuple(self.weights)

    @property
    def coarsest(self) -> float:
        """See `Values.coarsest`."""
        return max(self.weights)

    @property
    def key(self) -> list[Any]:
        """Weights 1 and 1 are weights 2 and 2."""
        return ["mixture", [[value, weight] for value, weight in self._of_the_largest.items()]]

    @cached_property
    def _of_the_largest(self) -> dict[float, float]:
        """The weights as shares of the largest: equal wishes have equal numbers."""
        most = max(self.weights.values())
        return {value: weight / most for value, weight in self.weights.items()}


@dataclass(frozen=True)
class Continuous(Values):
    """Any value from `low` to `high`; drawn values are rounded to four digits.

    Args:
        low, high: the range, 0 < low < high.
        density: "uniform"; "log": equally often in equal ratios; "maxavg": towards the values that
            say most about all others, p(x) proportional to exp(K(x) / strength) with
            K(x) = 4x/3 - low³/(3x²) - x²/high; "minmax": so that the value that the others say
            least about is told the most: with L = ln(high / low) a mass of 1 / (2 (1 + L)) at each
            end and the rest log-uniformly between.
        strength: of "maxavg"; large is near uniform, small near its peak.
        exact: a slide that cannot give the whole range is an error. False: it gives a part.

    Raises:
        ConfigError: the numbers are no range, or the density is unknown.
    """

    low: float
    high: float
    density: Density = "uniform"
    strength: float = 1.0
    exact: bool = False
    # Levels would be delivered more often than what is between them.
    near_is_level: ClassVar[bool] = False

    def __post_init__(self) -> None:
        low, high = _above_0("low", self.low), _above_0("high", self.high)
        if not low < high <= MOST_RATIO * low:
            raise ConfigError(
                f"Continuous({low:g}, {high:g}): low must be below high, which is at most "
                f"{MOST_RATIO:,} times as much"
            )
        if self.density not in get_args(Density):
            raise ConfigError(
                f"density={self.density!r} is unknown; choose one of "
                f"{', '.join(map(repr, get_args(Density)))}"
            )
        numbers = {"low": low, "high": high, "strength": _above_0("strength", self.strength)}
        for name, number in numbers.items():
            object.__setattr__(self, name, number)
        object.__setattr__(self, "exact", flag_of("exact", self.exact))

    def in_order(self, rng: np.random.Generator) -> Iterator[float]:
        """Independent draws."""
        for _ in range(MOST_CANDIDATES):
            value = self.at(float(rng.random()))
            yield min(max(float(f"{value:.4g}"), self.low), self.high)

    def at(self, share: float) -> float:
        """The value below which that share of all values is drawn, 0 <= share < 1."""
        low, high = self.low, self.high
        ratio = math.log(high / low)
        if self.density == "uniform":
            return low + share * (high - low)
        if self.density == "log":
            return low * math.exp(share * ratio)
        if self.density == "minmax":
            # Atoms at the ends: what lies beyond them is cut to them.
            inside = share * (1 + ratio) - 0.5
            return low * math.exp(min(max(inside, 0.0), ratio))
        values, until = self._table
        return float(np.interp(share, until, values))

    @cached_property
    def _table(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Values and the share below each, of "maxavg"."""
        x = np.linspace(self.low, self.high, STEPS + 1)
        potential = 4 * x / 3 - self.low**3 / (3 * x**2) - x**2 / self.high
        density = np.exp((potential - potential.max()) / self.strength)
        until = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2)))
        return x, until / until[-1]

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    @property
    def examples(self) -> tuple[float, ...]:
        """Values in equal ratios; the upper end only where it is drawn more than almost never."""
        values = np.geomspace(self.low, self.high, LOOKS).tolist()
        return tuple(values if self.density == "minmax" else values[:-1])

    @property
    def coarsest(self) -> float:
        """See `Values.coarsest`."""
        return self.high

    @property
    def key(self) -> list[Any]:
        """The arguments; a strength that has no meaning is left out."""
        strength = self.strength if self.density == "maxavg" else None
        return ["continuous", self.low, self.high, self.density, strength]


@dataclass(frozen=True, slots=True)
class DrawnResolution:
    """A resolution that is drawn for each BigChunk.

    Attributes:
        unit: of the values.
        values: from which is drawn.
        policy: what is read where no level matches.
        most_deviation, by_objective: see `chunkdl.slides.resolution.Resolution`.
    """

    unit: Unit
    values: Values
    policy: LevelPolicy
    most_deviation: float = MOST_DEVIATION
    by_objective: bool = False

    def candidates(self, generator: Callable[[], np.random.Generator]) -> Iterator[Resolution]:
        """The resolution that is drawn, then those for a slide that cannot give it.

        Args:
            generator: makes the generator of the BigChunk.
        """
        return (self._at(value) for value in self.values.in_order(generator()))

    @property
    def only(self) -> None:
        """There is not one resolution for all BigChunks."""

    @property
    def is_exact(self) -> bool:
        """Whether a slide that cannot give all of them is an error."""
        return self.values.exact

    def __str__(self) -> str:
        text = f"{self.unit}={self.values}"
        return f"{text} (asked for by magnification)" if self.by_objective else text

    @property
    def examples(self) -> tuple[Resolution, ...]:
        """Resolutions by which it is found out what a slide can give, the finest first."""
        return tuple(self._at(one) for one in self.values.examples)

    @property
    def coarsest(self) -> Resolution:
        """None is coarser."""
        return self._at(self.values.coarsest)

    def _at(self, value: float) -> Resolution:
        return Resolution(
            self.unit,
            value,
            self.policy,
            self.values.near_is_level,
            most_deviation=self.most_deviation,
            by_objective=self.by_objective,
        )


@dataclass(frozen=True, slots=True)
class FixedResolution:
    """The same resolution for every BigChunk.

    Attributes:
        only: that resolution.
    """

    only: Resolution

    def candidates(self, generator: Callable[[], np.random.Generator]) -> Iterator[Resolution]:
        """The resolution; nothing is drawn."""
        return iter((self.only,))

    @property
    def is_exact(self) -> bool:
        """A slide that cannot give it is an error, or left out."""
        return True

    def __str__(self) -> str:
        text = f"{self.only.unit}={self.only.value:g}"
        if not self.only.by_objective:
            return text
        return f"magnification={MPP_TIMES_POWER / self.only.value:g}x ({text})"

    @property
    def examples(self) -> tuple[Resolution, ...]:
        """The resolution."""
        return (self.only,)

    @property
    def coarsest(self) -> Resolution:
        """The resolution."""
        return self.only


def values_of(name: str, given: Mapping[Any, Any]) -> Values:
    """What a user means by a dict for mpp or downsample.

    Args:
        name: of the setting.
        given: weights by number, ``{0.25: 1, 0.5: 2}``, whose numbers are texts in a file; or a
            range, ``{"low": 0.25, "high": 2.0, "density": "log"}``.

    Raises:
        ConfigError: it is neither.
    """
    try:
        if "low" in given or "high" in given:
            return Continuous(**given)
        weights = {float(value): weight for value, weight in given.items()}
        if len(weights) == len(given) and not any(isinstance(value, bool) for value in given):
            return Mixture(weights)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(
        f"{name}={dict(given)!r:.200}: give weights by number, such as {{0.25: 1, 0.5: 2}}, or a "
        'range, such as {"low": 0.25, "high": 2.0, "density": "log"}'
    )


def mpp_of_power(power: float | Mixture) -> float | Mixture:
    """Microns per pixel that an objective of that power, or a mixture of them, stands for."""
    if isinstance(power, Mixture):
        weights = {MPP_TIMES_POWER / one: weight for one, weight in power.weights.items()}
        return Mixture(weights, power.exact)
    return MPP_TIMES_POWER / power


def flag_of(name: str, value: object) -> bool:
    """A boolean, or an error that names it."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r} must be True or False")
    return value


def _is_number(value: object) -> bool:
    # Numbers of numpy as well.
    return isinstance(value, Real) and not isinstance(value, bool)


def _above_0(name: str, value: Any) -> float:
    try:
        number = float(value) if _is_number(value) else math.nan
    except OverflowError:
        number = math.inf
    if not 0 < number < math.inf:
        raise ConfigError(f"{name}={value!r} must be a number above 0")
    return number
