"""What a training writes into its batches stays with it; nobody else gets it, then or later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chunkdl.consumers.connect import connect
from tests.service.conftest import Start, row_digests
from tests.service.two_ranks import addresses, members, steps_of

Eventually = Callable[..., bool]

WRITER = """
import sys, time
from chunkdl import connect

loader = connect(sys.argv[1], sys.argv[2], rank=0, world_size=1, batch_size=int(sys.argv[3]))
kept = []
for _ in range(3):
    kept.append(loader.next_batch(60, copy=False))
    kept[-1]["image"].fill_(0)
    kept[-1]["x"].fill_(7)
print("written", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("rows", [16, 6])
def test_what_a_rank_wrote_before_it_was_killed_reaches_nobody(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    eventually: Eventually,
    rows: int,
) -> None:
    """Its successor gets the rows as they were made, from its first batch that was not returned."""
    both = addresses(socket_folder)
    start(binds=both)
    program = [sys.executable, "-c", WRITER, both[0], "train", str(rows)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(program, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.kill()
    assert eventually(lambda: not members(both[0]))
    with connect(both[0], rank=0, world_size=1, batch_size=rows) as successor:
        found = steps_of([successor], 6)
    assert found == list(row_reference[: 6 * rows])


def test_a_frozen_rank_that_writes_when_it_wakes_reaches_nobody(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], eventually: Eventually
) -> None:
    """Another has its rank by then, and the same rows, which lie in the same memory."""
    both = addresses(socket_folder)
    start(binds=both, silent_s=0.5, grace_s=1000.0)
    code = WRITER.replace("    kept[-1]", "    False and kept[-1]").replace(
        "time.sleep(1000)",
        "sys.stdin.readline()\n"
        "for batch in kept:\n"
        '    batch["image"].fill_(0)\n'
        'print("written", flush=True)\n'
        "time.sleep(1000)",
    )
    program = [sys.executable, "-c", code, both[0], "train", "16"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as writer:
        try:
            assert writer.stdin is not None
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"written\n"
            writer.send_signal(signal.SIGSTOP)
            writer.stdin.write(b"now\n")
            writer.stdin.flush()
            assert eventually(lambda: members(both[0])[0]["state"] == "suspect")
            with connect(both[0], rank=0, world_size=1) as successor:
                kept = [successor.next_batch(60, copy=False) for _ in range(3)]
                writer.send_signal(signal.SIGCONT)
                assert writer.stdout.readline() == b"written\n"
                found = [row for batch in kept for row in row_digests(batch)]
                kept.clear()
        finally:
            writer.kill()
    assert found == list(row_reference[: 3 * 16])


@pytest.mark.parametrize("group", ["train", "trials"])
def test_writing_into_every_batch_changes_none_that_comes_later(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], group: str
) -> None:
    """The memory is used again and again, and what was written into it before is not seen."""
    both = addresses(socket_folder)
    start(binds=both)
    found: list[str] = []
    with connect(both[0], group) as loader:
        for _ in range(60):
            batch = loader.next_batch(60, copy=False)
            found += row_digests(batch)
            batch["image"].fill_(0)
            batch["x"].fill_(7)
            del batch
    assert found == list(row_reference[: 60 * 16])


def test_a_batch_stays_as_it_was_written_when_its_neighbour_is_dropped(
    start: Start, socket_folder: Path
) -> None:
    """Both lie in one slot of the service, whose memory is not to be used again before both are."""
    both = addresses(socket_folder)
    start(binds=both)
    with connect(both[0], batch_size=8) as loader:
        first, second = (loader.next_batch(60, copy=False) for _ in range(2))
        second["image"].fill_(9)
        del first
        for _ in range(10):
            loader.next_batch(60, copy=True)
        assert bool((second["image"] == 9).all())
        del second


def test_members_of_a_broadcast_write_each_into_their_own(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """They read the same memory, and a write ends nobody."""
    both = addresses(socket_folder)
    start(binds=both)
    with connect(both[0], "trials") as one, connect(both[0], "trials") as other:
        mine, theirs = (loader.next_batch(60, copy=False) for loader in (one, other))
        mine["image"].fill_(0)
        assert row_digests(theirs) == list(row_reference[:16])
        assert int(mine["image"].max()) == 0
        del mine, theirs
