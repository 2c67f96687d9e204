"""Streams with a pixel filter: the rows, the same rows everywhere, and what goes wrong."""

from __future__ import annotations

import logging
import re
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chunkdl import Dataset, LightDL, OwnFilter, connect
from chunkdl.errors import ConfigError, HookError, SlideError
from chunkdl.sampling.policies.in_turn import Uniform
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.slides.synthetic.writing import CoordinateSlide
from tests.conftest import batch_digest
from tests.processes.filter_functions import (
    CropsAnywhere,
    HandsOut,
    NoPlanLoader,
    PositionsLoader,
    none_of_the_second_slide,
    raises,
    some_pass,
)
from tests.processes.hook_classes import SameCollector, SameLoader
from tests.processes.test_truth import assert_rows_are_true, patients_by_path
from tests.service.conftest import arguments

SOME = OwnFilter(some_pass, version="1")
NONE = {"name": "hsv", "saturation": [0, 0], "value": [0, 0], "least": 1}
"""Only black SmallChunks, of which there are none."""


def passing(batch: Any) -> bool:
    """Whether all rows of a batch pass."""
    return all(some_pass(image.permute(1, 2, 0).numpy()) for image in batch["image"])


def test_all_rows_pass_and_are_the_same_for_any_workers_resumed_and_from_a_service(
    coordinate_dataset: Dataset,
    coordinate_slides: dict[str, CoordinateSlide],
    small_stream: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Bit for bit; the columns say where each is, and the statistics what was refused."""
    stream = {**small_stream, "pixel_filter": SOME}
    patients = patients_by_path(coordinate_dataset)
    with LightDL(coordinate_dataset, **{**stream, "num_loaders": 1}) as loader:
        expected = []
        for _ in range(60):
            batch = loader.next_batch(60)
            assert_rows_are_true(batch, coordinate_slides, 64, patients)
            assert passing(batch)
            expected.append(batch_digest(batch))
        assert 0.2 < loader.stats(timeout=60).refused_share < 0.8
    with LightDL(coordinate_dataset, **{**stream, "num_loaders": 3}) as loader:
        for number in range(30):
            assert batch_digest(loader.next_batch(60)) == expected[number]
        state = loader.state_dict()
    with LightDL(coordinate_dataset, **stream) as loader:
        loader.load_state_dict(state)
        assert [batch_digest(loader.next_batch(60)) for _ in range(30)] == expected[30:]
    address = f"ipc://{tmp_path}/s"
    settings = ServiceSettings(binds=(address,), groups=(GroupSpec(name="train"),))
    spec = configure_service(
        coordinate_dataset, arguments(**{**stream, "batch_slots": 0}), settings
    )
    with closing(ServiceProcess(spec)), connect(address, rank=0, world_size=1) as consumer:
        assert [batch_digest(consumer.next_batch(60)) for _ in range(20)] == expected[:20]
        assert consumer.stats(timeout=60).refused_share > 0.2


def test_a_slide_of_which_nothing_passes_is_left_out_the_same_way_every_time(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """For any loaders; the warning names slide, filter and a picture that is there."""
    of_slides = []
    for loaders in (1, 3):
        caplog.clear()
        stream = {**small_stream, "num_loaders": loaders}
        stream["pixel_filter"] = OwnFilter(none_of_the_second_slide, version="1")
        with (
            caplog.at_level(logging.WARNING, "chunkdl"),
            LightDL(coordinate_dataset, **stream) as loader,
        ):
            batches = [loader.next_batch(60) for _ in range(30)]
            assert loader.stats(timeout=60).unusable_slides == 1
        of_slides.append([batch_digest(batch) for batch in batches])
        assert {Path(path).name for batch in batches for path in batch["slide"]} == {
            "slide-0.tif",
            "slide-2.tif",
        }
        told = re.search(r"left out: .*none_of_the_second_slide.* is in (\S+\.png) .*", caplog.text)
        assert told is not None
        assert "slide-1.tif" in told[0]
        assert Path(told[1]).is_file()
    assert of_slides[0] == of_slides[1]


def test_a_filter_that_refuses_the_whole_dataset_is_an_error(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """And no wait without an end."""
    with (
        LightDL(coordinate_dataset, pixel_filter=NONE, **small_stream) as loader,
        pytest.raises(SlideError, match=r"none of the 3 slides .*pixel filter HsvShare\(.*refuses"),
    ):
        loader.next_batch(60)


def test_what_a_function_raises_reaches_get_and_is_not_a_slide_to_replace(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """As the errors of hooks do."""
    with (
        LightDL(
            coordinate_dataset, pixel_filter=OwnFilter(raises, version="1"), **small_stream
        ) as loader,
        pytest.raises(HookError, match="KeyError: 'no such stain'") as caught,
    ):
        loader.next_batch(60)
    assert caught.value.kind == "KeyError"
    assert "raises" in caught.value.hook


def test_classes_of_the_user_get_the_positions_that_pass(
    coordinate_dataset: Dataset,
    coordinate_slides: dict[str, CoordinateSlide],
    small_stream: dict[str, Any],
) -> None:
    """Copies of the built-in classes give the same stream; a loader may take positions alone."""
    stream = {**small_stream, "num_bigchunks": 2, "pixel_filter": SOME, "num_loaders": 1}
    with LightDL(coordinate_dataset, schedule=Uniform(), **stream) as loader:
        expected = [batch_digest(loader.next_batch(60)) for _ in range(30)]
    with LightDL(coordinate_dataset, SameLoader, SameCollector, **stream) as loader:
        batches = [loader.next_batch(60) for _ in range(30)]
        assert loader.stats(timeout=60).refused_share > 0.2
    assert [batch_digest(batch) for batch in batches] == expected
    assert all(passing(batch) for batch in batches)
    with LightDL(coordinate_dataset, PositionsLoader, HandsOut, **stream) as loader:
        assert all(passing(loader.next_batch(60)) for _ in range(10))


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ((NoPlanLoader, SameCollector), "has not looked at the plan, so its SmallChunks"),
        ((SameLoader, CropsAnywhere), "without a look at self.place, so it has not passed"),
    ],
)
def test_classes_that_would_go_past_the_filter_are_refused(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    classes: tuple[type[Any], type[Any]],
    told: str,
) -> None:
    """At the first SmallChunk, with what to do."""
    stream = {**small_stream, "pixel_filter": SOME, "num_loaders": 1}
    with (
        LightDL(coordinate_dataset, *classes, **stream) as loader,
        pytest.raises(HookError, match=told),
    ):
        loader.next_batch(60)


class Locked:
    """Belongs to this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, rgb: Any) -> bool:
        with self._lock:
            return True


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"grid": True, "pixel_filter": "midnight"}, "grid=True .* has no pixel_filter"),
        ({"pixel_filter": some_pass}, r"OwnFilter\(function, version="),
        ({"pixel_filter": OwnFilter(Locked(), "1", "locked")}, "cannot be sent to the load"),
    ],
)
def test_what_cannot_be_filtered_is_refused_before_anything_starts(
    coordinate_dataset: Dataset, given: dict[str, Any], told: str
) -> None:
    """With a sentence."""
    with pytest.raises(ConfigError, match=told):
        LightDL(coordinate_dataset, smallchunk_size=64, bigchunk_size=256, **given)
