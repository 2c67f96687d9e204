"""Reinhard's colour transfer against a plain implementation with scikit-image, and torchstain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp
from skimage.color import lab2rgb, rgb2lab

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.numpy_maths import NumpyMaths
from chunkdl.patches.stain.colour_spaces import lab_of, rgb_of
from chunkdl.patches.stain.reinhard import Reinhard
from tests.patches.stain.stained import (
    DEVICES,
    Pixels,
    as_array,
    as_tensor,
    batch,
    called,
    levels_apart,
    stained,
    torchstain,
)

VARIANTS = [
    Reinhard(),
    Reinhard(fast=True),
    Reinhard(mask=True),
    Reinhard("v1", fast=True, mask=True),
]


def plainly_normalised(image: Pixels, to: Reinhard) -> Pixels:
    """What the paper says, for one image, in float64."""
    rgb = image / 255
    if not to.fast:
        rgb = np.minimum(rgb / np.percentile(rgb, 90), 1)
    lab = rgb2lab(rgb)
    scaled = (lab - lab.mean((0, 1))) / lab.std((0, 1)) * to.deviations + to.means
    made = lab2rgb(scaled) if not to.mask else np.where(lab[..., :1] < 93, lab2rgb(scaled), rgb)
    return np.asarray(np.rint(np.clip(made, 0, 1) * 255), np.uint8)


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
@pytest.mark.parametrize("normaliser", VARIANTS, ids=called)
def test_rows_are_what_the_paper_says(normaliser: Reinhard) -> None:
    """Within one level of scikit-image's LAB, for each variant."""
    for image in batch():
        expected = plainly_normalised(image, normaliser)
        assert levels_apart(normaliser.normalised(image), expected) <= 1


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
@given(hnp.arrays(np.uint8, (5, 4, 3)))
def test_lab_is_that_of_scikit_image(image: Pixels) -> None:
    """There and back, for all colours."""
    rgb = (image.reshape(1, -1, 3) / 255).swapaxes(1, 2).astype(np.float32)
    lab = lab_of(NumpyMaths(), rgb)
    assert np.allclose(lab.swapaxes(1, 2)[0], rgb2lab(image).reshape(-1, 3), atol=2e-3)
    assert np.abs(rgb_of(NumpyMaths(), lab) - rgb).max() < 1e-3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("normaliser", VARIANTS, ids=called)
def test_a_batch_of_torch_is_the_rows_of_numpy(normaliser: Reinhard, device: str) -> None:
    """Within 1/255, for uint8 and for floats, whatever lies beside a row."""
    images = batch()
    rows = np.stack([normaliser.normalised(image) for image in images])
    made = as_array(normaliser.normalised(as_tensor(images, device)))
    assert levels_apart(made, rows) <= 1
    floats = as_array(normaliser.normalised(as_tensor(images, device).float() / 255))
    assert levels_apart(np.rint(floats * 255), rows) <= 1
    some = as_array(normaliser.normalised(as_tensor(images[[4, 1]], device)))
    assert levels_apart(some, made[[4, 1]]) <= (device != "cpu")


def test_a_fit_has_the_statistics_of_the_image_and_they_reach_the_result() -> None:
    """Means and standard deviations in LAB; colours that are clipped are the only difference."""
    target = stained(1, strength=0.3)
    fit = Reinhard.fitted_to(target, fast=True)
    lab = rgb2lab(target)
    assert np.allclose(fit.means, lab.mean((0, 1)), atol=1e-3)
    assert np.allclose(fit.deviations, lab.std((0, 1)), atol=1e-3)
    moved = rgb2lab(fit.normalised(stained(5, strength=0.3)))
    assert np.allclose(moved.mean((0, 1)), fit.means, atol=0.5)
    assert np.allclose(moved.std((0, 1)), fit.deviations, atol=0.7)
    assert levels_apart(fit.normalised(target), target) <= 1
    other = Reinhard.fitted_to(as_tensor(target[None])[0], fast=True)
    assert np.allclose(fit.means, other.means, atol=1e-4)


def test_a_mask_leaves_light_pixels_alone() -> None:
    """And the others are what they are without it."""
    image = stained(0)
    masked = Reinhard(fast=True, mask=True).normalised(image)
    light = rgb2lab(image)[..., 0] >= 93
    assert light.any()
    assert np.array_equal(masked[light], image[light])
    assert np.array_equal(masked[~light], Reinhard(fast=True).normalised(image)[~light])


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 130, 170)])
@pytest.mark.parametrize("normaliser", VARIANTS, ids=called)
def test_an_image_of_one_colour_is_returned_as_it_is(
    normaliser: Reinhard, colour: tuple[int, int, int]
) -> None:
    """And cannot be a target."""
    image = np.full((8, 8, 3), colour, np.uint8)
    assert np.array_equal(normaliser.normalised(image), image)
    assert torch.equal(normaliser.normalised(as_tensor(image[None])), as_tensor(image[None]))
    with pytest.raises(ConfigError, match="of one colour"):
        Reinhard.fitted_to(image)


@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).map(lambda s: (*s, 3))
    )
)
def test_any_image_has_a_finite_result_of_its_shape(image: Pixels) -> None:
    """Greys, whose a and b do not vary, too."""
    grey = np.repeat(image[..., :1], 3, axis=-1)
    for normaliser in VARIANTS:
        for one in (image, grey):
            made = normaliser.normalised(one / np.float32(255))
            assert made.shape == image.shape
            assert np.isfinite(made).all()
            assert (made >= 0).all()
            assert (made <= 1).all()


def test_torchstain_has_the_same_results() -> None:
    """Within three levels: torchstain cuts, and rounds its matrix of colours."""
    oracle = torchstain("numpy.normalizers").NumpyReinhardNormalizer()
    target = stained(1, strength=0.3)
    oracle.fit(target)
    fit = Reinhard.fitted_to(target, fast=True)
    for image in batch()[:3]:
        expected = oracle.normalize(image).astype(np.int64)
        made = fit.normalised(image).astype(np.int64)
        inside = (made > 3) & (made < 252)  # it wraps around where colours are cut
        assert np.abs(made - expected)[inside].max() <= 3


def test_the_presets_have_the_published_numbers() -> None:
    """v3 of slideflow, with and without the standardisation of brightness."""
    assert Reinhard().means == (65.22132, 28.934267, -14.142519)
    assert Reinhard(fast=True).deviations == (14.675022, 7.5744166, 5.226378)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"preset": "torchstain"}, "no preset 'torchstain'"),
        ({"preset": "v3", "means": (1, 2, 3)}, "a preset, or means and deviations"),
        ({"means": (1, 2, 3), "deviations": (1, 2)}, "of the shape"),
        ({"means": (1, 2, 3), "deviations": (1, 2, -1)}, "at least 0"),
        ({"lightness": 2}, "lightness from 0 to 1"),
    ],
)
def test_numbers_out_of_bounds_are_refused(parameters: dict[str, Any], words: str) -> None:
    """With what would be right."""
    with pytest.raises(ConfigError, match=words):
        Reinhard(**parameters)
