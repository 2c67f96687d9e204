"""Hamamatsu NDPI: which directories are levels, and pixels out of joined restart intervals."""

from __future__ import annotations

import io
import struct
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from chunkdl.errors import SlideError
from chunkdl.slides.readers import ndpi
from chunkdl.slides.readers.directories import Directory, directories_of
from chunkdl.slides.readers.ndpi import is_kind, ndpi_levels, structure_of
from chunkdl.slides.readers.refusals import NotTaken, Refused
from chunkdl.slides.readers.tiff import by_vendor
from chunkdl.slides.readers.tiled import TiledLevel, TiledSlide
from chunkdl.slides.slide import AS_STORED, PixelRule, Pixels, SlideInfo

SLIDES = ("stomach-he-20x.ndpi", "hamamatsu-test3-dapi-387.ndpi")
AS_IT_IS = PixelRule(channels=(0, 1, 2))
LENS, Z_OFFSET, FILTER_SET = 65421, 65424, 65434


def directory(number: int = 0, **facts: Any) -> Directory:
    """A directory of an NDPI file; `facts` are fields, and `lens` and `tags` go into the tags."""
    tags = {65420: 1, LENS: facts.pop("lens", 20.0), **facts.pop("tags", {})}
    plain: dict[str, Any] = {
        "name": f"directory {number}",
        "number": number,
        "sub": None,
        "width": 4096,
        "height": 2048,
        "tile_width": 0,
        "tile_height": 0,
        "rows_per_strip": 2048,
        "compression": 7,
        "photometric": 6,
        "predictor": 1,
        "samples": 3,
        "bits": 8,
        "sample_format": 1,
        "planar": 1,
        "subfile_type": 0,
        "extra_samples": (),
        "description": "",
        "software": "",
        "make": "Hamamatsu",
        "resolution": (19010.0, 19010.0),
        "resolution_unit": 3,
        "offsets": np.zeros(1, np.int64),
        "byte_counts": np.ones(1, np.int64),
        "jpeg_tables": None,
        "jpeg_header": None,
        "colour_map": None,
        "icc_profile": None,
        "xmp": b"",
        "tags": tags,
    }
    return Directory(**{**plain, **facts})


def jpeg_of(pixels: Pixels, **options: Any) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "jpeg", quality=90, **options)
    return held.getvalue()


def write_level(
    path: Path, pixels: Pixels, *, blocks: int, at: int = 0, **options: Any
) -> Directory:
    """Write a JPEG with a restart marker after each `blocks` MCUs at byte `at` of a file.

    Returns:
        The directory that an NDPI file would have for it.
    """
    data = jpeg_of(pixels, restart_marker_blocks=blocks, **options)
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    start = scan + 2 + struct.unpack_from(">H", data, scan + 2)[0]
    across, down = data[frame + 11] >> 4, data[frame + 11] & 15
    body = np.frombuffer(data, np.uint8)[start:]
    marks = np.flatnonzero((body[:-1] == 0xFF) & (body[1:] >= 0xD0) & (body[1:] <= 0xD7)) + 2
    starts = np.concatenate([[0], marks]).astype(np.int64)
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.seek(at)
        file.write(data)
    width, rows = blocks * 8 * across, 8 * down
    size = struct.pack(">HH", rows, width)
    return directory(
        width=pixels.shape[1],
        height=pixels.shape[0],
        tile_width=width,
        tile_height=rows,
        jpeg_header=data[: frame + 5] + size + data[frame + 9 : start],
        offsets=at + start + starts,
        byte_counts=np.diff(starts, append=len(body)),
    )


def opened(path: Path, levels: list[TiledLevel]) -> TiledSlide:
    info = SlideInfo(str(path), "ndpi", tuple(level.level for level in levels), None)
    return TiledSlide(info, levels)


def whole(slide: TiledSlide, level: int) -> Pixels:
    size = slide.info.levels[level]
    out = np.full((size.height, size.width, 3), 137, np.uint8)
    slide.read_into(out, level, 0, 0)
    return out


# ---- Which directories are levels


def test_the_source_lens_says_what_a_directory_is_and_not_its_place() -> None:
    """Macro first, then the levels, a map and something unheard of."""
    found = [
        directory(0, lens=-1.0, width=1200, height=440),
        directory(1),
        directory(2, lens=5.0, width=1024, height=512),
        directory(3, lens=-2.0, width=600, height=220, samples=1),
        directory(4, lens=-7.0),
        directory(5, lens=1.25, width=256, height=128),
    ]
    structure, levels = structure_of("made.ndpi", found)
    roles = [page.role for page in structure.pages]
    assert roles == ["macro", "level", "level", "map", "unknown", "level"]
    assert [level.number for level in levels[0]] == [1, 2, 5]
    (image,) = structure.images
    assert [level.downsample for level in image.levels] == [1.0, 4.0, 16.0]
    assert image.magnification == 20
    assert image.mpp == pytest.approx((10_000 / 19010, 10_000 / 19010))
    assert image.mpp_source == "the resolution tags"


def test_other_focal_planes_are_named_and_never_levels() -> None:
    """A stack of three planes is refused, also by OpenSlide, which would take the middle one."""
    found = []
    for number, (width, offset) in enumerate(
        [(4096, -2000), (4096, 0), (4096, 2000), (1024, -2000), (1024, 0), (1024, 2000)]
    ):
        found.append(directory(number, width=width, height=width // 2, tags={Z_OFFSET: offset}))
    structure, levels = structure_of("made.ndpi", found)
    assert [level.number for level in levels[0]] == [1, 4]
    assert [page.role for page in structure.pages].count("focal plane") == 4
    assert any("4 pictures of other focal planes" in note for note in structure.images[0].notes)
    (source,) = by_vendor("made.ndpi", tuple(found), ndpi).sources
    assert "4 pictures of other focal planes" in source.refused


def test_planes_without_one_at_offset_0_are_no_slide() -> None:
    """None of them is chosen in silence."""
    found = [directory(number, tags={Z_OFFSET: 1500 * (number + 1)}) for number in range(2)]
    structure, levels = structure_of("made.ndpi", found)
    assert structure.images == ()
    assert levels == ()
    assert "focal planes" in structure.notes[0]


def test_a_directory_of_another_shape_is_no_level() -> None:
    """Neither one of another aspect nor a second one of the same size."""
    found = [directory(0), directory(1), directory(2, width=1000, height=900)]
    structure, _ = structure_of("made.ndpi", found)
    assert [page.role for page in structure.pages] == ["level", "unknown", "unknown"]


def test_fluorescence_is_refused_until_channels_are_named(tmp_path: Path, picture: Pixels) -> None:
    """The colours of a fluorescence scan are no stain; named channels are taken as stored."""
    path = tmp_path / "made.jpg"
    level = write_level(path, picture[:, :880], blocks=10, subsampling=0)
    dyed = replace(level, tags={**level.tags, FILTER_SET: "DAPI 2 (387)"})
    with pytest.raises(Refused, match=r"fluorescence.*channels=\(0, 1, 2\)"):
        ndpi_levels(str(path), [dyed])
    with pytest.raises(Refused, match="channels"):
        ndpi_levels(str(path), [dyed], PixelRule(channels=(0, 1, 3)))
    structure, _ = structure_of("made.ndpi", [dyed])
    assert "DAPI 2 (387)" in structure.images[0].notes[-1]
    with closing(opened(path, ndpi_levels(str(path), [level]))) as plain:
        stored = whole(plain, 0)
    for channels, expected in (
        ((0, 1, 2), stored),
        ((2, 0, 1), stored[..., [2, 0, 1]]),
        ((2,), np.repeat(stored[..., 2:], 3, axis=2)),
    ):
        levels = ndpi_levels(str(path), [dyed], PixelRule(channels=channels))
        with closing(opened(path, levels)) as slide:
            np.testing.assert_array_equal(whole(slide, 0), expected)


# ---- Pixels


@pytest.mark.parametrize(("width", "height"), [(900, 700), (896, 512), (893, 3), (17, 533)])
def test_joined_intervals_are_the_pixels_of_the_whole_jpeg(
    width: int, height: int, tmp_path: Path
) -> None:
    """Sides that are no multiple of a block, of an interval or of a tile, several in a row."""
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((width, height)))
    path = tmp_path / "made.jpg"
    in_a_row = -(-width // 8)
    blocks = next(n for n in range(min(28, in_a_row), 0, -1) if in_a_row % n == 0)
    level = write_level(path, pixels, blocks=blocks, subsampling=0)
    with closing(opened(path, ndpi_levels(str(path), [level]))) as slide:
        truth = np.asarray(Image.open(path))
        np.testing.assert_array_equal(whole(slide, 0), truth)
        for _ in range(20):
            w, h = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
            x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            out = np.full((h, w, 3), 137, np.uint8)
            slide.read_into(out, 0, x, y)
            np.testing.assert_array_equal(out, truth[y : y + h, x : x + w])


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2"])
def test_intervals_of_whole_rows_have_no_seams(
    subsampling: str, tmp_path: Path, picture: Pixels
) -> None:
    """Colour of half the width is spread as in the whole JPEG."""
    path = tmp_path / "made.jpg"
    pixels = picture[:, :896]
    blocks = 896 // (8 if subsampling == "4:4:4" else 16)
    level = write_level(path, pixels, blocks=blocks, subsampling=subsampling)
    with closing(opened(path, ndpi_levels(str(path), [level]))) as slide:
        np.testing.assert_array_equal(whole(slide, 0), np.asarray(Image.open(path)))


def write_large_ndpi(path: Path, pixels: Pixels, at: int) -> None:
    """Write an NDPI of one level whose data, tables and directory lie from byte `at` on.

    A directory has the low 32 bits of its values in the entries, and behind them the offset of
    the next directory and the high 32 bits of each value.
    """
    level = write_level(path, pixels, blocks=16, at=at, subsampling=0)
    length = int(level.offsets[-1] + level.byte_counts[-1]) - at
    starts = (level.offsets - at).astype("<u4").tobytes()
    table, bits = at + length, at + length + len(starts)
    entries = [
        (256, 4, 1, pixels.shape[1]),
        (257, 4, 1, pixels.shape[0]),
        (258, 3, 3, bits),
        (259, 3, 1, 7),
        (262, 3, 1, 6),
        (271, 2, 10, bits + 6),
        (273, 4, 1, at),
        (277, 3, 1, 3),
        (278, 4, 1, pixels.shape[0]),
        (279, 4, 1, length),
        (65420, 4, 1, 1),
        (LENS, 11, 1, struct.unpack("<I", struct.pack("<f", 40.0))[0]),
        (65426, 4, len(level.offsets), table),
    ]
    with open(path, "r+b") as file:
        file.write(b"II*\0" + struct.pack("<Q", bits + 16))
        file.seek(table)
        file.write(starts + struct.pack("<3H", 8, 8, 8) + b"Hamamatsu\0")
        file.write(struct.pack("<H", len(entries)))
        for code, kind, count, value in entries:
            file.write(struct.pack("<HHII", code, kind, count, value % 2**32))
        file.write(struct.pack("<Q", 0))
        file.write(struct.pack(f"<{len(entries)}I", *(value >> 32 for *_, value in entries)))


def test_a_slide_behind_the_first_4_gibibytes_is_read(tmp_path: Path, picture: Pixels) -> None:
    """Offsets of 64 bits in the directory and its tables; most of the file is a hole."""
    path = tmp_path / "large.ndpi"
    write_large_ndpi(path, picture[:, :896], at=5 * 2**30)
    with tifffile.TiffFile(path) as tiff:
        directories = directories_of(tiff)
    structure, levels = structure_of(str(path), directories)
    assert structure.images[0].magnification == 40
    assert directories[0].offsets.min() > 5 * 2**30
    truth = np.asarray(Image.open(io.BytesIO(jpeg_of(picture[:, :896], subsampling=0))))
    with closing(opened(path, ndpi_levels(str(path), levels[0]))) as slide:
        np.testing.assert_array_equal(whole(slide, 0), truth)


def test_a_window_decodes_little_that_it_does_not_need(tmp_path: Path) -> None:
    """Narrow intervals are joined downwards and never across: 512 pixels of 4096 are not 4096."""
    pixels = np.full((1024, 4096, 3), 200, np.uint8)
    path = tmp_path / "made.jpg"
    level = write_level(path, pixels, blocks=64, subsampling=0)
    with closing(opened(path, ndpi_levels(str(path), [level]))) as slide:
        slide.read_into(np.empty((512, 512, 3), np.uint8), 0, 512, 256)
        assert slide.decoded_px == 512 * 512
        assert slide.info.levels[0].tile_height <= 256


def test_a_small_level_without_restart_markers_is_one_tile(tmp_path: Path, picture: Pixels) -> None:
    """Scanners write the coarsest levels so."""
    path = tmp_path / "made.jpg"
    data = jpeg_of(picture, subsampling=0)
    path.write_bytes(data)
    level = directory(width=900, height=700, byte_counts=np.array([len(data)]))
    with closing(opened(path, ndpi_levels(str(path), [level]))) as slide:
        np.testing.assert_array_equal(whole(slide, 0), np.asarray(Image.open(path)))
    with pytest.raises(NotTaken, match="its JPEG 900x700"):
        ndpi_levels(str(path), [replace(level, width=904)])


def test_a_large_level_without_restart_markers_is_left_to_another_reader(tmp_path: Path) -> None:
    """Reading a corner of it would decode all of it."""
    path = tmp_path / "made.jpg"
    path.write_bytes(b"\xff\xd8")
    with pytest.raises(NotTaken, match="without a table of its restart intervals"):
        ndpi_levels(str(path), [directory(width=60_000, height=40_000)])


@pytest.mark.parametrize("wrong", ["shifted", "short", "negative", "beyond"])
def test_a_table_that_is_not_true_is_left_to_another_reader(
    wrong: str, tmp_path: Path, picture: Pixels
) -> None:
    """OpenSlide looks for the markers itself where a scanner has written a wrong table."""
    path = tmp_path / "made.jpg"
    level = write_level(path, picture[:, :896], blocks=16, subsampling=0)
    offsets, counts = level.offsets.copy(), level.byte_counts.copy()
    if wrong == "shifted":
        offsets += 3
    elif wrong == "short":
        offsets, counts = offsets[:-1], counts[:-1]
    elif wrong == "negative":
        counts[5] = -4
    else:
        offsets[-1] += 2**40
    with pytest.raises(NotTaken, match="table"):
        ndpi_levels(str(path), [replace(level, offsets=offsets, byte_counts=counts)])


def test_intervals_that_go_on_in_the_next_row_are_left_to_another_reader(
    tmp_path: Path, picture: Pixels
) -> None:
    """113 blocks in a row and a marker after each fifth: no rectangle lies between markers."""
    path = tmp_path / "made.jpg"
    level = write_level(path, picture, blocks=5, subsampling=0)
    with pytest.raises(NotTaken, match="next row of blocks"):
        ndpi_levels(str(path), [level])


def test_an_overwritten_interval_is_an_error_that_names_the_place(
    tmp_path: Path, picture: Pixels
) -> None:
    """The rest of the slide stays readable."""
    path = tmp_path / "made.jpg"
    level = write_level(path, picture[:, :896], blocks=16, subsampling=0)
    levels = ndpi_levels(str(path), [level])
    with open(path, "r+b") as file:
        file.seek(int(level.offsets[100]))
        file.write(bytes(int(level.byte_counts[100])))
    with closing(opened(path, levels)) as slide:
        with pytest.raises(SlideError, match="restart interval") as caught:
            whole(slide, 0)
        assert caught.value.level == 0
        slide.read_into(np.empty((64, 64, 3), np.uint8), 0, 0, 600)


def test_pixels_of_more_than_8_bits_are_left_to_another_reader(tmp_path: Path) -> None:
    """Fluorescence of 16 bits is not a JPEG of three samples."""
    path = tmp_path / "made.jpg"
    path.write_bytes(b"\xff\xd8")
    with pytest.raises(NotTaken, match="1 x 16 bit"):
        ndpi_levels(str(path), [directory(samples=1, bits=16)])


# ---- Real files


@pytest.mark.slides
@pytest.mark.parametrize("name", SLIDES)
def test_every_stored_level_has_the_pixels_of_openslide(name: str, slides_folder: Path) -> None:
    """All pixels of all levels, without any difference; OpenSlide adds levels of its own."""
    path = slides_folder / name
    with tifffile.TiffFile(path) as tiff:
        directories = directories_of(tiff)
    assert is_kind(directories)
    structure, levels = structure_of(str(path), directories)
    (image,) = structure.images
    rule = AS_IT_IS if "dapi" in name else AS_STORED
    tiled = ndpi_levels(str(path), levels[0], rule)
    assert tuple(level.level for level in tiled) == image.levels
    with closing(opened(path, tiled)) as slide, openslide.OpenSlide(path) as truth:
        assert image.mpp == pytest.approx(
            tuple(float(truth.properties[f"openslide.mpp-{axis}"]) for axis in "xy")
        )
        assert image.magnification == float(truth.properties["openslide.objective-power"])
        for number, level in enumerate(image.levels):
            size = level.width, level.height
            theirs = truth.level_dimensions.index(size)
            assert truth.level_downsamples[theirs] == pytest.approx(level.downsample)
            expected = np.asarray(truth.read_region((0, 0), theirs, size))[..., :3]
            np.testing.assert_array_equal(whole(slide, number), expected)
