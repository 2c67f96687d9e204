"""The OpenSlide reader: composited pixels, errors that do not stick, bounded reads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.readers import openslide as reader
from chunkdl.slides.readers.argb import composite
from chunkdl.slides.readers.openslide import OpenSlideSlide
from chunkdl.slides.readers.tiff import open_tiff
from chunkdl.slides.slide import Pixels, Slide

Read = Callable[[Slide, int, int, int, int, int], Pixels]


def test_compositing_is_colour_plus_what_the_background_shows_through() -> None:
    """Against the formula in float64, for all alphas and backgrounds: within rounding."""
    rng = np.random.default_rng(3)
    alpha = rng.integers(0, 256, (64, 97)).astype(np.uint32)
    alpha[0], alpha[1] = 0, 255
    colours = [(rng.random(alpha.shape) * (alpha + 1)).astype(np.uint32) for _ in range(3)]
    colours = [np.minimum(colour, alpha) for colour in colours]
    argb = (alpha << 24 | colours[0] << 16 | colours[1] << 8 | colours[2]).astype(np.uint32)
    for background in ((255, 255, 255), (0, 0, 0), (12, 200, 99)):
        out = np.full((*alpha.shape, 3), 77, np.uint8)
        composite(argb, background, out)
        expected = np.stack(colours, -1) + (1 - alpha[..., None] / 255) * np.array(background)
        assert np.abs(out - expected).max() <= 0.51
        assert (out[0] == background).all()


def test_opaque_pixels_are_copied_into_any_view() -> None:
    """The usual case, into a part of a larger array."""
    rgb = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    red, green, blue = (rgb[..., channel].astype(np.uint32) for channel in range(3))
    frame = np.zeros((50, 60, 3), np.uint8)
    argb = (np.uint32(0xFF000000) | red << 16 | green << 8 | blue).astype(np.uint32)
    composite(argb, (255, 255, 255), frame[5:35, 6:46])
    np.testing.assert_array_equal(frame[5:35, 6:46], rgb)


def test_what_was_not_scanned_is_background_and_never_black(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """OpenSlide gives transparent black there; the file's tile 0 was left out."""
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages.first
        page.tags[325].overwrite([0, *page.databytecounts[1:]])
    with closing(OpenSlideSlide(path)) as slide:
        got = read_region(slide, 0, 100, 100, 300, 300)
    assert (got[:156, :156] == 255).all()
    np.testing.assert_array_equal(got[156:, :], picture[256:400, 100:400])


def test_both_readers_give_the_same_pixels(tissue_slide: Path, read_region: Read) -> None:
    """All levels of a made slide; only the colour upsampling of libjpeg may differ."""
    with closing(OpenSlideSlide(tissue_slide)) as one, closing(open_tiff(tissue_slide)) as two:
        assert one.info.levels == two.info.levels
        assert one.info.mpp == pytest.approx(two.info.mpp)
        for index, level in enumerate(one.info.levels):
            away = np.abs(
                read_region(one, index, 0, 0, level.width, level.height).astype(int)
                - read_region(two, index, 0, 0, level.width, level.height)
            )
            assert away.mean() < 0.5


def test_a_large_region_is_read_in_pieces_that_fit_together(
    tissue_slide: Path, read_region: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory beside the output is bounded; the seams do not show."""
    with closing(OpenSlideSlide(tissue_slide)) as slide:
        at_once = read_region(slide, 0, 3, 5, 1400, 1000)
        monkeypatch.setattr(reader, "BLOCK_PX", 1400 * 90)
        np.testing.assert_array_equal(read_region(slide, 0, 3, 5, 1400, 1000), at_once)


def test_an_error_does_not_stick_to_the_slide(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """After a damaged tile OpenSlide's handle is dead; the slide opens it again."""
    path = tmp_path / "one-bad-tile.tif"
    tifffile.imwrite(
        path, picture, tile=(256, 256), photometric="rgb", compression="zlib", metadata=None
    )
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = bytes(count)
    path.write_bytes(data)
    with closing(OpenSlideSlide(path)) as slide:
        for _ in range(2):
            with pytest.raises(SlideError, match=r"level 0, region 9x9 at \(8, 8\)") as caught:
                read_region(slide, 0, 8, 8, 9, 9)
            assert caught.value.__cause__ is not None
            np.testing.assert_array_equal(
                read_region(slide, 0, 300, 300, 99, 99), picture[300:399, 300:399]
            )


def test_a_region_outside_the_level_is_an_error(tissue_slide: Path, read_region: Read) -> None:
    """OpenSlide would give transparent pixels there."""
    with closing(OpenSlideSlide(tissue_slide)) as slide:
        for region in ((-1, 0, 9, 9), (1492, 0, 9, 9), (0, 1092, 9, 9)):
            with pytest.raises(SlideError, match="1500x1100"):
                read_region(slide, 0, *region)


def test_a_closed_slide_gives_an_error_and_closes_twice(
    tissue_slide: Path, read_region: Read
) -> None:
    """It does not open itself again."""
    slide = OpenSlideSlide(tissue_slide)
    slide.close()
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        read_region(slide, 0, 0, 0, 9, 9)


def test_decoded_px_counts_the_tiles_that_a_region_touches(
    tissue_slide: Path, read_region: Read
) -> None:
    """Whole tiles, as the direct reader counts them."""
    with closing(OpenSlideSlide(tissue_slide)) as slide:
        read_region(slide, 0, 250, 0, 10, 256)
        assert slide.decoded_px == 2 * 256 * 256
