"""What each operation does to pixels, by what it promises and not by how it computes it."""

from __future__ import annotations

import colorsys
import io
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import hed2rgb, rgb2hed

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.planes import changed
from chunkdl.patches.augmentation.augment import Augment
from chunkdl.patches.augmentation.colours import ColourJitter, Grey, Solarise, hue_shifted
from chunkdl.patches.augmentation.crops import Cutout, ResizedCrop, drawn_boxes
from chunkdl.patches.augmentation.jpeg import Jpeg, compressed
from chunkdl.patches.augmentation.operation import Operation
from chunkdl.patches.augmentation.quality import Blur, Noise
from chunkdl.patches.augmentation.random_numbers import uniforms
from chunkdl.patches.augmentation.stains import HedJitter, HedShift, StainJitter
from chunkdl.patches.augmentation.symmetries import Flip, QuarterTurn, Symmetry
from chunkdl.patches.stain.macenko import Macenko
from chunkdl.patches.stain.reinhard import Reinhard
from tests.patches.stain.stained import Pixels, called, levels_apart, stained

ROWS = 8000
MANY = np.arange(ROWS, dtype=np.uint64)
SMALL = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
IMAGES = hnp.arrays(np.uint8, (4, 4, 3))
Numbers = npt.NDArray[Any]


def made_of(operation: Operation, image: Pixels, rows: int = ROWS) -> Pixels:
    """What becomes of one image with the keys 0, 1, 2, …"""
    same = np.broadcast_to(image, (rows, *image.shape))
    found: Pixels = Augment(operation)(same.copy(), MANY[:rows])
    return found


def share_changed(operation: Operation, image: Pixels, rows: int = ROWS) -> float:
    """Of the rows, how many are not as they were."""
    return float((made_of(operation, image, rows) != image).any((1, 2, 3)).mean())


def is_near(share: float, expected: float, rows: int = ROWS) -> bool:
    """Within four standard deviations of a binomial distribution."""
    return bool(abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / rows))


# ---- Symmetries


def counts_of(operation: Operation) -> dict[bytes, float]:
    """How often each result comes."""
    found = Counter(row.tobytes() for row in made_of(operation, SMALL))
    return {image: count / ROWS for image, count in found.items()}


def test_each_of_the_eight_symmetries_comes_in_an_eighth_of_the_rows() -> None:
    """Exactly the eight, and no other image."""
    eight = {
        np.ascontiguousarray(np.rot90(side, turns)).tobytes()
        for side in (SMALL, SMALL[:, ::-1])
        for turns in range(4)
    }
    found = counts_of(Symmetry())
    assert set(found) == eight
    assert all(is_near(share, 1 / 8) for share in found.values())


def test_quarter_turns_and_flips_have_their_rates() -> None:
    """A quarter of the rows each turn; half of them each flip; together all eight."""
    found = counts_of(QuarterTurn())
    turns = {np.ascontiguousarray(np.rot90(SMALL, turns)).tobytes() for turns in range(4)}
    assert set(found) == turns
    assert all(is_near(share, 1 / 4) for share in found.values())
    for axis, flipped in (("x", SMALL[:, ::-1]), ("y", SMALL[::-1])):
        found = counts_of(Flip(axis))
        assert set(found) == {SMALL.tobytes(), np.ascontiguousarray(flipped).tobytes()}
        assert is_near(found[SMALL.tobytes()], 0.5)
    same = np.broadcast_to(SMALL, (ROWS, *SMALL.shape)).copy()
    letters = Augment(Flip("x"), Flip("y"), QuarterTurn())(same, MANY)
    eight = Counter(row.tobytes() for row in letters)
    assert len(eight) == 8
    assert all(is_near(count / ROWS, 1 / 8) for count in eight.values())


def test_an_image_that_is_not_square_can_be_flipped_and_not_turned() -> None:
    """The rows of a batch would have different shapes."""
    wide = stained(0)[:20]
    assert np.array_equal(Augment(Flip("x", 1))(wide, 0), wide[:, ::-1])
    for operation in (Symmetry(), QuarterTurn()):
        with pytest.raises(ConfigError, match="48 x 20 pixels cannot be turned"):
            Augment(operation)(wide, 0)


# ---- Rates


@pytest.mark.parametrize(
    ("operation", "rate"),
    [
        (Blur((0.5, 2.0), 0.1), 0.1),
        (Blur(), 0.5),
        (ColourJitter(), 0.8),
        (Grey(), 0.2),
        (Solarise(), 0.2),
        (Cutout(), 0.5),
        (Noise((0.05, 0.05)), 0.5),
        (HedShift(), 0.5),
        (HedJitter(), 1.0),
        (Jpeg(50, 60), 0.5),
    ],
    ids=called,
)
def test_an_operation_changes_the_share_of_rows_that_it_states(
    operation: Operation, rate: float
) -> None:
    """Counted over keys."""
    rows = 2000
    assert is_near(share_changed(operation, stained(0, side=8), rows), rate, rows)


def test_jpeg_draws_each_quality_as_often() -> None:
    """Of 50 to 52, by what comes out: a third each."""
    image = stained(0, side=16)
    found = Counter(row.tobytes() for row in made_of(Jpeg(50, 52, 1), image, 1500))
    known = [changed(image, _at_quality(quality)).tobytes() for quality in (50, 51, 52)]
    assert set(found) == set(known)
    assert all(is_near(found[one] / 1500, 1 / 3, 1500) for one in known)


NOTHING = [
    ColourJitter(0, 0, 0, 0, 1),
    Noise((0, 0), 1),
    HedJitter(0),
    Solarise(1, 1),
    Blur((0.01, 0.01), 1),
    ResizedCrop(4, (1, 1), (1, 1)),
    Cutout((1e-6, 1e-6), p=1),
]


@given(IMAGES, st.integers(0, 2**64 - 1))
def test_an_operation_without_strength_changes_nothing(image: Pixels, key: int) -> None:
    """Every level stays; (solarise inverts nothing but white)."""
    image = np.minimum(image, 254)
    for operation in NOTHING:
        assert np.array_equal(Augment(operation).row(image, key), image), operation


EVERY: list[Operation] = [
    *(Symmetry(), QuarterTurn(), Flip(), ResizedCrop(5), ColourJitter(9, 9, 9, 0.5, 1), Grey(1)),
    *(HedJitter(1, 5), HedShift(1, 1), StainJitter(Macenko(), "v1"), StainJitter(Reinhard(), "v1")),
    *(Blur((0.1, 9), 1), Noise((1, 1), 1), Jpeg(1, 100, 1), Solarise(0.1, 1), Cutout(p=1)),
]


@settings(max_examples=40)
@given(IMAGES, st.integers(0, 2**64 - 1))
def test_every_result_is_an_image(image: Pixels, key: int) -> None:
    """Finite, of the dtype that was given, from 0 to 1, at the largest strengths."""
    for operation in EVERY:
        levels = Augment(operation).row(image, key)
        assert levels.dtype == np.uint8
        floats = Augment(operation).row(image / np.float32(255), key)
        assert floats.dtype == np.float32
        assert np.isfinite(floats).all(), operation
        assert floats.min() >= 0
        assert floats.max() <= 1
        assert floats.shape == levels.shape


# ---- Colours


def blended(image: Numbers, other: Any, factor: float) -> Any:
    return np.clip(image * factor + other * (1 - factor), 0, 1)


def luma(image: Numbers) -> Any:
    return image @ np.array([0.2989, 0.587, 0.114])


@pytest.mark.parametrize(
    ("which", "strength"), [("brightness", 0.4), ("contrast", 0.4), ("saturation", 0.9)]
)
def test_jitter_of_one_kind_blends_as_torchvision_says(which: str, strength: float) -> None:
    """With black, with the mean grey or with the grey of the pixel; uniformly strong."""
    image = stained(0, side=6) / np.float32(255)
    others = {"brightness": 0, "contrast": luma(image).mean(), "saturation": luma(image)[..., None]}
    only = {"brightness": 0, "contrast": 0, "saturation": 0, which: strength}
    made = Augment(ColourJitter(**only, hue=0, p=1))(np.stack([image] * 500), MANY[:500])
    apart = image - others[which]
    place = np.unravel_index(np.abs(apart - 0.1).argmin(), image.shape)
    base = np.broadcast_to(others[which], image.shape)[place]
    factors = (made[(slice(None), *place)] - base) / apart[place]
    assert factors.min() >= 1 - strength - 1e-3
    assert factors.max() <= 1 + strength + 1e-3
    assert abs(np.mean(factors < 1) - 0.5) < 0.1
    for row, factor in zip(made[:20], factors, strict=False):
        assert np.abs(row - blended(image, others[which], float(factor))).max() < 1e-3


@given(IMAGES, st.floats(-0.5, 0.5))
def test_a_hue_is_turned_and_nothing_else(image: Pixels, turn: float) -> None:
    """Against the standard library, for all colours."""
    made = changed(
        image / np.float32(255),
        lambda maths, planes: hue_shifted(
            maths, planes, maths.array(np.full((1, 1, 1, 1), turn, np.float32))
        ),
    )
    for pixel, found in zip(image.reshape(-1, 3) / 255, made.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
        assert np.abs(found - expected).max() < 1e-4


def test_the_four_changes_come_in_every_order() -> None:
    """As torchvision draws a permutation: 24 orders give 24 results of one pixel."""
    jitter = ColourJitter(0.5, 0.5, 0.5, 0.5, 1)
    image = np.array([[[0.5, 0.4, 0.3], [0.2, 0.3, 0.6]]], np.float32)
    keys = MANY[:500]
    draws = uniforms(keys, 0, 0, 6)[:, 1:]
    orders = np.floor(draws[:, 4] * 24)
    assert set(orders) == set(range(24))
    amounts = [0.5 + draws[:, index] for index in range(4)]
    made = Augment(jitter)(np.stack([image] * 500), keys)
    # Order 0 is brightness, contrast, saturation, hue.
    for row in np.flatnonzero(orders == 0):
        bright = np.clip(image * amounts[0][row], 0, 1)
        strong = blended(bright, luma(bright).mean(), amounts[1][row])
        full = blended(strong, luma(strong)[..., None], amounts[2][row])
        for pixel, found in zip(full.reshape(-1, 3), made[row].reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            turn = draws[row, 3] - 0.5
            expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            assert np.abs(found - expected).max() < 1e-4


@given(IMAGES)
def test_grey_and_solarise_are_pixel_by_pixel(image: Pixels) -> None:
    """The luma in all colours; from 128 on inverted."""
    assert levels_apart(Augment(Grey(1)).row(image, 0), np.rint(luma(image))[..., None]) <= 1
    expected = np.where(image >= 128, 255 - image, image)
    assert np.array_equal(Augment(Solarise(p=1)).row(image, 0), expected)


# ---- Stains


def test_hed_jitter_is_that_of_the_paper() -> None:
    """S = -ln(P + eps) M^-1, a S + b, and back, with a and b in their ranges and uniform."""
    image = stained(0, side=8)
    keys = MANY[:200]
    made = Augment(HedJitter(0.1, 0.05))(np.stack([image / np.float32(255)] * 200), keys)
    draws = uniforms(keys, 0, 0, 7)[:, 1:]
    matrix = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    dyes = -np.log(image / 255 + 1e-6) @ np.linalg.inv(matrix)
    for row in range(200):
        scale, shift = 0.9 + 0.2 * draws[row, :3], -0.05 + 0.1 * draws[row, 3:]
        expected = np.clip(np.exp(-((dyes * scale + shift) @ matrix)) - 1e-6, 0, 1)
        assert np.abs(made[row] - expected).max() < 1e-4


def test_wsistream_has_the_same_formula() -> None:
    """With its own random numbers put in: sigma 0 leaves the shift, which is drawn last."""
    hed = pytest.importorskip("wsistream.transforms.hed", reason="wsistream is not installed")
    image = stained(0, side=8)
    same = hed.HEDColorAugmentation(sigma=0.0, sigma_bias=0.0)(image)
    assert levels_apart(Augment(HedJitter(0)).row(image, 0), same) <= 1
    strong = [hed.HEDColorAugmentation(sigma=0.2, seed=seed)(image) for seed in range(300)]
    ours = Augment(HedJitter(0.2))(np.stack([image] * 300), MANY[:300])
    assert np.abs(np.mean(strong, 0) - ours.mean(0)).max() < 6
    assert np.abs(np.std(strong, 0) - ours.std(0)).max() < 6


def test_hed_shift_is_that_of_openmidnight() -> None:
    """scikit-image's rgb2hed, a shift of each dye, and hed2rgb."""
    image = stained(0, side=8)
    keys = MANY[:100]
    made = Augment(HedShift(p=1))(np.stack([image] * 100), keys)
    shifts = 0.05 * (2 * uniforms(keys, 0, 0, 4)[:, 1:] - 1)
    for row in range(100):
        expected = hed2rgb(rgb2hed(image) + shifts[row])
        assert levels_apart(made[row], np.rint(expected * 255)) <= 1


@pytest.mark.parametrize("normaliser", [Macenko(), Macenko(fast=True), Reinhard()], ids=called)
def test_stains_are_normalised_around_the_target(normaliser: Macenko | Reinhard) -> None:
    """Each row to a target of its own, whose mean is the target and whose spread is slideflow's."""
    image = stained(0, side=16) / np.float32(255)
    still = normaliser.normalised(image)
    narrow, wide = (
        Augment(StainJitter(normaliser, preset))(np.stack([image] * 300), MANY[:300])
        for preset in ("v2", "v1")
    )
    assert 0 < narrow.std(0).mean() < wide.std(0).mean()
    assert np.abs(narrow.mean(0) - still).max() < 0.05
    assert np.allclose(normaliser.spread("v1"), normaliser.spread("v2") * 5 / 3)
    assert normaliser.spread("v2").shape == normaliser.target.shape


def test_the_spread_of_macenko_is_the_published_one() -> None:
    """Three times the deviations of fits, as slideflow's v2."""
    expected = [0.00893346, 0.01153686, 0.00659814, 0.00722771, 0.00726339, 0.01352414]
    assert np.allclose(Macenko().spread("v2"), 3 * np.array([*expected, 0.06665898, 0.06770515]))
    with pytest.raises(ConfigError, match="no preset 'v3'"):
        StainJitter(Macenko(), "v3")


# ---- Sharpness, grain and compression


def test_blur_is_a_gaussian_of_the_sigma_that_was_drawn() -> None:
    """Against scipy, with the image mirrored at its edges; not cut to a few pixels."""
    image = stained(0, side=24) / np.float32(255)
    keys = MANY[:30]
    blur = Blur((0.5, 2.0), 1)
    made = Augment(blur)(np.stack([image] * 30), keys)
    sigmas = 0.5 + 1.5 * uniforms(keys, 0, 0, 2)[:, 1]
    for row in range(30):
        expected = gaussian_filter(
            image, (sigmas[row], sigmas[row], 0), mode="mirror", radius=(6, 6, 0)
        )
        assert np.abs(made[row] - expected).max() < 1e-4
    assert blur.reach_px == 6
    assert Augment(Blur((3, 3), 1)).row(image[:1, :1], 0).shape == (1, 1, 3)


def test_noise_is_gaussian_and_differs_by_pixel_colour_and_row() -> None:
    """With the standard deviation that was drawn."""
    image = np.full((64, 64, 3), 0.5, np.float32)
    made = Augment(Noise((0.02, 0.02), 1))(np.stack([image] * 4), MANY[:4]) - 0.5
    assert abs(made.std() - 0.02) < 0.0005
    assert abs(made.mean()) < 0.0005
    apart = np.corrcoef(made.transpose(0, 3, 1, 2).reshape(12, -1)) - np.eye(12)
    assert np.abs(apart).max() < 0.08
    drawn = Augment(Noise((0, 0.1), 1))(np.stack([image] * 200), MANY[:200]).std((1, 2, 3))
    assert drawn.min() < 0.01
    assert drawn.max() > 0.09


def _at_quality(quality: int) -> Any:
    return lambda maths, planes: compressed(maths, planes, np.array([quality]))


@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 90, 100])
@pytest.mark.parametrize("size", [(48, 48), (35, 50)])
def test_jpeg_is_that_of_libjpeg(quality: int, size: tuple[int, int]) -> None:
    """Much nearer to libjpeg's pixels than those are to the image: a level in the mean."""
    rough = Image.fromarray(stained(3, side=64))
    image = np.asarray(rough.resize(size[::-1], Image.Resampling.BICUBIC))
    written = io.BytesIO()
    Image.fromarray(image).save(written, "JPEG", quality=quality)
    expected = np.asarray(Image.open(written).convert("RGB")).astype(np.int64)
    found = changed(image, _at_quality(quality)).astype(np.int64)
    apart = np.abs(found - expected).mean()
    assert apart < 1
    assert apart < 0.15 * np.abs(expected - image).mean()


# ---- Crops


def test_a_resized_crop_is_interpolated_as_torch_does() -> None:
    """Bilinear with antialiasing, for parts larger and smaller than the result."""
    image = stained(0, side=40) / np.float32(255)
    keys = MANY[:40]
    crop = ResizedCrop(24)
    made = Augment(crop)(np.stack([image] * 40), keys)
    draws = uniforms(keys, 0, 0, 1 + crop.draws)[:, 1:]
    boxes, fits = drawn_boxes(draws, (40, 40), crop.area, crop.aspect)
    assert fits.all()
    assert made.shape == (40, 24, 24, 3)
    for (top, left, h, w), row in zip(boxes, made, strict=True):
        part = torch.from_numpy(image[top : top + h, left : left + w].copy()).permute(2, 0, 1)
        expected = torch.nn.functional.interpolate(
            part[None], (24, 24), mode="bilinear", antialias=True
        )
        assert np.abs(row - expected[0].permute(1, 2, 0).numpy()).max() < 1e-4


def test_crops_have_the_areas_and_aspects_that_are_asked_for() -> None:
    """Areas uniform, aspects uniform in their logarithm, places uniform, all inside."""
    draws = uniforms(MANY, 0, 0, 22)
    boxes, fits = drawn_boxes(draws, (1000, 1000), (0.1, 0.4), (0.5, 2.0))
    top, left, h, w = boxes.T
    assert fits.all()
    assert (np.minimum(top, left) >= 0).all()
    assert (np.maximum(top + h, left + w) <= 1000).all()
    shares, ratios = h * w / 1e6, np.log2(w / h)
    for values, low, high in ((shares, 0.1, 0.4), (ratios, -1, 1)):
        assert values.min() > low - 0.01
        assert values.max() < high + 0.01
        counted, _ = np.histogram(values, 4, (low, high))
        assert all(is_near(count / ROWS, 1 / 4) for count in counted)
    assert abs(np.mean(top / (1000 - h)) - 0.5) < 0.02


def test_a_crop_that_never_fits_is_the_middle() -> None:
    """As torchvision's: the largest part with an aspect that is allowed."""
    image = np.arange(10, dtype=np.uint8).repeat(20 * 3).reshape(10, 20, 3) * 20
    made = Augment(ResizedCrop(10, (1, 1), (1, 1))).row(image, 0)
    assert np.array_equal(made, image[:, 5:15])


def test_a_cutout_is_a_rectangle_of_its_area() -> None:
    """In one level, and the rest of the image is as it was."""
    image = np.full((40, 40, 3), 100, np.uint8)
    made = made_of(Cutout((0.1, 0.2), (0.5, 2), level=1, p=1), image, 300)
    inside = (made == 255).all(-1)
    assert ((made == 100).all(-1) | inside).all()
    areas = inside.mean((1, 2))
    assert areas.min() > 0.08
    assert areas.max() < 0.22
    for one in inside:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


# ---- Errors


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Flip("z"), 'axis must be "x" or "y"'),
        (lambda: Flip(p=1.5), "p must be a number from 0 to 1"),
        (lambda: Blur((2, 1)), r"sigma_px must be \(low, high\)"),
        (lambda: Blur(2.0), "sigma_px must be two numbers"),  # type: ignore[arg-type]
        (lambda: Jpeg(60, 50), "lowest must be a number from 1 to 50"),
        (lambda: Jpeg(1.5), "lowest must be a whole number"),  # type: ignore[arg-type]
        (lambda: ResizedCrop(0), "size_px must be a number from 1"),
        (lambda: ColourJitter(hue=0.6), "hue must be a number from 0 to 0.5"),
        (lambda: Noise((0, float("nan"))), "sigma must be a number"),
        (lambda: HedJitter(sigma_bias=-1), "sigma_bias must be a number"),
        (lambda: StainJitter("macenko"), "must be Macenko or Reinhard"),  # type: ignore[arg-type]
    ],
)
def test_parameters_out_of_bounds_are_refused(make: Any, words: str) -> None:
    """With the name of the operation and what would be right."""
    with pytest.raises(ConfigError, match=words):
        make()
