"""Macenko's normalisation against a plain implementation of the paper, and against torchstain."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chunkdl.errors import ConfigError
from chunkdl.patches.stain import presets
from chunkdl.patches.stain.macenko import Macenko
from tests.patches.stain.stained import (
    DEVICES,
    STAINS,
    Pixels,
    as_array,
    as_tensor,
    batch,
    called,
    levels_apart,
    stained,
    torchstain,
)

Numbers = npt.NDArray[np.float64]
VARIANTS = [Macenko(), Macenko(fast=True), Macenko("torchstain"), Macenko("v1")]


def found_in(
    image: Pixels, light: float, *, fast: bool
) -> tuple[Numbers, Numbers, npt.NDArray[np.float64]]:
    """Stain matrix, 99th percentiles and concentrations, one image at a time in float64."""
    pixels = image.reshape(-1, 3).astype(np.float64)
    if not fast:
        pixels = np.minimum(pixels * 255 / np.percentile(pixels, 90), 255)
    density = -np.log((pixels + 1) / light)
    dense = density[(density >= 0.15).all(axis=1)]
    _, vectors = np.linalg.eigh(np.cov(dense.T))
    plane = vectors[:, [1, 2]]
    if (dense @ plane[:, 1]).mean() < 0:
        plane = -plane
    angles = np.arctan2(dense @ plane[:, 1], dense @ plane[:, 0])
    ends = [
        plane @ np.array([np.cos(angle), np.sin(angle)]) for angle in np.percentile(angles, [1, 99])
    ]
    ends.sort(key=lambda end: -end[0])
    matrix = np.stack(ends, axis=1)
    amounts = np.linalg.lstsq(matrix, density.T, rcond=None)[0]
    return matrix, np.percentile(amounts, 99, axis=1), amounts


def plainly_normalised(image: Pixels, to: Macenko) -> Pixels:
    """What the paper says, for one image."""
    _, limits, amounts = found_in(image, to.light, fast=to.fast)
    scaled = amounts * (np.array(to.concentrations) / limits)[:, None]
    levels = to.light * np.exp(-np.array(to.matrix) @ scaled)
    return np.rint(np.clip(levels, 0, 255)).T.reshape(image.shape).astype(np.uint8)


@pytest.mark.parametrize("normaliser", VARIANTS, ids=called)
def test_rows_are_what_the_paper_says(normaliser: Macenko) -> None:
    """Within one level of a plain implementation with lstsq and percentiles, for each variant."""
    for image in batch():
        expected = plainly_normalised(image, normaliser)
        assert levels_apart(normaliser.normalised(image), expected) <= 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("normaliser", VARIANTS, ids=called)
def test_a_batch_of_torch_is_the_rows_of_numpy(normaliser: Macenko, device: str) -> None:
    """Within 1/255, for uint8 and for floats, in the layout and on the device that were given."""
    images = batch()
    rows = np.stack([normaliser.normalised(image) for image in images])
    tensors = as_tensor(images, device)
    made = normaliser.normalised(tensors)
    assert made.dtype == torch.uint8
    assert made.stride() == tensors.stride()
    assert made.device == tensors.device
    assert levels_apart(as_array(made), rows) <= 1
    floats = normaliser.normalised(tensors.float() / 255)
    assert floats.dtype == torch.float32
    assert np.abs(as_array(floats) - normaliser.normalised(images / np.float32(255))).max() < 1e-3
    assert levels_apart(np.rint(as_array(floats) * 255), rows) <= 1


@pytest.mark.parametrize("normaliser", VARIANTS, ids=called)
def test_an_image_is_normalised_by_itself(normaliser: Macenko) -> None:
    """Whatever else is in the batch, also next to images without stains."""
    images = np.concatenate([batch(), np.full((2, 48, 48, 3), 255, np.uint8)])
    together = as_array(normaliser.normalised(as_tensor(images)))
    for order in ([3], [3, 0], [6, 3, 7, 1]):
        some = as_array(normaliser.normalised(as_tensor(images[order])))
        assert np.array_equal(some, together[order])


def test_the_result_has_the_stains_of_the_target() -> None:
    """A fit to the normalised image is near the target; without clipping it would be the target."""
    pale = stained(3, strength=0.15, light=255)
    target = Macenko.fitted_to(stained(1, strength=0.3, light=255), fast=True)
    again = Macenko.fitted_to(target.normalised(pale), fast=True)
    assert np.abs(np.array(again.matrix) - np.array(target.matrix)).max() < 0.05
    assert np.allclose(again.concentrations, target.concentrations, rtol=0.06)


def test_a_fit_finds_the_stains_of_the_image() -> None:
    """The vectors with which it was made, haematoxylin first, from numpy and from torch alike."""
    image = stained(0, side=96, light=255)
    fit = Macenko.fitted_to(image, fast=True)
    unit = STAINS / np.linalg.norm(STAINS, axis=0)
    assert np.abs(np.array(fit.matrix) - unit).max() < 0.06
    expected, limits, _ = found_in(image, 255, fast=True)
    assert np.allclose(fit.matrix, expected, atol=1e-4)
    assert np.allclose(fit.concentrations, limits, rtol=1e-3)
    other = Macenko.fitted_to(as_tensor(image[None])[0], fast=True)
    assert np.allclose(fit.matrix, other.matrix, atol=1e-5)
    assert fit == Macenko(None, True, fit.matrix, fit.concentrations)


def test_an_image_normalised_to_itself_keeps_its_colours() -> None:
    """But for what two stains cannot say: the noise of the third direction."""
    image = stained(2, side=64)
    same = Macenko.fitted_to(image, fast=True).normalised(image)
    assert np.abs(same.astype(int) - image.astype(int)).mean() < 2


def test_torchstain_has_the_same_results() -> None:
    """Within one level, which it cuts where this rounds; fitted to an image as well."""
    oracle = torchstain("numpy.normalizers").NumpyMacenkoNormalizer()
    for image in batch():
        assert (
            levels_apart(Macenko("torchstain").normalised(image), oracle.normalize(image)[0]) <= 1
        )
    target = stained(9)
    oracle.fit(target)
    fit = Macenko.fitted_to(target, fast=True, light=240)
    for image in batch():
        assert levels_apart(fit.normalised(image), oracle.normalize(image)[0]) <= 1


FLAT = [(255, 255, 255), (0, 0, 0), (200, 130, 170), (3, 255, 9)]


@pytest.mark.parametrize("colour", FLAT)
@pytest.mark.parametrize("normaliser", VARIANTS, ids=called)
def test_an_image_without_two_stains_is_returned_as_it_is(
    normaliser: Macenko, colour: tuple[int, int, int]
) -> None:
    """Glass, black and one colour have no stains, and cannot be a target."""
    image = np.full((16, 16, 3), colour, np.uint8)
    assert np.array_equal(normaliser.normalised(image), image)
    tensors = as_tensor(image[None])
    assert torch.equal(normaliser.normalised(tensors), tensors)
    with pytest.raises(ConfigError, match="stains of this image cannot be told"):
        Macenko.fitted_to(image)


@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).map(lambda s: (*s, 3))
    )
)
def test_any_image_has_a_finite_result_of_its_shape(image: Pixels) -> None:
    """No warning of numpy, no NaN; few pixels, black ones and noise too."""
    for normaliser in VARIANTS:
        made = normaliser.normalised(image / np.float32(255))
        assert made.shape == image.shape
        assert np.isfinite(made).all()
        assert (made >= 0).all()
        assert (made <= 1).all()


@settings(max_examples=10)
@given(hnp.arrays(np.uint8, (6, 6, 3)), st.integers(0, 2**32))
def test_any_image_is_the_same_in_numpy_and_torch(image: Pixels, seed: int) -> None:
    """Within a level: greys, few colours and noise too, where stains are hardly there."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (2, 12, 12, 3), np.uint8)
    grey = np.repeat(noise[0, ..., :1], 3, axis=-1)
    for one in (image, noise[0], 100 + noise[1] // 8, grey):
        for normaliser in VARIANTS:
            found = as_array(normaliser.normalised(as_tensor(one[None])))[0]
            assert levels_apart(found, normaliser.normalised(one)) <= 1


def test_what_differs_in_one_direction_only_is_returned_as_it_is() -> None:
    """A grey image on a tinted glass: which plane its stains span would be chance."""
    grey = np.random.default_rng(0).uniform(0.3, 0.8, (24, 24, 1)) * np.array([1.0, 0.95, 0.9])
    tinted = np.asarray(np.rint(255 * grey), np.uint8)
    for normaliser in VARIANTS:
        assert np.array_equal(normaliser.normalised(tinted), tinted)
    with pytest.raises(ConfigError, match="cannot be told"):
        Macenko.fitted_to(tinted)


@given(st.sampled_from(sorted(presets.MACENKO)), st.booleans())
def test_presets_are_values(preset: str, fast: bool) -> None:
    """Equal ones are equal, also after pickling and from their numbers; nothing can be changed."""
    normaliser = Macenko(preset, fast)
    assert pickle.loads(pickle.dumps(normaliser)) == normaliser
    assert hash(normaliser) == hash(Macenko(preset, fast))
    arrays: Any = np.array(normaliser.matrix), np.array(normaliser.concentrations)
    own = Macenko(None, fast, *arrays)
    assert own == Macenko(None, fast, normaliser.matrix, normaliser.concentrations)
    assert replace(own, preset=preset) == normaliser
    image = stained(0, side=16)
    assert np.array_equal(own.normalised(image), normaliser.normalised(image))


def test_the_presets_have_the_published_numbers() -> None:
    """v3 of slideflow; v2 and torchstain share a target and differ in the light."""
    assert Macenko().concentrations == (1.7656903, 1.2797493)
    assert Macenko().matrix[1] == (0.75322306, 0.8652155)
    assert Macenko("v2").matrix == Macenko("torchstain").matrix
    assert (Macenko("torchstain").light, Macenko("torchstain").fast) == (240, True)
    assert Macenko(fast=True).concentrations == (2.0259454, 1.4088874)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"preset": "v4"}, "no preset 'v4'; it has 'v1', 'v2', 'v3'"),
        ({"preset": "v3", "matrix": ((1, 0), (0, 1), (0, 0))}, "a preset, or matrix and conc"),
        ({"matrix": ((1, 0), (0, 1))}, "matrix must be finite numbers of the shape"),
        ({"concentrations": (1, 1)}, "matrix must be finite numbers of the shape"),
        ({"matrix": ((1, 1),) * 3, "concentrations": (1, 1)}, "must differ"),
        ({"light": 0}, "light must be from 1 to 255"),
        ({"angle": 50}, "angle must be from"),
        ({"density": float("nan")}, "density must be finite"),
        ({"density": "much"}, "density must be numbers"),
    ],
)
def test_numbers_out_of_bounds_are_refused(parameters: dict[str, Any], words: str) -> None:
    """With what would be right."""
    with pytest.raises(ConfigError, match=words):
        Macenko(**parameters)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((4, 4, 4), np.uint8), r"shape \(B, H, W, 3\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"not \(0, 4, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int16), "not int16"),
        (np.full((4, 4, 3), 2.0), "from 0 to 1 without NaN"),
        (np.full((4, 4, 3), np.nan, np.float32), "without NaN"),
        (torch.zeros((2, 4, 4, 3)), r"shape \(B, 3, H, W\)"),
        (torch.full((2, 3, 4, 4), float("nan")), "without NaN"),
        (torch.zeros((2, 3, 4, 4), dtype=torch.int32), r"not torch\.int32"),
        ([[1, 2, 3]], "not list"),
    ],
)
def test_what_is_no_image_is_refused(images: Any, words: str) -> None:
    """NaN too: there is no right result of it."""
    with pytest.raises(ConfigError, match=words):
        Macenko().normalised(images)
