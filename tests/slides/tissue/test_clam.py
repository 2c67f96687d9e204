"""CLAM's segmentation: what stays of pieces and holes, at any scale; how near it is to OpenCV."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chunkdl.errors import ConfigError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.clam import Clam
from chunkdl.slides.tissue.detectors.detector import Scale
from chunkdl.slides.tissue.detectors.named import detector_of
from chunkdl.slides.tissue.mask import compute_mask
from tests.slides.tissue.memory_slide import MemorySlide
from tests.slides.tissue.thumbnails import clouds, drawn, stained

PLAIN: dict[str, Any] = {"mthresh": 1, "close": 0, "ref_patch_size": 16}
"""A reference patch is one pixel of a thumbnail of scale 16."""

RINGS = drawn("""
    ..................
    .########...###...
    .#......#...###...
    .#.####.#...###...
    .#.#..#.#.........
    .#.####.#...##....
    .#......#...#.#...
    .########....##...
    ..................
    ##................
""")


def test_pieces_with_too_little_tissue_go() -> None:
    """Tissue is counted without the holes; exactly the limit is too little."""
    rgb = stained(RINGS)
    sizes = {a_t: Clam(a_t=a_t, a_h=0, max_n_holes=99, **PLAIN)(rgb).sum() for a_t in (0, 2, 6, 9)}
    assert sizes == {0: RINGS.sum(), 2: RINGS.sum() - 2, 6: RINGS.sum() - 8, 9: 26 + 10}
    # The ring of 26 pixels is not counted as the square of 56 that its outline has.
    assert not Clam(a_t=26, a_h=0, **PLAIN)(rgb).any()


def test_small_holes_are_filled_and_islands_in_them_stay() -> None:
    """A hole is what no side of a pixel leads out of; tissue inside has a hole of its own."""
    rgb = stained(RINGS)
    closed = Clam(a_t=0, a_h=2, **PLAIN)(rgb)
    # The hole of 18 pixels stays; those of 2 and of 1 are filled.
    assert closed.sum() == RINGS.sum() + 3
    assert not closed[2, 2]
    assert closed[4, 4]
    assert closed[6, 13]
    assert Clam(a_t=0, a_h=18, **PLAIN)(rgb).sum() == RINGS.sum() + 3 + 18


def test_only_the_largest_holes_of_a_piece_stay_open() -> None:
    """Of each piece, in whatever order they lie."""
    mask = drawn("""
        ###########.####
        #.#..#...##.#..#
        ###########.####
    """)
    for holes, open_ in ((0, 0), (1, 3 + 2), (2, 5 + 2), (3, 6 + 2)):
        found = Clam(a_t=0, a_h=0, max_n_holes=holes, **PLAIN)(stained(mask))
        assert (~found).sum() == 3 + open_
        assert (~found[1, 6:9]).all() == (holes > 0)


def test_what_opens_to_the_edge_is_no_hole() -> None:
    """Nor are corners that only touch."""
    mask = drawn("""
        ####
        ...#
        ####
    """)
    np.testing.assert_array_equal(Clam(a_t=0, a_h=99, **PLAIN)(stained(mask)), mask)


def test_a_reference_patch_is_so_many_pixels_of_level_0() -> None:
    """The finer the thumbnail, the more of its pixels."""
    rgb = stained(np.ones((8, 8), np.bool_))
    detector = Clam(mthresh=1, close=0, a_t=1, ref_patch_size=64)
    assert detector.find(rgb, Scale(16, 16)).all()
    assert detector.find(rgb, Scale(8, 16)).all()
    assert not detector.find(rgb, Scale(8, 8)).any()
    for side, tissue in ((128, True), (64, False)):
        level0 = stained(np.ones((side, side), np.bool_))
        # Of 1 micron per pixel: 8 level-0 pixels a cell.
        mask = compute_mask(MemorySlide([level0], (1.0, 1.0)), detector)
        assert mask.cells.any() == tissue


def test_the_median_is_the_majority_and_the_edge_is_repeated() -> None:
    """Of a square; a line is no tissue, a thick bar is."""
    mask = np.zeros((20, 20), np.bool_)
    mask[3] = True
    mask[10:17] = True
    found = Clam(close=0, a_t=0, a_h=0, mthresh=5)(stained(mask))
    assert not found[:9].any()
    assert found[10:17].all()


@given(
    saturation=hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    width=st.sampled_from([1, 3, 5]),
    threshold=st.integers(0, 255),
)
def test_counting_pixels_gives_the_threshold_of_the_median(
    saturation: np.ndarray, width: int, threshold: int
) -> None:
    """For any picture: no median is computed where only its threshold counts."""
    rgb = np.full((*saturation.shape, 3), 255, np.uint8)
    rgb[..., 1] -= saturation
    found = Clam(sthresh=threshold, mthresh=width, close=0, a_t=0, a_h=1e6, max_n_holes=0)
    padded = np.pad(saturation, width // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (width, width))
    above = np.median(windows, axis=(2, 3)) > threshold
    # Holes are filled, so only what is tissue is compared.
    assert (found(rgb) >= above).all()
    assert found(rgb).any() == above.any()


def test_presets_are_those_of_clam_and_can_be_changed() -> None:
    """By name, each with the numbers of its file."""
    assert detector_of("clam") == detector_of("wsistream-clam") == Clam()
    assert detector_of("clam-bwh-biopsy") == Clam(15, 11, 2, a_t=1, a_h=1, max_n_holes=2)
    assert detector_of("clam-bwh-resection") == Clam(15, 11, 4, a_t=100, a_h=16, max_n_holes=8)
    assert detector_of("clam-tcga") == Clam(8, 7, 4, a_t=16, a_h=4, max_n_holes=8)
    assert detector_of({"name": "clam-tcga", "a_t": 2}) == Clam(8, 7, 4, a_t=2, a_h=4)
    assert Clam(a_t=2).key == Clam(a_t=np.float64(2)).key


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mthresh": 4}, "mthresh must be an odd number from 1 to 99, not 4"),
        ({"sthresh": 300}, "sthresh must be a whole number from 0 to 255"),
        ({"sthresh": 8.5}, "whole number"),
        ({"close": -1}, "close must be"),
        ({"use_otsu": 1}, "use_otsu must be true or false"),
        ({"a_t": float("nan")}, "a_t must be a number"),
        ({"a_h": -1}, "a_h must be a number"),
        ({"max_n_holes": True}, "max_n_holes must be"),
        ({"ref_patch_size": 0}, "ref_patch_size must be"),
    ],
)
def test_wrong_parameters_are_refused_at_once(parameters: dict[str, float], message: str) -> None:
    """Not when the first slide comes, hours later."""
    with pytest.raises(ConfigError, match=f"tissue detector clam: .*{message}"):
        Clam(**parameters)  # type: ignore[arg-type]


def test_the_answer_is_that_of_wsistream_but_for_the_rims_of_holes() -> None:
    """Less than 1 % of the pixels differ, of clouds with many holes."""
    wsistream = pytest.importorskip("wsistream.tissue", reason="wsistream is not installed")
    scale = Scale(16, 16)
    for seed, parameters in (
        (1, {}),
        (2, {"sthresh": 15, "mthresh": 11, "close": 2, "a_t": 1, "a_h": 1, "max_n_holes": 2}),
        (3, {"a_t": 16, "a_h": 4}),
        (4, {"use_otsu": True, "a_t": 1, "a_h": 1}),
        (5, {"mthresh": 1, "close": 0, "a_t": 0, "a_h": 0, "max_n_holes": 0}),
    ):
        rgb = clouds(700, 900, seed)
        oracle = wsistream.CLAMTissueDetector(**parameters).detect(rgb, (16.0, 16.0))
        found = Clam(**parameters).find(rgb, scale)  # type: ignore[arg-type]
        assert 0.05 < oracle.mean() < 0.95
        assert (found != oracle).mean() < 0.01, parameters


def glass(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), 240, np.uint8)


@pytest.mark.parametrize("use_otsu", [False, True])
def test_glass_alone_has_no_tissue(use_otsu: bool) -> None:
    """Of grey glass; also where all has the same saturation."""
    assert not Clam(a_t=0, use_otsu=use_otsu)(glass(30, 30)).any()
