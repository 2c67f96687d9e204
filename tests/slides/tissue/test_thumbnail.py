"""Thumbnails of slides with bad tiles, with gaps, and of one huge level."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from chunkdl.errors import SlideError
from chunkdl.slides.slide import Pixels, Scanned
from chunkdl.slides.tissue import thumbnail
from chunkdl.slides.tissue.detectors.detector import Cells
from chunkdl.slides.tissue.mask import (
    TissueMask,
    compute_mask,
    mask_settings,
    whole_slide_mask,
    within,
)
from chunkdl.slides.tissue.thumbnail import thumbnail_plan
from chunkdl.slides.watched import Recalled
from tests.slides.tissue.memory_slide import MemorySlide, virtual_level

GLASS, TISSUE = 250, 90


class Dark:
    """Everything darker than the glass."""

    name = "dark"
    key = "dark 1"

    def __call__(self, rgb: Pixels) -> Cells:
        return np.asarray(rgb.mean(axis=2) < 170)


@dataclass
class BadTiles(MemorySlide):
    """A slide of which some tiles cannot be read."""

    bad: set[tuple[int, int, int]] = field(default_factory=set)
    """(level, column, row) of tiles."""
    fault: Callable[[], BaseException] = lambda: SlideError("it is damaged")

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        height, width = out.shape[:2]
        for column in range(x // self.tile, -(-(x + width) // self.tile)):
            for row in range(y // self.tile, -(-(y + height) // self.tile)):
                if (level, column, row) in self.bad:
                    raise self.fault()
        super().read_into(out, level, x, y)


def half_tissue(width: int, height: int) -> Pixels:
    """Tissue on the left, glass on the right."""
    pixels = np.full((height, width, 3), GLASS, np.uint8)
    pixels[:, : width // 2] = TISSUE
    return pixels


def two_levels(**options: object) -> BadTiles:
    base = half_tissue(2048, 1024)
    return BadTiles([base, base[::8, ::8]], tile=64, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [{(1, 0, 0)}, {(1, 1, 1), (1, 3, 0)}])
def test_a_bad_tile_of_a_coarse_level_is_made_from_the_finer_one(
    bad: set[tuple[int, int, int]],
) -> None:
    """The mask is that of the sound slide, and the repair is counted."""
    sound, spoiled = two_levels(), two_levels(bad=bad)
    expected = compute_mask(sound, Dark(), mpp=1.0)
    np.testing.assert_array_equal(compute_mask(spoiled, Dark(), mpp=1.0).cells, expected.cells)
    (count,) = spoiled.gaps.counts.values()
    assert count == len(bad)
    assert sound.gaps.counts == {}


def test_a_place_that_no_level_shows_is_no_tissue() -> None:
    """The cells of a tile that is bad on every level, and only these."""
    under = {(0, column, row) for column in range(8) for row in range(8)}
    slide = two_levels(bad={(1, 0, 0), *under})
    mask = compute_mask(slide, Dark(), mpp=1.0)
    expected = compute_mask(two_levels(), Dark(), mpp=1.0).cells.copy()
    expected[:64, :64] = False
    np.testing.assert_array_equal(mask.cells, expected)
    assert any("count as no tissue" in what for what in slide.gaps.counts)


def test_a_slide_of_which_nothing_can_be_read_is_an_error() -> None:
    """And no mask without tissue."""
    every = {(level, x, y) for level in (0, 1) for x in range(32) for y in range(16)}
    with pytest.raises(SlideError, match="no tile of it can be read"):
        compute_mask(two_levels(bad=every), Dark(), mpp=1.0)


def test_what_the_system_does_not_give_now_is_not_missing_for_good() -> None:
    """A mask is kept on disk: where the file server is away there is an error and no mask."""

    def away() -> SlideError:
        error = SlideError("cannot read the tiles")
        error.__cause__ = OSError(errno.EIO, "Input/output error")
        return error

    with pytest.raises(SlideError, match="cannot read the tiles"):
        compute_mask(two_levels(bad={(1, 0, 0)}, fault=away), Dark(), mpp=1.0)


def test_work_that_is_taken_back_leaves_no_mask() -> None:
    """Nothing that mends bad tiles holds it up."""
    with pytest.raises(Recalled):
        compute_mask(two_levels(bad={(1, 0, 0)}, fault=Recalled), Dark(), mpp=1.0)


def test_of_a_huge_level_a_bounded_part_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile in k x k; tissue is found to within k tiles, and the key of the mask says k."""
    monkeypatch.setattr(thumbnail, "MOST_READ_PX", 2**18)
    slide = MemorySlide([half_tissue(2048, 2048)], tile=64)
    mask = compute_mask(slide, Dark(), mpp=0.5)
    read = sum(width * height for _, _, _, width, height in slide.reads)
    assert read <= 2**18
    assert "stride 4" in mask_settings(slide.info, 0.5)
    columns = mask.cells.mean(axis=0)
    edge = mask.cells.shape[1] // 2
    reach = 4 * 64 * mask.cells.shape[1] // 2048
    assert (columns[: edge - reach] == 1).all()
    assert (columns[edge + reach :] == 0).all()
    assert any("one of 16 tiles" in what for what in slide.gaps.counts)


def test_a_slide_of_150_000_pixels_a_side_needs_a_bounded_read() -> None:
    """With one level, its mask reads a tenth of the slide and has at most 4096 cells a side."""
    info = MemorySlide([virtual_level(150_000, 150_000)], tile=512).info
    plan = thumbnail_plan(info, 0.25)
    assert plan.stride == 4
    assert 150_000 / plan.side <= 4096
    assert (150_000 / plan.stride) ** 2 <= thumbnail.MOST_READ_PX


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 64), (40, 70)])
def test_what_was_never_scanned_is_no_tissue(shape: tuple[int, int]) -> None:
    """A given mask of any size gets cells that are small enough; the rest of it stays."""
    rng = np.random.default_rng(5)
    given = TissueMask(
        np.ones(shape, np.bool_) if shape == (1, 1) else rng.random(shape) < 0.6, 700, 640
    )
    present = rng.random((5, 6)) < 0.7
    found = within(given, Scanned(present, 128, 128))
    x = ((np.arange(found.cells.shape[1]) + 0.5) * 700 / found.cells.shape[1]).astype(int)
    y = ((np.arange(found.cells.shape[0]) + 0.5) * 640 / found.cells.shape[0]).astype(int)
    was = given.cells[(y * shape[0] // 640)[:, None], x * shape[1] // 700]
    there = present[(y // 128)[:, None], x // 128]
    np.testing.assert_array_equal(found.cells, was & there)
    assert 700 / found.cells.shape[1] <= 128
    assert 640 / found.cells.shape[0] <= 128


def test_a_slide_that_is_scanned_everywhere_keeps_its_mask() -> None:
    """The very same, without a copy."""
    mask = whole_slide_mask(MemorySlide([half_tissue(64, 64)]).info)
    assert within(mask, None) is mask


def test_a_mask_that_is_computed_leaves_out_what_was_never_scanned() -> None:
    """Also where the detector calls the background tissue."""

    class Everything(Dark):
        def __call__(self, rgb: Pixels) -> Cells:
            return np.ones(rgb.shape[:2], np.bool_)

    class Half(MemorySlide):
        def scanned(self) -> Scanned | None:
            cells: npt.NDArray[np.bool_] = np.array([[True, False]])
            return Scanned(cells, 256, 512)

    mask = compute_mask(Half([half_tissue(512, 512)]), Everything(), mpp=0.5)
    assert mask.cells[:, : mask.cells.shape[1] // 2].all()
    assert not mask.cells[:, mask.cells.shape[1] // 2 :].any()
