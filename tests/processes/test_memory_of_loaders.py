"""A loader takes no more memory than was promised, however large its slides are."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from chunkdl import Dataset, LightDL, Patient, Record
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.settings.memory_plan import loader_bytes
from chunkdl.engine.work import open_slides
from chunkdl.engine.work.open_slides import MOST_BYTES, SCRATCH_BYTES, OpenSlide, OpenSlides
from chunkdl.sampling.anchors import Anchors
from chunkdl.slides.readers import openslide, tiled
from chunkdl.slides.resolution import Resolution
from tests.service.conftest import arguments
from tests.slides.huge_slide import write_huge_slide

WIDTH, HEIGHT = 100_000, 80_000
TISSUE = {"across": (0.2, 0.7), "down": (0.1, 0.8)}
SMALL: dict[str, Any] = {
    "batch_size": 16,
    "smallchunk_size": 64,
    "bigchunk_size": 1024,
    "level": 0,
    "num_bigchunks": 2,
    "num_loaders": 1,
    "num_collectors": 1,
    "memory_limit": "256MiB",
}


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A slide of 8 gigapixels."""
    path = tmp_path / "huge.tif"
    write_huge_slide(path, WIDTH, HEIGHT, **TISSUE)
    return path


def taken(pid: int) -> dict[str, int]:
    """Memory of a process as the kernel counts it, bytes, by the names of proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: 1024 * int(value.split()[0]) for name, value in pairs}


@pytest.mark.parametrize("grid", [False, True], ids=["random", "grid"])
def test_a_slide_of_gigapixels_fits_into_what_is_promised(
    huge: Path, grid: bool, processes_of_this_run: Callable[..., list[psutil.Process]]
) -> None:
    """At 64 px there are 125 million cells, and a million positions of a grid.

    The most that the process ever had may hold all of the arena; what it has now may not.
    """
    with LightDL(Dataset.from_slides([huge]), grid=grid, **SMALL) as stream:
        for _ in range(30):
            stream.next_batch(300)
        (loader,) = processes_of_this_run("loader")
        found = taken(loader.pid)
    given = arguments(**SMALL, grid=grid)
    service = configure(Dataset.from_slides([huge]), given)
    promised, arena = loader_bytes(service.stream), service.run.memory_bytes[0]
    assert found["VmHWM"] <= promised + arena
    assert found["RssAnon"] + found["RssFile"] <= promised - SCRATCH_BYTES


@contextmanager
def opened(folder: Path, count: int, on_progress: Callable[[], None]) -> Iterator[OpenSlides]:
    """The slides of a loader that has so many like the huge one, with masks that are given."""
    mask = np.zeros((HEIGHT // 32, WIDTH // 32), np.bool_)
    mask[500:1_500, 600:2_000] = True
    patients = []
    for number in range(count):
        os.link(folder / "huge.tif", folder / f"{number}.tif")
        record = Record(folder, f"{number}.tif", {"tissue_mask": mask})
        patients.append(Patient(number, {"slide": record}))
    service = configure(Dataset("huge", patients), arguments(**SMALL))
    with OpenSlides(service.slides, service.stream, None, on_progress) as slides:
        yield slides


def plan(opened: OpenSlide) -> int:
    """What a loader asks of a slide before it reads."""
    places = opened.at(Resolution("level", 0, "error")).places
    assert isinstance(places, Anchors)
    return places.count


def test_the_slides_that_a_loader_keeps_stay_within_the_bound(huge: Path) -> None:
    """All that they take is counted, and those that were used longest ago make way."""
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, tracemalloc.get_traced_memory()[0])

    with opened(huge.parent, 8, look) as slides:
        tracemalloc.start()
        try:
            for index in (*range(8), 1, 7):
                slides.use(index, plan)
                # What parsing a header leaves behind goes when Python looks for garbage.
                gc.collect()
                kept = tracemalloc.get_traced_memory()[0]
                assert slides.nbytes <= MOST_BYTES
                assert kept <= slides.nbytes + 2**23
                assert most <= MOST_BYTES + 2**26
        finally:
            tracemalloc.stop()
        # Eight with 17 MiB each do not fit, five do.
        last = slides.get(7)
        for index in (1, 2):
            slides.use(index, plan)
        assert slides.get(7) is last


def test_a_slide_that_alone_takes_more_works_and_is_told_once(
    huge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the remedy; no other slide is kept beside it."""
    monkeypatch.setattr(open_slides, "MOST_BYTES", 2**20)
    with opened(huge.parent, 2, lambda: None) as slides:
        assert slides.use(0, plan) == slides.use(1, plan) > 0
        assert [index for index, _, _ in slides.news()] == [1]
        assert slides.use(0, plan) > 0
        ((index, what, count),) = slides.news()
        assert (index, count) == (0, 1)
        assert "tissue_mask of fewer cells" in what
        slides.use(0, plan)
        assert list(slides.news()) == []


def test_finding_the_tissue_of_the_largest_slides_takes_what_is_promised_for_work(
    tmp_path: Path,
) -> None:
    """The thumbnail has 4,094 pixels a side, two less than any may have."""
    write_huge_slide(tmp_path / "largest.tif", 131_000, 131_000, **TISSUE)
    service = configure(Dataset.from_slides([tmp_path / "largest.tif"]), arguments(**SMALL))
    with OpenSlides(service.slides, service.stream, tmp_path / "masks") as slides:
        tracemalloc.start()
        try:
            assert slides.use(0, lambda opened: opened.mask.cells.shape) == (4_094, 4_094)
            assert tracemalloc.get_traced_memory()[1] <= SCRATCH_BYTES
        finally:
            tracemalloc.stop()


def test_the_promise_counts_the_tiles_that_readers_hold() -> None:
    """Both of them may be at work in one loader."""
    assert tiled.TILE_CACHE_BYTES + openslide.CACHE_BYTES == open_slides.CACHED_BYTES
