"""Slow is not dead, and what kills is left out: real loaders over real slides that take them."""

from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import psutil
import pytest

from chunkdl import Dataset, LightDL
from chunkdl.errors import HookTimeout, WorkerDied
from chunkdl.slides.synthetic.writing import CoordinateSlide
from chunkdl.slides.tissue.detectors.detector import TissueDetector
from tests.processes.bad_slides import with_killing_slide
from tests.processes.slow_classes import CornerCollector, Marked, ReadingLoader

STALL_S = 1.0
"""Silence that ends a worker. The long slide takes several times as long to read."""


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


def write_one_level(path: Path, side: int) -> None:
    """A BigTIFF of one level whose tiles are all one and the same JPEG: small, and long to read."""
    colours = np.random.default_rng(0).integers(90, 200, (32, 32, 3), np.uint8)
    tile = imagecodecs.jpeg8_encode(np.kron(colours, np.ones((16, 16, 1), np.uint8)), level=90)
    tiles = (-(-side // 512)) ** 2
    data = b"II\x2b\0\x08\0\0\0" + bytes(8) + tile + bytes(-len(tile) % 8)
    offsets = len(data)
    data += np.full(tiles, 16, "<u8").tobytes()
    counts = len(data)
    data += np.full(tiles, len(tile), "<u8").tobytes()
    # Width, height, bits, compression, photometric, samples, both resolutions (0.5 um), their unit,
    # tile width and height, offsets, byte counts, subsampling.
    tags = [
        *((256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, 8 | 8 << 16 | 8 << 32)),
        *((259, 3, 1, 7), (262, 3, 1, 6), (277, 3, 1, 3)),
        *((282, 5, 1, 20_000 | 1 << 32), (283, 5, 1, 20_000 | 1 << 32), (296, 3, 1, 3)),
        *((322, 3, 1, 512), (323, 3, 1, 512), (324, 16, tiles, offsets), (325, 16, tiles, counts)),
        (530, 3, 2, 2 | 2 << 16),
    ]
    directory = struct.pack("<Q", len(tags))
    directory += b"".join(struct.pack("<HHQQ", *tag) for tag in tags) + bytes(8)
    path.write_bytes(data[:8] + struct.pack("<Q", len(data)) + data[16:] + directory)


@pytest.fixture(scope="module")
def long_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of one level that takes some seconds to read."""
    path = tmp_path_factory.mktemp("long") / "long.tif"
    write_one_level(path, 32_000)
    return path


@pytest.fixture
def with_killer(coordinate_slides: dict[str, CoordinateSlide], tmp_path: Path) -> Dataset:
    """Three good slides, and one over which a `Marked` detector does what it is told."""
    return with_killing_slide(coordinate_slides, tmp_path)


def long_mask(
    slide: Path, stream: dict[str, Any], folder: Path, detector: TissueDetector
) -> LightDL:
    """A loader of one slide whose mask takes several times the stall_timeout."""
    own = {"smallchunk_size": 256, "bigchunk_size": 1024, "batch_size": 4, "num_bigchunks": 2}
    more = {"stall_timeout": STALL_S, "mask_cache": folder / "masks", "tissue": detector}
    return LightDL(Dataset.from_slides([slide]), **{**stream, **own, **more})


def test_a_mask_that_takes_longer_than_the_stall_timeout_is_waited_for(
    long_slide: Path, small_stream: dict[str, Any], tmp_path: Path
) -> None:
    """One loader computes it, once; the other waits; neither is taken for dead."""
    detector = Marked(tmp_path / "marks")
    with long_mask(long_slide, small_stream, tmp_path, detector) as loader:
        begun = time.monotonic()
        loader.get(timeout=100)
        took = time.monotonic() - begun
        assert loader.stats(60).restarts == 0
    # Otherwise this test has said nothing.
    assert took > 2 * STALL_S
    assert len((tmp_path / "marks").read_text().splitlines()) == 1


@pytest.mark.parametrize("what", ["SIGSEGV", "SIGKILL", "hang", "SIGSTOP"])
@pytest.mark.parametrize("survey", [False, True])
def test_a_slide_over_whose_mask_loaders_end_is_left_out(
    with_killer: Dataset,
    small_stream: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    what: str,
    survey: bool,
) -> None:
    """However they end, in the survey as in the stream: it is named, and the others go on."""
    arguments = {**small_stream, "stall_timeout": 1.0, "mask_cache": tmp_path / "masks"}
    if survey:
        del arguments["smallchunks_per_bigchunk"]
    detector = Marked(tmp_path / "marks", what)
    with (
        caplog.at_level(logging.WARNING, "chunkdl"),
        LightDL(with_killer, tissue=detector, **arguments) as loader,
    ):
        slides = {path for _ in range(60) for path in loader.next_batch(100)["slide"]}
        statistics = loader.stats(60)
    assert len(slides) == 3
    assert not any(path.endswith("bad.tif") for path in slides)
    assert statistics.unusable_slides == 1
    (told,) = [text for text in caplog.messages if text.startswith("slide left out")]
    assert "bad.tif has ended 2 workers" in told


def test_loaders_that_wait_for_a_mask_are_told_when_its_slide_is_left_out(
    with_killer: Dataset, small_stream: dict[str, Any], tmp_path: Path
) -> None:
    """They do not hang over it as well, one after the other."""
    arguments = {**small_stream, "stall_timeout": STALL_S, "mask_cache": tmp_path / "masks"}
    only = Dataset("two", [patient for patient in with_killer if patient.name != "slide-2"][-2:])
    detector = Marked(tmp_path / "marks", "hang")
    with LightDL(only, tissue=detector, **{**arguments, "num_loaders": 5}) as loader:
        loader.next_batch(100)
        statistics = loader.stats(60)
    assert statistics.unusable_slides == 1
    # Two, and those that had the lock before they could be told; five if one hung after the other.
    assert 2 <= statistics.restarts <= 4


def test_a_slide_that_kills_is_replaced_the_same_way_by_any_number_of_loaders(
    with_killer: Dataset,
    small_stream: dict[str, Any],
    tmp_path: Path,
    digest_of: Callable[[Any], str],
) -> None:
    """Like one that cannot be opened: bit for bit, also after a resume."""
    runs = []
    for loaders in (1, 3):
        arguments = {**small_stream, "num_loaders": loaders, "mask_cache": tmp_path / str(loaders)}
        detector = Marked(tmp_path / "marks", "SIGSEGV")
        with LightDL(with_killer, tissue=detector, **arguments) as loader:
            runs.append([digest_of(loader.next_batch(100)) for _ in range(40)])
            state = loader.state_dict()
            after = [digest_of(loader.next_batch(100)) for _ in range(5)]
            loader.load_state_dict(state)
            assert [digest_of(loader.next_batch(100)) for _ in range(5)] == after
    assert runs[0] == runs[1]


def test_a_grid_pass_leaves_out_a_slide_that_kills(
    with_killer: Dataset, small_stream: dict[str, Any], tmp_path: Path
) -> None:
    """The pass ends, and the others are complete."""
    arguments = {**small_stream, "grid": True, "mask_cache": tmp_path / "masks"}
    del arguments["smallchunks_per_bigchunk"]
    detector = Marked(tmp_path / "marks", "SIGSEGV")
    with LightDL(with_killer, tissue=detector, **arguments) as loader:
        slides = [path for batch in loader for path in batch["slide"]]
    assert len(slides) == 3 * 23 * 19
    assert len(set(slides)) == 3


def test_a_slide_that_kills_is_an_error_that_names_it_where_errors_are_raised(
    with_killer: Dataset, small_stream: dict[str, Any], tmp_path: Path
) -> None:
    """on_error="raise": with the signal, and the place where it was."""
    arguments = {**small_stream, "on_error": "raise", "mask_cache": tmp_path / "masks"}
    detector = Marked(tmp_path / "marks", "SIGSEGV")
    with (
        LightDL(with_killer, tissue=detector, **arguments) as loader,
        pytest.raises(WorkerDied, match=r"(?s)bad\.tif has ended 2 workers.*SIGSEGV.*__call__"),
    ):
        for _ in range(500):
            loader.get(timeout=100)


def reading(slide: Path, seconds: float, **more: Any) -> LightDL:
    """A loader whose hook reads for so long."""
    arguments: dict[str, Any] = {
        "batch_size": 4,
        "num_bigchunks": 1,
        "smallchunks_per_bigchunk": 4,
        "num_loaders": 1,
        "num_collectors": 1,
        "memory_limit": "256MiB",
        "tissue": "none",
        "const_global_info": {"seconds": seconds},
    }
    dataset = Dataset.from_slides([slide])
    return LightDL(dataset, ReadingLoader, CornerCollector, **{**arguments, **more})


def test_a_hook_that_reads_for_longer_than_the_stall_timeout_is_waited_for(
    long_slide: Path,
) -> None:
    """Every read says that it gets on."""
    with reading(long_slide, 3 * STALL_S, stall_timeout=STALL_S) as loader:
        loader.get(timeout=60)
        assert loader.stats(60).restarts == 0


def test_reading_does_not_prolong_the_time_that_a_hook_may_take(long_slide: Path) -> None:
    """hook_timeout is about the call, whatever goes on in it."""
    with (
        reading(long_slide, 60.0, stall_timeout=20.0, hook_timeout=0.5) as loader,
        pytest.raises(HookTimeout, match=r"hook_timeout=0\.5"),
    ):
        loader.get(timeout=60)


def test_a_loader_that_is_frozen_while_it_computes_a_mask_is_found(
    long_slide: Path,
    small_stream: dict[str, Any],
    tmp_path: Path,
    processes_of_this_run: Callable[..., list[psutil.Process]],
    eventually: Callable[..., bool],
) -> None:
    """Its successor, or the one that waited, computes the mask; the slide stays."""
    with long_mask(long_slide, small_stream, tmp_path, Marked(tmp_path / "marks")) as loader:
        locks: list[Path] = []

        def computes() -> bool:
            locks[:] = (tmp_path / "masks").glob("*.lock")
            return bool(locks)

        assert eventually(computes)
        lock = os.stat(locks[0])
        (holder,) = [
            process
            for process in processes_of_this_run("loader")
            if f" {lock.st_ino} " in _locks_of(process.pid)
        ]
        holder.suspend()
        loader.get(timeout=100)
        assert loader.stats(60).restarts == 1
        assert loader.stats(60).unusable_slides == 0


def _locks_of(pid: int) -> str:
    """The inodes of the files that a process has locked."""
    lines = Path("/proc/locks").read_text().splitlines()
    mine = [line.split()[-3].split(":")[-1] for line in lines if f" {pid} " in line]
    return f" {' '.join(mine)} "
