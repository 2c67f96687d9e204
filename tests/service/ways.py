"""One stream by several ways: ranks that share it, members of a broadcast, two services as one.

Each has a consumer on this machine and one that comes by tcp, or a service that it reads by tcp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from chunkdl.consumers.connect import connect
from chunkdl.consumers.lightdl import LightDL
from chunkdl.consumers.merged import MergedDL
from chunkdl.consumers.shared import SharedDL
from chunkdl.dataset.patients import Dataset
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import ServiceSettings
from tests.service.conftest import GROUPS, arguments, row_digests
from tests.service.two_ranks import addresses

Serve = Callable[..., tuple[str, str]]
Readers = list[SharedDL | MergedDL]

SEEDS = 3, 4
"""Of the services that are read as one stream."""
WAYS = ("shard", "broadcast", "nodes")


@contextmanager
def serving(folder: Path) -> Iterator[Serve]:
    """Starts services of a dataset, each at a local address and at one by tcp."""
    with ExitStack() as stack:

        def begin(dataset: Dataset, stream: dict[str, Any]) -> tuple[str, str]:
            binds = addresses(folder, f"s{stream['seed']}")
            settings = ServiceSettings(binds=binds, groups=GROUPS, max_consumers=2, insecure=True)
            given = arguments(**stream, batch_slots=0)
            service = ServiceProcess(configure_service(dataset, given, settings))
            stack.callback(service.close)
            return binds

        yield begin


def readers_by(
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


def rows_expected(
    way: str, dataset: Dataset, stream: dict[str, Any], batches: int
) -> list[list[str]]:
    """The rows that each reader should get, of the streams of `LightDL`, whose batches have 16."""
    streams = []
    for seed in SEEDS if way == "nodes" else SEEDS[:1]:
        with LightDL(dataset, **{**stream, "seed": seed}) as loader:
            streams.append([row_digests(loader.next_batch(100)) for _ in range(batches)])
    if way == "broadcast":
        return [[row for batch in streams[0] for row in batch]] * 2
    if way == "shard":
        return [[row for batch in streams[0] for row in batch[at : at + 8]] for at in (0, 8)]
    flat = [[row for batch in one for row in batch] for one in streams]
    return [[row for at in range(0, batches * 8, 8) for rows in flat for row in rows[at : at + 8]]]


def rows_of(readers: Readers, batches: int) -> list[list[str]]:
    """What they get, each in its turn."""
    rows: list[list[str]] = [[] for _ in readers]
    for _ in range(batches):
        for reader, got in zip(readers, rows, strict=True):
            got += row_digests(reader.next_batch(100))
    return rows
