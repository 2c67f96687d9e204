"""Made slides: pixels that say where they are, and tissue that is where the map says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.errors import ConfigError
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.slide import Pixels, Slide
from chunkdl.slides.synthetic.tissue_look import BACKGROUND, STROMA, TUMOUR
from chunkdl.slides.synthetic.writing import (
    CoordinateSlide,
    write_coordinate_slide,
    write_tissue_slide,
)

Read = Callable[[Slide, int, int, int, int, int], Pixels]


@pytest.mark.parametrize("reader", ["tiff", "openslide"])
@pytest.mark.parametrize("compression", ["deflate", "lzw", None])
def test_every_pixel_of_a_coordinate_slide_says_where_it_is(
    reader: str, compression: str | None, tmp_path: Path, read_region: Read
) -> None:
    """All pixels of all levels, with both readers; the slide's id is in them too."""
    path = tmp_path / "coordinates.tif"
    made = write_coordinate_slide(
        path, 1000, 700, slide_id=7, levels=(1, 2, 4), mpp=0.3, compression=compression
    )
    with closing(open_slide(path, reader)) as slide:
        assert slide.info.mpp == pytest.approx((0.3, 0.3), rel=1e-6)
        assert [v.downsample for v in slide.info.levels] == [1.0, 2.0, 4.0]
        for index, level in enumerate(slide.info.levels):
            got = read_region(slide, index, 0, 0, level.width, level.height)
            np.testing.assert_array_equal(got, made.pixels(index, 0, 0, level.width, level.height))
            assert made.locate(got[13, 57]) == (7, index, 57, 13)


@given(
    level=st.integers(0, 2), x=st.integers(0, 49), y=st.integers(0, 36), slide_id=st.integers(0, 9)
)
def test_a_colour_is_one_place(level: int, x: int, y: int, slide_id: int) -> None:
    """locate() undoes pixels(), so no two places of any level or slide share a colour."""
    slide = CoordinateSlide(800, 600, (1, 4, 16), slide_id)
    pixel = slide.pixels(level, x, y, 1, 1)[0, 0]
    assert slide.locate(pixel) == (slide_id, level, x, y)


def test_a_coordinate_slide_larger_than_the_colours_is_refused() -> None:
    """4096x4096 is the largest of one level."""
    CoordinateSlide(4096, 4096, (1,))
    for arguments in ((4097, 4096, (1,), 0), (4096, 4096, (1, 4), 0), (4096, 4096, (1,), 1)):
        with pytest.raises(ConfigError, match="colours"):
            CoordinateSlide(*arguments)


def test_the_same_seed_makes_the_same_file(tmp_path: Path) -> None:
    """And another seed another one."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_tissue_slide(tmp_path / name, 600, 500, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("reader", ["tiff", "openslide"])
def test_tissue_is_where_the_map_says_and_looks_like_its_class(
    reader: str, tmp_path: Path, read_region: Read
) -> None:
    """Glass is near white, tumour is darker and bluer than stroma; at every level."""
    path = tmp_path / "tissue.tif"
    tissue = write_tissue_slide(path, 2048, 1536, seed=11, tumour_fraction=0.6)
    with closing(open_slide(path, reader)) as slide:
        assert [v.downsample for v in slide.info.levels] == [1.0, 4.0, 16.0]
        for index, level in enumerate(slide.info.levels):
            width, height = level.width, level.height
            classes = tissue.classes(0, 0, width, height, level.downsample)
            pixels = read_region(slide, index, 0, 0, width, height).astype(float)
            glass, stroma, tumour = (
                pixels[classes == kind].mean(0) for kind in (BACKGROUND, STROMA, TUMOUR)
            )
            assert glass.min() > 230
            assert tumour.mean() < stroma.mean() - 15
            assert tumour[2] - tumour[0] > stroma[2] - stroma[0] + 15


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.8, 1.0])
def test_the_dominant_class_is_the_one_that_was_asked_for(fraction: float, tmp_path: Path) -> None:
    """About a third of the slide is tissue, and about that part of it is tumour."""
    tissue = write_tissue_slide(tmp_path / "t.tif", 1024, 1024, seed=4, tumour_fraction=fraction)
    classes = tissue.classes(0, 0, 1024, 1024)
    assert 0.25 < (classes != BACKGROUND).mean() < 0.45
    share = (classes == TUMOUR).sum() / (classes != BACKGROUND).sum()
    assert share == pytest.approx(fraction, abs=0.05)


def test_reduced_levels_are_the_means_of_the_level_before(
    tmp_path: Path, read_region: Read
) -> None:
    """A patch at a coarse level shows what is there, within the JPEG."""
    path = tmp_path / "t.tif"
    write_tissue_slide(path, 1000, 800, seed=2, quality=95)
    with closing(open_slide(path)) as slide:
        fine = read_region(slide, 0, 0, 0, 1000, 800).astype(float)
        coarse = read_region(slide, 1, 0, 0, 250, 200)
        means = fine.reshape(200, 4, 250, 4, 3).mean((1, 3))
        assert np.abs(means - coarse).mean() < 4


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    path = tmp_path / "t.tif"
    for options in (
        {"levels": (2, 4)},
        {"levels": (1, 4, 6)},
        {"levels": (1, 4, 4)},
        {"tile": 100},
        {"width": 200},
    ):
        arguments = {"width": 512, "height": 512, **options}
        with pytest.raises(ConfigError):
            write_tissue_slide(path, seed=1, **arguments)  # type: ignore[arg-type]
    assert not path.exists()
