"""Many of everything: slides, loaders, consumers, groups."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl.consumers.batches.batch import Batch
from chunkdl.consumers.connect import connect
from chunkdl.consumers.lightdl import LightDL
from chunkdl.consumers.shared import SharedDL
from chunkdl.dataset.patients import Dataset
from chunkdl.service.client.control import operate
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.service.conftest import Start, arguments, row_digests
from tests.service.two_ranks import addresses

SLIDES, LOADERS, CONSUMERS = 10_000, 64, 16
LOADER_BYTES = 200 * 2**20
TINY: dict[str, Any] = {
    "batch_size": 64,
    "smallchunk_size": 64,
    "bigchunk_size": 128,
    "num_bigchunks": 64,
    "smallchunks_per_bigchunk": 2,
    "num_loaders": 1,
    "num_collectors": 1,
    "seed": 3,
    "tissue": "none",
    "memory_limit": "256MiB",
}


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """As many patients, each with a slide, which are all the same file."""
    folder = tmp_path_factory.mktemp("many")
    first = folder / "slide-0.tif"
    write_coordinate_slide(str(first), 256, 256, slide_id=0, tile=128, levels=(1,), mpp=0.25)
    links = [folder / f"slide-{number}.tif" for number in range(1, SLIDES)]
    for link in links:
        os.link(first, link)
    yield Dataset.from_slides(str(folder))
    # A later fixture that lists the folders of the run has less to do.
    for link in links:
        link.unlink()


@pytest.mark.slow
def test_ten_thousand_slides_are_one_stream_for_a_loader_and_for_consumers(
    ten_thousand: Dataset, socket_folder: Path
) -> None:
    """Every region of a batch is of a slide of its own, and a service gives the same rows."""

    def facts(batch: Batch) -> tuple[list[str], list[str]]:
        return batch["slide"], row_digests(batch)

    with LightDL(ten_thousand, **TINY) as loader:
        alone = [facts(loader.next_batch(120)) for _ in range(10)]
    assert len({slide for slides, _ in alone for slide in slides}) > 250

    address = f"ipc://{socket_folder}/s"
    given = arguments(**{**TINY, "batch_slots": 0})
    settings = ServiceSettings(binds=(address,), max_consumers=1)
    service = ServiceProcess(configure_service(ten_thousand, given, settings))
    try:
        with connect(address) as consumer:
            assert len(consumer.tables["slide"]) == SLIDES
            assert [facts(consumer.next_batch(120)) for _ in range(10)] == alone
    finally:
        service.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sixty_four_loaders_give_the_stream_of_two(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    digest_of: Callable[[Batch], str],
    reference: tuple[str, ...],
    processes_of_this_run: Callable[..., list[psutil.Process]],
) -> None:
    """All of them live, and are gone at the end."""
    if psutil.virtual_memory().available < LOADERS * LOADER_BYTES:
        pytest.skip(f"{LOADERS} loaders need more memory than this machine has to spare")
    # On two cores it takes a while until all have started.
    many = {**small_stream, "num_loaders": LOADERS, "stall_timeout": 300.0}
    with LightDL(coordinate_dataset, **many) as loader:
        assert [digest_of(loader.next_batch(300)) for _ in range(40)] == list(reference[:40])
        assert len(processes_of_this_run("loader")) == LOADERS
        assert loader.stats(60).restarts == 0


@pytest.mark.parametrize("group", ["train", "trials"])
def test_sixteen_consumers_share_a_stream(
    start: Start, row_reference: tuple[str, ...], group: str
) -> None:
    """As ranks of a step, and as readers of all rows."""
    _, address = start(max_consumers=CONSUMERS)

    def joined(rank: int) -> SharedDL:
        if group == "trials":
            return connect(address, group)
        return connect(address, group, rank, CONSUMERS, batch_size=1)

    with ExitStack() as stack:
        loaders = [stack.enter_context(joined(rank)) for rank in range(CONSUMERS)]
        for step in range(20):
            rows = [row_digests(loader.next_batch(60)) for loader in loaders]
            expected = list(row_reference[step * 16 : (step + 1) * 16])
            if group == "train":
                assert [row for own in rows for row in own] == expected
            else:
                assert rows == [expected] * CONSUMERS
        status = operate(address, "status")
    assert len(status["groups"][group]["members"]) == CONSUMERS


def test_the_status_of_any_number_of_groups_arrives(start: Start) -> None:
    """It is larger than a message may be."""
    groups = tuple(GroupSpec(name=f"{number:04}" + "x" * 60) for number in range(700))
    _, address = start(groups=groups, stream={"memory_limit": "8MiB"}, max_consumers=1)
    status = operate(address, "status", timeout_s=60)
    assert list(status["groups"]) == [group.name for group in groups]


@pytest.mark.parametrize("which", [0, 1], ids=["local", "tcp"])
def test_a_state_with_any_number_of_gaps_goes_on(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], which: int
) -> None:
    """The list of them is longer than that of any other message may be."""
    both = addresses(socket_folder)
    start(binds=both, max_consumers=1)
    gaps = [[2 * number, 2 * number + 1] for number in range(4_000)]
    with connect(both[which], rank=0, world_size=1) as loader:
        state = loader.state_dict()
        state["position"]["left"] |= {"left": gaps, "tail": 8_000}
        loader.load_state_dict(state)
        rows = [row for _ in range(20) for row in row_digests(loader.next_batch(60))]
        assert rows == list(row_reference[: 2 * len(rows) : 2])
