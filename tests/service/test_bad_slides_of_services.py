"""Slides that are bad from the start, or over which loaders end, in services.

Each consumer gets what `LightDL` makes of the same dataset, bit for bit, or its error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chunkdl.consumers.connect import connect
from chunkdl.dataset.patients import Dataset
from chunkdl.errors import SlideError, WorkerDied
from chunkdl.service.client.control import operate
from chunkdl.slides.synthetic.writing import CoordinateSlide
from tests.processes.bad_slides import with_bad_slides, with_killing_slide
from tests.processes.slow_classes import Marked
from tests.service.ways import WAYS, Serve, readers_by, rows_expected, rows_of, serving

BATCHES = 30


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


@pytest.fixture
def serve(socket_folder: Path) -> Iterator[Serve]:
    """Starts services of a dataset."""
    with serving(socket_folder) as begin:
        yield begin


@pytest.mark.parametrize("way", WAYS)
def test_consumers_get_the_same_substitutes_for_bad_slides(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    serve: Serve,
    tmp_path: Path,
    way: str,
) -> None:
    """Empty, no slide at all, damaged, without tissue: the rows are those of a loader alone."""
    dataset = with_bad_slides(coordinate_dataset, tmp_path)
    with ExitStack() as stack:
        readers = readers_by(way, serve, dataset, small_stream, stack)
        assert rows_of(readers, BATCHES) == rows_expected(way, dataset, small_stream, BATCHES)
        assert readers[0].stats(60).substitutions > 0


@pytest.mark.parametrize("way", WAYS)
def test_consumers_are_told_of_a_bad_slide_where_errors_are_raised(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    serve: Serve,
    tmp_path: Path,
    way: str,
) -> None:
    """Each of them, with the slide's name, and again whenever it asks."""
    dataset = with_bad_slides(coordinate_dataset, tmp_path)
    with ExitStack() as stack:
        readers = readers_by(way, serve, dataset, {**small_stream, "on_error": "raise"}, stack)
        for _ in range(2):
            for reader in readers:
                with pytest.raises(SlideError) as caught:
                    for _ in range(500):
                        reader.next_batch(100)
                assert caught.value.slide.startswith(str(tmp_path))


@pytest.mark.parametrize(("way", "what"), [*((way, "SIGSEGV") for way in WAYS), ("shard", "hang")])
def test_consumers_get_the_same_substitutes_for_a_slide_over_which_loaders_end(
    coordinate_slides: dict[str, CoordinateSlide],
    small_stream: dict[str, Any],
    serve: Serve,
    tmp_path: Path,
    way: str,
    what: str,
) -> None:
    """It is left out after two, and an operator is told which it was."""
    dataset = with_killing_slide(coordinate_slides, tmp_path)
    stream = {**small_stream, "stall_timeout": 3.0, "tissue": Marked(tmp_path / "marks", what)}
    crashes = {**stream, "tissue": Marked(tmp_path / "marks", "SIGSEGV")}
    expected = rows_expected(way, dataset, {**crashes, "mask_cache": tmp_path / "alone"}, BATCHES)
    with ExitStack() as stack:
        own = {**stream, "mask_cache": tmp_path / "service"}
        readers = readers_by(way, serve, dataset, own, stack)
        assert rows_of(readers, BATCHES) == expected
        assert readers[0].stats(60).unusable_slides == (2 if way == "nodes" else 1)


def test_an_operator_is_told_of_a_slide_over_which_loaders_end(
    coordinate_slides: dict[str, CoordinateSlide],
    small_stream: dict[str, Any],
    serve: Serve,
    tmp_path: Path,
) -> None:
    """By its name; and where errors are raised the consumers are told it."""
    dataset = with_killing_slide(coordinate_slides, tmp_path)
    detector = Marked(tmp_path / "marks", "SIGSEGV")
    stream = {**small_stream, "tissue": detector, "mask_cache": tmp_path / "masks"}
    with ExitStack() as stack:
        (_, tcp) = serve(dataset, {**stream, "on_error": "raise"})
        reader = stack.enter_context(connect(tcp))
        with pytest.raises(WorkerDied, match=r"bad\.tif has ended 2 workers"):
            for _ in range(500):
                reader.next_batch(100)
        troubles = operate(tcp, "status")["groups"]["train"]["troubles"]
        assert any("bad.tif" in trouble for trouble in troubles)
