"""Tissue detectors: what is tissue, on made thumbnails and on real slides, at linear cost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import PixelRule, Pixels, SlideInfo
from chunkdl.slides.tissue.detectors.detector import TissueDetector
from chunkdl.slides.tissue.detectors.hsv_range import HsvRange
from chunkdl.slides.tissue.detectors.named import detector_of
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.mask import TissueMask, compute_mask

PINK = (220, 150, 190)
GLASS = (241, 240, 242)


def noisy(shape: tuple[int, int], colour: tuple[int, int, int], sigma: float) -> Pixels:
    """A plain colour with independent noise in all channels."""
    noise = np.random.default_rng(5).normal(0, sigma, (*shape, 3))
    return np.asarray(np.clip(np.array(colour) + noise, 0, 255), dtype=np.uint8)


@pytest.mark.parametrize("colour", [GLASS, (255, 255, 255), (250, 246, 238), (128, 128, 128)])
@pytest.mark.parametrize("sigma", [0.0, 1.0, 4.0])
def test_a_slide_of_glass_alone_has_no_tissue(colour: tuple[int, int, int], sigma: float) -> None:
    """Otsu's threshold alone would call half of the noise tissue; also of slightly tinted glass."""
    assert not Otsu()(noisy((400, 400), colour, sigma)).any()


@pytest.mark.parametrize("sigma", [0.0, 6.0])
def test_a_slide_of_tissue_alone_is_all_tissue(sigma: float) -> None:
    """Otsu's threshold alone would split the tissue in two."""
    assert Otsu()(noisy((400, 400), PINK, sigma)).all()


def test_a_small_piece_of_tissue_on_glass_is_found_to_the_pixel() -> None:
    """Within one pixel at the border, which the smoothing takes."""
    rgb = noisy((1000, 1000), GLASS, 2.0)
    rgb[500:520, 300:330] = noisy((20, 30), PINK, 6.0)
    tissue = Otsu()(rgb)
    assert tissue[501:519, 301:329].all()
    tissue[499:521, 299:331] = False
    assert not tissue.any()


def test_pieces_and_holes_smaller_than_the_limit_go_and_larger_ones_stay() -> None:
    """Dust is not tissue, and a gland's lumen does not tear a hole; `smallest` says the size."""
    rgb = np.full((100, 200, 3), GLASS, np.uint8)
    rgb[10:16, 10:16] = PINK
    rgb[10:22, 30:42] = PINK
    rgb[30:90, 30:150] = PINK
    rgb[50:56, 50:56] = GLASS
    rgb[50:62, 100:112] = GLASS
    tissue = Otsu(closing=0)(rgb)
    assert not tissue[10:16, 10:16].any()
    assert tissue[12:20, 32:40].all()
    assert tissue[50:56, 50:56].all()
    assert not tissue[52:60, 102:110].any()
    keeps_all = Otsu(closing=0, smallest=0)(rgb)
    assert keeps_all[12:14, 12:14].all()
    assert not keeps_all[52:54, 52:54].any()


@pytest.mark.parametrize(("gap", "closed"), [(4, True), (5, False)])
def test_gaps_up_to_the_given_width_are_closed(gap: int, closed: bool) -> None:
    """And no wider ones; the outline itself stays."""
    rgb = np.full((60, 80, 3), GLASS, np.uint8)
    rgb[10:50, 10:30] = PINK
    # The smoothing lets each side grow by one pixel of weak colour, so the gap is made wider.
    rgb[10:50, 32 + gap : 60] = PINK
    tissue = Otsu(closing=4, lowest=0.02, highest=0.02, smallest=0)(rgb)
    assert tissue[30, 31 : 31 + gap].all() == closed
    assert not tissue[:, :8].any()
    assert not tissue[:8].any()


@pytest.mark.parametrize("fill", [0, 255])
def test_fill_of_the_file_format_is_never_tissue_and_does_not_move_the_threshold(
    fill: int,
) -> None:
    """Unscanned areas are pure white or black; the scanned part decides alone."""
    scanned = noisy((200, 200), GLASS, 2.0)
    scanned[50:150, 50:150] = noisy((100, 100), PINK, 6.0)
    padded = np.full((800, 800, 3), fill, np.uint8)
    padded[300:500, 300:500] = scanned
    tissue = Otsu()(padded)
    np.testing.assert_array_equal(tissue[310:490, 310:490], Otsu()(scanned)[10:190, 10:190])
    tissue[300:500, 300:500] = False
    assert not tissue.any()


def test_tinted_glass_in_unscanned_surroundings_has_no_tissue() -> None:
    """The step from white fill to cream glass is not a step from glass to tissue."""
    rgb = np.full((400, 400, 3), 255, np.uint8)
    rgb[100:300, 100:300] = noisy((200, 200), (250, 246, 236), 1.0)
    assert not Otsu()(rgb).any()


def test_a_dark_fluorescence_slide_gives_its_bright_parts() -> None:
    """Noise of nearly black pixels has high HSV saturation, and is not tissue all the same."""
    rgb = noisy((300, 300), (1, 1, 2), 1.0)
    rgb[100:200, 100:200] = (3, 5, 120)
    tissue = Otsu()(rgb)
    assert tissue[100:200, 100:200].all()
    tissue[98:202, 98:202] = False
    assert not tissue.any()


@given(
    rgb=hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)), fill=st.nothing()
    ),
    name=st.sampled_from(["otsu", "hsv"]),
)
def test_any_thumbnail_gives_bools_of_its_shape_and_stays_unchanged(rgb: Pixels, name: str) -> None:
    """From one pixel up, with any content, twice the same."""
    before = rgb.copy()
    detector = detector_of(name)
    tissue = detector(rgb)
    assert tissue.dtype == np.bool_
    assert tissue.shape == rgb.shape[:2]
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(detector(rgb), tissue)


def spots(side: int) -> Pixels:
    """Glass with a spot of tissue at every sixth pixel: (side / 6)^2 pieces."""
    rgb = np.full((side, side, 3), GLASS, np.uint8)
    for row in range(3):
        for column in range(3):
            rgb[row::6, column::6] = PINK
    return rgb


def test_the_cost_is_linear_in_the_thumbnail_however_many_pieces_it_has() -> None:
    """111 000 pieces on four times the area take less than eight times as long."""
    detector = Otsu(closing=0)

    def best_of(side: int, repeats: int) -> float:
        rgb, times = spots(side), []
        for _ in range(repeats):
            start = time.process_time()
            assert not detector(rgb).any()
            times.append(time.process_time() - start)
        return min(times)

    best_of(100, 1)
    assert best_of(2_000, 2) < 8 * best_of(1_000, 4)


@given(
    rgb=hnp.arrays(np.uint8, (4, 4, 3), fill=st.nothing()),
    hue=st.tuples(st.floats(0, 360), st.floats(0, 360)),
)
def test_the_hsv_range_agrees_with_the_textbook_conversion(
    rgb: Pixels, hue: tuple[float, float]
) -> None:
    """scikit-image converts; pixels within rounding of an end do not count."""
    from skimage.color import rgb2hsv

    detector = HsvRange(hue=hue)
    h, s, v = np.moveaxis(rgb2hsv(rgb) * [360, 255, 255], 2, 0)
    low, high = hue
    inside = (low <= h) & (h <= high) if low <= high else (low <= h) | (h <= high)
    expected = inside & (s > 7.5) & (v > 102.5)
    clear = (np.abs(h - low) > 0.01) & (np.abs(h - high) > 0.01) & (np.abs(s - 7.5) > 0.01)
    np.testing.assert_array_equal(detector(rgb)[clear], expected[clear])


def test_the_hsv_range_takes_stained_tissue_and_leaves_glass() -> None:
    """With its defaults; a range that goes through red works too."""
    rgb = np.array([[PINK, GLASS, (230, 40, 50), (40, 20, 60)]], np.uint8)
    assert HsvRange()(rgb).tolist() == [[True, False, True, False]]
    assert HsvRange(hue=(340.0, 10.0))(rgb).tolist() == [[False, False, True, False]]


def test_keys_tell_apart_all_parameters_and_are_the_same_in_every_process() -> None:
    """They name masks on disk: an accidental change would recompute or, worse, mix them up."""
    variants: list[TissueDetector] = [
        *(Otsu(), Otsu(lowest=0.01), Otsu(highest=0.2), Otsu(separation=0.1), Otsu(closing=1)),
        *(Otsu(smallest=1), HsvRange(), HsvRange(hue=(1, 2)), HsvRange(saturation=(0, 1))),
        HsvRange(value=(0, 1)),
    ]
    assert len({detector.key for detector in variants}) == len(variants)
    assert Otsu().key == (
        "otsu/1 Otsu(lowest=0.03, highest=0.12, separation=0.03, closing=4, smallest=64)"
    )


def test_detectors_come_by_name_and_an_unknown_name_lists_them() -> None:
    """The error names what there is."""
    assert detector_of("otsu") == Otsu()
    assert detector_of("hsv") == HsvRange()
    with pytest.raises(ConfigError, match=r"'clem'; choose one of 'otsu', 'hsv', 'clam'"):
        detector_of("clem")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Otsu(lowest=0.5, highest=0.2), "lowest <= highest"),
        (lambda: Otsu(closing=-1), "closing must be 0 to"),
        (lambda: Otsu(smallest=-1), "smallest 0 to"),
        (lambda: HsvRange(hue=(-1, 20)), "hue"),
        (lambda: HsvRange(saturation=(0.9, 0.1)), "saturation"),
        (lambda: HsvRange(value=(0, 255)), "value"),
    ],
)
def test_wrong_parameters_are_refused_at_once(make: type, message: str) -> None:
    """Not when the first slide comes, hours later."""
    with pytest.raises(ConfigError, match=message):
        make()


def outlines(geojson: Path, mask: TissueMask) -> npt.NDArray[np.bool_]:
    """The polygons of an annotation file, drawn on the cells of a mask."""
    rows, columns = mask.cells.shape
    image = Image.new("1", (columns, rows))
    for feature in json.loads(geojson.read_text())["features"]:
        for number, ring in enumerate(feature["geometry"]["coordinates"]):
            points = [
                (x * columns / mask.width0 - 0.5, y * rows / mask.height0 - 0.5) for x, y in ring
            ]
            ImageDraw.Draw(image).polygon(points, fill=int(number == 0))
    return np.asarray(image)


@pytest.mark.slides
@pytest.mark.parametrize(
    "file",
    [
        "CMU-1-Small-Region.svs",
        "TCGA-CR-7395-01A-01-TS1.svs",
        "breast-her2-cish-20x.ome.tif",
        "colon-adenoma-20x-tile1024.tif",
        "liver-biopsy-20x-jp2k.svs",
        "lung-scc-biopsy-gt450-20x.svs",
        "lung-scc-biopsy-gt450-40x.svs",
        "skin-molluscum-20x-generic.tiff",
    ],
)
def test_otsu_finds_the_outlined_tissue_of_real_slides(slides_folder: Path, file: str) -> None:
    """Intersection over union of at least 0.85 with outlines that were checked by eye."""
    mask = mask_of_real_slide(slides_folder / file, Otsu())[1]
    expected = outlines(slides_folder / "annotations" / f"{file.split('.')[0]}.geojson", mask)
    assert (mask.cells & expected).sum() / (mask.cells | expected).sum() > 0.85


@pytest.mark.slides
def test_the_hsv_range_finds_the_tissue_of_a_real_slide(slides_folder: Path) -> None:
    """Less exactly than Otsu, since it closes no gaps."""
    mask = mask_of_real_slide(slides_folder / "lung-scc-biopsy-gt450-20x.svs", HsvRange())[1]
    expected = outlines(slides_folder / "annotations/lung-scc-biopsy-gt450-20x.geojson", mask)
    assert (mask.cells & expected).sum() / (mask.cells | expected).sum() > 0.75


@pytest.mark.slides
def test_a_real_fluorescence_slide_has_some_tissue(slides_folder: Path) -> None:
    """The detector is made for H&E, and does something sensible on blue on black."""
    info, mask = mask_of_real_slide(slides_folder / "hamamatsu-test3-dapi-387.ndpi", Otsu())
    assert (mask.width0, mask.height0) == (info.levels[0].width, info.levels[0].height)
    assert 0.5 < mask.cells.mean() < 0.95


def mask_of_real_slide(path: Path, detector: TissueDetector) -> tuple[SlideInfo, TissueMask]:
    from chunkdl.slides.readers.registry import open_slide

    slide = open_slide(path, rule=PixelRule(channels=(0, 1, 2)))
    try:
        return slide.info, compute_mask(slide, detector)
    finally:
        slide.close()
