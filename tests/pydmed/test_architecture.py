"""The baseline that has PyDmed's architecture works: a slow one is its design, not a fault here."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks import tutorial_recipe
from benchmarks.pydmed_architecture import (
    PydmedArchitecture,
)
from benchmarks.tutorial_recipe import tutorial_bigchunk, tutorial_smallchunk
from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.errors import Closed, GetTimeout, WorkerDied, WorkerFailed
from chunkdl.patches.chunks import BigChunk, SmallChunk
from chunkdl.slides.synthetic.writing import CoordinateSlide

# Newer versions of Python say so when a process with threads is forked, as this design does.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

SIDE = 48
PATIENCE_S = 120.0
NEVER_S = 1e6

Start = Callable[..., AbstractContextManager[PydmedArchitecture]]


def channels_first(patch: npt.NDArray[np.uint8]) -> torch.Tensor:
    """What a trainer does with one patch."""
    return torch.from_numpy(patch).permute(2, 0, 1)


def batches(loader: PydmedArchitecture) -> Iterator[tuple[Any, list[Patient], list[SmallChunk]]]:
    """Batches for as long as patience lasts; then the test has failed."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        yield loader.get(PATIENCE_S)
    pytest.fail(f"it did not come within {PATIENCE_S:.0f} s; {loader.loads} loads")


@contextmanager
def start_on(dataset: Dataset, **settings: Any) -> Iterator[PydmedArchitecture]:
    """A running loader of which no process is left when it was closed."""
    gone, held = os.pipe()
    settings = {
        "extract_bigchunk": tutorial_bigchunk,
        "extract_smallchunk": tutorial_smallchunk,
        "batch_size": 8,
        "tfms": channels_first,
        "num_bigchunkloaders": 2,
        "maxlength_queue_smallchunk": 10,
        "maxlength_queue_lightdl": 40,
        "interval_resched_s": NEVER_S,
        **settings,
    }
    try:
        with PydmedArchitecture(dataset, **settings) as loader:
            # Every process that was forked in there holds it open as long as it lives.
            os.close(held)
            yield loader
        readable, _, _ = select.select([gone], [], [], PATIENCE_S)
        assert readable, "a process outlived close()"
    finally:
        os.close(gone)


@pytest.fixture
def start(coordinate_slides: dict[str, CoordinateSlide], monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start the tutorial's recipe, made small, on three patients of one slide each."""
    monkeypatch.setattr(tutorial_recipe, "BIGCHUNK_PX", 300)
    monkeypatch.setattr(tutorial_recipe, "SMALLCHUNK_PX", SIDE)
    dataset = Dataset.from_slides(coordinate_slides)
    return lambda **settings: start_on(dataset, **settings)


def test_each_patch_is_the_place_of_its_patients_slide_that_it_says(
    start: Start, coordinate_slides: dict[str, CoordinateSlide]
) -> None:
    """Pixels, x, y, slide and patient of a row belong together; both loaded patients are there."""
    seen = set()
    with start() as loader:
        for _ in range(4):
            x, patients, chunks = loader.get(PATIENCE_S)
            assert x.shape == (8, 3, SIDE, SIDE)
            assert x.dtype == torch.uint8
            for image, patient, chunk in zip(x, patients, chunks, strict=True):
                info, path = chunk.dict_info_of_smallchunk, chunk.dict_info_of_bigchunk["slide"]
                expected = coordinate_slides[path].pixels(0, info["x"], info["y"], SIDE, SIDE)
                assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
                assert patient.slides[0].path == path
                assert chunk.data is None
                assert chunk.patient is patient
                seen.add(patient)
    assert len(seen) == 2


def test_the_relay_takes_one_patch_of_each_patient_in_turn(start: Start) -> None:
    """Also of the one that was loaded first and has its queue full when the relay begins."""
    with start(num_bigchunkloaders=3, batch_size=3) as loader:
        assert len(set(loader.get(PATIENCE_S)[1])) == 3


def test_waiting_patients_come_in_as_time_goes_by(start: Start) -> None:
    """A patient that was never loaded replaces one of the first, and each load is counted."""
    with start(interval_resched_s=0.05) as loader:
        seen: set[Patient] = set()
        for _, patients, _ in batches(loader):
            seen.update(patients)
            if len(seen) == 3:
                break
        assert loader.loads >= 3


def test_a_dataset_no_larger_than_the_loaders_is_loaded_again(start: Start) -> None:
    """New regions of the same patients keep coming where nobody waits."""
    regions: set[tuple[str, int, int]] = set()
    with start(num_bigchunkloaders=4, interval_resched_s=0.05) as loader:
        for _, _, chunks in batches(loader):
            infos = [chunk.dict_info_of_bigchunk for chunk in chunks]
            regions.update((info["slide"], info["x"], info["y"]) for info in infos)
            if len(regions) >= 7:
                break
        assert loader.loads >= len(regions)


def test_without_a_replacement_there_is_one_load_for_each_loader(start: Start) -> None:
    """The count is exact, and patches come only after the last patient of the start is read."""
    with start(num_bigchunkloaders=3) as loader:
        for _ in range(5):
            loader.get(PATIENCE_S)
            assert loader.loads == 3


def test_a_replacement_loses_no_patch(start: Start) -> None:
    """All that a collector cut is delivered, in order, before the next one begins."""
    fork = multiprocessing.get_context("fork")
    loads, cut = fork.Value(ctypes.c_int64, 0), fork.RawArray(ctypes.c_int64, 1000)

    def numbered_bigchunk(patient: Patient) -> BigChunk:
        bigchunk = tutorial_bigchunk(patient)
        with loads.get_lock():
            bigchunk.dict_info_of_bigchunk["load"] = loads.value
            loads.value += 1
        return bigchunk

    def counted_smallchunk(call_count: int, bigchunk: BigChunk) -> SmallChunk:
        cut[bigchunk.dict_info_of_bigchunk["load"]] = call_count + 1
        return tutorial_smallchunk(call_count, bigchunk)

    delivered: list[list[int]] = [[]]
    with start(
        extract_bigchunk=numbered_bigchunk,
        extract_smallchunk=counted_smallchunk,
        num_bigchunkloaders=1,
        maxlength_queue_smallchunk=50,
        interval_resched_s=0.05,
    ) as loader:
        for _, _, chunks in batches(loader):
            for chunk in chunks:
                if chunk.dict_info_of_bigchunk["load"] == len(delivered):
                    delivered.append([])
                assert chunk.dict_info_of_bigchunk["load"] == len(delivered) - 1
                delivered[-1].append(chunk.dict_info_of_smallchunk["call"])
            if len(delivered) >= 5:
                break
    for load, calls in enumerate(delivered[:-1]):
        assert calls == list(range(cut[load]))


def test_no_two_processes_draw_the_same_random_numbers(start: Start) -> None:
    """Nor does a collector draw those of its own loader."""

    def draw_then_read(patient: Patient) -> BigChunk:
        drawn = np.random.random()
        bigchunk = tutorial_bigchunk(patient)
        bigchunk.dict_info_of_bigchunk["drawn"] = drawn
        return bigchunk

    def draw_then_cut(call_count: int, bigchunk: BigChunk) -> SmallChunk:
        drawn = np.random.random()
        smallchunk = tutorial_smallchunk(call_count, bigchunk)
        smallchunk.dict_info_of_smallchunk["drawn"] = drawn
        return smallchunk

    np.random.random()  # numpy makes its generator at first use; the processes inherit it
    hooks = {"extract_bigchunk": draw_then_read, "extract_smallchunk": draw_then_cut}
    with start(num_bigchunkloaders=3, batch_size=3, **hooks) as loader:
        chunks = loader.get(PATIENCE_S)[2]
    drawn = {chunk.dict_info_of_bigchunk["drawn"] for chunk in chunks}
    drawn |= {chunk.dict_info_of_smallchunk["drawn"] for chunk in chunks}
    assert len(drawn) == 6


def test_a_collector_that_has_nothing_to_give_is_asked_again(start: Start) -> None:
    """None is not delivered; its call counts."""

    def every_third(call_count: int, bigchunk: BigChunk) -> SmallChunk | None:
        return None if call_count % 3 else tutorial_smallchunk(call_count, bigchunk)

    with start(extract_smallchunk=every_third, num_bigchunkloaders=1) as loader:
        chunks = loader.get(PATIENCE_S)[2]
    assert [chunk.dict_info_of_smallchunk["call"] for chunk in chunks] == list(range(0, 24, 3))


def test_an_error_of_a_hook_comes_out_of_get(start: Start) -> None:
    """With its message and the remote traceback, whichever hook it was."""

    def torn(*_: object) -> BigChunk:
        raise ValueError("the slide is torn")

    for hook in ("extract_bigchunk", "extract_smallchunk"):
        with (
            start(**{hook: torn}) as loader,
            pytest.raises(WorkerFailed, match="the slide is torn") as caught,
        ):
            loader.get(PATIENCE_S)
        assert "in torn" in str(caught.value.__cause__)


def test_a_loader_that_dies_without_a_word_is_no_hang(start: Start) -> None:
    """Its exit code comes out of get."""

    def die(patient: Patient) -> BigChunk:
        os._exit(42)

    with (
        start(extract_bigchunk=die) as loader,
        pytest.raises(WorkerDied, match="loader ended with 42"),
    ):
        loader.get(PATIENCE_S)


def test_closing_in_the_middle_of_a_load_leaves_nothing(start: Start) -> None:
    """No region has come, get says so in time, and close ends a hook that would never return."""

    def never(patient: Patient) -> BigChunk:
        while True:
            pass

    with start(extract_bigchunk=never) as loader:
        with pytest.raises(GetTimeout, match=r"0 of 8 .* 0 BigChunks .* the relay runs"):
            loader.get(0.2)
        loader.close()
        with pytest.raises(Closed):
            loader.get(0.2)
