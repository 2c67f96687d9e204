"""A server freezes or is told to end, a consumer leaves, a lease is cut: each row comes once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chunkdl.consumers.connect import connect
from chunkdl.errors import GetTimeout, ServiceDied
from chunkdl.service.addresses import lease_address
from chunkdl.service.client.control import operate
from chunkdl.service.process import ServiceProcess
from chunkdl.service.spec import ServiceSpec
from tests.service.both_modes import each_row_once, in_turn, is_stretch, readers_of
from tests.service.conftest import Start, row_digests
from tests.service.stand_alone import stand_alone
from tests.service.two_ranks import addresses, steps_of, were_sent

Eventually = Callable[..., bool]
Frozen = Callable[[Path], tuple[ServiceProcess, tuple[str, str]]]

NEVER_S = 1000.0
"""Longer than any test."""


def stop(service: ServiceProcess) -> None:
    """Freeze the server, and see that it stands still."""
    service.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, service.process.pid, os.WSTOPPED | os.WNOWAIT)


# ---- The server is frozen


@pytest.fixture
def frozen(start: Start) -> Iterator[Frozen]:
    """Starts services that are frozen in a test; they are let go on before they are ended."""
    services: list[ServiceProcess] = []

    def begin_one(folder: Path) -> tuple[ServiceProcess, tuple[str, str]]:
        both = addresses(folder)
        services.append(start(binds=both, silent_s=0.5, grace_s=0.6)[0])
        return services[-1], both

    yield begin_one
    for service in services:
        service.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("group", ["train", "trials"])
def test_consumers_wait_for_a_frozen_server_and_go_on(
    frozen: Frozen, socket_folder: Path, row_reference: tuple[str, ...], group: str
) -> None:
    """For longer than they may be silent, which it has not heard: each row comes once."""
    service, both = frozen(socket_folder)
    size = 8 if group == "train" else 16
    with ExitStack() as stack:
        readers = readers_of(stack, group, both)
        parts = [steps_of([reader], 5) for reader in readers]
        stop(service)
        for reader, part in zip(readers, parts, strict=True):
            with pytest.raises(GetTimeout):
                for _ in range(60):
                    part += row_digests(reader.next_batch(1))
        service.process.send_signal(signal.SIGCONT)
        while min(map(len, parts)) < 20 * size:
            for reader, part in zip(readers, parts, strict=True):
                if len(part) == min(map(len, parts)):
                    part += row_digests(reader.next_batch(60))
    assert each_row_once([part[: 20 * size] for part in parts], group, row_reference)


@pytest.mark.parametrize("group", ["train", "trials"])
@pytest.mark.parametrize("which", [0, 1], ids=["local", "tcp"])
def test_a_server_that_stays_frozen_is_an_error(
    frozen: Frozen, socket_folder: Path, row_reference: tuple[str, ...], which: int, group: str
) -> None:
    """After `reconnect_timeout` each call says so; what was taken stays, and goes when dropped."""
    service, both = frozen(socket_folder)
    with connect(both[which], group, reconnect_timeout=1.0) as loader:
        kept = loader.next_batch(60, copy=False)
        rows = row_digests(kept)
        stop(service)
        for _ in range(2):
            with pytest.raises(ServiceDied, match=f"nobody answers at {both[which]} for 1 s"):
                for _ in range(20):
                    rows += row_digests(loader.next_batch(60))
        service.process.send_signal(signal.SIGCONT)
        assert row_digests(kept) == list(row_reference[:16])
    assert is_stretch(rows, row_reference)


# ---- A consumer leaves


@pytest.mark.parametrize("which", [0, 1], ids=["local", "tcp"])
def test_the_next_owner_goes_on_behind_one_that_left(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    eventually: Eventually,
    which: int,
) -> None:
    """At once, behind the last batch that it returned, whatever else was sent to it.

    The last one is still in use.
    """
    both = addresses(socket_folder)
    start(binds=both, silent_s=NEVER_S / 2, grace_s=NEVER_S)
    options: dict[str, Any] = {"rank": 1, "world_size": 2, "batch_size": 8}
    with connect(both[0], rank=0, world_size=2, batch_size=8) as stays:
        with connect(both[which], **options) as leaves:
            parts = [steps_of([stays], 5), steps_of([leaves], 2)]
            kept = leaves.next_batch(60, copy=False)
            parts[1] += row_digests(kept)
            # What it has in use counts, too.
            assert eventually(lambda: were_sent(both[0], 3 + 3), 60)
        with connect(both[1 - which], **options) as follows:
            parts[1] += steps_of([follows], 2)
            in_turn((stays, follows), parts, 10)
        del kept
    assert each_row_once(parts, "train", row_reference)


@pytest.mark.parametrize("which", [0, 1], ids=["local", "tcp"])
def test_a_broadcast_goes_on_without_one_that_left(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], which: int
) -> None:
    """Nobody waits for it any more."""
    both = addresses(socket_folder)
    start(binds=both, silent_s=NEVER_S / 2, grace_s=NEVER_S)
    with connect(both[1 - which], "trials") as stays:
        with connect(both[which], "trials") as leaves:
            parts = [steps_of([stays], 3), steps_of([leaves], 1)]
        parts[0] += steps_of([stays], 30)
    assert each_row_once(parts, "trials", row_reference)


# ---- The service is told to end


@pytest.mark.parametrize("then", ["a new one", "nobody"])
@pytest.mark.parametrize("group", ["train", "trials"])
def test_sigterm_seen_from_elsewhere(
    service_spec: Callable[..., ServiceSpec],
    socket_folder: Path,
    row_reference: tuple[str, ...],
    eventually: Eventually,
    group: str,
    then: str,
) -> None:
    """What was sent still comes; then they go on with a new service, or are told."""
    _, tcp = both = addresses(socket_folder)
    spec = service_spec(binds=both)
    with ExitStack() as stack:
        service = stack.enter_context(stand_alone(spec))
        timeout = {"reconnect_timeout": 1.0} if then == "nobody" else {}
        readers = readers_of(stack, group, (tcp, tcp), **timeout)
        parts = [steps_of([reader], 3) for reader in readers]
        assert eventually(lambda: were_sent(tcp, 3 + 4, group), 60)
        service.terminate()
        assert eventually(lambda: operate(tcp, "status")["draining"], 60)
        in_turn(readers, parts, 4)
        assert service.wait(100) == 0
        if then == "nobody":
            for reader in readers:
                with pytest.raises(ServiceDied, match="nobody answers"):
                    reader.next_batch(60)
        else:
            stack.callback(ServiceProcess(spec).close)
            in_turn(readers, parts, 10)
            for reader in readers:
                reader.close()
    assert each_row_once(parts, group, row_reference)


# ---- The lease socket alone is cut


def leases_of(address: str) -> list[int]:
    """Descriptors of this process for lease connections to the service at an address."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            # Not the place of a socket (O_PATH), which is none.
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as end:
                    if end.getpeername() == lease_address(address):
                        found.append(int(name))
    return found


@pytest.mark.parametrize("group", ["train", "trials"])
def test_the_lease_socket_alone_is_cut(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    eventually: Eventually,
    group: str,
) -> None:
    """Again and again, with batches on the way: each comes once, and no connection is kept."""
    both = addresses(socket_folder)
    start(binds=both)
    with ExitStack() as stack:
        readers = readers_of(stack, group, both)
        parts = [steps_of([reader], 3) for reader in readers]
        for number in range(4):
            if number % 2:
                steps = len(parts[0]) // (8 if group == "train" else 16)
                assert eventually(partial(were_sent, both[0], steps + 4, group), 60)
            # That of before is closed once its batches were given back.
            assert eventually(lambda: len(leases_of(both[0])) == 1, 60)
            with socket.socket(fileno=os.dup(leases_of(both[0])[0])) as lease:
                lease.shutdown(socket.SHUT_RDWR)
            in_turn(readers, parts, 5)
        # Each time it has joined anew.
        assert operate(both[0], "status")["joined"] == 2 + 4
    assert each_row_once(parts, group, row_reference)
