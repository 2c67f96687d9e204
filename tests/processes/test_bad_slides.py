"""Slides that cannot be read: replaced by the plan, told, or an error; never a hang."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from chunkdl import Dataset, LightDL, Patient, Record
from chunkdl.errors import ResolutionError, SlideError, WorkerFailed
from tests.processes.bad_slides import with_bad_slides


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


@pytest.fixture
def mixed(coordinate_dataset: Dataset, tmp_path: Path) -> Dataset:
    """Good slides, and beside them one of every bad kind."""
    return with_bad_slides(coordinate_dataset, tmp_path)


def test_bad_slides_are_replaced_the_same_way_every_time(
    mixed: Dataset,
    small_stream: dict[str, Any],
    digest_of: Callable[[Any], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The stream runs, bit-equal for 1 and 3 loaders, and log and statistics name what is left out.

    The resumed stream equals the first, too.
    """
    runs = []
    for loaders in (1, 3):
        with (
            caplog.at_level(logging.WARNING, "chunkdl"),
            LightDL(mixed, **{**small_stream, "num_loaders": loaders}) as loader,
        ):
            runs.append([digest_of(loader.next_batch(60)) for _ in range(60)])
            state = loader.state_dict()
            statistics = loader.stats(60)
            after = [digest_of(loader.next_batch(60)) for _ in range(5)]
            loader.load_state_dict(state)
            assert [digest_of(loader.next_batch(60)) for _ in range(5)] == after

    assert runs[0] == runs[1]
    assert statistics.substitutions > 0
    assert statistics.unusable_slides >= 2
    for name in ("empty.tif", "text.svs", "glass.tif"):
        assert name in caplog.text


def test_raise_ends_the_stream_with_the_slide_named(
    mixed: Dataset, small_stream: dict[str, Any]
) -> None:
    """on_error="raise": get() raises the SlideError of the loader, and does so again."""
    with LightDL(mixed, on_error="raise", **small_stream) as loader:
        with pytest.raises(SlideError) as caught:
            for _ in range(500):
                loader.get(timeout=60)
        assert caught.value.slide.endswith((".tif", ".svs"))
        assert caught.value.__cause__ is not None
        with pytest.raises(SlideError):
            loader.get(timeout=60)


def test_a_dataset_without_any_tissue_ends_with_an_error(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Nothing to draw from is an error that says so, not an endless search."""
    glass = np.zeros((5, 6), dtype=bool)
    dataset = Dataset(
        "glass",
        [
            Patient(number, {"s": Record("/", record.path[1:], {"tissue_mask": glass})})
            for number, record in enumerate(
                record for patient in coordinate_dataset for record in patient.slides
            )
        ],
    )
    for arguments in (small_stream, {**small_stream, "grid": True}):
        with (
            LightDL(dataset, **arguments) as loader,
            pytest.raises(SlideError, match="none of the 3 slides"),
        ):
            loader.get(timeout=60)


def test_a_grid_pass_leaves_out_what_it_cannot_read_and_counts_it(
    mixed: Dataset, small_stream: dict[str, Any]
) -> None:
    """The pass ends; the good slides are complete; rows of unreadable windows are missing."""
    arguments = {**small_stream, "smallchunks_per_bigchunk": None, "grid": True}
    with LightDL(mixed, **arguments) as loader:
        slides = [path for batch in loader for path in batch["slide"]]
        statistics = loader.stats(60)
    good = [record.path for patient in mixed for record in patient.slides][:3]

    assert statistics.substitutions > 0
    assert statistics.unusable_slides == 3
    assert set(good) <= set(slides)
    assert 0 < sum(path.endswith("damaged.tif") for path in slides) < 23 * 19


class Broken:
    """A detector of a user, with a mistake in it."""

    name = "broken"
    key = "broken 1"

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        raise KeyError("a mistake of the user")


def test_a_mistake_in_user_code_reaches_get_with_its_traceback(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], tmp_path: Path
) -> None:
    """It ends the stream: type, message and the remote lines are told; it is not a bad slide."""
    paths = [record.path for patient in coordinate_dataset for record in patient.slides]
    loader = LightDL(
        Dataset.from_slides(paths), tissue=Broken(), mask_cache=tmp_path, **small_stream
    )
    with loader, pytest.raises(WorkerFailed, match=r"KeyError.*a mistake of the user") as caught:
        loader.get(timeout=60)

    assert "in __call__" in str(caught.value.__cause__)


def test_mistakes_that_only_the_slides_show_are_refused_at_once(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """A SmallChunk larger than a slide, and microns on a slide without them: before any process."""
    with pytest.raises(ResolutionError, match="smallchunk_size"):
        LightDL(
            coordinate_dataset, **{**small_stream, "smallchunk_size": 1400, "bigchunk_size": 2048}
        )
    with pytest.raises(ResolutionError, match="finer"):
        LightDL(coordinate_dataset, mpp=0.1, **small_stream)
