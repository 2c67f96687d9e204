"""wsistream's detectors by name: equal to wsistream's, cell for cell or nearly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import PixelRule, Pixels
from chunkdl.slides.tissue.detectors.detector import Scale, find_tissue
from chunkdl.slides.tissue.detectors.grey_otsu import GreyOtsu
from chunkdl.slides.tissue.detectors.hsv_range import HsvRange
from chunkdl.slides.tissue.detectors.named import detector_of
from tests.slides.tissue.thumbnails import clouds, drawn, enlarged, stained


def test_a_dark_square_is_found_to_the_pixel_and_dust_is_removed() -> None:
    """Within what the blur takes at the corners; 0.1 % of the thumbnail is no dust."""
    mask = np.zeros((200, 200), np.bool_)
    mask[40:90, 60:130] = True
    rgb = stained(mask)
    rgb[150:152, 20:30] = 0
    found = GreyOtsu(min_area_ratio=0.002)(rgb)
    assert (found & ~mask).sum() == 0
    assert (mask & ~found).sum() <= 12
    assert GreyOtsu()(rgb)[150:152, 20:30].all()


def test_gaps_narrower_than_the_ellipse_are_closed() -> None:
    """And no wider ones."""
    mask = np.zeros((60, 80), np.bool_)
    mask[10:50, 10:40] = mask[10:50, 44:70] = True
    rgb = stained(mask)
    assert GreyOtsu(blur=1, closing=5, min_area_ratio=0)(rgb)[30, 40:44].all()
    assert not GreyOtsu(blur=1, closing=4, min_area_ratio=0)(rgb)[30, 41:43].any()
    np.testing.assert_array_equal(GreyOtsu(blur=1, closing=0, min_area_ratio=0)(rgb), mask)


def test_pieces_that_touch_at_corners_are_one() -> None:
    """Their sizes add up."""
    mask = enlarged(drawn("#... .#.. .... ...."), 10)
    found = GreyOtsu(blur=1, closing=0, min_area_ratio=0.12)(stained(mask))
    np.testing.assert_array_equal(found, mask)
    assert not GreyOtsu(blur=1, closing=0, min_area_ratio=0.13)(stained(mask)).any()


def test_it_always_splits_as_its_page_says() -> None:
    """Noise of glass has "tissue"; one grey has none, and black is all tissue."""
    noise = np.random.default_rng(1).normal(240, 2, (100, 100, 1)).repeat(3, axis=2)
    assert 0.3 < GreyOtsu(min_area_ratio=0)(noise.astype(np.uint8)).mean() < 0.7
    for grey, tissue in ((255, False), (128, False), (0, True)):
        assert GreyOtsu()(np.full((50, 50, 3), grey, np.uint8)).all() == tissue
        assert GreyOtsu()(np.full((50, 50, 3), grey, np.uint8)).any() == tissue


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"blur": 9}, "blur must be 1, 3, 5 or 7 pixels, not 9"),
        ({"blur": 2}, "blur must be"),
        ({"closing": -1}, "closing must be a whole number from 0 to 255"),
        ({"min_area_ratio": 1.5}, "min_area_ratio must be a number from 0 to 1"),
    ],
)
def test_wrong_parameters_are_refused_at_once(parameters: dict[str, int], message: str) -> None:
    """With the name that a file gives it."""
    with pytest.raises(ConfigError, match=f"wsistream-otsu: .*{message}"):
        GreyOtsu(**parameters)


def test_names_have_the_defaults_of_wsistream() -> None:
    """And can be changed."""
    assert detector_of("wsistream-otsu") == GreyOtsu(7, 5, 0.001)
    assert detector_of("wsistream-hsv") == HsvRange((180, 360), (8 / 255, 1), (103 / 255, 1))
    assert detector_of({"name": "wsistream-otsu", "blur": 3}) == GreyOtsu(blur=3)


SIZES = [(1, 1), (1, 9), (2, 2), (3, 50), (101, 67), (300, 200)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (GreyOtsu(), {}),
        (
            GreyOtsu(3, 0, 0.0),
            {"blur_ksize": 3, "morph_close_ksize": 0, "min_area_ratio": 0},
        ),
        (GreyOtsu(5, 4, 0.01), {"blur_ksize": 5, "morph_close_ksize": 4, "min_area_ratio": 0.01}),
        (GreyOtsu(1, 12, 0.0), {"blur_ksize": 1, "morph_close_ksize": 12, "min_area_ratio": 0}),
    ],
)
def test_the_grey_threshold_is_that_of_wsistream(
    size: tuple[int, int], ours: GreyOtsu, theirs: dict[str, float]
) -> None:
    """Cell for cell, of clouds and of noise of any size."""
    wsistream = pytest.importorskip("wsistream.tissue", reason="wsistream is not installed")
    oracle = wsistream.OtsuTissueDetector(**theirs)
    noise = np.random.default_rng(7).integers(0, 256, (*size, 3), np.uint8)
    for rgb in (noise, *([clouds(*size, seed=3)] if min(size) > 2 else [])):
        np.testing.assert_array_equal(ours(rgb), oracle.detect(rgb))


def test_the_hsv_range_is_nearly_that_of_wsistream() -> None:
    """OpenCV rounds hues to two degrees: a thousandth of the colours at the ends differ."""
    wsistream = pytest.importorskip("wsistream.tissue", reason="wsistream is not installed")
    rgb = np.random.default_rng(2).integers(0, 256, (500, 500, 3), np.uint8)
    oracle = wsistream.HSVTissueDetector().detect(rgb)
    assert (HsvRange()(rgb) != oracle).mean() < 0.01


def test_every_combination_is_that_of_wsistream() -> None:
    """Its combination is our `all`."""
    wsistream = pytest.importorskip("wsistream.tissue", reason="wsistream is not installed")
    parts = [wsistream.OtsuTissueDetector(), wsistream.CLAMTissueDetector(a_t=1)]
    rgb = clouds(300, 300, 8)
    oracle = wsistream.CombinedTissueDetector(parts).detect(rgb, downsample=(16.0, 16.0))
    table = {"name": "all", "detectors": ["wsistream-otsu", {"name": "wsistream-clam", "a_t": 1}]}
    found = find_tissue(detector_of(table), rgb, Scale(16, 16))
    assert (found != oracle).mean() < 0.01


SLIDES = (
    *("CMU-1-Small-Region.svs", "breast-her2-cish-20x.ome.tif", "colon-adenoma-20x-tile1024.tif"),
    *("gallbladder-leica-20x.scn", "liver-biopsy-20x-jp2k.svs", "skin-molluscum-20x-generic.tiff"),
)


@pytest.mark.slides
@pytest.mark.parametrize("file", SLIDES)
def test_real_slides_have_the_tissue_that_wsistream_finds(slides_folder: Path, file: str) -> None:
    """For the same thumbnail: grey Otsu to the cell, the others within 1 % of the cells."""
    wsistream = pytest.importorskip("wsistream.tissue", reason="wsistream is not installed")
    rgb, scale = thumbnail_of(slides_folder / file)
    down = (scale.across, scale.down)
    biopsy = {"sthresh": 15, "mthresh": 11, "close": 2, "a_t": 1, "a_h": 1, "max_n_holes": 2}
    for name, oracle, most in (
        ("wsistream-otsu", wsistream.OtsuTissueDetector(), 0.0),
        ("wsistream-hsv", wsistream.HSVTissueDetector(), 0.001),
        ("wsistream-clam", wsistream.CLAMTissueDetector(), 0.001),
        ("clam-bwh-biopsy", wsistream.CLAMTissueDetector(**biopsy), 0.01),
    ):
        found = find_tissue(detector_of(name), rgb, scale)
        assert (found != oracle.detect(rgb, down)).mean() <= most, name


def thumbnail_of(path: Path) -> tuple[Pixels, Scale]:
    from chunkdl.slides.readers.registry import open_slide
    from chunkdl.slides.tissue.thumbnail import read_thumbnail, thumbnail_plan

    slide = open_slide(path, rule=PixelRule(channels=(0, 1, 2)))
    try:
        rgb, _ = read_thumbnail(slide, thumbnail_plan(slide.info, None))
        level0 = slide.info.levels[0]
    finally:
        slide.close()
    return rgb, Scale(level0.width / rgb.shape[1], level0.height / rgb.shape[0])
