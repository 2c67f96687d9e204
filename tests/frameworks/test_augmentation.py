"""Operations beside torchvision's functions, with the parameters that chunkdl drew."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from chunkdl.patches.augmentation.augment import Augment
from chunkdl.patches.augmentation.colours import ColourJitter, Grey, Solarise
from chunkdl.patches.augmentation.crops import ResizedCrop, drawn_boxes
from chunkdl.patches.augmentation.random_numbers import uniforms
from tests.frameworks import torchvision_here
from tests.patches.stain.stained import as_tensor, batch

pytestmark = pytest.mark.skipif(not torchvision_here.IS_HERE, reason="torchvision is not installed")
KEYS = np.arange(6, dtype=np.uint64)


@pytest.fixture(scope="module")
def functional() -> Any:
    """torchvision's functions."""
    from torchvision.transforms.v2 import functional as functions

    return functions


def test_jitter_is_torchvisions_in_the_order_that_was_drawn(functional: Any) -> None:
    """With strong changes, in float32."""
    images = as_tensor(batch()).float() / 255
    found = Augment(ColourJitter(0.5, 0.5, 0.5, 0.4, 1))(images, KEYS)
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    orders = list(permutations(range(4)))
    for row, draws in enumerate(uniforms(KEYS, 0, 0, 6)[:, 1:]):
        amounts = [*(0.5 + draws[:3]), 0.8 * draws[3] - 0.4]
        expected = images[row]
        for index in orders[int(draws[4] * 24)]:
            expected = changes[index](expected, amounts[index])
        assert (found[row] - expected).abs().max() < 1e-3


def test_grey_and_solarise_are_torchvisions(functional: Any) -> None:
    """Of floats; of uint8 torchvision cuts the grey, and the threshold is 128."""
    images = as_tensor(batch()).float() / 255
    grey = functional.rgb_to_grayscale(images, num_output_channels=3)
    assert (Augment(Grey(1))(images, KEYS) - grey).abs().max() < 1e-5
    levels = as_tensor(batch())
    expected = functional.solarize(levels, threshold=128)
    assert torch.equal(Augment(Solarise(p=1))(levels, KEYS), expected)


def test_a_resized_crop_is_torchvisions(functional: Any) -> None:
    """Of the box that was drawn, with antialiasing."""
    images, crop = as_tensor(batch()).float() / 255, ResizedCrop(32)
    found = Augment(crop)(images, KEYS)
    draws = uniforms(KEYS, 0, 0, 1 + crop.draws)[:, 1:]
    boxes, _ = drawn_boxes(draws, (48, 48), crop.area, crop.aspect)
    for row, (top, left, height, width) in enumerate(boxes.tolist()):
        expected = functional.resized_crop(
            images[row], top, left, height, width, [32, 32], antialias=True
        )
        assert (found[row] - expected).abs().max() < 1e-4
