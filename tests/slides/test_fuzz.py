"""Damaged slides of every format: an error of ours or pixels, soon, and without much memory.

`benchmarks.fuzz_slides` tries the same with any number of cases; what it has found is below, each
with a test of its own.
"""

from __future__ import annotations

import io
import lzma
import resource
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from chunkdl.errors import SlideError
from chunkdl.slides.microns import Claim, believed
from chunkdl.slides.readers.codecs import TileCoding, decoder_for
from chunkdl.slides.readers.jpeg2000_stream import check_coding
from chunkdl.slides.readers.registry import open_slide, read_structure
from chunkdl.slides.readers.tiff import open_tiff
from chunkdl.slides.readers.xml_text import parse_xml
from chunkdl.slides.slide import PixelRule, Pixels, Slide
from tests.slides.dicom_files import RESAMPLED, Made, write_dicom
from tests.slides.test_described_formats import encoding, write_bif, write_philips
from tests.slides.test_ndpi import write_large_ndpi

Read = Callable[[Slide, int, int, int, int, int], Pixels]
REPOSITORY = Path(__file__).parents[2]
CASES = 250


def test_no_damage_breaks_a_promise(tmp_path: Path) -> None:
    """A few hundred cases of one seed, in processes of their own with their limits."""
    command = [sys.executable, "-m", "benchmarks.fuzz_slides", "--cases", str(CASES)]
    done = subprocess.run(
        [*command, "--seed", "1", "--keep", str(tmp_path / "kept")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def one_tile(path: Path, stream: bytes, side: int, compression: int) -> Path:
    """A TIFF of one tile that has these bytes."""
    tifffile.imwrite(
        path,
        iter([stream]),
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(side, side),
        photometric="rgb",
        compression=compression,
        metadata=None,
    )
    return path


def read_corner(path: Path, read_region: Read) -> Pixels:
    with closing(open_slide(path)) as slide:
        return read_region(slide, 0, 0, 0, 16, 16)


# ---- The header


def with_tag(data: bytes, tag: int, value: int, kind: int | None = None) -> bytes:
    """The bytes of a little-endian TIFF in which the first entry of a tag has another value."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        number, old_kind, length = struct.unpack_from("<HHI", data, entry)
        if number == tag:
            new = struct.pack("<HHII", tag, kind or old_kind, length, value)
            return data[:entry] + new + data[entry + 12 :]
    raise AssertionError(f"no tag {tag}")


@pytest.fixture
def tiled(tmp_path: Path) -> bytes:
    """A sound TIFF of 64x64 pixels in tiles of 16."""
    path = tmp_path / "sound.tif"
    pixels = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(16, 16), photometric="rgb", metadata=None)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        (322, 0, "0x16 pixels in a tile"),
        (323, 0, "16x0 pixels in a tile"),
        (256, 2**32 - 1, "4294967295x64 pixels"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    tag: int, value: int, reason: str, tiled: bytes, tmp_path: Path
) -> None:
    """Sides of nothing, and of more than 2^31 pixels."""
    path = tmp_path / "changed.tif"
    path.write_bytes(with_tag(tiled, tag, value))
    with pytest.raises(SlideError, match=reason):
        open_slide(path)


def test_a_tile_of_thousands_of_samples_is_refused(tmp_path: Path) -> None:
    """4096x4096 pixels of 65535 samples are a terabyte, which no table of tiles contradicts."""
    stream = zlib.compress(bytes(3 * 4096 * 4096))
    path = one_tile(tmp_path / "samples.tif", stream, 4096, 8)
    path.write_bytes(with_tag(path.read_bytes(), 277, 65535))
    with pytest.raises(SlideError, match="bytes, and at most 134217728 are read at once"):
        open_slide(path, rule=PixelRule(channels=(0, 1, 2)))


@pytest.mark.parametrize("mark", [b"", b"DICM"], ids=["TIFF", "DICOM as well"])
def test_openslide_is_not_given_tiles_that_it_would_die_of(
    mark: bytes, tiled: bytes, tmp_path: Path
) -> None:
    """It ends the process where it cannot have the memory for a tile, or for its bytes."""
    path = tmp_path / "huge.tif"
    large = with_tag(with_tag(tiled, 322, 2**20, kind=4), 323, 2**20, kind=4)
    counts = struct.pack("<16I", *[2**30] * 16)
    long = with_tag(tiled, 325, len(tiled), kind=4) + counts
    for data, reason in ((large, "have 1048576x1048576 pixels"), (long, "a tile of 1073741824")):
        path.write_bytes(data[:128] + mark + data[128 + len(mark) :])
        with pytest.raises(SlideError, match=reason):
            open_slide(path, "openslide")


def test_raw_strips_of_more_bytes_than_there_are_numbers_for_are_refused(tmp_path: Path) -> None:
    """2^31 rows of 2^31 pixels: a product beyond 64 bits."""
    path = tmp_path / "strips.tif"
    pixels = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", metadata=None)
    data = path.read_bytes()
    for tag in (256, 257, 278):
        data = with_tag(data, tag, 2**31 - 1, kind=4)
    path.write_bytes(data)
    with pytest.raises(SlideError, match="rows of"):
        open_slide(path)


def test_channels_of_several_grids_are_refused(tmp_path: Path) -> None:
    """Two pages of one size, one in tiles of 16 and one in tiles of 32."""
    path = tmp_path / "channels.tif"
    with tifffile.TiffWriter(path) as tiff:
        for side in (16, 32):
            tiff.write(np.zeros((64, 64), np.uint8), tile=(side, side), metadata=None)
    with pytest.raises(SlideError, match="in different ways"):
        open_slide(path)


def test_xml_of_a_bif_that_cannot_be_parsed_is_a_slide_error(tmp_path: Path) -> None:
    """The XML of the levels, which is read after that of the scanner."""
    path = tmp_path / "broken.bif"
    write_bif(path, encoding(7, 4)[:-9])
    with pytest.raises(SlideError, match="its description is damaged"):
        open_slide(path)


@pytest.mark.parametrize(
    "text",
    [
        "<a>" + "<b/>" * 2**20 + "</a>",
        "<a " + " ".join(f'a{number}=""' for number in range(2**20)) + "/>",
    ],
    ids=["elements", "attributes"],
)
def test_xml_of_a_million_parts_is_refused(text: str) -> None:
    """Each character of it would take twenty times its memory."""
    with pytest.raises(ValueError, match="elements and attributes"):
        parse_xml(text)


def test_directories_that_share_a_large_table_are_refused(tmp_path: Path) -> None:
    """Thousands of directories name one table; a parser makes its numbers for each of them."""
    count, table = 200, 4 * 40_000
    tags = [
        *((256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((277, 3, 1, 1), (322, 4, 1, 16), (323, 4, 1, 16)),
        *((324, 4, 40_000, 8), (325, 4, 40_000, 8)),
    ]
    data = bytearray(b"II*\0" + struct.pack("<I", 8 + table) + bytes(table))
    for number in range(count):
        data += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        data += struct.pack("<I", len(data) + 4 if number < count - 1 else 0)
    path = tmp_path / "shared.tif"
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SlideError, match="more values than a slide can have"):
        open_slide(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("kind", ["chain", "SubIFDs"])
def test_directories_that_come_again_are_refused(kind: str, tmp_path: Path) -> None:
    """A parser would go through them, and their texts, thousands of times."""
    path = tmp_path / "again.tif"
    pixels = np.zeros((64, 64, 3), np.uint8)
    options: dict[str, Any] = {"tile": (16, 16), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, subifds=3 if kind == "SubIFDs" else 0, **options)
        for _ in range(3):
            tiff.write(pixels[::2, ::2], subfiletype=1, **options)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        first, places = page.offset, page.tags.get(330)
        last = tiff.pages[-1].offset
        entries = len(tiff.pages[-1].aspage().tags)
    data = bytearray(path.read_bytes())
    if places is None:
        struct.pack_into("<I", data, last + 2 + 12 * entries, first)
    else:
        data[places.valueoffset + 4 : places.valueoffset + 8] = data[
            places.valueoffset : places.valueoffset + 4
        ]
    path.write_bytes(data)
    with pytest.raises(SlideError, match="form a cycle" if places is None else "one directory"):
        open_slide(path)


@pytest.mark.parametrize("first", [2**31 - 8, -8])
def test_an_ndpi_table_does_not_make_a_parser_read_what_is_not_there(
    first: int, tmp_path: Path, picture: Pixels
) -> None:
    """The place of the first restart interval is how many bytes of a header are read."""
    path = tmp_path / "table.ndpi"
    write_large_ndpi(path, picture[:, :896], at=16)
    with tifffile.TiffFile(path) as tiff:
        table = tiff.pages.first.tags[65426].valueoffset
    data = bytearray(path.read_bytes())
    struct.pack_into("<i", data, table, first)
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(SlideError, match=r"table\.ndpi"):
            open_slide(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


def test_lengths_that_no_slide_has_are_no_numbers_to_divide_by(
    tmp_path: Path, picture: Pixels
) -> None:
    """The ratio of two of them is infinite: for Philips unknown places, for DICOM no spacing."""
    path = tmp_path / "philips.tiff"
    write_philips(path, [(0.00025, 1e-320), (0.0005, 0.0005), (0.001, 0.001)])
    with pytest.raises(SlideError, match="no pixel spacing of level 1"):
        open_slide(path)
    folder = tmp_path / "dicom"
    folder.mkdir()
    write_dicom(folder / "0.dcm", picture, Made(mm=1e-300))
    write_dicom(folder / "1.dcm", picture[::2, ::2], Made(mm=1e300, image_type=RESAMPLED))
    with closing(open_slide(folder)) as slide:
        assert slide.info.mpp is None
        assert len(slide.info.levels) == 2
    assert believed([Claim(0.05, 0.05, "a test")], 5e-324).mpp == (0.05, 0.05)


def test_tables_of_another_type_are_an_error_of_ours(tmp_path: Path, read_region: Read) -> None:
    """A text where JPEG tables belong."""
    path = tmp_path / "tables.tif"
    pixels = np.full((64, 64, 3), 200, np.uint8)
    options: dict[str, Any] = {"tile": (16, 16), "compression": "jpeg", "metadata": None}
    tifffile.imwrite(path, pixels, photometric="rgb", software="of a test", **options)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages.first.tags[305].offset
    struct.pack_into("<H", data, at, 347)
    path.write_bytes(data)
    with pytest.raises(SlideError, match="Not a JPEG file"):
        read_corner(path, read_region)


def test_a_tiff_of_a_hundred_slides_is_refused_at_once(tmp_path: Path) -> None:
    """Each of them would be compared with each page, for each page."""
    path = tmp_path / "many.tif"
    options: dict[str, Any] = {"tile": (16, 16), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        for number in range(100):
            tiff.write(np.zeros((64, 64 + 16 * number, 3), np.uint8), **options)
        for number in range(100):
            tiff.write(np.zeros((16, 16 + number, 3), np.uint8), subfiletype=1, **options)
    with pytest.raises(SlideError, match="of its pages may be slides"):
        read_structure(path)


# ---- Streams


def codestream(side: int, layers: int = 1, precinct: int | None = None, block: int = 4) -> bytes:
    """A JPEG 2000 stream of one colour that says that it is divided in another way.

    Args:
        side: pixels along it.
        layers: what it says.
        precinct: exponents of both sides in one byte, None: as large as can be.
        block: exponent of the sides of code blocks, less 2.
    """
    pixels = np.full((side, side, 3), 200, np.uint8)
    data = bytearray(imagecodecs.jpeg2k_encode(pixels, codecformat="J2K", mct=False))
    at = data.find(b"\xff\x52")
    (length,) = struct.unpack_from(">H", data, at + 2)
    style = data[at : at + 2 + length]
    struct.pack_into(">H", style, 6, layers)
    style[10] = style[11] = block
    if precinct is not None:
        style[4] |= 1
        style = style[:14] + bytes([precinct]) * (style[9] + 1)
        struct.pack_into(">H", style, 2, len(style) - 2)
    data[at : at + 2 + length] = style
    return bytes(data)


@pytest.mark.parametrize(
    "divided",
    [
        {"side": 1024, "precinct": 0x11},
        {"side": 64, "precinct": 0x11, "layers": 65535},
        {"side": 4096, "block": 0},
    ],
    ids=["precincts", "layers", "blocks"],
)
def test_a_codestream_of_too_many_parts_is_refused(divided: dict[str, int]) -> None:
    """500 bytes that a decoder would take 1.5 GB for."""
    with pytest.raises(ValueError, match="JPEG 2000 stream of"):
        check_coding(codestream(**divided))


def test_codestreams_as_writers_divide_them_are_read(tmp_path: Path, read_region: Read) -> None:
    """Many layers, small precincts or small blocks alone are no reason to refuse."""
    for divided in ({"layers": 40}, {"block": 2}, {"precinct": 0x77}, {}):
        path = one_tile(tmp_path / "sound.tif", codestream(512, **divided), 512, 33005)
        assert (read_corner(path, read_region) == 200).all()


def test_a_codestream_whose_markers_lead_nowhere_is_refused() -> None:
    """A marker without a length, a tile part that ends before it begins."""
    sound = codestream(64)
    part = sound.find(b"\xff\x90")
    with pytest.raises(ValueError, match="damaged"):
        check_coding(sound[:part] + b"\0" + sound[part:])
    with pytest.raises(ValueError, match="tile part"):
        check_coding(sound[: part + 6] + struct.pack(">I", 3) + sound[part + 10 :])


def test_ycbcr_becomes_rgb_in_blocks() -> None:
    """The numbers on the way have 40 bytes a pixel: not for all pixels of a large tile at once."""
    decode = decoder_for(TileCoding(compression=33003, photometric=2))
    assert decode is not None
    out = np.empty((1024, 1024, 3), np.uint8)
    tracemalloc.start()
    try:
        decode(codestream(1024), out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (out == (255, 124, 255)).all()
    assert peak < 16 * 2**20


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path: Path, read_region: Read) -> None:
    """A decoder goes through all pixels for each; ordinary progressive streams are read."""
    held = io.BytesIO()
    pixels = np.full((256, 256, 3), 200, np.uint8)
    Image.fromarray(pixels).save(held, "jpeg", progressive=True, subsampling=0)
    sound = held.getvalue()
    last = sound[sound.rindex(b"\xff\xda") : -2]
    path = one_tile(tmp_path / "progressive.tif", sound, 256, 7)
    assert (read_corner(path, read_region) == 200).all()
    one_tile(path, sound[:-2] + last * 1000 + sound[-2:], 256, 7)
    with pytest.raises(SlideError, match="a JPEG stream of 1010 scans"):
        read_corner(path, read_region)


def test_an_lzma_stream_that_names_a_dictionary_of_gigabytes_is_refused(
    tmp_path: Path, read_region: Read
) -> None:
    """The header of its only block says 4 GiB."""
    pixels = np.full((256, 256, 3), 200, np.uint8)
    sound = lzma.compress(pixels.tobytes())
    path = one_tile(tmp_path / "lzma.tif", sound, 256, 34925)
    assert (read_corner(path, read_region) == 200).all()
    head = bytearray(sound[12 : 12 + 4 * (sound[12] + 1)])
    head[head.index(b"\x21\x01") + 2] = 40
    head[-4:] = struct.pack("<I", zlib.crc32(bytes(head[:-4])))
    one_tile(path, sound[:12] + head + sound[12 + len(head) :], 256, 34925)
    with pytest.raises(SlideError, match="Memory usage limit"):
        read_corner(path, read_region)


# ---- Absent tiles


def write_sparse(path: Path, side: int, factor: int, *, one_present: bool) -> None:
    """Two levels without tiles, but for one tile of 4096 pixels of level 0."""
    tile = zlib.compress(np.full((4096, 4096, 3), 200, np.uint8).tobytes())
    count = (side // 4096) ** 2
    options: dict[str, Any] = {"dtype": np.uint8, "photometric": "rgb", "compression": "zlib"}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        first = iter([tile if one_present else b"", *[b""] * (count - 1)])
        tiff.write(first, shape=(side, side, 3), tile=(4096, 4096), metadata=None, **options)
        small = side // factor
        below = iter([b""] * (-(-small // 64)) ** 2)
        tiff.write(
            below, shape=(small, small, 3), tile=(64, 64), metadata=None, subfiletype=1, **options
        )


def test_absent_tiles_over_absent_tiles_are_background_without_reading_them(
    tmp_path: Path, read_region: Read
) -> None:
    """4 Gpx that are not there are not made."""
    path = tmp_path / "sparse.tif"
    write_sparse(path, 65536, 1024, one_present=False)
    with closing(open_tiff(path)) as slide:
        # It took minutes, so that the limit of a test ended it.
        assert (read_region(slide, 1, 0, 0, 64, 64) == 255).all()
        assert slide.gaps.counts


def test_an_absent_tile_is_not_made_of_gigapixels(tmp_path: Path, read_region: Read) -> None:
    """The levels in between are missing as well: an error says what to do."""
    path = tmp_path / "sparse.tif"
    write_sparse(path, 65536, 1024, one_present=True)
    with closing(open_tiff(path)) as slide:
        with pytest.raises(SlideError, match="add the levels in between"):
            read_region(slide, 1, 0, 0, 64, 64)
        assert (read_region(slide, 1, 4, 4, 1, 1) == 255).all()
        assert (read_region(slide, 1, 0, 0, 1, 1) == 200).all()
