"""What each pixel filter says of pixels, by what it promises and not by how it computes it."""

from __future__ import annotations

import colorsys
import pickle
from fractions import Fraction
from functools import partial
from typing import Any

import cloudpickle
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chunkdl import (
    AllOf,
    AnyOf,
    Contrast,
    GreyShare,
    HsvShare,
    Not,
    OwnFilter,
    PenMarks,
    PixelFilter,
    Sharpness,
    WhiteShare,
)
from chunkdl.engine.settings.checks import checked_filter
from chunkdl.errors import ConfigError
from chunkdl.patches.filters.named import MOST_DEPTH, filter_of

Pixels = npt.NDArray[np.uint8]

COLOURS = hnp.arrays(np.uint8, (4, 5, 3))
PINK, GLASS, PURPLE = (220, 140, 180), (242, 243, 241), (90, 60, 140)


def filled(*parts: tuple[tuple[int, int, int], int]) -> Pixels:
    """An image of 100 pixels with so many of each colour."""
    colours = [colour for colour, count in parts for _ in range(count)]
    return np.array(colours, np.uint8).reshape(10, 10, 3)


def hsv(colour: npt.NDArray[np.uint8]) -> tuple[Fraction, Fraction, int]:
    """Hue in degrees, 255 times the saturation, and the value, exactly; of greys 0 and 0."""
    red, green, blue = map(int, colour)
    value = max(red, green, blue)
    chroma = value - min(red, green, blue)
    if chroma == 0:
        return Fraction(0), Fraction(0), value
    if value == red:
        hue = Fraction(green - blue, chroma) % 6
    elif value == green:
        hue = Fraction(blue - red, chroma) + 2
    else:
        hue = Fraction(red - green, chroma) + 4
    return hue * 60, Fraction(255 * chroma, value), value


DEGREES = st.integers(0, 360) | st.sampled_from([0, 60, 120, 180, 240, 300, 360])
STEPS = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(sorted)


@given(
    pixels=COLOURS | hnp.arrays(np.uint8, (4, 5, 3), elements=st.integers(0, 4)),
    hue=st.tuples(DEGREES, DEGREES),
    saturation=STEPS,
    value=STEPS,
)
def test_a_pixel_is_in_an_hsv_range_by_its_exact_hue_saturation_and_value(
    pixels: Pixels, hue: tuple[int, int], saturation: list[int], value: list[int]
) -> None:
    """For any colour and any range, also through red; greys have the hue 0."""
    strong, bright = ((low / 255, high / 255) for low, high in (saturation, value))
    found = HsvShare(hue, strong, bright).marked(pixels)
    low, high = hue
    for place in np.ndindex(4, 5):
        degrees, strength, brightness = hsv(pixels[place])
        in_hue = low <= degrees <= high if low <= high else degrees >= low or degrees <= high
        # The saturation is rounded to a step, halves upwards.
        step = (2 * strength + 1) // 2
        right = saturation[0] <= step <= saturation[1] and value[0] <= brightness <= value[1]
        assert found[place] == (in_hue and right), pixels[place]


def test_midnight_has_the_numbers_of_its_paper() -> None:
    """60 % of the pixels in [90-180, 8-255, 103-255] of OpenCV's scales."""
    midnight = filter_of("midnight")
    assert midnight == HsvShare()
    assert midnight == HsvShare((2 * 90, 2 * 180), (8 / 255, 1), (103 / 255, 1), least=0.6)
    assert midnight(filled((PINK, 60), (GLASS, 40)))
    assert not midnight(filled((PINK, 59), (GLASS, 41)))
    assert midnight(filled((PURPLE, 100)))
    assert not midnight(filled(((80, 40, 70), 100)))
    assert not midnight(filled(((200, 180, 120), 100)))


@pytest.mark.parametrize(
    ("counting", "other"),
    [
        (partial(HsvShare, least=0.6), (80, 40, 70)),
        (partial(PenMarks, most=0.5), (20, 160, 60)),
        (GreyShare, (200, 200, 200)),
        (partial(WhiteShare, 0.5), (250, 250, 250)),
    ],
)
def test_a_step_looks_at_every_second_pixel_of_every_second_row(
    counting: Any, other: tuple[int, int, int]
) -> None:
    """The others may be of any colour; a step is a whole number."""
    pixels = np.full((10, 11, 3), other, np.uint8)
    assert not counting()(pixels)
    assert not counting(step=2)(pixels)
    pixels[::2, ::2] = PINK
    assert not counting()(pixels)
    assert counting(step=2)(pixels)
    for wrong in (0, 65, 1.5, True):
        with pytest.raises(ConfigError, match="step must be a whole number from 1"):
            counting(step=wrong)


def test_grey_and_white_are_those_of_slideflow() -> None:
    """Saturation below 0.05 in at most 60 %; the mean of the colours above 230."""
    grey = (200, 200, 191)
    assert colorsys.rgb_to_hsv(*grey)[1] < 0.05 < colorsys.rgb_to_hsv(200, 200, 190)[1] + 1e-9
    assert GreyShare()(filled((grey, 60), (PINK, 40)))
    assert not GreyShare()(filled((grey, 61), (PINK, 39)))
    assert GreyShare()(filled(((200, 200, 190), 100)))
    assert not GreyShare()(filled(((0, 0, 0), 100)))
    assert not WhiteShare(0.5)(filled(((231, 230, 230), 51), (PINK, 49)))
    assert WhiteShare(0.5)(filled(((231, 230, 230), 50), (PINK, 50)))
    assert WhiteShare(0.0)(filled(((230, 230, 230), 100)))


def test_contrast_is_what_is_left_between_the_darkest_and_the_brightest_hundredth() -> None:
    """One pixel of dust on glass is no contrast."""
    dust = filled(((0, 0, 0), 1), ((240, 240, 240), 99))
    assert not Contrast()(dust)
    assert Contrast(cut=0)(dust)
    assert Contrast(0.2)(filled(((100, 100, 100), 50), ((151, 151, 151), 50)))
    assert not Contrast(0.2)(filled(((100, 100, 100), 50), ((150, 150, 150), 50)))


def test_a_blurred_picture_is_not_sharp() -> None:
    """By the variance of the Laplacian, which a plane of any slope does not have."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 200, (4, 4, 1)).repeat(3, axis=2)
    sharp = coarse.repeat(24, axis=0).repeat(24, axis=1).astype(np.uint8)
    line = np.interp(np.arange(96), np.arange(12, 96, 24), np.arange(4))
    low, share = line.astype(int), (line % 1)[:, None, None]
    rows = coarse[low] * (1 - share) + coarse[np.minimum(low + 1, 3)] * share
    blurred = rows[:, low] * (1 - share[:, 0]) + rows[:, np.minimum(low + 1, 3)] * share[:, 0]
    assert Sharpness()(sharp)
    assert not Sharpness()(blurred.astype(np.uint8))
    slope = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 20, 3), np.uint8)
    assert Sharpness().variance(slope) == 0
    dot = np.zeros((3, 4, 3), np.uint8)
    dot[1, 1] = 100
    grey = 100 * 256 // 256
    assert Sharpness().variance(dot) == pytest.approx(np.var([4 * grey, -grey]))


def test_pens_and_ink_are_found_and_stains_are_not() -> None:
    """Green, blue and black marks of more than a hundredth."""
    for pen in ((30, 150, 60), (30, 90, 200), (20, 20, 25)):
        assert PenMarks()(filled((PINK, 99), (pen, 1)))
        assert not PenMarks()(filled((PINK, 98), (pen, 2)))
    for stain in (PINK, PURPLE, GLASS, (200, 30, 40), (120, 80, 50)):
        assert PenMarks()(filled((stain, 100)))


YES, NO = WhiteShare(1.0), OwnFilter(lambda rgb: False, "1", "no")


def test_filters_of_filters_say_what_they_are_called() -> None:
    """Those behind the one that decides are not asked."""
    pixels = filled((PINK, 100))
    asked: list[int] = []
    counts = OwnFilter(lambda rgb: not asked.append(1), "1", "counts")  # type: ignore[func-returns-value]
    assert AllOf(YES, YES)(pixels)
    assert not AllOf(NO, counts)(pixels)
    assert AnyOf(YES, counts)(pixels)
    assert asked == []
    assert not AnyOf(NO, NO)(pixels)
    assert Not(NO)(pixels)
    assert not Not(YES)(pixels)


def test_a_filter_in_a_file_is_the_filter_of_the_program() -> None:
    """By name, by name and numbers, and filters of filters."""
    for said, meant in (
        ("grey", GreyShare()),
        ({"name": "grey", "most": 1}, GreyShare(1.0)),
        (
            {"name": "hsv", "hue": [300, 60], "least": 0, "most": 0.2},
            HsvShare((300, 60), least=0, most=0.2),
        ),
        ({"name": "white", "most": 0.5}, WhiteShare(0.5)),
        ({"name": "contrast", "cut": 0}, Contrast(cut=0.0)),
        ({"name": "blur", "least": 80}, Sharpness(80.0)),
        ("pen", PenMarks()),
        (
            {"name": "all", "filters": ["midnight", {"name": "not", "filter": "pen"}]},
            AllOf(HsvShare(), Not(PenMarks())),
        ),
        ({"name": "any", "filters": ["pen"]}, AnyOf(PenMarks())),
    ):
        found = checked_filter("pixel_filter", said)
        assert (found, found.key) == (meant, meant.key)
        assert pickle.loads(pickle.dumps(found)) == found
        assert eval(repr(found)) == found


def test_filters_that_differ_have_other_keys() -> None:
    """Those of equal numbers of other kinds have the same."""
    many: list[PixelFilter] = [
        *(HsvShare(), HsvShare(least=0.7), HsvShare(hue=(0, 360)), GreyShare(), GreyShare(0.5)),
        *(WhiteShare(0.6), Contrast(), Sharpness(), PenMarks(), Not(PenMarks()), AllOf(PenMarks())),
        *(AnyOf(PenMarks()), AllOf(PenMarks(), GreyShare()), AllOf(GreyShare(), PenMarks())),
        *(OwnFilter(bool, "1"), OwnFilter(bool, "2"), OwnFilter(bool, "1", "other")),
    ]
    assert len({one.key for one in many}) == len(many)
    assert GreyShare(1).key == GreyShare(np.float64(1.0)).key
    assert HsvShare(least=0, most=np.float32(0.5)).key == HsvShare(least=0.0, most=0.5).key  # type: ignore[arg-type]
    # What the function is does not count, or a notebook would lose its states by being run again.
    assert OwnFilter(lambda rgb: True, "3", "a").key == OwnFilter(lambda rgb: False, "3", "a").key


def test_a_function_of_the_user_gets_a_copy_and_answers_yes_or_no() -> None:
    """It may write into what it gets; numpy's booleans are booleans."""

    def greedy(rgb: Pixels) -> Any:
        rgb[:] = 0
        return np.bool_(True)

    pixels = filled((PINK, 100))
    own = pickle.loads(cloudpickle.dumps(OwnFilter(greedy, version="1")))
    assert own(pixels) is True
    assert (pixels == PINK).all()
    assert own.title.endswith("greedy")
    with pytest.raises(TypeError, match="it returned a float64; a filter returns True or False"):
        OwnFilter(np.mean, version="1")(pixels)


class Model:
    """Says when it is unpacked."""

    unpacked = 0

    def __call__(self, rgb: Pixels) -> bool:
        return True

    def __setstate__(self, state: object) -> None:
        Model.unpacked += 1

    def __getstate__(self) -> dict[str, int]:
        return {"weights": 1}


@pytest.mark.parametrize("of", [lambda own: own, AllOf, AnyOf, Not])
def test_a_function_is_unpacked_only_where_it_is_called(of: Any) -> None:
    """A model is not loaded by processes that pass the filter on; the loader does it at once."""
    Model.unpacked = 0
    filter_ = of(OwnFilter(Model(), version="1", title="model"))
    for _ in range(2):
        filter_ = pickle.loads(pickle.dumps(filter_))
    assert Model.unpacked == 0
    assert filter_.key == of(OwnFilter(Model(), version="1", title="model")).key
    filter_.prepare()
    assert Model.unpacked == 1
    assert filter_(filled((PINK, 100))) == (of is not Not)
    assert Model.unpacked == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("midnite", "no pixel filter 'midnite'; choose one of 'midnight', 'hsv', 'grey'"),
        ({"least": 1}, "no pixel filter None"),
        ({"name": ["all"]}, "no pixel filter"),
        ({"name": "grey", "least": 1}, "'grey' has no parameter 'least'; it has most, saturation"),
        ("white", "'white' needs the parameter 'most'"),
        ({"name": "own", "function": "a:b"}, r"cannot be said in a file.*OwnFilter\(function"),
        ({"name": "hsv", "hue": [10, 400]}, "hsv: hue must be a number from 0 to 360, not 400"),
        ({"name": "hsv", "hue": [10.5, 40]}, "whole degrees"),
        ({"name": "hsv", "hue": 7}, "hue must be two numbers, not 7"),
        ({"name": "hsv", "value": [1, 0.5]}, "value must be .low, high."),
        ({"name": "hsv", "least": 0.9, "most": 0.1}, "the same answer"),
        ({"name": "hsv", "least": 0}, "every SmallChunk has the same answer"),
        ({"name": "blur", "least": float("nan")}, "least must be a number from 0 to 1e.06"),
        ({"name": "grey", "most": True}, "most must be a number from 0 to 1, not True"),
        ({"name": "grey", "most": "half"}, "most must be a number"),
        ({"name": "all", "filters": []}, "all is made of filters"),
        ({"name": "all", "filters": "pen"}, "'all' has one parameter"),
        ({"name": "all"}, "'all' has one parameter"),
        ({"name": "not", "filter": ["pen"]}, "'not' has one parameter"),
        ({"name": "any", "filters": [3]}, "3 is no pixel filter"),
        (7, "pixel_filter=7 is not a filter"),
        (len, "your own function as OwnFilter"),
        (HsvShare, "is not a filter"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_to_do(given: Any, told: str) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match=told):
        checked_filter("pixel_filter", given)


def test_filters_cannot_lie_in_each_other_for_ever() -> None:
    """A file from outside cannot make a deep one."""
    given: Any = "pen"
    for _ in range(MOST_DEPTH + 1):
        given = {"name": "not", "filter": given}
    with pytest.raises(ConfigError, match="more than 8 deep"):
        filter_of(given)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: OwnFilter(7, "1"),  # type: ignore[arg-type]
        lambda: OwnFilter(len, 1),  # type: ignore[arg-type]
        lambda: OwnFilter(len, ""),
        lambda: OwnFilter(len, "1", 3),  # type: ignore[arg-type]
        lambda: AllOf(),
        lambda: Not(len),  # type: ignore[arg-type]
        lambda: PenMarks(hue=(1, 2.5)),
        lambda: PenMarks(saturation=2),
        lambda: WhiteShare(0.5, brightness=300),
    ],
)
def test_a_wrong_argument_is_an_error_where_it_is_given(wrong: Any) -> None:
    """And not in a loader."""
    with pytest.raises(ConfigError):
        wrong()


@pytest.mark.parametrize(
    "function",
    [lambda rgb: True, partial(max, 1), Model()],
    ids=["a lambda", "a partial", "an object"],
)
def test_what_has_no_name_of_its_own_needs_a_title(function: Any) -> None:
    """Two of its kind would be taken for the same filter by a saved state."""
    with pytest.raises(ConfigError, match="give title"):
        OwnFilter(function, "1")
    assert OwnFilter(function, "1", "a").key != OwnFilter(function, "1", "b").key


class OfTheUser(GreyShare):
    """Derives from a filter."""


def test_a_class_of_the_users_is_given_as_a_function() -> None:
    """Nobody knows when two of its objects are equal; also inside of others."""
    for wrong in (OfTheUser(), Not(OfTheUser()), AllOf(GreyShare(), OfTheUser())):
        with pytest.raises(ConfigError, match=r"OwnFilter\(OfTheUser"):
            checked_filter("pixel_filter", wrong)
