"""Which level serves a wish: the table of the policies, and what holds for every wish."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.errors import ConfigError, ResolutionError
from chunkdl.slides.resolution import LevelPolicy, Resolution, TargetGrid, Unit, resolve
from chunkdl.slides.slide import Level, SlideInfo

POLICIES: tuple[LevelPolicy, ...] = ("error", "nearest", "floor", "ceil", "resample")


def slide(
    downsamples: tuple[float, ...] = (1, 2, 4, 16), mpp: tuple[float, float] | None = (0.25, 0.25)
) -> SlideInfo:
    levels = tuple(Level(int(8000 / d), int(6000 / d), d, 256, 256) for d in downsamples)
    return SlideInfo(path="case.svs", reader="tiff", levels=levels, mpp=mpp)


def solve(
    unit: Unit, value: float, policy: LevelPolicy, info: SlideInfo | None = None
) -> TargetGrid | None:
    try:
        return resolve(info or slide(), Resolution(unit, value, policy))
    except ResolutionError:
        return None


@pytest.mark.parametrize(
    ("policy", "wish", "level", "factor"),
    [
        ("error", 1.0, 2, 1.0),
        ("error", 1.009, 2, 1.0),
        ("error", 0.991, 2, 1.0),
        ("error", 1.011, None, None),
        ("error", 0.98, None, None),
        ("nearest", 0.51, 1, 1.0),
        ("nearest", 0.49, 1, 1.0),
        ("nearest", 0.526, 1, 1.0),
        ("nearest", 0.5264, None, None),
        ("nearest", 0.1, None, None),
        ("floor", 0.5, 1, 1.0),
        ("floor", 0.4999, 1, 1.0),
        ("floor", 0.504, 1, 1.0),
        ("floor", 0.51, 2, 1.0),
        ("floor", 0.1, 0, 1.0),
        ("floor", 9.0, 3, 1.0),
        ("ceil", 0.5, 1, 1.0),
        ("ceil", 0.51, 1, 1.0),
        ("ceil", 0.496, 1, 1.0),
        ("ceil", 0.49, 0, 1.0),
        ("ceil", 0.1, 0, 1.0),
        ("ceil", 9.0, 3, 1.0),
        ("resample", 0.5, 1, 1.0),
        ("resample", 0.504, 1, 1.0),
        ("resample", 0.496, 1, 1.0),
        ("resample", 0.505, 1, 1.0),
        ("resample", 0.5051, 1, 1.0102),
        ("resample", 0.6, 1, 1.2),
        ("resample", 0.49, 0, 1.96),
        ("resample", 8.0, 3, 2.0),
        ("resample", 0.2485, 0, 1.0),
        ("resample", 0.24, 0, 1.0),
        ("resample", 0.237, None, None),
    ],
)
def test_each_policy_takes_the_level_of_its_rule(
    policy: LevelPolicy, wish: float, level: int | None, factor: float | None
) -> None:
    """On levels at 0.25, 0.5, 1 and 4 microns per pixel; None is a ResolutionError."""
    for unit, value in (("mpp", wish), ("downsample", wish / 0.25)):
        grid = solve(unit, value, policy)  # type: ignore[arg-type]
        if level is None:
            assert grid is None
        else:
            assert grid is not None
            assert grid.level == level
            assert grid.factor == pytest.approx(factor, rel=1e-9)


def test_the_grid_tells_what_is_delivered_and_not_what_was_asked() -> None:
    """A level within 1 % is delivered as it is, with its own mpp; a resampled one has the wish."""
    asis = solve("mpp", 0.504, "resample")
    assert asis is not None
    assert (asis.mpp, asis.downsample, asis.width, asis.height) == (0.5, 2.0, 4000, 3000)
    made = solve("mpp", 0.9, "resample")
    assert made is not None
    assert made.mpp == pytest.approx(0.9)
    assert made.downsample == pytest.approx(3.6)
    assert (made.width, made.height) == (math.floor(4000 / 1.8), math.floor(3000 / 1.8))


def test_an_mpp_override_replaces_what_the_file_says() -> None:
    """Also where the file says nothing; x and y count by their mean."""
    wish = Resolution("mpp", 1.0, "error")
    assert resolve(slide(mpp=(0.25, 0.25)), wish, (0.4, 0.6)).level == 1
    assert resolve(slide(mpp=None), wish, (0.5, 0.5)).mpp == 1.0


def test_a_slide_without_mpp_names_the_slide_and_both_remedies() -> None:
    """A wish in microns on a slide that does not know them is an error that says what to do."""
    with pytest.raises(ResolutionError, match=r"give mpp .* in the dataset.*downsample=") as caught:
        resolve(slide(mpp=None), Resolution("mpp", 0.5, "resample"))
    assert caught.value.slide == "case.svs"
    assert resolve(slide(mpp=None), Resolution("downsample", 2, "error")).mpp is None


def test_a_slide_that_states_only_its_objective_has_ten_microns_divided_by_its_power() -> None:
    """Where a magnification was asked for; what it says of microns itself counts before that."""
    wish = Resolution("mpp", 0.5, "error", by_objective=True)
    silent = dataclasses.replace(slide(mpp=None), magnification=40.0)
    found = resolve(silent, wish)
    assert (found.level, found.mpp) == (1, 0.5)
    both = dataclasses.replace(slide(mpp=(0.5, 0.5)), magnification=40.0)
    assert resolve(both, wish).level == 0
    assert resolve(silent, wish, (0.125, 0.125)).level == 2
    with pytest.raises(ResolutionError, match="or an objective"):
        resolve(slide(mpp=None), wish)
    with pytest.raises(ResolutionError, match="does not state microns per pixel: "):
        resolve(silent, Resolution("mpp", 0.5, "error"))


@pytest.mark.parametrize(
    ("policy", "wish", "deviation", "level"),
    [
        ("nearest", 0.6, 0.2, 1),
        ("nearest", 0.6, 0.16, None),
        ("nearest", 0.51, 0.0, None),
        ("nearest", 0.1, 100.0, 0),
        ("resample", 0.2, 0.3, 0),
        ("resample", 0.2, 0.2, None),
        ("error", 0.6, 100.0, None),
    ],
)
def test_a_level_may_be_as_far_from_the_wish_as_is_asked_for(
    policy: LevelPolicy, wish: float, deviation: float, level: int | None
) -> None:
    """Under "nearest" any level, under "resample" a level 0 that is too coarse."""
    asked = Resolution("mpp", wish, policy, most_deviation=deviation)
    if level is None:
        with pytest.raises(ResolutionError):
            resolve(slide(), asked)
    else:
        found = resolve(slide(), asked)
        assert (found.level, found.factor) == (level, 1.0)


def test_an_unserved_wish_lists_the_levels_of_the_slide() -> None:
    """The message has every level's value in the unit of the wish."""
    with pytest.raises(ResolutionError, match=r"level 0: 0.25 .*level 3: 4 \(500x375\)"):
        resolve(slide(), Resolution("mpp", 0.7, "error"))


def test_a_level_must_be_there() -> None:
    """A wish for a level is that level under every policy that can have one, or an error."""
    for policy in POLICIES[:-1]:
        grid = solve("level", 2, policy)
        assert grid is not None
        assert (grid.level, grid.factor, grid.downsample, grid.mpp) == (2, 1.0, 4.0, 1.0)
        assert solve("level", 4, policy) is None


@pytest.mark.parametrize(
    ("unit", "value", "policy"),
    [
        ("level", 1.5, "nearest"),
        ("level", -1, "error"),
        ("level", 1, "resample"),
        ("mpp", 0.0, "resample"),
        ("mpp", math.nan, "nearest"),
        ("downsample", math.inf, "floor"),
        ("downsample", -2.0, "ceil"),
    ],
)
def test_a_wish_without_sense_is_a_config_error(
    unit: Unit, value: float, policy: LevelPolicy
) -> None:
    """It is wrong for every slide, so it is the configuration that is wrong."""
    with pytest.raises(ConfigError):
        resolve(slide(), Resolution(unit, value, policy))


def test_an_mpp_override_without_sense_is_a_config_error() -> None:
    """Zero microns per pixel are no override."""
    with pytest.raises(ConfigError, match=r"case\.svs"):
        resolve(slide(), Resolution("mpp", 0.5, "ceil"), (0.0, 0.5))


pyramids = st.lists(st.floats(1.05, 6.0), max_size=5).map(
    lambda steps: tuple(math.prod(steps[:index]) for index in range(len(steps) + 1))
)


@given(
    downsamples=pyramids,
    mpp=st.floats(0.05, 2.0),
    wish=st.floats(0.02, 40.0),
    policy=st.sampled_from(POLICIES),
    unit=st.sampled_from(["mpp", "downsample"]),
)
def test_what_is_delivered_is_what_the_policy_says(
    downsamples: tuple[float, ...], mpp: float, wish: float, policy: LevelPolicy, unit: Unit
) -> None:
    """For any pyramid and wish: never finer than the file, and within the bounds of the policy."""
    info = slide(downsamples, (mpp, mpp))
    grid = solve(unit, wish, policy, info)
    values = [d * (mpp if unit == "mpp" else 1.0) for d in downsamples]
    away = min(abs(value - wish) / wish for value in values)
    if grid is None:
        assert {
            "error": away > 0.01,
            "nearest": away > 0.05,
            "resample": values[0] > wish * 1.05,
        }[policy]
        return
    level = info.levels[grid.level]
    got = values[grid.level] * grid.factor
    assert grid.factor >= 1.0
    assert grid.width * grid.factor <= level.width * (1 + 1e-12)
    assert grid.height * grid.factor <= level.height * (1 + 1e-12)
    assert grid.downsample == pytest.approx(level.downsample * grid.factor)
    assert grid.mpp == pytest.approx(mpp * grid.downsample)
    if away <= 0.01:
        assert got == pytest.approx(wish, rel=0.0101)
    elif policy == "nearest":
        assert got == min(values, key=lambda value: abs(value - wish))
    elif policy == "floor":
        assert got == min([v for v in values if v >= wish], default=values[-1])
    elif policy == "ceil":
        assert got == max([v for v in values if v <= wish], default=values[0])
    elif policy == "resample":
        assert wish * 0.99 <= got <= wish * 1.05 * (1 + 1e-9)
        assert grid.factor == 1.0 or got == pytest.approx(wish, rel=1e-9)
    else:
        pytest.fail("'error' took a level that is not at the wish")
