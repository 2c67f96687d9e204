"""Pixels that are not 8-bit RGB: made RGB by a stated rule, or refused with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.readers.codecs import ycbcr_to_rgb
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.readers.tiff import open_tiff
from chunkdl.slides.slide import AS_STORED, PixelRule, Pixels, Slide

Read = Callable[[Slide, int, int, int, int, int], Pixels]
PACKED = (None, "zlib", "lzw", "zstd")
TILES: dict[str, Any] = {"tile": (256, 256), "compression": "zlib", "metadata": None}


def whole(path: Path, read_region: Read, rule: PixelRule = AS_STORED) -> Pixels:
    with closing(open_slide(path, rule=rule)) as slide:
        level = slide.info.levels[0]
        return read_region(slide, 0, 0, 0, level.width, level.height)


@pytest.mark.parametrize(
    ("compression", "byteorder"),
    # tifffile writes big-endian samples into JPEG 2000 the wrong way round.
    [
        ("jpeg2000", "<"),
        *((kind, order) for kind in (None, "zlib", "lzw", "zstd") for order in "<>"),
    ],
)
def test_a_window_scales_16_bits_to_8_linearly_and_clips(
    compression: str | None, byteorder: Any, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Each value v becomes round((v - low) * 255 / (high - low)), also in tiles cut by an edge."""
    values = picture[..., 1].astype(np.uint16) * 16 + 7
    path = tmp_path / "grey16.tif"
    with tifffile.TiffWriter(path, byteorder=byteorder) as tiff:
        options: dict[str, Any] = {**TILES, "compression": compression}
        if compression in ("zlib", "lzw"):
            options["predictor"] = 2
        tiff.write(values, photometric="minisblack", **options)
    got = whole(path, read_region, PixelRule(window=(100, 3000)))
    expected = np.clip(np.rint((values.astype(float) - 100) * 255 / 2900), 0, 255)
    np.testing.assert_array_equal(got, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("reader", ["auto", "tiff", "openslide"])
@pytest.mark.parametrize(
    ("kind", "pixels", "options", "remedy"),
    [
        ("16 bit grey", np.zeros((300, 300), np.uint16), {}, r"window=\(low, high\)|'tiff'"),
        (
            "16 bit RGB",
            np.zeros((300, 300, 3), np.uint16),
            {"photometric": "rgb"},
            r"window=\(low, high\)|'tiff'",
        ),
        ("float", np.zeros((300, 300), np.float32), {}, "floating-point.*convert"),
        ("signed", np.zeros((300, 300), np.int8), {}, "signed.*convert"),
        ("32 bit", np.zeros((300, 300), np.uint32), {}, "32 bits.*convert"),
        (
            "ink",
            np.zeros((300, 300, 4), np.uint8),
            {"photometric": "separated"},
            "CMYK.*convert|'tiff'",
        ),
        (
            "unexplained",
            np.zeros((300, 300, 4), np.uint8),
            {"photometric": "rgb", "extrasamples": ["unspecified"]},
            r"channels=\(0, 1, 2\)|'tiff'",
        ),
        (
            "four channels",
            np.zeros((300, 300, 4), np.uint8),
            {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": []},
            r"channels=|'tiff'",
        ),
    ],
)
def test_samples_that_no_rule_covers_are_refused_by_every_reader(
    reader: str,
    kind: str,
    pixels: Pixels,
    options: dict[str, Any],
    remedy: str,
    tmp_path: Path,
) -> None:
    """OpenSlide would narrow them without a word; nobody does."""
    path = tmp_path / f"{kind}.tif"
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **TILES, **options})
    with pytest.raises(SlideError, match=remedy):
        open_slide(path, reader)


def test_grey_is_shown_as_grey_and_white_is_zero_is_inverted(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Red, green and blue are the stored value, or 255 minus it."""
    grey = picture[..., 0]
    for photometric, expected in (("minisblack", grey), ("miniswhite", 255 - grey)):
        path = tmp_path / f"{photometric}.tif"
        tifffile.imwrite(path, grey, photometric=photometric, **TILES)
        got = whole(path, read_region)
        np.testing.assert_array_equal(got, np.repeat(expected[..., None], 3, axis=2))


def test_a_palette_gives_its_colours(tmp_path: Path, picture: Pixels, read_region: Read) -> None:
    """The high byte of the three tables of 16 bits."""
    colours = np.random.default_rng(3).integers(0, 2**16, (3, 256), dtype=np.uint16)
    path = tmp_path / "palette.tif"
    tifffile.imwrite(path, picture[..., 2], photometric="palette", colormap=colours, **TILES)
    expected = (colours >> 8).astype(np.uint8)[:, picture[..., 2]]
    np.testing.assert_array_equal(whole(path, read_region), np.moveaxis(expected, 0, 2))


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_transparent_pixels_are_laid_on_white(
    kind: str, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Within the rounding of 8 bits; associated alpha has the colour multiplied already."""
    alpha = np.linspace(0, 255, picture.shape[1]).astype(np.uint8)[None, :].repeat(700, axis=0)
    share = alpha[..., None] / 255
    colour = picture if kind == "unassalpha" else np.rint(picture * share).astype(np.uint8)
    path = tmp_path / "alpha.tif"
    stored = np.concatenate([colour, alpha[..., None]], axis=2)
    tifffile.imwrite(path, stored, photometric="rgb", extrasamples=[kind], **TILES)
    expected = picture * share + 255 * (1 - share)
    assert np.abs(whole(path, read_region) - expected).max() <= 1.6


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
def test_planes_that_are_stored_apart_are_joined(
    compression: str | None, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """PlanarConfiguration 2: each tile has a stream for red, green and blue."""
    path = tmp_path / "planes.tif"
    tifffile.imwrite(
        path,
        np.moveaxis(picture, 2, 0),
        photometric="rgb",
        planarconfig="separate",
        **{**TILES, "compression": compression},
    )
    truth = np.moveaxis(tifffile.imread(path), 0, 2)
    np.testing.assert_array_equal(whole(path, read_region), truth)


@pytest.mark.parametrize("how", ["OME", "pages"])
def test_channels_in_pages_of_their_own_are_refused_until_somebody_says_which_is_which(
    how: str, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Never one of them as grey three times; channels= joins them or shows one."""
    path = tmp_path / ("planes.ome.tif" if how == "OME" else "planes.tif")
    planes = np.moveaxis(picture, 2, 0)
    options: dict[str, Any] = {**TILES, "photometric": "minisblack"}
    if how == "OME":
        options["metadata"] = {"axes": "CYX"}
        tifffile.imwrite(path, planes, ome=True, **options)
    else:
        with tifffile.TiffWriter(path) as tiff:
            for plane in planes:
                tiff.write(plane, **options)
    with pytest.raises(SlideError, match=r"channels=\(0, 1, 2\)"):
        open_slide(path)
    got = whole(path, read_region, PixelRule(channels=(0, 1, 2)))
    np.testing.assert_array_equal(got, picture)
    got = whole(path, read_region, PixelRule(channels=(2,)))
    np.testing.assert_array_equal(got, np.repeat(picture[..., 2:], 3, axis=2))
    with pytest.raises(SlideError, match="names sample 3"):
        open_slide(path, rule=PixelRule(channels=(3,)))


def test_channels_that_are_called_red_green_and_blue_are_joined(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """The OME-XML says which is which."""
    path = tmp_path / "named.ome.tif"
    tifffile.imwrite(
        path,
        np.moveaxis(picture, 2, 0),
        ome=True,
        photometric="minisblack",
        **{**TILES, "metadata": {"axes": "CYX", "Channel": {"Name": ["Red", "Green", "Blue"]}}},
    )
    np.testing.assert_array_equal(whole(path, read_region), picture)


LOSSLESS = ("zstd", "webp", "jpegxl", "lerc", "lzma", "png", "jpegxr", "packbits")


@pytest.mark.parametrize("compression", LOSSLESS)
def test_every_codec_gives_the_pixels_that_were_written(
    compression: str, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """RGB tiles, at the edges too."""
    path = tmp_path / f"{compression}.tif"
    lossless: dict[str, Any] = {"webp": {"lossless": True}, "jpegxl": {"lossless": True}}
    tifffile.imwrite(
        path,
        picture,
        photometric="rgb",
        compressionargs=lossless.get(compression),
        **{**TILES, "compression": compression},
    )
    truth = tifffile.imread(path)
    np.testing.assert_array_equal(whole(path, read_region), truth)
    assert compression == "jpegxr" or (truth == picture).all()


def write_ycbcr(path: Path, stored: Pixels, compression: str | None) -> None:
    """Write samples that the tag calls YCbCr without subsampling, as they are."""
    args = {"mct": False} if compression == "jpeg2000" else {}
    tifffile.imwrite(
        path,
        stored,
        photometric="rgb",
        compressionargs=args,
        extratags=[(530, 3, 2, (1, 1), True)],
        **{**TILES, "compression": compression},
    )
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags["PhotometricInterpretation"].overwrite(6)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "png", "webp", "lerc"])
def test_ycbcr_that_no_codec_turns_into_rgb_is_never_shown_as_rgb(
    compression: str | None, tmp_path: Path, read_region: Read
) -> None:
    """It is named; what OpenSlide knows, OpenSlide converts."""
    path = tmp_path / "ycbcr.tif"
    write_ycbcr(path, np.full((600, 500, 3), (200, 128, 128), np.uint8), compression)
    with pytest.raises(SlideError, match=r"3 x 8 bit YCbCr"):
        open_tiff(path)
    if compression in (None, "zlib", "lzw"):
        assert np.unique(whole(path, read_region)).tolist() == [200]


def test_ycbcr_in_jpeg_2000_without_a_transform_becomes_rgb(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """With a transform the decoder has made RGB already."""
    path = tmp_path / "ycbcr.tif"
    write_ycbcr(path, picture, "jpeg2000")
    np.testing.assert_array_equal(whole(path, read_region), ycbcr_to_rgb(picture))
    tifffile.imwrite(path, picture, photometric="rgb", **{**TILES, "compression": "jpeg2000"})
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags["PhotometricInterpretation"].overwrite(6)
    np.testing.assert_array_equal(whole(path, read_region), picture)


def test_a_codec_that_is_not_decoded_is_named(tmp_path: Path) -> None:
    """In words, with what to do."""
    path = tmp_path / "fax.tif"
    bits = np.zeros((300, 300), np.uint8)
    tifffile.imwrite(path, bits, tile=(256, 256), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags[259].overwrite(34661)
    with pytest.raises(SlideError, match=r"JBIG \(compression 34661\).*convert"):
        open_slide(path)
