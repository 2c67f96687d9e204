"""The slides that a loader has open: what the system does not give now is tried again."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from chunkdl.dataset.patients import Dataset
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.work import open_slides
from chunkdl.engine.work.open_slides import OpenSlide, OpenSlides
from chunkdl.errors import NoTissueError, SlideError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.service.conftest import arguments
from tests.slides.dicom_files import MM, RESAMPLED, Made, write_dicom


class Waits:
    """Counts the signs of life, and does something at one of them.

    Args:
        act: what to do.
        at: at which, counted from 1.
    """

    def __init__(self, act: Callable[[], object] = lambda: None, at: int = 0) -> None:
        self._act = act
        self._at = at
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self._at:
            self._act()


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A small slide; its tiles of level 1 are 128 pixels wide."""
    path = tmp_path / "slide.tif"
    write_coordinate_slide(path, 700, 600, tile=128, levels=(1, 2), mpp=0.25)
    return path


@pytest.fixture
def opened(slide: Path, small_stream: dict[str, Any]) -> Callable[..., OpenSlides]:
    """Makes the open slides of a stream that has that one."""
    given: Arguments = arguments(
        **{**small_stream, "tissue": "none", "memory_limit": "64MiB", "batch_slots": 2}
    )
    service = configure(Dataset.from_slides([str(slide)]), given)

    def make(waits: Callable[[], None]) -> OpenSlides:
        return OpenSlides(service.slides, service.stream, None, waits)

    return make


def pixels(opened: OpenSlide) -> Pixels:
    """Of a corner of the slide."""
    out = np.empty((200, 300, 3), np.uint8)
    opened.slide.read_into(out, 0, 130, 140)
    return out


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that are long enough to be told apart from none."""
    monkeypatch.setattr(open_slides, "PAUSES_S", (0.11, 0.12, 0.13))


def test_a_slide_that_comes_back_while_it_is_waited_for_is_read(
    slide: Path, opened: Callable[..., OpenSlides]
) -> None:
    """The one who waits says so, and gets the pixels."""
    with opened(lambda: None) as slides:
        whole = pixels(slides.get(0))
    away = slide.rename(slide.with_suffix(".away"))
    waits = Waits(lambda: away.rename(slide), at=3)
    with opened(waits) as slides:
        np.testing.assert_array_equal(pixels(slides.get(0)), whole)
    assert waits.count > 3


def test_a_slide_that_is_opened_when_descriptors_are_free_again_is_read(
    opened: Callable[..., OpenSlides],
) -> None:
    """A moment without descriptors makes no slide unusable."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def more() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    waits = Waits(more, at=2)
    with opened(waits) as slides:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            assert slides.get(0).slide.info.levels[0].width == 700
        finally:
            more()
    assert waits.count >= 2


@pytest.mark.usefixtures("quick")
def test_a_slide_that_stays_away_is_an_error_after_the_last_pause(
    slide: Path, opened: Callable[..., OpenSlides]
) -> None:
    """With the system's reason; the wait was bounded, and full of signs of life."""
    slide.unlink()
    waits = Waits()
    with opened(waits) as slides, pytest.raises(SlideError, match="no such file") as caught:
        slides.get(0)
    assert caught.value.slide == str(slide)
    assert caught.value.may_pass
    assert waits.count >= 3 * 2


@pytest.mark.parametrize("content", [b"", b"this is not a slide", b"II*\0\x08\0\0\0\0\0"])
def test_what_is_no_slide_is_refused_at_once(
    slide: Path, opened: Callable[..., OpenSlides], content: bytes
) -> None:
    """Nobody waits for a file to become another one."""
    slide.write_bytes(content)
    waits = Waits()
    with opened(waits) as slides, pytest.raises(SlideError) as caught:
        slides.get(0)
    assert not caught.value.may_pass
    assert waits.count == 0


def test_work_that_fails_for_another_reason_is_done_once(
    opened: Callable[..., OpenSlides],
) -> None:
    """A slide without tissue has none a second later."""
    done = []

    def work(opened: OpenSlide) -> None:
        done.append(opened)
        raise NoTissueError("no tissue", slide="slide.tif")

    with opened(lambda: None) as slides, pytest.raises(NoTissueError):
        slides.use(0, work)
    assert len(done) == 1


@pytest.mark.usefixtures("quick")
def test_work_that_the_system_stops_is_done_again_with_a_slide_that_was_opened_anew(
    opened: Callable[..., OpenSlides],
) -> None:
    """A descriptor of a file server that was away is stale for ever."""
    used = []

    def work(opened: OpenSlide) -> int:
        used.append(opened)
        if len(used) < 3:
            try:
                os.read(-1, 1)
            except OSError as error:
                raise SlideError("cannot read the tiles", slide="slide.tif") from error
        return len(used)

    with opened(lambda: None) as slides:
        assert slides.use(0, work) == 3
    assert len(set(map(id, used))) == 3


def test_what_is_mended_in_a_slide_is_told_once(
    slide: Path, opened: Callable[..., OpenSlides]
) -> None:
    """Which slide, what, and how often."""
    with tifffile.TiffFile(slide, mode="r+") as file:
        first = file.pages[0]
        counts = first.tags["TileByteCounts"].value  # type: ignore[union-attr]
        first.tags["TileByteCounts"].overwrite([0, 0, *counts[2:]])  # type: ignore[union-attr]
    with opened(lambda: None) as slides:
        assert list(slides.news()) == []
        slides.use(
            0, lambda opened: opened.slide.read_into(np.empty((9, 300, 3), np.uint8), 0, 0, 0)
        )
        ((index, what, count),) = slides.news()
        assert (index, count) == (0, 2)
        assert "level 0 are absent" in what
        pixels(slides.get(0))
        assert list(slides.news()) == []


@pytest.mark.usefixtures("quick")
def test_slides_that_are_open_make_way_where_their_descriptors_are_needed(
    slide: Path, small_stream: dict[str, Any]
) -> None:
    """Slides of many files hold more than one descriptor each: that makes no slide unusable."""
    paths = [slide.with_name(f"{number}.tif") for number in range(6)]
    for path in paths:
        path.write_bytes(slide.read_bytes())
    given = {**small_stream, "tissue": "none", "memory_limit": "64MiB", "batch_slots": 2}
    service = configure(Dataset.from_slides(paths), arguments(**given))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with OpenSlides(service.slides, service.stream, None) as slides:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 4, hard))
        try:
            for index in range(len(paths)):
                assert slides.use(index, lambda opened: opened.slide.info.levels[0].width) == 700
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_mask_of_a_slide_of_several_files_hangs_on_all_of_them(
    tmp_path: Path, small_stream: dict[str, Any]
) -> None:
    """Tissue is found on the file of a coarse level: with another one there, it is found anew."""
    base = np.full((1024, 1024, 3), 245, np.uint8)
    base[100:900, 100:900] = (200, 90, 160)
    coarse = Made(image_type=RESAMPLED, mm=16 * MM)
    write_dicom(tmp_path / "0.dcm", base)
    write_dicom(tmp_path / "1.dcm", np.ascontiguousarray(base[::16, ::16]), coarse)
    given: Arguments = arguments(
        **{**small_stream, "tissue": "otsu", "memory_limit": "64MiB", "batch_slots": 2}
    )
    service = configure(Dataset.from_slides(str(tmp_path)), given)

    def share() -> float:
        with OpenSlides(service.slides, service.stream, tmp_path / "masks") as slides:
            return float(slides.use(0, lambda opened: opened.mask.cells.mean()))

    assert share() == pytest.approx(0.61, abs=0.05)
    write_dicom(tmp_path / "1.dcm", np.full((64, 64, 3), 245, np.uint8), coarse)
    os.utime(tmp_path / "1.dcm", ns=(1, 1))
    assert share() == 0
