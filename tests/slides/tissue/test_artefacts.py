"""Pen and blur: what they find of made thumbnails, and what they leave."""

from __future__ import annotations

import numpy as np
import pytest

from chunkdl.errors import ConfigError
from chunkdl.slides.tissue.detectors.blurred_areas import BlurredAreas
from chunkdl.slides.tissue.detectors.combined import TissueWithout
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.detectors.pen_areas import PenAreas
from tests.slides.tissue.thumbnails import GLASS, PINK, clouds, stained

RED, GREEN, BLUE, BLACK = (160, 30, 40), (40, 130, 110), (30, 70, 160), (15, 15, 15)


@pytest.mark.parametrize(
    ("colour", "pens"),
    [
        (RED, ["red"]),
        (GREEN, ["green"]),
        (BLUE, ["green", "blue"]),
        (BLACK, []),
        ((2, 2, 66), []),
        (PINK, []),
        (GLASS, []),
        ((180, 200, 205), ["green"]),
        ((241, 236, 238), []),
        ((150, 80, 90), ["red"]),
        ((149, 80, 90), []),
        ((150, 81, 90), []),
        ((255, 255, 255), []),
    ],
)
def test_each_colour_is_of_the_pens_that_the_rule_says(
    colour: tuple[int, int, int], pens: list[str]
) -> None:
    """Ends included; what is darker than the limit, black ink and stains are none."""
    rgb = np.full((3, 3, 3), colour, np.uint8)
    found = [
        pen
        for pen in ("red", "green", "blue")
        if PenAreas((pen,), smallest=0, margin=0, diff_thresh=24)(rgb).all()
    ]
    assert found == pens
    assert PenAreas(smallest=0, margin=0, diff_thresh=24)(rgb).any() == bool(pens)


def test_small_pieces_are_no_pen_and_strokes_have_a_margin() -> None:
    """Dust of the colour of a pen does not tear holes; the pale rim of a stroke goes with it."""
    rgb = np.full((60, 60, 3), (240, 225, 235), np.uint8)
    rgb[5:12, 5:12] = BLUE
    rgb[20:22, 10:50] = GREEN
    found = PenAreas(smallest=64, margin=3)(rgb)
    assert found[17:25, 7:53].all()
    assert found.sum() == 8 * 46


def test_pen_is_taken_away_from_tissue() -> None:
    """And nothing else is."""
    rgb = stained(np.ones((100, 100), np.bool_))
    rgb[40:50, :] = GREEN
    found = TissueWithout(Otsu(), PenAreas(margin=2))(rgb)
    assert not found[38:52].any()
    assert found[:38].all()
    assert found[52:].all()


@pytest.mark.parametrize("sigma", [0.5, 3.0, 10.0])
def test_blur_is_what_slideflow_computes(sigma: float) -> None:
    """The smoothed amounts of the Laplacian of greys, cell for cell, where they are not equal to
    the threshold within rounding."""
    from skimage.color import rgb2gray
    from skimage.filters import gaussian, laplace

    rgb = clouds(300, 250, 2)
    edges = np.abs(laplace(rgb2gray(rgb)))  # type: ignore[no-untyped-call]
    smooth = gaussian(edges, sigma=sigma)  # type: ignore[no-untyped-call]
    threshold = float(np.quantile(smooth, 0.4))
    found = BlurredAreas(sigma, threshold)(rgb)
    clear = np.abs(smooth - threshold) > 1e-5
    np.testing.assert_array_equal(found[clear], (smooth <= threshold)[clear])
    assert clear.mean() > 0.99
    assert 0.3 < found.mean() < 0.5


def test_what_has_edges_is_not_blurred_and_glass_is() -> None:
    """With the defaults: texture of a tenth of the grey range is enough."""
    noise = np.random.default_rng(1).normal(170, 12, (100, 200, 1)).repeat(3, axis=2)
    rgb = np.clip(noise, 0, 255).astype(np.uint8)
    rgb[:, 100:] = GLASS
    found = BlurredAreas()(rgb)
    assert not found[:, :90].any()
    assert found[:, 110:].all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PenAreas(("black",)), 'colours must be some of "red"'),
        (lambda: PenAreas("red"), "colours must be"),  # type: ignore[arg-type]
        (lambda: PenAreas(margin=-1), "margin must be a whole number from 0 to 255"),
        (lambda: PenAreas(smallest=1.5), "smallest must be a whole"),  # type: ignore[arg-type]
        (lambda: PenAreas(diff_thresh=300), "diff_thresh must be a number from 0 to 255"),
        (lambda: BlurredAreas(sigma=100), "sigma must be a number from 0.5 to 32"),
        (lambda: BlurredAreas(threshold=-1), "threshold must be a number from 0 to 4"),
    ],
)
def test_wrong_parameters_are_refused_at_once(make: type, message: str) -> None:
    """Not when the first slide comes."""
    with pytest.raises(ConfigError, match=message):
        make()
