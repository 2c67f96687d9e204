"""Target pixels: the right values, and the same values whatever region they are read with."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.resampling import read_target_into
from chunkdl.slides.resolution import Resolution, TargetGrid, resolve
from chunkdl.slides.slide import Pixels, Slide

FACTORS = (1.0107, 1.9010957, 2.0, 3.77, 7.3, 21.123, 150.0)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pixels]:
    """A lossless slide of 3100x1900 pixels of noise and hard edges, and its pixels."""
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (1900, 3100, 3), dtype=np.uint8)
    pixels[300:900, 400:2000] = np.where(rng.random((600, 1600, 1)) < 0.02, 0, 255)
    path = tmp_path_factory.mktemp("wide") / "wide.tif"
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="zlib")
    return path, pixels


def grid_of(slide: Slide, factor: float) -> TargetGrid:
    return resolve(slide.info, Resolution("downsample", factor, "resample"))


def read_target(slide: Slide, grid: TargetGrid, x: int, y: int, width: int, height: int) -> Pixels:
    out = np.full((height, width, 3), 137, np.uint8)
    read_target_into(slide, grid, out, x, y)
    return out


def triangle(length: int, factor: float, start: int, stop: int) -> npt.NDArray[np.float64]:
    """The filter as it is written in the documentation, one row a target pixel, in float64."""
    places = np.arange(length) + 0.5
    middles = (np.arange(start, stop) + 0.5) * factor
    weights = np.maximum(0, 1 - np.abs(places[None, :] - middles[:, None]) / factor)
    weights /= weights.sum(1, keepdims=True)
    return weights


@pytest.mark.parametrize("factor", FACTORS)
def test_target_pixels_are_the_documented_filter(factor: float, wide: tuple[Path, Pixels]) -> None:
    """Within 1 grey level of the slow float64 filter, also at the borders.

    Two passes round by half a level each; the rounding of places adds at most a quarter, and on
    one value in a thousand at most.
    """
    path, pixels = wide
    with closing(open_slide(path)) as slide:
        grid = grid_of(slide, factor)
        width, height = min(grid.width, 400), min(grid.height, 300)
        for x, y in ((0, 0), (grid.width - width, grid.height - height)):
            across = triangle(pixels.shape[1], factor, x, x + width)
            down = triangle(pixels.shape[0], factor, y, y + height)
            expected = np.stack(
                [down @ pixels[..., c].astype(float) @ across.T for c in range(3)], -1
            )
            got = read_target(slide, grid, x, y, width, height)
            away = np.abs(got - expected)
            assert away.max() <= 1.25
            assert (away > 1.0).mean() < 1e-3


@pytest.mark.parametrize("factor", FACTORS)
def test_a_target_pixel_does_not_depend_on_the_region_it_is_read_with(
    factor: float, wide: tuple[Path, Pixels]
) -> None:
    """60 random regions agree bit for bit with one read of everything."""
    with closing(open_slide(wide[0])) as slide:
        grid = grid_of(slide, factor)
        everything = read_target(slide, grid, 0, 0, grid.width, grid.height)
        rng = np.random.default_rng(int(factor * 1000))
        for _ in range(60):
            width = int(rng.integers(1, min(grid.width, 700) + 1))
            height = int(rng.integers(1, min(grid.height, 300) + 1))
            x = int(rng.integers(0, grid.width - width + 1))
            y = int(rng.integers(0, grid.height - height + 1))
            got = read_target(slide, grid, x, y, width, height)
            np.testing.assert_array_equal(got, everything[y : y + height, x : x + width])


def test_a_level_that_is_at_the_wish_is_delivered_byte_by_byte(
    wide: tuple[Path, Pixels],
) -> None:
    """A factor of 1 is not a filter at all."""
    path, pixels = wide
    with closing(open_slide(path)) as slide:
        grid = grid_of(slide, 1.0)
        np.testing.assert_array_equal(
            read_target(slide, grid, 123, 45, 600, 500), pixels[45:545, 123:723]
        )


def test_a_flat_colour_stays_that_colour(tmp_path: Path) -> None:
    """The weights sum to one, also where the border cuts the filter."""
    path = tmp_path / "flat.tif"
    flat = np.full((777, 999, 3), (241, 7, 130), np.uint8)
    tifffile.imwrite(path, flat, tile=(256, 256), photometric="rgb")
    with closing(open_slide(path)) as slide:
        for factor in FACTORS[:-1]:
            grid = grid_of(slide, factor)
            everything = read_target(slide, grid, 0, 0, grid.width, grid.height)
            assert (everything == flat[0, 0]).all()


def test_a_view_of_a_larger_array_is_filled_and_nothing_beside_it(
    wide: tuple[Path, Pixels],
) -> None:
    """The output may be a part of a batch."""
    with closing(open_slide(wide[0])) as slide:
        grid = grid_of(slide, 1.9)
        frame = np.full((400, 500, 3), 9, np.uint8)
        read_target_into(slide, grid, frame[50:350, 100:400], 200, 300)
        np.testing.assert_array_equal(
            frame[50:350, 100:400], read_target(slide, grid, 200, 300, 300, 300)
        )
        frame[50:350, 100:400] = 9
        assert (frame == 9).all()


def test_a_region_outside_the_grid_is_an_error(wide: tuple[Path, Pixels]) -> None:
    """It names the grid in target pixels."""
    with closing(open_slide(wide[0])) as slide:
        grid = grid_of(slide, 2.0)
        for x, y in ((-1, 0), (0, -1), (grid.width - 63, 0), (0, grid.height - 63)):
            with pytest.raises(SlideError, match=f"{grid.width}x{grid.height}"):
                read_target(slide, grid, x, y, 64, 64)
