"""Two ranks of a group, one on the machine of the service and one that comes by tcp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from chunkdl.consumers.connect import connect
from chunkdl.consumers.shared import SharedDL
from chunkdl.errors import EndOfStream, ServiceDied, ServiceRefused
from chunkdl.service.client.control import operate
from tests.conftest import free_port
from tests.service.conftest import row_digests

OVER = EndOfStream, ServiceRefused, ServiceDied


def addresses(folder: Path, name: str = "both") -> tuple[str, str]:
    """Two addresses of this machine that nobody uses now, a local one and one by tcp."""
    return f"ipc://{folder}/{name}", f"tcp://127.0.0.1:{free_port()}"


@contextmanager
def joined(addresses: Sequence[str], **given: Any) -> Iterator[list[SharedDL]]:
    """A rank at each address; the rows of a step are as many as those of a lone consumer."""
    world_size = len(addresses)
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                connect(
                    address,
                    rank=rank,
                    world_size=world_size,
                    **{"batch_size": 16 // world_size, **given},
                )
            )
            for rank, address in enumerate(addresses)
        ]


def steps_of(ranks: Sequence[SharedDL], steps: int) -> list[str]:
    """Digests of the rows of so many steps, of all ranks together, in their order."""
    return [row for _ in range(steps) for rank in ranks for row in row_digests(rank.next_batch(60))]


def rest_of(ranks: Sequence[SharedDL]) -> list[str]:
    """Digests of the rows of all steps until every rank is told that there are no more."""
    rows: list[str] = []
    while True:
        step = [_rows_or_end(rank) for rank in ranks]
        ended = [rank for rank, part in enumerate(step) if part is None]
        if ended:
            assert len(ended) == len(ranks), f"only ranks {ended} are at the end"
            return rows
        rows += [row for part in step for row in part or []]


def _rows_or_end(rank: SharedDL) -> list[str] | None:
    try:
        return row_digests(rank.next_batch(60))
    except OVER:
        return None


def members(address: str, group: str = "train") -> list[dict[str, Any]]:
    """What the service says of the members of a group."""
    found: list[dict[str, Any]] = operate(address, "status")["groups"][group]["members"]
    return found


def were_sent(address: str, steps: int, group: str = "train") -> bool:
    """Whether every member of a group was sent so many batches, counted from its first."""
    return all(member["step"] >= steps for member in members(address, group))
