"""Tiles that are absent or damaged: filled, counted and told, and never taken for tissue."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.work.open_slides import OpenSlides
from chunkdl.errors import SlideError
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.slide import Pixels, Slide
from chunkdl.slides.tissue.mask import TissueMask, compute_mask
from tests.service.conftest import arguments
from tests.slides.tiff_pages import (
    TILE,
    averaged,
    edit_tiles,
    overwrite,
    page,
    write_tiff,
)

Read = Callable[[Slide, int, int, int, int, int], Pixels]
Edit = Callable[[list[int], list[int], int], None]


class Everything:
    """A detector that takes all that it is shown for tissue, and keeps it."""

    name = key = "everything"

    def __init__(self) -> None:
        self.thumbnail: Pixels = np.zeros((0, 0, 3), np.uint8)

    def __call__(self, rgb: Pixels) -> npt.NDArray[np.bool_]:
        self.thumbnail = rgb.copy()
        return np.ones(rgb.shape[:2], np.bool_)


def count_is_zero(_: list[int], counts: list[int], tile: int) -> None:
    counts[tile] = 0


def offset_is_zero(offsets: list[int], _: list[int], tile: int) -> None:
    offsets[tile] = 0


def both_are_zero(offsets: list[int], counts: list[int], tile: int) -> None:
    offsets[tile] = counts[tile] = 0


ABSENT = (count_is_zero, offset_is_zero, both_are_zero)


@pytest.fixture
def even(picture: Pixels) -> Pixels:
    """896x640 pixels: 14x10 tiles of 64."""
    return np.ascontiguousarray(picture[:640, :896])


@pytest.fixture
def pyramid(tmp_path: Path, even: Pixels) -> Path:
    """Levels of downsample 1, 2, 4 and 8, each the average of level 0, in tiles of 64."""
    return write_tiff(
        tmp_path / "pyramid.tif",
        *(page(averaged(even, factor), subfiletype=int(factor > 1)) for factor in (1, 2, 4, 8)),
    )


def leave_out(path: Path, level: int, tiles: list[int], how: Edit = both_are_zero) -> None:
    def edit(offsets: list[int], counts: list[int]) -> None:
        for tile in tiles:
            how(offsets, counts, tile)

    edit_tiles(path, level, edit)


def mask_of(path: Path, **more: Any) -> tuple[TissueMask, Everything, dict[str, int]]:
    """The mask of a slide of which everything is tissue, what was looked at, and the gaps."""
    detector = Everything()
    with closing(open_slide(path)) as slide:
        return compute_mask(slide, detector, **more), detector, slide.gaps.counts


# ---- Absent tiles


@pytest.mark.parametrize("how", ABSENT)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_an_absent_tile_of_a_reduced_level_is_made_from_the_next_finer_level(
    how: Edit, level: int, pyramid: Path, even: Pixels, read_region: Read
) -> None:
    """Wherever the file says that it is absent; all of the level is as if the tile were there."""
    expected = averaged(even, 2**level)
    height, width = expected.shape[:2]
    leave_out(pyramid, level, [0, 1], how)
    with closing(open_slide(pyramid)) as slide:
        got = read_region(slide, level, 0, 0, width, height)
        assert np.abs(got.astype(int) - expected).max() <= 2
        np.testing.assert_array_equal(got[:, 2 * TILE :], expected[:, 2 * TILE :])
        part = read_region(slide, level, 30, 20, 60, 33)
        assert np.abs(part.astype(int) - expected[20:53, 30:90]).max() <= 2
        assert slide.scanned() is None


def test_a_place_that_is_absent_from_several_levels_comes_from_the_first_that_has_it(
    pyramid: Path, even: Pixels, read_region: Read
) -> None:
    """Levels 1, 2 and 3 have nothing at all."""
    for level in (1, 2, 3):
        leave_out(pyramid, level, [*range({1: 35, 2: 12, 3: 4}[level])])
    expected = averaged(even, 8)
    with closing(open_slide(pyramid)) as slide:
        got = read_region(slide, 3, 0, 0, 64, 64)
    assert np.abs(got.astype(int) - expected[:64, :64]).max() <= 3


def test_each_gap_is_counted_once_however_often_it_is_read(
    pyramid: Path, read_region: Read
) -> None:
    """Two tiles of level 1 and one of level 0, in a sentence that says what was done."""
    leave_out(pyramid, 1, [0, 3])
    leave_out(pyramid, 0, [50])
    with closing(open_slide(pyramid)) as slide:
        for _ in range(3):
            read_region(slide, 1, 0, 0, 448, 320)
            read_region(slide, 0, 0, 0, 896, 640)
        counts = slide.gaps.counts
    assert sorted(counts.values()) == [1, 2]
    assert {what for what, count in counts.items() if count == 2} == {
        "tiles of level 1 are absent: made from level 0"
    }
    assert {what for what, count in counts.items() if count == 1} == {
        "tiles of level 0 are absent: background, and no tissue"
    }


@pytest.mark.parametrize("how", ABSENT)
def test_a_tile_that_is_absent_from_level_0_is_background_and_no_tissue(
    how: Edit, pyramid: Path, even: Pixels, read_region: Read
) -> None:
    """Though the coarse level, on which tissue is looked for, shows tissue there."""
    leave_out(pyramid, 0, [0, 15], how)
    with closing(open_slide(pyramid)) as slide:
        got = read_region(slide, 0, 0, 0, 896, 640)
        scanned = slide.scanned()
    expected = even.copy()
    expected[:TILE, :TILE] = expected[TILE : 2 * TILE, TILE : 2 * TILE] = 255
    np.testing.assert_array_equal(got, expected)
    assert scanned is not None
    assert (~scanned.cells).sum() == 2
    mask, _, _ = mask_of(pyramid, mpp=1.0)
    for x, y, share in ((0, 0, 0), (64, 64, 0), (64, 0, 1), (0, 64, 1), (512, 512, 1)):
        assert mask.fraction([x], [y], [x + 64], [y + 64])[0, 0] == share


@pytest.mark.parametrize("source", ["array", "file", "none"])
def test_no_patch_comes_from_where_nothing_was_scanned_whoever_says_where_tissue_is(
    source: str, pyramid: Path, tmp_path: Path, small_stream: dict[str, Any]
) -> None:
    """A mask of the user's that is all tissue, as an array or a file, and tissue=None."""
    # The left half: tiles 0 to 6 of each row of 14.
    leave_out(pyramid, 0, [row * 14 + column for row in range(10) for column in range(7)])
    given: Any = None
    if source != "none":
        given = np.ones((40, 56), np.bool_)
    if source == "file":
        given = str(tmp_path / "mask.png")
        (tmp_path / "mask.png").write_bytes(
            imagecodecs.png_encode(np.full((40, 56), 255, np.uint8))
        )
    dataset = Dataset(
        "d", [Patient(0, {"s": Record("/", str(pyramid)[1:], {"tissue_mask": given})})]
    )
    settings = {**small_stream, "tissue": "none", "memory_limit": "64MiB", "batch_slots": 2}
    service = configure(dataset, arguments(**settings))
    with OpenSlides(service.slides, service.stream, None) as slides:
        planned = slides.get(0)
        mask = planned.mask
        assert mask.fraction([0], [0], [448], [640])[0, 0] == 0
        assert mask.fraction([448], [0], [896], [640])[0, 0] == 1


# ---- Damaged tiles


def test_a_bad_tile_of_the_coarse_level_does_not_cost_the_slide(
    pyramid: Path, even: Pixels
) -> None:
    """Its place is looked at on the next finer level; the rest of the thumbnail is the same."""
    _, whole, _ = mask_of(pyramid, mpp=1.0)
    overwrite(pyramid, 3, [0])
    mask, seen, gaps = mask_of(pyramid, mpp=1.0)
    assert mask.cells.all()
    assert np.abs(seen.thumbnail.astype(int) - whole.thumbnail).max() <= 2
    assert gaps == {
        "tiles of level 3 cannot be read: there, tissue was detected on a finer level": 1
    }


@pytest.mark.parametrize("bad", [(3,), (2, 3), (1, 2, 3)])
def test_coarse_levels_of_which_nothing_can_be_read_do_not_cost_the_slide(
    bad: tuple[int, ...], pyramid: Path
) -> None:
    """The mask comes from the first level that can be read."""
    _, whole, _ = mask_of(pyramid, mpp=1.0)
    for level in bad:
        overwrite(pyramid, level)
    mask, seen, gaps = mask_of(pyramid, mpp=1.0)
    assert mask.cells.all()
    assert np.abs(seen.thumbnail.astype(int) - whole.thumbnail).max() <= 3
    assert sum(gaps.values()) >= 4


def test_a_place_that_no_level_has_is_no_tissue(pyramid: Path) -> None:
    """The first tile of every level was overwritten; the rest of the slide stays."""
    for level, tiles in ((0, [row * 14 + c for row in range(10) for c in range(8)]), (1, None)):
        overwrite(pyramid, level, tiles)
    overwrite(pyramid, 2)
    overwrite(pyramid, 3, [0, 2])
    mask, _, gaps = mask_of(pyramid, mpp=1.0)
    assert mask.fraction([0], [0], [500], [640])[0, 0] == 0
    assert mask.fraction([520], [0], [896], [640])[0, 0] == 1
    assert any("no tissue" in what for what in gaps)


def test_a_slide_of_which_nothing_can_be_read_is_an_error(pyramid: Path) -> None:
    """It names the slide and says so, rather than finding no tissue."""
    for level in range(4):
        overwrite(pyramid, level)
    with pytest.raises(SlideError, match=r"no tile of it can be read.*pyramid\.tif"):
        mask_of(pyramid, mpp=1.0)


# ---- Bytes behind the end, and tiles without one

BEHIND = (b"\0" * 7, b"\xff\xd9" * 3, b"garbage of an encoder", bytes(range(256)))
CODECS: dict[str, dict[str, Any]] = {
    "jpeg": {"compression": "jpeg"},
    "jpeg2000": {"compression": "jpeg2000"},
    "zlib": {},
    "lzw": {"compression": "lzw"},
    "zstd": {"compression": "zstd"},
    "png": {"compression": "png"},
    "webp": {"compression": "webp", "compressionargs": {"lossless": True}},
    "none": {"compression": None},
}


@pytest.mark.parametrize("behind", BEHIND, ids=["zeros", "end markers", "text", "bytes"])
@pytest.mark.parametrize("codec", CODECS)
def test_bytes_behind_the_end_of_a_tile_are_no_damage(
    codec: str, behind: bytes, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """A writer that gives each tile room for the longest leaves such."""
    path = write_tiff(tmp_path / "a.tif", page(picture, **CODECS[codec]))
    truth = tifffile.imread(path)
    with tifffile.TiffFile(path) as tiff:
        first = tiff.pages.first
        offset, count = first.dataoffsets[0], first.databytecounts[0]
    data = path.read_bytes()
    path.write_bytes(data + data[offset : offset + count] + behind)

    def longer(offsets: list[int], counts: list[int]) -> None:
        offsets[0], counts[0] = len(data), count + len(behind)

    edit_tiles(path, 0, longer)
    with closing(open_slide(path)) as slide:
        np.testing.assert_array_equal(read_region(slide, 0, 0, 0, 900, 700), truth)


@pytest.mark.parametrize("codec", [name for name in CODECS if name != "none"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_tile_without_its_end_is_an_error_and_never_grey(
    codec: str, share: float, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Of every codec; the tile is named by its place."""
    path = write_tiff(tmp_path / "a.tif", page(picture, **CODECS[codec]))

    def shorter(_: list[int], counts: list[int]) -> None:
        counts[0] = int(share * counts[0])

    edit_tiles(path, 0, shorter)
    with closing(open_slide(path)) as slide:
        with pytest.raises(SlideError, match=r"a\.tif, level 0, region 9x9 at \(3, 4\)"):
            read_region(slide, 0, 3, 4, 9, 9)
        read_region(slide, 0, TILE, 0, 64, 64)
