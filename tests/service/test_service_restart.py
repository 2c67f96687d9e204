"""The service, or the network to it, goes away and comes back: everybody gets each row once."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chunkdl.consumers.connect import connect
from chunkdl.errors import ServiceDied
from chunkdl.service.client.control import operate
from chunkdl.service.process import ServiceProcess
from chunkdl.service.spec import ServiceSpec
from tests.service.conftest import Start, row_digests
from tests.service.tcp_proxy import PART_BYTES, TcpProxy
from tests.service.two_ranks import addresses, joined, steps_of, were_sent

Eventually = Callable[..., bool]


class Restarted:
    """A service that is killed and started again at the same addresses.

    Args:
        spec: of it.
    """

    def __init__(self, spec: ServiceSpec) -> None:
        self._spec = spec
        self.process = ServiceProcess(spec)

    def kill(self) -> None:
        """SIGKILL; its engines end by themselves."""
        self.process.process.kill()
        self.process.close()

    def start(self) -> None:
        """Start it again."""
        self.process = ServiceProcess(self._spec)


@pytest.fixture
def restarted(service_spec: Callable[..., ServiceSpec]) -> Iterator[Callable[..., Restarted]]:
    """Makes services that can be started again."""
    with contextlib.ExitStack() as stack:

        def make(**given: Any) -> Restarted:
            service = Restarted(service_spec(**given))
            stack.callback(lambda: service.process.close())
            return service

        yield make


# ---- The service


@pytest.mark.parametrize("when", ["at the start", "on the way", "while nobody reads"])
def test_ranks_go_on_with_a_service_that_was_started_again(
    restarted: Callable[..., Restarted],
    socket_folder: Path,
    row_reference: tuple[str, ...],
    eventually: Eventually,
    when: str,
) -> None:
    """Killed in the middle, twice: both ranks go on behind the last batch that they returned."""
    both = addresses(socket_folder)
    service = restarted(binds=both)
    with joined(both) as ranks:
        rows = steps_of(ranks, 0 if when == "at the start" else 4)
        for _ in range(2):
            if when == "while nobody reads":
                assert eventually(partial(were_sent, both[0], len(rows) // 32 + 4))
            service.kill()
            service.start()
            rows += steps_of(ranks, 10)
    assert rows == list(row_reference[: len(rows)])


def test_ranks_at_different_steps_go_on_with_a_service_that_was_started_again(
    restarted: Callable[..., Restarted], socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """One has returned three batches more than the other, and that stays so."""
    both = addresses(socket_folder)
    service = restarted(binds=both)
    with joined(both) as (first, second):
        ahead = [row_digests(first.next_batch(60)) for _ in range(8)]
        behind = [row_digests(second.next_batch(60)) for _ in range(5)]
        service.kill()
        service.start()
        ahead += [row_digests(first.next_batch(60)) for _ in range(8)]
        behind += [row_digests(second.next_batch(60)) for _ in range(11)]
    rows = [row for parts in zip(ahead, behind, strict=True) for part in parts for row in part]
    assert rows == list(row_reference[: 16 * 16])


def test_a_broadcast_goes_on_with_a_service_that_was_started_again(
    restarted: Callable[..., Restarted], socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """Whoever comes back first: the one that is behind gets the rows that it has not had."""
    both = addresses(socket_folder)
    service = restarted(binds=both)
    with connect(both[0], "trials") as local, connect(both[1], "trials") as other:
        rows: list[list[str]] = [[], []]
        for reader, batches, got in ((local, 7, rows[0]), (other, 4, rows[1])):
            got += [row for _ in range(batches) for row in row_digests(reader.next_batch(60))]
        service.kill()
        service.start()
        # The local one needs no connection that is tried again now and then, and is first.
        rows[0] += row_digests(local.next_batch(60))
        for _ in range(12):
            for reader, got in ((local, rows[0]), (other, rows[1])):
                got += row_digests(reader.next_batch(60))
    assert rows[0] == list(row_reference[: len(rows[0])])
    assert rows[1] == list(row_reference[: len(rows[1])])


def test_a_state_from_before_goes_on_with_the_new_service(
    restarted: Callable[..., Restarted], socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """Exactly behind the batch that it was saved behind, by other ranks too."""
    both = addresses(socket_folder)
    service = restarted(binds=both)
    with joined(both) as ranks:
        steps_of(ranks, 6)
        state = ranks[1].state_dict()
        steps_of(ranks, 3)
        service.kill()
    service.start()
    with connect(both[0], rank=0, world_size=1) as alone:
        alone.load_state_dict(state)
        assert steps_of([alone], 10) == list(row_reference[6 * 16 : 16 * 16])


def test_positions_on_disk_are_where_a_new_service_begins(
    restarted: Callable[..., Restarted],
    socket_folder: Path,
    tmp_path: Path,
    row_reference: tuple[str, ...],
    eventually: Eventually,
) -> None:
    """Without a state a consumer goes on about where the group stood, at the start of a batch."""
    both = addresses(socket_folder)
    service = restarted(binds=both, journal=tmp_path / "positions")
    with connect(both[0], rank=0, world_size=1) as loader:
        steps_of([loader], 20)
        assert eventually(lambda: were_sent(both[0], 20 + 4))
        stands = operate(both[0], "status")["groups"]["train"]["position"]
        assert stands >= 20 * 16
        assert eventually(lambda: f'"tail":{stands}' in (tmp_path / "positions").read_text())
        service.kill()
    service.start()
    with connect(both[1], rank=0, world_size=1) as loader:
        rows = steps_of([loader], 10)
    assert rows == list(row_reference[stands : stands + 10 * 16])


@pytest.mark.parametrize("which", [0, 1], ids=["local", "tcp"])
def test_a_service_that_stays_away_is_an_error(
    restarted: Callable[..., Restarted], socket_folder: Path, which: int
) -> None:
    """After `reconnect_timeout` each call says so, with the address; never a wait for ever."""
    both = addresses(socket_folder)
    service = restarted(binds=both)
    with connect(both[which], rank=0, world_size=1, reconnect_timeout=1.0) as loader:
        steps_of([loader], 3)
        service.kill()
        for _ in range(2):
            with pytest.raises(ServiceDied, match=f"nobody answers at {both[which]} for 1 s"):
                steps_of([loader], 20)


# ---- The network


def test_the_network_is_cut_again_and_again(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """At places that nobody chose, most of them in the bytes of a batch: each row comes once."""
    local, tcp = addresses(socket_folder)
    start(binds=(local, tcp))
    chance = random.Random(8)
    with TcpProxy(tcp) as proxy, joined((proxy.address, tcp)) as ranks:
        rows = steps_of(ranks, 2)
        for _ in range(8):
            cuts = proxy.cuts
            # A batch of this rank has about 100 KB, and its credit is four of them.
            proxy.cut_after(chance.randrange(500_000))
            while proxy.cuts == cuts:
                rows += steps_of(ranks, 1)
        rows += steps_of(ranks, 6)
    assert rows == list(row_reference[: len(rows)])


def test_the_network_is_cut_while_somebody_joins(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """In the handshake, in the answer, behind it: the rank is its own, and each row comes once."""
    local, tcp = addresses(socket_folder)
    start(binds=(local, tcp))
    rows: list[str] = []
    for size in range(40, 520, 60):
        with TcpProxy(tcp) as proxy:
            proxy.cut_after(size)
            with connect(proxy.address, rank=0, world_size=1) as loader:
                rows += steps_of([loader], 3)
            assert proxy.cuts
    assert rows == list(row_reference[: len(rows)])


@pytest.mark.parametrize("number", [0, 1], ids=["of the messages", "of the bytes"])
def test_one_of_the_two_connections_is_cut(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], number: int
) -> None:
    """The other does not hide it: each row comes once."""
    local, tcp = addresses(socket_folder)
    start(binds=(local, tcp))
    with TcpProxy(tcp) as proxy, joined((proxy.address,)) as ranks:
        rows = steps_of(ranks, 3)
        proxy.cut(number)
        rows += steps_of(ranks, 20)
    assert rows == list(row_reference[: len(rows)])


class Swallowing(TcpProxy):
    """A network whose connections may die without a word: each takes all, and passes on nothing."""

    def __init__(self, behind: str) -> None:
        self._dead: set[socket.socket] = set()
        super().__init__(behind)

    def swallow(self, number: int | None = None) -> None:
        """From now on all connections that there are do so, or only that one of the last two."""
        pairs = self._pairs if number is None else [self._pairs[number - 2]]
        self._dead.update(end for pair in pairs for end in pair)

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        del counted
        with contextlib.suppress(OSError):
            while data := source.recv(PART_BYTES):
                if target not in self._dead:
                    target.sendall(data)
        if target not in self._dead:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("number", "group"),
    [
        pytest.param(None, "train", id="both-train"),
        pytest.param(None, "trials", id="both-trials"),
        pytest.param(0, "train", id="of the messages-train"),
        pytest.param(1, "trials", id="of the bytes-trials"),
    ],
)
def test_a_connection_that_takes_everything_and_passes_nothing_on_is_noticed(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    number: int | None,
    group: str,
) -> None:
    """The kernels at both ends see nothing wrong; each row comes once, by another connection."""
    monkeypatch.setattr("chunkdl.service.client.sockets.HEARTBEAT_MS", 300)
    monkeypatch.setattr("chunkdl.service.client.sockets.HEARTBEAT_TIMEOUT_MS", 3_000)
    local, tcp = addresses(socket_folder)
    start(binds=(local, tcp))
    with Swallowing(tcp) as network, connect(network.address, group) as loader:
        rows = steps_of([loader], 3)
        for _ in range(2):
            network.swallow(number)
            rows += steps_of([loader], 12)
    assert rows == list(row_reference[: len(rows)])
