"""The direct reader on TIFF files of every kind that it takes, and its ways of reading."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.readers.codecs import ycbcr_to_rgb
from chunkdl.slides.readers.tiff import open_tiff
from chunkdl.slides.readers.tile_cache import TileCache
from chunkdl.slides.slide import Pixels, Slide

Read = Callable[[Slide, int, int, int, int, int], Pixels]

LOSSLESS: dict[str, dict[str, Any]] = {
    "uncompressed tiles": {"tile": (256, 256)},
    "deflate tiles": {"tile": (128, 256), "compression": "zlib"},
    "deflate tiles with predictor": {"tile": (256, 240), "compression": "zlib", "predictor": 2},
    "lzw tiles": {"tile": (256, 256), "compression": "lzw"},
    "lzw tiles with predictor": {"tile": (1024, 1024), "compression": "lzw", "predictor": True},
    "jpeg 2000 tiles": {"tile": (256, 256), "compression": "jpeg2000"},
    "uncompressed strips": {"rowsperstrip": 16},
    "one uncompressed strip": {},
    "deflate strips": {"rowsperstrip": 33, "compression": "zlib"},
    "lzw strips with predictor": {"rowsperstrip": 50, "compression": "lzw", "predictor": 2},
    "bigtiff": {"tile": (256, 256), "compression": "zlib", "bigtiff": True},
    "big-endian": {"tile": (256, 256), "compression": "zlib", "byteorder": ">"},
}


def write(path: Path, pixels: Pixels, **options: Any) -> Path:
    file = {key: options.pop(key) for key in ("bigtiff", "byteorder") if key in options}
    with tifffile.TiffWriter(path, **file) as tiff:
        tiff.write(pixels, photometric="rgb", metadata=None, **options)
    return path


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_region_of_a_lossless_file_is_what_was_written(
    kind: str, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """The whole image, and 60 random regions from one pixel up."""
    path = write(tmp_path / "made.tif", picture, **LOSSLESS[kind])
    rng = np.random.default_rng(4)
    with closing(open_tiff(path)) as slide:
        np.testing.assert_array_equal(read_region(slide, 0, 0, 0, 900, 700), picture)
        for _ in range(60):
            w, h = int(rng.integers(1, 500)), int(rng.integers(1, 500))
            x, y = int(rng.integers(0, 901 - w)), int(rng.integers(0, 701 - h))
            np.testing.assert_array_equal(
                read_region(slide, 0, x, y, w, h), picture[y : y + h, x : x + w]
            )


def test_a_long_uncompressed_strip_is_read_in_blocks(tmp_path: Path, read_region: Read) -> None:
    """A corner of an image in one strip of 4 Mpx does not decode all of it."""
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    with closing(open_tiff(write(tmp_path / "strip.tif", pixels))) as slide:
        np.testing.assert_array_equal(
            read_region(slide, 0, 1900, 1900, 100, 100), pixels[1900:, 1900:]
        )
        assert slide.decoded_px < 1_000_000


@pytest.mark.parametrize("space", ["ycbcr", "rgb"])
@pytest.mark.parametrize("layout", [{"tile": (256, 256)}, {"rowsperstrip": 64}])
def test_jpeg_files_have_the_pixels_of_tifffile(
    space: str, layout: dict[str, Any], tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Tiles and strips, photometric YCbCr and RGB; the last strip is short."""
    path = tmp_path / "jpeg.tif"
    options = {"compressionargs": {"level": 90, "outcolorspace": space}, **layout}
    write(path, picture, compression="jpeg", **options)
    truth = tifffile.imread(path)
    with closing(open_tiff(path)) as slide:
        np.testing.assert_array_equal(read_region(slide, 0, 0, 0, 900, 700), truth)
        np.testing.assert_array_equal(
            read_region(slide, 0, 201, 399, 333, 301), truth[399:700, 201:534]
        )


@pytest.mark.parametrize("where", ["pages", "subifds"])
def test_levels_may_be_pages_or_subifds(
    where: str, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Both pyramids have the same levels; the pages come in the order of their size."""
    path = tmp_path / "pyramid.tif"
    half, quarter = picture[::2, ::2], picture[::4, ::4]
    common: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture, subifds=2 if where == "subifds" else 0, **common)
        reduced = (half, quarter) if where == "subifds" else (quarter, half)
        for pixels in reduced:
            tiff.write(pixels, subfiletype=1, **common)
    with closing(open_tiff(path)) as slide:
        assert [(v.width, v.height) for v in slide.info.levels] == [
            (900, 700),
            (450, 350),
            (225, 175),
        ]
        assert [v.downsample for v in slide.info.levels] == [1.0, 2.0, 4.0]
        np.testing.assert_array_equal(read_region(slide, 1, 17, 30, 300, 200), half[30:230, 17:317])
        np.testing.assert_array_equal(read_region(slide, 2, 0, 0, 225, 175), quarter)


def test_pages_that_are_no_levels_are_left_out(tmp_path: Path, picture: Pixels) -> None:
    """A thumbnail in strips and a full page of something else are no levels, as in OpenSlide."""
    path = tmp_path / "mixed.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture, tile=(256, 256), photometric="rgb", metadata=None)
        tiff.write(picture[::8, ::8], subfiletype=1, photometric="rgb", metadata=None)
        tiff.write(picture[::3, ::3], tile=(256, 256), photometric="rgb", metadata=None)
        tiff.write(
            picture[::2, ::2], tile=(256, 256), subfiletype=1, photometric="rgb", metadata=None
        )
    with closing(open_tiff(path)) as slide, closing(openslide.OpenSlide(path)) as other:
        assert [(v.width, v.height) for v in slide.info.levels] == list(other.level_dimensions)
        assert len(slide.info.levels) == 2


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        ((20_000, 40_000), "CENTIMETER", (0.5, 0.25)),
        ((50_800, 50_800), "INCH", (0.5, 0.5)),
        ((20_000, 20_000), "NONE", None),
        ((0, 0), "CENTIMETER", None),
    ],
)
def test_mpp_comes_from_the_resolution_as_in_openslide(
    resolution: tuple[int, int],
    unit: str,
    mpp: tuple[float, float] | None,
    tmp_path: Path,
    picture: Pixels,
) -> None:
    """Centimetres and inches; no unit is not a mpp."""
    path = write(
        tmp_path / "u.tif", picture, tile=(256, 256), resolution=resolution, resolutionunit=unit
    )
    with closing(open_tiff(path)) as slide:
        assert slide.info.mpp == (pytest.approx(mpp) if mpp else None)
    if mpp:
        with closing(openslide.OpenSlide(path)) as other:
            assert float(other.properties["openslide.mpp-x"]) == pytest.approx(mpp[0])
            assert float(other.properties["openslide.mpp-y"]) == pytest.approx(mpp[1])


@pytest.mark.parametrize(("unit", "size"), [("µm", 0.25), ("nm", 250.0), ("mm", 0.00025)])
def test_an_ome_tiff_without_resolution_says_its_mpp_in_xml(
    unit: str, size: float, tmp_path: Path, picture: Pixels
) -> None:
    """PhysicalSizeX with its unit."""
    path = tmp_path / "made.ome.tif"
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": size,
        "PhysicalSizeXUnit": unit,
        "PhysicalSizeY": size * 2,
        "PhysicalSizeYUnit": unit,
    }
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", metadata=metadata, ome=True)
    with closing(open_tiff(path)) as slide:
        assert slide.info.mpp == pytest.approx((0.25, 0.5))


def write_aperio(path: Path, picture: Pixels, *, ycbcr: bool) -> None:
    """An Aperio file of JPEG 2000 tiles whose codestreams are RGB or YCbCr."""
    pixels = np.asarray(imagecodecs.jpeg2k_decode(imagecodecs.jpeg2k_encode(picture)))
    stored = rgb_to_ycbcr(pixels) if ycbcr else pixels
    padded = np.pad(stored, ((0, 68), (0, 124), (0, 0)), mode="edge")
    tiles = [
        bytes(
            imagecodecs.jpeg2k_encode(
                np.ascontiguousarray(padded[y : y + 256, x : x + 256]), codecformat="J2K", mct=False
            )
        )
        for y in range(0, 700, 256)
        for x in range(0, 900, 256)
    ]
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter(tiles),
            shape=(700, 900, 3),
            dtype=np.uint8,
            tile=(256, 256),
            photometric="rgb",
            compression=33003 if ycbcr else 33005,
            description="Aperio Image Library v1\r\n900x700|AppMag = 20|MPP = 0,4990",
            metadata=None,
        )


def rgb_to_ycbcr(pixels: Pixels) -> Pixels:
    matrix = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    converted = pixels @ matrix.T + (0, 128, 128)
    return np.asarray(np.clip(np.rint(converted), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("ycbcr", [False, True])
def test_aperio_jpeg_2000_has_the_colours_of_openslide(
    ycbcr: bool, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Compression 33005 is RGB and 33003 is YCbCr; the mpp may have a decimal comma."""
    path = tmp_path / "made.svs"
    write_aperio(path, picture, ycbcr=ycbcr)
    with closing(open_tiff(path)) as slide, closing(openslide.OpenSlide(path)) as other:
        theirs = np.asarray(other.read_region((0, 0), 0, (900, 700)).convert("RGB")).astype(int)
        assert np.abs(read_region(slide, 0, 0, 0, 900, 700) - theirs).max() <= 1
        assert slide.info.mpp == (0.499, 0.499)
        assert float(other.properties["openslide.mpp-x"]) == 0.499


def test_ycbcr_goes_back_to_rgb(picture: Pixels) -> None:
    """There and back again is within the rounding of the way there."""
    assert np.abs(ycbcr_to_rgb(rgb_to_ycbcr(picture)).astype(int) - picture).max() <= 2


def test_a_tile_that_was_left_out_is_background_as_in_openslide(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """A byte count of zero is a tile that the scanner did not write."""
    path = write(tmp_path / "sparse.tif", picture, tile=(256, 256))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages.first
        page.tags[325].overwrite([0, *page.databytecounts[1:]])
    with closing(open_tiff(path)) as slide, closing(openslide.OpenSlide(path)) as other:
        got = read_region(slide, 0, 200, 200, 100, 100)
        assert (got[:56, :56] == 255).all()
        np.testing.assert_array_equal(got[56:], picture[256:300, 200:300])
        assert not np.asarray(other.read_region((200, 200), 0, (56, 56))).any()


def test_a_view_is_filled_and_nothing_beside_it(tissue_slide: Path, read_region: Read) -> None:
    """Rows of the output may lie apart, as in a batch or a larger region."""
    with closing(open_tiff(tissue_slide)) as slide:
        for x, y, w, h in ((0, 0, 512, 512), (256, 256, 256, 256), (100, 37, 700, 411)):
            frame = np.full((h + 20, w + 30, 3), 9, np.uint8)
            slide.read_into(frame[10:-10, 20:-10], 0, x, y)
            np.testing.assert_array_equal(frame[10:-10, 20:-10], read_region(slide, 0, x, y, w, h))
            frame[10:-10, 20:-10] = 9
            assert (frame == 9).all()


def test_whole_tiles_are_decoded_once_a_read_and_parts_once_for_all(
    tissue_slide: Path, read_region: Read
) -> None:
    """Neighbouring reads of parts of a tile share its decoding; decoded_px counts whole tiles."""
    with closing(open_tiff(tissue_slide)) as slide:
        for _ in range(2):
            read_region(slide, 0, 0, 256, 512, 256)
        assert slide.decoded_px == 4 * 256 * 256
        for x in range(512, 768, 64):
            read_region(slide, 0, x, 256, 64, 256)
        assert slide.decoded_px == 5 * 256 * 256


def test_the_tile_cache_stays_within_its_bytes(tissue_slide: Path, read_region: Read) -> None:
    """With room for two tiles, going around three of them decodes each time; with none, too."""
    tile = 256 * 256
    for limit, decoded in ((2 * tile * 3, 6), (0, 6), (3 * tile * 3, 3)):
        with closing(open_tiff(tissue_slide)) as slide:
            slide._cache = TileCache(limit)
            for x in (0, 256, 512) * 2:
                read_region(slide, 0, x + 10, 10, 50, 50)
            assert slide.decoded_px == decoded * tile


@pytest.mark.parametrize(
    "region", [(-1, 0, 9, 9), (0, -1, 9, 9), (1492, 0, 9, 9), (0, 1092, 9, 9), (0, 0, 1501, 1)]
)
def test_a_region_outside_the_level_is_an_error(
    region: tuple[int, int, int, int], tissue_slide: Path, read_region: Read
) -> None:
    """It names the slide, the level and the region."""
    with (
        closing(open_tiff(tissue_slide)) as slide,
        pytest.raises(SlideError, match="1500x1100") as caught,
    ):
        read_region(slide, 0, *region)
    assert (caught.value.level, caught.value.region) == (0, region)
    assert caught.value.slide == str(tissue_slide)


def test_a_closed_slide_gives_an_error_and_closes_twice(
    tissue_slide: Path, read_region: Read
) -> None:
    """Closing twice is allowed, reading is not."""
    slide = open_tiff(tissue_slide)
    slide.close()
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        read_region(slide, 0, 0, 0, 64, 64)


def test_a_file_that_is_overwritten_while_it_is_open_is_no_source_of_pixels(
    tmp_path: Path, picture: Pixels
) -> None:
    """The new tiles lie at other places, where raw samples look like any; opened anew, the slide
    has the new pixels."""
    path, other = tmp_path / "slide.tif", tmp_path / "other.tif"
    tifffile.imwrite(path, picture, tile=(64, 64), photometric="rgb")
    tifffile.imwrite(other, 255 - picture, tile=(128, 128), photometric="rgb")
    out = np.empty((64, 64, 3), np.uint8)
    with closing(open_tiff(path)) as slide:
        slide.read_into(out, 0, 0, 0)
        path.write_bytes(other.read_bytes())
        with pytest.raises(SlideError, match="changed while it was read") as caught:
            slide.read_into(out, 0, 64, 64)
        assert caught.value.may_pass
    with closing(open_tiff(path)) as slide:
        slide.read_into(out, 0, 64, 64)
    np.testing.assert_array_equal(out, 255 - picture[64:128, 64:128])
