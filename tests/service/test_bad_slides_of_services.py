"""Slides that are bad from the start, or over which loaders end, in services.

Each consumer gets what `LightDL` makes of the same dataset, bit for bit, or its error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chunkdl.connecting import connect
from chunkdl.errors import SlideError, WorkerDied
from chunkdl.lightdl import LightDL
from chunkdl.merged import MergedDL
from chunkdl.operator import operate
from chunkdl.patients import Dataset
from chunkdl.service_process import ServiceProcess
from chunkdl.service_settings import ServiceSettings, configure_service
from chunkdl.shared import SharedDL
from chunkdl.slides.synthetic import CoordinateSlide
from tests.processes.bad_slides import with_bad_slides, with_killing_slide
from tests.processes.slow_classes import Marked
from tests.service.conftest import GROUPS, arguments, row_digests
from tests.service.two_ranks import addresses

Serve = Callable[..., tuple[str, str]]
Readers = list[SharedDL | MergedDL]

BATCHES = 30
SEEDS = 3, 4
"""Of the services that are read as one stream."""
WAYS = ("shard", "broadcast", "nodes")


@pytest.fixture
def serve(socket_folder: Path) -> Iterator[Serve]:
    """Starts services of a dataset, each at a local address and at one by tcp."""
    with ExitStack() as stack:

        def begin(dataset: Dataset, stream: dict[str, Any]) -> tuple[str, str]:
            binds = addresses(socket_folder, f"s{stream['seed']}")
            settings = ServiceSettings(binds=binds, groups=GROUPS, max_consumers=2, insecure=True)
            given = arguments(**stream, batch_slots=0)
            service = ServiceProcess(configure_service(dataset, given, settings))
            stack.callback(service.close)
            return binds

        yield begin


def readers_of(
    way: str, serve: Serve, dataset: Dataset, stream: dict[str, Any], stack: ExitStack
) -> Readers:
    """Two consumers, one of them by tcp; or one of two services."""
    if way == "nodes":
        both = [serve(dataset, {**stream, "seed": seed}) for seed in SEEDS]
        return [stack.enter_context(connect([both[0][0], both[1][1]]))]
    binds = serve(dataset, stream)
    if way == "broadcast":
        return [stack.enter_context(connect(address, "trials")) for address in binds]
    return [
        stack.enter_context(connect(address, rank=rank, world_size=2, batch_size=8))
        for rank, address in enumerate(binds)
    ]


def expected_of(way: str, dataset: Dataset, stream: dict[str, Any]) -> list[list[str]]:
    """The rows that each reader should get, of the undivided stream of `LightDL`."""
    streams = []
    for seed in SEEDS if way == "nodes" else SEEDS[:1]:
        with LightDL(dataset, **{**stream, "seed": seed}) as loader:
            streams.append([row_digests(loader.next_batch(100)) for _ in range(BATCHES)])
    if way == "broadcast":
        return [[row for batch in streams[0] for row in batch]] * 2
    if way == "shard":
        return [[row for batch in streams[0] for row in batch[at : at + 8]] for at in (0, 8)]
    flat = [[row for batch in one for row in batch] for one in streams]
    return [[row for at in range(0, BATCHES * 8, 8) for rows in flat for row in rows[at : at + 8]]]


def rows_of(readers: Readers) -> list[list[str]]:
    """What they get, each in its turn."""
    rows: list[list[str]] = [[] for _ in readers]
    for _ in range(BATCHES):
        for reader, got in zip(readers, rows, strict=True):
            got += row_digests(reader.next_batch(100))
    return rows


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
        readers = readers_of(way, serve, dataset, small_stream, stack)
        assert rows_of(readers) == expected_of(way, dataset, small_stream)
        assert readers[0].stats().substitutions > 0


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
        readers = readers_of(way, serve, dataset, {**small_stream, "on_error": "raise"}, stack)
        for _ in range(2):
            for reader in readers:
                with pytest.raises(SlideError) as caught:
                    for _ in range(500):
                        reader.next_batch(100)
                assert caught.value.slide.startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("way", "what"), [*((way, "SIGSEGV") for way in WAYS), ("shard", "hang"), ("nodes", "hang")]
)
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
    expected = expected_of(way, dataset, {**crashes, "mask_cache": tmp_path / "alone"})
    with ExitStack() as stack:
        own = {**stream, "mask_cache": tmp_path / "service"}
        readers = readers_of(way, serve, dataset, own, stack)
        assert rows_of(readers) == expected
        assert readers[0].stats().unusable_slides == (2 if way == "nodes" else 1)


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
