"""Other users of the machine, whatever they say to its sockets, reach nothing and disturb nobody.

`benchmarks.fuzz` has them say a million messages.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl.consumers.connect import connect
from chunkdl.consumers.lightdl import LightDL
from chunkdl.consumers.loader import Loader
from chunkdl.dataset.patients import Dataset
from chunkdl.service.client.control import operate
from chunkdl.service.keys import create_keys, load_server_keys
from tests.service.conftest import Start, row_digests
from tests.service.strangers import doors_without_a_name, listening, size_of, strangers, told
from tests.service.two_ranks import addresses

MESSAGES = 20_000
"""That strangers say to each socket."""
MOST_GROWTH = 48 * 2**20
"""Bytes of all processes that listen, together; an endless message alone would be more."""

ROWS_BEHIND = 30 * 16
"""Rows that are taken when the strangers have said everything."""

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


def take_beside(
    program: subprocess.Popen[str], loader: Loader, reference: tuple[str, ...], rows: list[str]
) -> None:
    """Take batches, which must be the right ones, while a program runs and some behind it."""
    while len(rows) < len(reference) - ROWS_BEHIND and program.poll() is None:
        rows += row_digests(loader.next_batch(60))
        time.sleep(0.02)
    program.wait(300)
    # More than are under way when it ends.
    for _ in range(ROWS_BEHIND // 16):
        rows += row_digests(loader.next_batch(60))
    assert rows == list(reference[: len(rows)])


@as_root
@pytest.mark.timeout(400)
def test_strangers_reach_no_socket_of_an_embedded_service(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], row_reference: tuple[str, ...]
) -> None:
    """Its only listening socket has no name, and its place is in descriptors of its own user."""
    with LightDL(coordinate_dataset, **small_stream) as loader:
        rows = row_digests(loader.next_batch(60))
        processes = psutil.Process().children(recursive=True)
        (name,) = listening(process.pid for process in processes)
        (door,) = doors_without_a_name()
        assert not name.startswith("@")
        assert told(strangers([f"{door}:1"], 1, os.getuid()))[f"{door}:1"]["answers"] == 2
        before = size_of(processes)
        program = strangers([name, f"{door}:1"], MESSAGES)
        take_beside(program, loader, row_reference, rows)
        for counts in told(program).values():
            assert counts == {"connected": 0, "messages": MESSAGES, "answers": 0}
        assert size_of(processes) - before < MOST_GROWTH


@as_root
@pytest.mark.timeout(600)
@pytest.mark.parametrize("place", ["path", "name"])
def test_strangers_are_sent_away_from_every_socket_of_a_service(
    start: Start, row_reference: tuple[str, ...], place: str
) -> None:
    """Whether it is at a path or an abstract name: nothing answers, and the training goes on."""
    named = {"binds": (f"ipc://@chunkdl-test-{secrets.token_hex(6)}",)} if place == "name" else {}
    service, address = start(**named)
    with connect(address) as loader:
        rows = row_digests(loader.next_batch(60))
        server = psutil.Process(service.process.pid)
        processes = [server, *server.children(recursive=True)]
        names = listening(process.pid for process in processes)
        own = [name for name in names if address.removeprefix("ipc://") in name]
        # Of an abstract name only the lease socket is there; that for messages has no name.
        kinds = ["5"] if place == "name" else ["1", "5"]
        assert sorted(name.rpartition(":")[2] for name in own) == kinds
        # The others are those of engines.
        assert len(names) > len(own)
        for counts in told(strangers(own, 1, os.getuid())).values():
            assert counts["answers"] == 2
        before = size_of(processes)
        program = strangers(names, MESSAGES)
        take_beside(program, loader, row_reference, rows)
        for name, counts in told(program).items():
            assert counts["messages"] == MESSAGES
            assert counts["answers"] == 0
            assert bool(counts["connected"]) == name.startswith("@"), name
        assert size_of(processes) - before < MOST_GROWTH
        assert service.process.poll() is None


@pytest.mark.timeout(400)
def test_strangers_without_keys_disturb_nobody_by_tcp(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """Before the handshake is over nothing of theirs is a message, a heartbeat or kept."""
    _, secret = create_keys("server", socket_folder)
    (socket_folder / "clients").mkdir(mode=0o700)
    public, _ = create_keys("me", socket_folder)
    public.rename(socket_folder / "clients" / public.name)
    keys = load_server_keys(secret, socket_folder / "clients")
    local, remote = addresses(socket_folder)
    service, _ = start(binds=(local, remote), keys=keys)
    with connect(local) as loader:
        rows = row_digests(loader.next_batch(60))
        server = psutil.Process(service.process.pid)
        before = size_of([server])
        program = strangers([remote], MESSAGES // 4, os.getuid())
        take_beside(program, loader, row_reference, rows)
        assert told(program)[remote]["connected"] == MESSAGES // 4
        # What is a message and makes no sense would be counted.
        assert operate(local, "status")["dropped"] == 0
        assert size_of([server]) - before < MOST_GROWTH
        assert service.process.poll() is None


def test_no_message_ends_an_embedded_service(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], row_reference: tuple[str, ...]
) -> None:
    """Of its own user, who reaches it by a descriptor: unroutable, malformed, beyond any mark."""
    with LightDL(coordinate_dataset, **small_stream) as loader:
        rows = row_digests(loader.next_batch(60))
        (door,) = doors_without_a_name()
        program = strangers([f"{door}:{socket.SOCK_STREAM.value}"], MESSAGES // 20, os.getuid())
        take_beside(program, loader, row_reference, rows)
        (counts,) = told(program).values()
        assert counts["connected"] == MESSAGES // 20


def test_the_socket_of_an_embedded_service_leaves_no_file(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing lies in the folder for temporary files while it serves, however long its path is."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    with LightDL(coordinate_dataset, **small_stream) as loader:
        loader.next_batch(60)
        (door,) = doors_without_a_name()
        assert os.readlink(door).startswith(str(long))
        assert list(long.iterdir()) == []
