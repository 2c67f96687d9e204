"""Tissue masks: exact fractions, bounded memory, sound masks of the user."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from chunkdl.errors import ConfigError, SlideError
from chunkdl.slides.slide import Level, Pixels, SlideInfo
from chunkdl.slides.tissue import thumbnail as thumbnail_module
from chunkdl.slides.tissue.mask import TissueMask, compute_mask, mask_from, whole_slide_mask
from tests.slides.tissue.memory_slide import MemorySlide, virtual_level

QUARTERS = st.integers(-40, 200)
CELLS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5))


class Keeps:
    """A detector that keeps the thumbnail; every pixel that is not white is tissue."""

    name = "keeps"
    key = "keeps"
    thumbnail: Pixels

    def __call__(self, rgb: Pixels) -> npt.NDArray[np.bool_]:
        self.thumbnail = rgb
        return np.asarray((rgb != 255).any(axis=2))


def info_of(width: int, height: int) -> SlideInfo:
    return SlideInfo("a.svs", "memory", (Level(width, height, 1.0, 256, 256),), None)


@given(
    cells=CELLS,
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    xs=st.lists(st.tuples(QUARTERS, QUARTERS), min_size=1, max_size=4),
    ys=st.lists(st.tuples(QUARTERS, QUARTERS), min_size=1, max_size=4),
)
def test_fraction_is_the_average_over_the_pixels_of_the_box(
    cells: npt.NDArray[np.bool_],
    size: tuple[int, int],
    xs: list[tuple[int, int]],
    ys: list[tuple[int, int]],
) -> None:
    """For boxes at quarters of pixels, also empty ones and ones that overhang the slide."""
    width0, height0 = size
    rows, columns = cells.shape
    # On this fine grid both the cells and the boxes end at whole pixels.
    fine = cells.repeat(4 * height0, axis=0).repeat(4 * width0, axis=1)
    got = TissueMask(cells, width0, height0).fraction(
        [x / 4 for x, _ in xs],
        [y / 4 for y, _ in ys],
        [x / 4 for _, x in xs],
        [y / 4 for _, y in ys],
    )
    assert got.shape == (len(ys), len(xs))
    assert got.dtype == np.float32
    for j, (top, bottom) in enumerate(ys):
        for i, (left, right) in enumerate(xs):
            box = fine[
                max(0, top * rows) : max(0, bottom * rows),
                max(0, left * columns) : max(0, right * columns),
            ]
            expected = float(Fraction(int(box.sum()), box.size)) if box.size else 0.0
            assert got[j, i] == pytest.approx(expected, abs=2e-7)


@given(
    columns=st.integers(1, 2048),
    rows=st.integers(1, 2048),
    start=st.floats(0, 49_000),
    side=st.floats(1, 1_000),
)
@settings(max_examples=60)
def test_all_tissue_is_exactly_one_and_no_tissue_exactly_zero(
    columns: int, rows: int, start: float, side: float
) -> None:
    """Whatever is rounded inside, so that a threshold of 1.0 or 0.0 means what it says."""
    cells = np.zeros((rows, 2 * columns), np.bool_)
    cells[:, :columns] = True
    mask = TissueMask(cells, 100_000, 50_001)
    boxes = np.array([start, start + 50_000])
    got = mask.fraction(boxes, [start], boxes + side, [start + side])
    assert got.tolist() == [[1.0, 0.0]]


def test_a_million_boxes_take_little_more_memory_than_their_result() -> None:
    """Work is done in row blocks, and the blocks fit together."""
    cells = np.random.default_rng(1).random((500, 600)) < 0.5
    mask = TissueMask(cells, 9_600, 8_000)
    x, y = np.linspace(0, 9_500, 2_500), np.linspace(0, 7_900, 3_000)
    tracemalloc.start()
    try:
        got = mask.fraction(x, y, x + 77.7, y + 55.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < got.nbytes + 60 * 2**20
    for j in (0, 1, 1_499, 2_999):
        one = mask.fraction(x, y[j : j + 1], x + 77.7, y[j : j + 1] + 55.5)
        np.testing.assert_array_equal(got[j], one[0])


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_thumbnail_is_the_average_over_each_cell_and_reads_no_tile_twice(
    data: st.DataObject,
) -> None:
    """For any slide, tile and block size; tiles that fit into a block are read once."""
    width, height = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    tile = data.draw(st.integers(1, 40))
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    slide = MemorySlide([pixels], mpp=(1.0, 1.0), tile=tile)
    cell = data.draw(st.sampled_from([1.0, 2.0, 3.0, 7.0, 100.0]))
    block = data.draw(st.sampled_from([10, 400, 2_000, 2**23]))
    detector = Keeps()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thumbnail_module, "_BLOCK_PX", block)
        mask = compute_mask(slide, detector, mpp=8.0 / cell)
    rows, columns = mask.cells.shape
    y_ends = np.floor(np.arange(rows + 1) * height / rows + 0.5).astype(int)
    x_ends = np.floor(np.arange(columns + 1) * width / columns + 0.5).astype(int)
    for j in range(rows):
        for i in range(columns):
            part = pixels[y_ends[j] : y_ends[j + 1], x_ends[i] : x_ends[i + 1]]
            mean = part.reshape(-1, 3).mean(axis=0)
            np.testing.assert_allclose(detector.thumbnail[j, i], mean, atol=0.501)
    assert slide.decoded_px == width * height
    if tile * tile <= block and cell > 1:
        for _, x, y, _, _ in slide.reads:
            assert (x % tile, y % tile) == (0, 0)


@pytest.mark.parametrize(
    ("mpp", "level", "shape"),
    [
        pytest.param(0.5, 2, (64, 128), id="16x of 0.5 is 8 microns"),
        pytest.param(0.5044, 2, (64, 128), id="8.07 microns are still about 8"),
        pytest.param(0.25, 2, (32, 64), id="16x of 0.25 is averaged over 2x2"),
        pytest.param(1.0, 1, (128, 256), id="4x of 1.0 is averaged over 2x2"),
        pytest.param(9.0, 0, (1024, 2048), id="level 0 is coarser than the wish"),
        pytest.param(None, 2, (64, 128), id="unknown counts as 0.5"),
    ],
)
def test_the_coarsest_level_of_about_8_microns_is_read(
    mpp: float | None, level: int, shape: tuple[int, int]
) -> None:
    """Never level 0 where a coarser level does; the mask covers all of level 0."""
    sides = [(1024, 2048), (256, 512), (64, 128)]
    slide = MemorySlide(
        [virtual_level(width, height) for height, width in sides],
        mpp=None if mpp is None else (mpp, mpp),
    )
    mask = compute_mask(slide, Keeps())
    assert {read[0] for read in slide.reads} == {level}
    assert mask.cells.shape == shape
    assert (mask.width0, mask.height0) == (2048, 1024)


def test_the_given_mpp_replaces_that_of_the_file() -> None:
    """Also as (x, y), of which the mean counts."""
    slide = MemorySlide([virtual_level(1600, 800)], mpp=(0.25, 0.25))
    assert compute_mask(slide, Keeps()).cells.shape == (25, 50)
    assert compute_mask(slide, Keeps(), mpp=1.0).cells.shape == (100, 200)
    assert compute_mask(slide, Keeps(), mpp=(0.4, 0.6)).cells.shape == (50, 100)
    with pytest.raises(ConfigError, match="above 0"):
        compute_mask(slide, Keeps(), mpp=-1.0)


@pytest.mark.parametrize("tile", [256, 60_000])
def test_one_huge_level_is_read_in_strips_of_bounded_memory(tile: int) -> None:
    """A slide of 0.5 GB in one level, tiled or in one piece, never lies in memory as a whole."""
    slide = MemorySlide([virtual_level(60_000, 3_000)], mpp=(0.5, 0.5), tile=tile)
    tracemalloc.start()
    try:
        mask = compute_mask(slide, Keeps())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert mask.cells.shape == (188, 3_750)
    assert slide.decoded_px == 60_000 * 3_000
    assert peak < 150 * 2**20


@pytest.mark.parametrize("mpp", [None, (1e-6, 1e-6), (1e3, 1e3)])
def test_the_mask_stays_of_useful_size_whatever_the_file_says(
    mpp: tuple[float, float] | None,
) -> None:
    """At most 4096 cells a side, and not only a few because an mpp is wrong."""
    slide = MemorySlide([virtual_level(90_000, 500)], mpp=mpp)
    assert 300 < compute_mask(slide, Keeps()).cells.shape[1] <= 4096


def test_a_detector_that_returns_something_else_is_named() -> None:
    """A detector of the user that breaks its promise is a clear error."""

    class Wrong(Keeps):
        def __init__(self, answer: npt.NDArray[np.bool_]) -> None:
            self.answer = answer

        def __call__(self, rgb: Pixels) -> npt.NDArray[np.bool_]:
            return self.answer

    slide = MemorySlide([virtual_level(160, 80)])
    with pytest.raises(ConfigError, match=r"'keeps' returned shape \(3, 3\)"):
        compute_mask(slide, Wrong(np.ones((3, 3), np.bool_)))
    with pytest.raises(ConfigError, match="'keeps' must return a bool array"):
        compute_mask(slide, Wrong(np.ones((5, 10), np.uint8)))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
def test_an_array_of_the_user_is_taken_as_it_is(dtype: type) -> None:
    """What is not 0 is tissue, and the array covers the whole slide."""
    given_mask: npt.NDArray[np.uint8] = np.array([[0, 1, 0, 3], [0, 0, 255, 1]]).astype(dtype)
    mask = mask_from(given_mask, info_of(4_000, 2_050))
    np.testing.assert_array_equal(mask.cells, given_mask != 0)
    assert (mask.width0, mask.height0) == (4_000, 2_050)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_an_image_file_of_any_kind_is_a_mask(tmp_path: Path, mode: str) -> None:
    """Any colour but black is tissue; an opaque alpha channel is none."""
    expected = np.zeros((6, 8), np.bool_)
    expected[1:3, 2:5] = True
    grey = Image.fromarray(expected.astype(np.uint8) * 255)
    if mode == "P":
        image = Image.fromarray(expected.astype(np.uint8)).convert("L")
        image.putpalette([0, 0, 0, 9, 9, 9])
    elif mode == "I;16":
        image = Image.fromarray(expected.astype(np.uint16) * 300)
    else:
        image = grey.convert(mode)
    image.save(tmp_path / "mask.png")
    mask = mask_from(tmp_path / "mask.png", info_of(800, 600))
    np.testing.assert_array_equal(mask.cells, expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((10, 10), np.bool_), "10x10 pixels and the slide 2000x1000"),
        (np.ones((100, 211), np.bool_), "211x100 pixels and the slide 2000x1000"),
        (np.ones((100, 189), np.bool_), "189x100 pixels and the slide 2000x1000"),
        (np.ones((10, 20, 3), np.uint8), r"not uint8 of shape \(10, 20, 3\)"),
        (np.ones((10, 20), np.float32), "not float32"),
        (np.ones((0, 0), np.bool_), r"shape \(0, 0\)"),
    ],
)
def test_an_array_that_is_no_mask_of_the_slide_is_refused(
    values: npt.NDArray[np.bool_], message: str
) -> None:
    """The error names the slide and both sizes, or what the array is."""
    with pytest.raises(SlideError, match=message) as caught:
        mask_from(values, info_of(2_000, 1_000))
    assert caught.value.slide == "a.svs"


def test_an_aspect_ratio_less_than_5_percent_off_is_taken() -> None:
    """Thumbnails are rounded to whole pixels."""
    for columns in (192, 209):
        mask_from(np.ones((100, columns), np.bool_), info_of(2_000, 1_000))


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_an_image_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, damaged: one kind of error with the path."""
    if content is not None:
        (tmp_path / "m.png").write_bytes(content)
    with pytest.raises(SlideError, match=r"tissue mask .*m\.png cannot be read"):
        mask_from(str(tmp_path / "m.png"), info_of(10, 10))


def test_a_cut_image_file_is_refused(tmp_path: Path) -> None:
    """Half a mask is not a mask."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "m.png")
    whole = (tmp_path / "m.png").read_bytes()
    (tmp_path / "m.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError, match="cannot be read"):
        mask_from(tmp_path / "m.png", info_of(64, 64))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [4_095, 3_000, 1_000])
def test_an_image_larger_than_pillow_allows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Before its pixels are decoded; the error says what to do."""
    Image.new("L", (64, 64)).save(tmp_path / "m.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(SlideError, match="make it smaller"):
        mask_from(tmp_path / "m.png", info_of(64, 64))


def test_the_whole_slide_is_tissue_without_detection() -> None:
    """Every box inside has the fraction 1."""
    mask = whole_slide_mask(info_of(123, 45))
    assert mask.fraction([0, 3.5], [0], [123, 9], [45]).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    "cells", [np.ones((2, 2), np.uint8), np.ones(4, np.bool_), np.ones((0, 3), np.bool_)]
)
def test_a_mask_of_the_wrong_kind_is_never_made(cells: npt.NDArray[np.bool_]) -> None:
    """The value checks itself, since it is made by several parts."""
    with pytest.raises(ConfigError, match="2-D bool array"):
        TissueMask(cells, 10, 10)
    with pytest.raises(ConfigError, match="0x10"):
        TissueMask(np.ones((2, 2), np.bool_), 0, 10)
