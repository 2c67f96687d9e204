"""What the pixels of a JPEG tile are: its stream says it, also where the tag contradicts it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.slide import Pixels, Slide
from tests.slides.tiff_pages import TILE

Read = Callable[[Slide, int, int, int, int, int], Pixels]
PHOTOMETRIC = 262
CLOSE = 12
"""Grey levels within which a smooth picture comes back from JPEG at quality 95."""


@pytest.fixture(scope="module")
def smooth() -> Pixels:
    """Two tiles of even colours: what is read as the wrong colour space is far off."""
    y, x = np.mgrid[0:TILE, 0 : 2 * TILE]
    return np.stack([60 + x, 200 - y, 40 + (x + y) // 2], axis=-1).astype(np.uint8)


def jpeg(pixels: Pixels, kind: str) -> bytes:
    """A stream: "jfif" and "app14 ycbcr" hold YCbCr, "app14 rgb" and "bare rgb" RGB, "grey" one."""
    pixels = np.ascontiguousarray(pixels)
    if kind == "grey":
        return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels[..., 0]), level=95))
    if kind in ("app14 rgb", "bare rgb"):
        data = bytes(
            imagecodecs.jpeg8_encode(pixels, level=95, colorspace="RGB", outcolorspace="RGB")
        )
        return data if kind == "app14 rgb" else without(data, 0xEE)
    data = without(bytes(imagecodecs.jpeg8_encode(pixels, level=95, outcolorspace="YCBCR")), 0xEE)
    if kind == "jfif":
        return data
    bare = without(data, 0xE0)
    if kind == "bare ycbcr":
        return bare
    assert kind == "app14 ycbcr"
    return bare[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x01" + bare[2:]


def without(data: bytes, marker: int) -> bytes:
    """The stream without the segments of a marker before its scan."""
    out, at = data[:2], 2
    while data[at + 1] != 0xDA:
        length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] != marker:
            out += data[at : at + length]
        at += length
    return out + data[at:]


def write(path: Path, pixels: Pixels, kind: str, photometric: int) -> Path:
    tiles = [jpeg(pixels[:, x : x + TILE], kind) for x in range(0, pixels.shape[1], TILE)]
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter(tiles),
            shape=pixels.shape,
            dtype=np.uint8,
            tile=(TILE, TILE),
            photometric="rgb",
            compression=7,
            metadata=None,
        )
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags[PHOTOMETRIC].overwrite(photometric)
    return path


RGB, YCBCR = 2, 6


@pytest.mark.parametrize("photometric", [RGB, YCBCR])
@pytest.mark.parametrize("kind", ["jfif", "app14 ycbcr", "app14 rgb"])
def test_the_marks_of_the_stream_decide_whatever_the_tag_says(
    kind: str, photometric: int, tmp_path: Path, smooth: Pixels, read_region: Read
) -> None:
    """RGB by APP14 under the tag YCbCr, JFIF under the tag RGB, and the right ones."""
    path = write(tmp_path / "a.tif", smooth, kind, photometric)
    with closing(open_slide(path)) as slide:
        got = read_region(slide, 0, 0, 0, 2 * TILE, TILE)
    assert np.abs(got.astype(int) - smooth).max() <= CLOSE


@pytest.mark.parametrize(("kind", "photometric"), [("bare ycbcr", YCBCR), ("bare rgb", RGB)])
def test_the_tag_decides_where_the_stream_says_nothing(
    kind: str, photometric: int, tmp_path: Path, smooth: Pixels, read_region: Read
) -> None:
    """Streams without APP0 and APP14, as scanners write them beside JPEGTables."""
    path = write(tmp_path / "a.tif", smooth, kind, photometric)
    with closing(open_slide(path)) as slide:
        got = read_region(slide, 0, 0, 0, 2 * TILE, TILE)
    assert np.abs(got.astype(int) - smooth).max() <= CLOSE


def test_components_that_are_called_r_g_and_b_are_these(
    tmp_path: Path, smooth: Pixels, read_region: Read
) -> None:
    """As libjpeg reads them, under a tag that says YCbCr."""
    path = write(tmp_path / "a.tif", smooth, "bare rgb", YCBCR)
    assert b"\x03R\x11\0G\x11\0B\x11\0" in jpeg(smooth[:, :TILE], "bare rgb")
    with closing(open_slide(path)) as slide:
        got = read_region(slide, 0, 0, 0, 2 * TILE, TILE)
    assert np.abs(got.astype(int) - smooth).max() <= CLOSE


@pytest.mark.parametrize("photometric", [RGB, YCBCR])
def test_a_stream_of_one_component_is_grey_where_the_tag_says_three(
    photometric: int, tmp_path: Path, smooth: Pixels, read_region: Read
) -> None:
    """Encoders write tiles of plain glass so."""
    path = write(tmp_path / "a.tif", smooth, "grey", photometric)
    with closing(open_slide(path)) as slide:
        got = read_region(slide, 0, 0, 0, 2 * TILE, TILE)
    assert (got == got[..., :1]).all()
    assert np.abs(got[..., 0].astype(int) - smooth[..., 0]).max() <= CLOSE


def test_a_stream_of_another_size_or_of_four_components_is_an_error(
    tmp_path: Path, smooth: Pixels, read_region: Read
) -> None:
    """Neither stretched nor cut in silence."""
    four = np.dstack([smooth, smooth[..., :1]])[:, :TILE]
    streams = {
        "small": jpeg(smooth[:32, :32], "jfif"),
        "wide": jpeg(smooth, "jfif"),
        "four": bytes(
            imagecodecs.jpeg8_encode(
                np.ascontiguousarray(four), colorspace="CMYK", outcolorspace="CMYK"
            )
        ),
    }
    for name, stream in streams.items():
        path = tmp_path / f"{name}.tif"
        with tifffile.TiffWriter(path) as tiff:
            tiff.write(
                iter([stream]), shape=(TILE, TILE, 3), dtype=np.uint8, tile=(TILE, TILE),
                photometric="rgb", compression=7, metadata=None,
            )  # fmt: skip
        with closing(open_slide(path)) as slide, pytest.raises(SlideError, match="cannot read"):
            read_region(slide, 0, 0, 0, TILE, TILE)
