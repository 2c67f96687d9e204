"""Engines that are replaced while consumers hold batches of them take no more memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl.consumers.connect import connect
from chunkdl.service.spec import ServiceSpec
from tests.service.conftest import Start, row_digests
from tests.service.two_ranks import addresses

Eventually = Callable[..., bool]
Processes = Callable[..., list[psutil.Process]]


def taken_bytes(processes: list[psutil.Process]) -> int:
    """What the arenas that the processes have open take of the machine, each once."""
    taken: dict[int, int] = {}
    for process in processes:
        try:
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                if os.readlink(link).startswith("/memfd:chunkdl-b"):
                    found = link.stat()
                    taken[found.st_ino] = found.st_blocks * 512
        except OSError:
            continue  # it ends just now, and so does what it has
    return sum(taken.values())


@pytest.mark.parametrize("group", ["train", "trials"])
def test_engines_that_are_replaced_take_no_more_than_was_promised(
    start: Start,
    service_spec: Callable[..., ServiceSpec],
    socket_folder: Path,
    row_reference: tuple[str, ...],
    processes_of_this_run: Processes,
    eventually: Eventually,
    group: str,
) -> None:
    """Whatever consumers hold of those before; and what they give back the engine has again."""
    both = addresses(socket_folder)
    start(binds=both)
    promised = sum(service_spec(binds=both).config.run.memory_bytes)

    def taken() -> int:
        engines = [p for kind in ("server", "coordinator") for p in processes_of_this_run(kind)]
        workers = [p for kind in ("loader", "collector") for p in processes_of_this_run(kind)]
        return taken_bytes([psutil.Process(), *engines, *workers])

    kept: list[Any] = []
    with connect(both[0], group) as loader:
        for _ in range(3):
            kept.append(loader.next_batch(60, copy=False))
            assert eventually(lambda: taken() == promised)
            engine = processes_of_this_run("coordinator")[0]
            engine.send_signal(signal.SIGKILL)
            assert eventually(lambda gone=engine.pid: is_another(processes_of_this_run, gone), 60)
            kept.append(loader.next_batch(60, copy=True))
            # What is held of the old engine is not taken by the new one.
            assert eventually(lambda: taken() == promised)
        rows = [row for batch in kept for row in row_digests(batch)]
        assert rows == list(row_reference[: len(rows)])
        kept.clear()
        for _ in range(50):
            rows += row_digests(loader.next_batch(60))
        assert rows == list(row_reference[: len(rows)])
        # It was given back, and the engine that runs has taken as much.
        assert eventually(lambda: taken() == promised)


def is_another(processes_of_this_run: Processes, gone: int) -> bool:
    """Whether an engine runs, and not that one."""
    found = [process.pid for process in processes_of_this_run("coordinator")]
    return bool(found) and gone not in found
