"""Colour profiles: converted by Little CMS when asked, left alone when not, refused when broken."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from chunkdl.errors import SlideError
from chunkdl.slides.readers import colours
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.slide import PixelRule, Pixels, Slide
from tests.slides.tiff_pages import aperio, averaged, page, size_of, write_tiff

Read = Callable[[Slide, int, int, int, int, int], Pixels]
IN_SRGB = PixelRule(icc="srgb")
ICC_PROFILE = 34675
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""XYZ of its red, green and blue under D50."""


def matrix_profile(
    primaries: tuple[tuple[float, ...], ...] = ADOBE_RGB,
    gamma: float = 563 / 256,
    space: bytes = b"RGB ",
) -> bytes:
    """A profile of three primaries and a gamma (ICC.1:2010, 8.3), built by hand."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"made\0" + bytes(78)
    tags = {
        b"desc": text,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        **dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, primaries), strict=True)),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s4s", start + len(body), bytes(4), 0x02400000, b"mntr", space, b"XYZ ",
        struct.pack(">6H", 2020, 1, 1, 0, 0, 0), b"acsp", bytes(4),
    )  # fmt: skip
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def by_pillow(pixels: Pixels, profile: bytes) -> Pixels:
    """The whole array converted at once."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = ImageCms.profileToProfile(
        Image.fromarray(pixels),
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent(ImageCms.getDefaultIntent(source)),
    )
    assert image is not None
    return np.asarray(image)


def write(path: Path, picture: Pixels, profile: bytes | None) -> Path:
    more: dict[str, Any] = {"iccprofile": profile} if profile else {}
    small = averaged(picture, 4)
    size = size_of(picture)
    return write_tiff(
        path,
        page(picture, description=aperio(size, fields="|MPP = 0.5"), **more),
        page(small, description=aperio(size, size_of(small))),
    )


SWAPPED = (ADOBE_RGB[1], ADOBE_RGB[2], ADOBE_RGB[0])


@pytest.mark.parametrize(
    "profile",
    [matrix_profile(), matrix_profile(SWAPPED, 1.0), matrix_profile(gamma=1.8)],
    ids=["wide", "swapped and linear", "gamma 1.8"],
)
def test_a_slide_with_a_profile_is_converted_as_pillow_does_the_whole_picture(
    profile: bytes, tmp_path: Path, picture: Pixels, read_region: Read,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Every level and any region, also where it is done in pieces; into a part of an array."""
    monkeypatch.setattr(colours, "BLOCK_PX", 900 * 90)
    path = write(tmp_path / "a.svs", picture, profile)
    expected = by_pillow(picture, profile)
    assert np.abs(expected.astype(int) - picture).max() > 20
    with closing(open_slide(path, rule=IN_SRGB)) as slide:
        assert slide.info.icc == "converted to sRGB"
        np.testing.assert_array_equal(read_region(slide, 0, 0, 0, 900, 700), expected)
        frame = np.full((250, 350, 3), 9, np.uint8)
        slide.read_into(frame[10:210, 20:320], 0, 301, 222)
        np.testing.assert_array_equal(frame[10:210, 20:320], expected[222:422, 301:601])
        assert (frame[:10] == 9).all()
        small = by_pillow(averaged(picture, 4), profile)
        np.testing.assert_array_equal(read_region(slide, 1, 0, 0, 225, 175), small)


def test_a_profile_is_not_used_unless_somebody_asks(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """The numbers are those of the file, and the facts say that there is a profile."""
    path = write(tmp_path / "a.svs", picture, matrix_profile())
    with closing(open_slide(path)) as slide:
        assert slide.info.icc == "in the file, not used"
        assert slide.icc_profile == matrix_profile()
        np.testing.assert_array_equal(read_region(slide, 0, 0, 0, 900, 700), picture)


def test_a_slide_without_a_profile_is_unchanged(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """It counts as sRGB; one whose profile is sRGB's comes back within a grey level."""
    with closing(open_slide(write(tmp_path / "a.svs", picture, None), rule=IN_SRGB)) as slide:
        assert slide.info.icc == ""
        np.testing.assert_array_equal(read_region(slide, 0, 0, 0, 900, 700), picture)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with closing(open_slide(write(tmp_path / "b.svs", picture, srgb), rule=IN_SRGB)) as slide:
        got = read_region(slide, 0, 0, 0, 900, 700)
    assert np.abs(got.astype(int) - picture).max() <= 1


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (b"no profile at all" * 20, "cannot be used"),
        (matrix_profile()[:200], "cannot be used"),
        (matrix_profile(space=b"CMYK"), "cannot be used"),
        (matrix_profile(space=b"GRAY"), "one of GRAY, not of RGB"),
    ],
    ids=["text", "cut short", "of inks", "of grey"],
)
@pytest.mark.parametrize("reader", ["auto", "openslide"])
def test_a_profile_that_cannot_be_used_is_refused_with_the_remedy(
    reader: str, profile: bytes, reason: str, tmp_path: Path, picture: Pixels
) -> None:
    """Only where it is asked for; without, the slide opens."""
    path = write(tmp_path / "a.svs", picture, profile)
    with pytest.raises(SlideError, match=rf"{reason}.*leave out icc='srgb'"):
        open_slide(path, reader, IN_SRGB)
    open_slide(path, reader).close()


def test_openslide_converts_as_well(tmp_path: Path, picture: Pixels, read_region: Read) -> None:
    """By the same profile to the same pixels."""
    path = write(tmp_path / "a.svs", picture, matrix_profile())
    with closing(open_slide(path, "openslide", IN_SRGB)) as slide:
        got = read_region(slide, 0, 0, 0, 900, 700)
    np.testing.assert_array_equal(got, by_pillow(picture, matrix_profile()))
