"""What is drawn for a BigChunk where a stream has several resolutions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.integrate import quad
from scipy.optimize import linprog
from scipy.stats import chisquare, kstest

from chunkdl.errors import ConfigError, ResolutionError
from chunkdl.sampling.resolutions import (
    Continuous,
    Density,
    DrawnResolution,
    Mixture,
    Values,
    values_of,
)
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.slides.resolution import resolve
from chunkdl.slides.slide import Level, SlideInfo

DRAWS = 100_000
LOW, HIGH = 0.25, 2.0
UNLIKELY = 1e-3


def first_of(values: Values, can_give: Callable[[float], bool], draws: int) -> Iterator[float]:
    """What is drawn for each of so many BigChunks of a slide that can give some values."""
    for ordinal in range(draws):
        rng = generator(7, Purpose.RESOLUTION, ordinal)
        yield next(value for value in values.in_order(rng) if can_give(value))


def anything(value: float) -> bool:
    return True


@pytest.mark.parametrize(
    "can_give",
    [anything, lambda value: value >= 0.4, lambda value: value != 1.0, lambda value: value > 0.9],
    ids=["all", "all but the finest", "all but one in the middle", "the last two"],
)
def test_a_mixture_is_drawn_by_its_weights_among_what_a_slide_can_give(
    can_give: Callable[[float], bool],
) -> None:
    """The rest keeps its proportions."""
    weights = {0.25: 1.0, 0.5: 2.0, 1.0: 4.0, 2.0: 0.5}
    drawn = Counter(first_of(Mixture(weights), can_give, 20_000))
    left = {value: weight for value, weight in weights.items() if can_give(value)}
    whole = sum(left.values())
    assert set(drawn) == set(left)
    expected = [weight / whole * 20_000 for weight in left.values()]
    assert chisquare([drawn[value] for value in left], expected).pvalue > UNLIKELY


def test_a_mixture_offers_each_of_its_values_once() -> None:
    """So a slide that can give one, however rare, is never passed over."""
    mixture = Mixture({0.25: 1e9, 0.5: 1.0, 1.0: 1e-9})
    for ordinal in range(50):
        offered = list(mixture.in_order(generator(1, Purpose.RESOLUTION, ordinal)))
        assert sorted(offered) == [0.25, 0.5, 1.0]


def density_of(values: Continuous) -> Callable[[float], float]:
    """The density by its formula, not normalised; of "minmax" between its ends."""
    if values.density == "uniform":
        return lambda x: 1.0
    if values.density == "maxavg":

        def potential(x: float) -> float:
            kernel = quad(lambda y: (min(x, y) / max(x, y)) ** 2, values.low, values.high)
            return float(kernel[0])

        return lambda x: math.exp(potential(x) / values.strength)
    return lambda x: 1 / x


@pytest.mark.parametrize(
    ("density", "strength"),
    [("uniform", 1.0), ("log", 1.0), ("maxavg", 1.0), ("maxavg", 0.1), ("maxavg", 10.0)],
)
@pytest.mark.parametrize("part", [(LOW, HIGH), (0.6, 1.4)], ids=["whole", "a part"])
def test_a_range_is_drawn_by_its_density_restricted_to_what_a_slide_can_give(
    density: Density, strength: float, part: tuple[float, float]
) -> None:
    """Compared with quadrature of the definition; the density is not computed anew for a part."""
    values = Continuous(LOW, HIGH, density, strength)
    drawn = list(first_of(values, lambda value: part[0] <= value <= part[1], 5_000))
    shape = density_of(values)
    edges = np.linspace(*part, 41)
    mass = [quad(shape, low, high)[0] for low, high in pairwise(edges)]
    until = np.concatenate(([0.0], np.cumsum(mass))) / sum(mass)

    def share_below(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.interp(x, edges, until))

    assert kstest(drawn, share_below).pvalue > UNLIKELY


def test_minmax_has_its_atoms_and_is_log_uniform_between() -> None:
    """Half of 1 / (1 + L) of all draws at each end."""
    values = Continuous(LOW, HIGH, "minmax")
    drawn = np.array(list(first_of(values, anything, DRAWS)))
    ratio = math.log(HIGH / LOW)
    atom = 0.5 / (1 + ratio)
    at_ends = [int((drawn == LOW).sum()), int((drawn == HIGH).sum())]
    counted = [*at_ends, DRAWS - sum(at_ends)]
    assert (
        chisquare(counted, [DRAWS * atom, DRAWS * atom, DRAWS * (1 - 2 * atom)]).pvalue > UNLIKELY
    )
    between = drawn[(drawn > LOW) & (drawn < HIGH)]
    # Four digits are coarse beside so many draws.
    spread = np.log(between / LOW) / ratio + 5e-5 * np.random.default_rng(0).uniform(-1, 1)
    assert kstest(spread[:20_000], "uniform").pvalue > UNLIKELY


def test_no_density_tells_more_of_the_least_told_value_than_minmax() -> None:
    """A linear program over densities on a fine grid finds nothing better."""
    grid = np.geomspace(LOW, HIGH, 300)
    kernel = (np.minimum.outer(grid, grid) / np.maximum.outer(grid, grid)) ** 2
    found = linprog(
        c=np.append(np.zeros(300), -1.0),
        A_ub=np.column_stack((-kernel, np.ones(300))),
        b_ub=np.zeros(300),
        A_eq=[np.append(np.ones(300), 0.0)],
        b_eq=[1.0],
        bounds=[(0, None)] * 300 + [(None, None)],
    )
    values = Continuous(LOW, HIGH, "minmax")
    drawn = np.array([values.at((number + 0.5) / 20_000) for number in range(20_000)])
    signal = ((np.minimum.outer(grid, drawn) / np.maximum.outer(grid, drawn)) ** 2).mean(axis=1)
    assert signal.min() == pytest.approx(-found.fun, rel=2e-3)
    assert signal.min() == pytest.approx(1 / (1 + math.log(HIGH / LOW)), rel=1e-3)


def test_equal_wishes_have_equal_keys_and_others_have_others() -> None:
    """The key says which stream it is."""
    assert Mixture({0.25: 1, 0.5: 1}).key == Mixture({0.5: 3.0, 0.25: 3.0, 1.0: 0}).key
    assert Continuous(1, 2, "log", strength=9).key == Continuous(1, 2, "log").key
    # What is an error does not change what is drawn.
    assert Mixture({0.25: 1, 0.5: 1}, exact=True).key == Mixture({0.25: 1, 0.5: 1}).key
    low: Any = np.float64(0.5)
    weights: Any = {np.float32(0.5): np.int64(3)}
    assert Continuous(low, 1).key == Continuous(0.5, 1.0).key
    assert type(Continuous(low, 1).low) is float
    assert Mixture(weights).key == Mixture({0.5: 1}).key


def test_a_dict_of_numbers_is_a_mixture_and_one_with_ends_a_range() -> None:
    """As Python and as a file have them."""
    assert values_of("mpp", {0.25: 1, 0.5: 2}) == Mixture({0.25: 1, 0.5: 2})
    assert values_of("mpp", {"0.25": 1, "0.5": 2}) == Mixture({0.25: 1, 0.5: 2})
    found = values_of("mpp", {"low": 0.25, "high": 2.0, "density": "log", "exact": True})
    assert found == Continuous(0.25, 2.0, "log", exact=True)


WRONG: dict[str, Any] = {
    "nothing": {},
    "all weights 0": {0.5: 0, 1.0: 0},
    "a negative weight": {0.5: 1, 1.0: -1},
    "an endless weight": {0.5: math.inf},
    "a truth value as weight": {0.5: True},
    "a text as weight": {0.5: "1"},
    "a value of 0": {0.0: 1},
    "a value that is not finite": {math.inf: 1},
    "a word": {"fine": 1},
    "one value twice": {"0.5": 1, "0.50": 1},
    "very many": {1 + number / 1000: 1 for number in range(101)},
    "only one end": {"low": 1.0},
    "the ends the wrong way round": {"low": 2.0, "high": 1.0},
    "an empty range": {"low": 1.0, "high": 1.0},
    "an unknown density": {"low": 1.0, "high": 2.0, "density": "normal"},
    "a strength of 0": {"low": 1.0, "high": 2.0, "density": "maxavg", "strength": 0},
    "an unknown key": {"low": 1.0, "high": 2.0, "mean": 1.5},
    "a huge number": {10**400: 1},
    "a truth value": {True: 1},
    "a very wide range": {"low": 1e-300, "high": 1e300},
    "a text for exact": {"low": 1.0, "high": 2.0, "exact": "false"},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_mixture_and_no_range_is_refused(wrong: str) -> None:
    """With the name of the setting."""
    with pytest.raises(ConfigError, match="mpp"):
        values_of("mpp", WRONG[wrong])


@pytest.mark.parametrize("density", ["uniform", "log", "maxavg"])
def test_a_slide_is_judged_by_values_that_are_drawn(density: Density) -> None:
    """As exactly as what is drawn for it: a slide that fits only the upper end would give nothing,
    and one at a level that is near the range gives nothing either.
    """
    drawn = DrawnResolution("mpp", Continuous(0.25, 0.5, density), "resample")
    assert all(not example.near_is_level for example in drawn.examples)
    assert max(example.value for example in drawn.examples) < 0.5
    info = SlideInfo("s.svs", "tiff", (Level(8000, 6000, 1.0, 256, 256),), mpp=(0.5021, 0.5021))
    for example in drawn.examples:
        with pytest.raises(ResolutionError):
            resolve(info, example)
