"""Damaged and hostile files: always a SlideError that says where, never grey pixels or a hang."""

from __future__ import annotations

import resource
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.readers.registry import READERS, open_slide
from chunkdl.slides.readers.tiff import open_tiff
from chunkdl.slides.slide import Pixels, Slide

Read = Callable[[Slide, int, int, int, int, int], Pixels]
Spoil = Callable[[bytearray, int, int], None]


def tile_place(path: Path, index: int) -> tuple[int, int]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        return page.dataoffsets[index], page.databytecounts[index]


def spoiled(path: Path, target: Path, index: int, spoil: Spoil) -> Path:
    """A copy of the slide in which one tile of level 0 was spoiled."""
    data = bytearray(path.read_bytes())
    spoil(data, *tile_place(path, index))
    target.write_bytes(data)
    return target


def second_half_zero(data: bytearray, offset: int, count: int) -> None:
    data[offset + count // 2 : offset + count] = bytes(count - count // 2)


def all_zero(data: bytearray, offset: int, count: int) -> None:
    data[offset : offset + count] = bytes(count)


def all_noise(data: bytearray, offset: int, count: int) -> None:
    data[offset : offset + count] = np.random.default_rng(1).bytes(count)


SPOILS = (second_half_zero, all_zero, all_noise)


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("compression", ["jpeg", "zlib", "lzw", "jpeg2000"])
def test_a_damaged_tile_is_an_error_that_names_it(
    spoil: Spoil, compression: str, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """A tile cut in half, emptied or overwritten; the tiles beside it still read."""
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(
        whole, picture, tile=(256, 256), photometric="rgb", compression=compression, metadata=None
    )
    path = spoiled(whole, tmp_path / "spoiled.tif", 5, spoil)
    with closing(open_tiff(path)) as slide:
        with pytest.raises(
            SlideError, match=r"spoiled\.tif, level 0, region 90x80 at \(300, 300\)"
        ):
            read_region(slide, 0, 300, 300, 90, 80)
        with pytest.raises(SlideError) as caught:
            read_region(slide, 0, 256, 256, 256, 256)
        assert caught.value.__cause__ is not None
        assert (caught.value.level, caught.value.region) == (0, (256, 256, 256, 256))
        read_region(slide, 0, 0, 0, 256, 256)


def test_a_jpeg_tile_that_ends_early_is_an_error_and_not_grey(
    tissue_slide: Path, tmp_path: Path, read_region: Read
) -> None:
    """libjpeg fills up with grey and only warns; the byte count here is half of the tile's."""
    path = tmp_path / "short.tif"
    path.write_bytes(tissue_slide.read_bytes())
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages.first
        counts = list(page.databytecounts)
        counts[3] //= 2
        page.tags[325].overwrite(counts)
    with closing(open_tiff(path)) as slide, pytest.raises(SlideError, match="no end marker"):
        read_region(slide, 0, 768, 0, 100, 100)


def test_jpeg_tiles_may_be_padded(tmp_path: Path, picture: Pixels, read_region: Read) -> None:
    """Zeros behind the end marker are no damage."""
    path = tmp_path / "padded.tif"
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", compression="jpeg")
    truth = tifffile.imread(path)
    offset, count = tile_place(path, 0)
    end = path.stat().st_size
    tile = path.read_bytes()[offset : offset + count]
    with path.open("ab") as file:
        file.write(tile + bytes(3))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages.first
        page.tags[324].overwrite([end, *page.dataoffsets[1:]])
        page.tags[325].overwrite([count + 3, *page.databytecounts[1:]])
    with closing(open_tiff(path)) as slide:
        np.testing.assert_array_equal(read_region(slide, 0, 0, 0, 256, 256), truth[:256, :256])


def test_a_file_cut_short_says_so_at_the_tile_that_is_missing(
    tissue_slide: Path, tmp_path: Path, read_region: Read
) -> None:
    """The structure is at the front here, so the file opens; tiles behind the cut do not read."""
    with tifffile.TiffFile(tissue_slide) as tiff:
        page = tiff.pages.first
        last, begin = page.dataoffsets[-1], min(page.dataoffsets)
    path = tmp_path / "cut.tif"
    data = tissue_slide.read_bytes()
    assert begin < last
    # One level: the chain of pages ends before the cut.
    with tifffile.TiffFile(tissue_slide) as tiff:
        link = tiff.pages.first.offset + 2 + 12 * len(tiff.pages.first.tags)
    path.write_bytes(data[:link] + bytes(4) + data[link + 4 : last + 10])
    with closing(open_tiff(path)) as slide:
        read_region(slide, 0, 0, 0, 256, 256)
        with pytest.raises(SlideError, match="cut short, copy it again"):
            read_region(slide, 0, 1300, 1050, 50, 50)


@pytest.mark.parametrize("reader", ["auto", *READERS])
@pytest.mark.parametrize(
    "content",
    [b"", b"II*\0", b"not a slide\n" * 500, b"\x89PNG\r\n\x1a\n" + bytes(99), bytes(4096)],
    ids=["empty", "4 bytes", "text", "png", "zeros"],
)
def test_what_is_no_slide_is_refused_by_name(content: bytes, reader: str, tmp_path: Path) -> None:
    """Every reader refuses it with the path in the message."""
    path = tmp_path / "nonsense.svs"
    path.write_bytes(content)
    with pytest.raises(SlideError, match=r"nonsense\.svs") as caught:
        open_slide(path, reader)
    assert caught.value.slide == str(path)


def test_a_damaged_header_never_gives_anything_but_a_slide_error(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """300 files with one to six random bytes of the structure changed: right or SlideError."""
    path = tmp_path / "sound.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture, tile=(256, 256), photometric="rgb", compression="zlib", metadata=None)
    sound = path.read_bytes()
    first_tile = tile_place(path, 0)[0]
    rng = np.random.default_rng(6)
    target = tmp_path / "changed.tif"
    opened = 0
    for _ in range(300):
        data = bytearray(sound)
        for place in rng.integers(0, first_tile, int(rng.integers(1, 7))):
            data[place] = int(rng.integers(256))
        target.write_bytes(data)
        with suppress(SlideError), closing(open_tiff(target)) as slide:
            level = slide.info.levels[0]
            read_region(slide, 0, 0, 0, min(level.width, 300), min(level.height, 300))
            opened += 1
    assert 20 < opened < 250


def hostile_header(width: int, height: int, tile: int, entries: int) -> bytes:
    """A TIFF of one page that claims a size; its tables say `entries` tiles and lie behind it."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (284, 3, 1, 1),
        (322, 4, 1, tile),
        (323, 4, 1, tile),
        (324, 4, entries, 400),
        (325, 4, entries, 400),
    ]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)
    return head.ljust(400, b"\0") + bytes(4 * min(entries, 1000))


@pytest.mark.parametrize(
    ("width", "height", "tile", "entries"),
    [
        (31623 * 256, 31623 * 256, 256, 10**9),
        (31623 * 256, 31623 * 256, 256, 500),
        (2**31, 2**31, 2**31, 1),
        (100_000, 100_000, 100_000, 1),
        (0, 512, 256, 2),
        (512, 512, 0, 4),
    ],
)
def test_a_header_that_lies_costs_no_memory(
    width: int, height: int, tile: int, entries: int, tmp_path: Path
) -> None:
    """A billion tiles, tiles of gigapixels, nothing at all: refused before memory is taken."""
    path = tmp_path / "hostile.tif"
    path.write_bytes(hostile_header(width, height, tile, entries))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SlideError, match=r"hostile\.tif"):
        open_slide(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
