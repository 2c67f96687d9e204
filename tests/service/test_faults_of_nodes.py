"""Something fails at one of several services that are read as one stream.

The consumer comes to the first service by ipc and to the second by tcp. What it gets is what it
would have got without the fault: of each node the rows of its own stream, half of every batch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chunkdl.consumers.batches.batch import Batch
from chunkdl.consumers.connect import connect
from chunkdl.consumers.lightdl import LightDL
from chunkdl.consumers.merged import MergedDL
from chunkdl.dataset.patients import Dataset
from chunkdl.errors import ChunkdlError, GetTimeout, ServiceDied, WorkerDied
from chunkdl.service.client.control import operate
from chunkdl.service.process import ServiceProcess
from tests.service.conftest import Start, row_digests
from tests.service.tcp_proxy import TcpProxy
from tests.service.test_faults_of_broadcasts import (
    GO_ON,
    KILL,
    STALL,
    STOP,
    Strike,
    kill_all,
    read_while_they_die,
    striking,
)
from tests.service.two_ranks import addresses, were_sent

Eventually = Callable[..., bool]
Undisturbed = tuple[tuple[str, ...], ...]

SEEDS = 3, 4
EACH = 8
"""Rows that each node gives to a batch: they have as many patients."""


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


class Nodes(NamedTuple):
    """Two services, and where a consumer comes to each."""

    services: list[ServiceProcess]
    addresses: list[str]


@pytest.fixture
def nodes(start: Start, socket_folder: Path) -> Callable[..., Nodes]:
    """Starts two services of different streams."""

    def make(**stream: Any) -> Nodes:
        binds = [addresses(socket_folder, f"node{node}") for node in range(2)]
        services = [
            start(stream={"seed": seed, **stream}, binds=both, max_consumers=1)[0]
            for seed, both in zip(SEEDS, binds, strict=True)
        ]
        return Nodes(services, [binds[0][0], binds[1][1]])

    return make


@pytest.fixture(scope="module")
def undisturbed(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], row_reference: tuple[str, ...]
) -> Undisturbed:
    """Digests of the first rows of each node, in their order, as `LightDL` gives them."""
    with LightDL(coordinate_dataset, **{**small_stream, "seed": SEEDS[1]}) as loader:
        rows = [row for _ in range(60) for row in row_digests(loader.next_batch(60))]
    return row_reference, tuple(rows)


@pytest.fixture
def strike() -> Iterator[Strike]:
    """Sends a signal to all processes of a kind of a service."""
    with striking() as send:
        yield send


def digests_of(batch: Batch, nodes: Sequence[int] = (0, 1)) -> list[str]:
    """Digests of the rows of a batch, which has as many of each of these nodes, in their order."""
    assert batch["node"].tolist() == [node for node in nodes for _ in range(EACH)]
    return row_digests(batch)


def batches_of(loader: MergedDL, batches: int) -> list[list[str]]:
    """Digests of the rows of so many batches of both nodes."""
    return [digests_of(loader.next_batch(60)) for _ in range(batches)]


def merged(undisturbed: Undisturbed, batches: int) -> list[list[str]]:
    """Digests of the rows of so many batches, from the first on, without any fault."""
    return [
        [row for rows in undisturbed for row in rows[at : at + EACH]]
        for at in range(0, batches * EACH, EACH)
    ]


@pytest.mark.parametrize(
    ("program", "number", "node"),
    [
        ("loader", KILL, 1),
        ("collector", KILL, 0),
        ("loader", STOP, 1),
        ("collector", STOP, 0),
        ("coordinator", KILL, 0),
        ("coordinator", KILL, 1),
    ],
)
def test_a_worker_or_the_engine_of_a_node_dies_or_freezes(
    nodes: Callable[..., Nodes],
    undisturbed: Undisturbed,
    strike: Strike,
    program: str,
    number: int,
    node: int,
) -> None:
    """Nothing is missing, nothing comes twice, and the rows of both stay together as they were."""
    both = nodes(**STALL)
    with connect(both.addresses) as loader:
        rows = batches_of(loader, 5)
        strike(both.services[node], program, number)
        # More than may have been read and cut by then.
        rows += batches_of(loader, 90)
        assert program == "coordinator" or loader.stats(60).restarts > 0
    assert rows == merged(undisturbed, 95)


def test_the_frozen_engine_of_a_node_goes_on_when_it_is_let(
    nodes: Callable[..., Nodes], undisturbed: Undisturbed, strike: Strike
) -> None:
    """The whole batch waits for it, and what the other gave meanwhile is part of it."""
    both = nodes()
    with connect(both.addresses) as loader:
        rows = batches_of(loader, 3)
        strike(both.services[1], "coordinator", STOP)
        for _ in range(2):
            with pytest.raises(GetTimeout):
                for _ in range(60):
                    rows.append(digests_of(loader.next_batch(2)))
        strike(both.services[1], "coordinator", GO_ON)
        rows += batches_of(loader, 20)
        for address in both.addresses:
            assert operate(address, "status")["groups"]["train"]["engine"] == 1
    assert rows == merged(undisturbed, len(rows))


@pytest.mark.parametrize("program", ["coordinator", "collector"])
def test_a_worker_or_the_engine_of_a_node_dies_during_a_drain(
    nodes: Callable[..., Nodes],
    undisturbed: Undisturbed,
    strike: Strike,
    eventually: Eventually,
    program: str,
) -> None:
    """What that node had sent still comes, and then it is gone, with status 0."""
    both = nodes()
    _, tcp = both.addresses
    with connect(both.addresses, reconnect_timeout=3.0, on_node_lost="continue") as loader:
        rows = batches_of(loader, 3)
        assert eventually(lambda: were_sent(tcp, 3 + 4), 100)
        operate(tcp, "drain")
        strike(both.services[1], program, KILL)
        rows += batches_of(loader, 4)
        alone = [digests_of(loader.next_batch(60), (0,)) for _ in range(10)]
        assert both.services[1].process.wait(100) == 0
        assert [bool(node["lost"]) for node in loader.state_dict()["nodes"]] == [False, True]
    assert rows == merged(undisturbed, 7)
    assert alone == [batch[:EACH] for batch in merged(undisturbed, 17)[7:]]


def test_a_consumer_that_wants_both_is_told_that_one_was_drained(
    nodes: Callable[..., Nodes],
    undisturbed: Undisturbed,
    strike: Strike,
    eventually: Eventually,
) -> None:
    """Behind the last whole batch, and again whenever it asks."""
    both = nodes()
    _, tcp = both.addresses
    with connect(both.addresses, reconnect_timeout=3.0) as loader:
        rows = batches_of(loader, 3)
        assert eventually(lambda: were_sent(tcp, 3 + 4), 100)
        operate(tcp, "drain")
        strike(both.services[1], "coordinator", KILL)
        rows += batches_of(loader, 4)
        for _ in range(2):
            with pytest.raises(ServiceDied, match=f"node {tcp} is gone"):
                loader.next_batch(60)
    assert rows == merged(undisturbed, 7)


def test_the_network_to_a_node_is_cut_again_and_again(
    nodes: Callable[..., Nodes], undisturbed: Undisturbed
) -> None:
    """At places that nobody chose, most of them in the bytes of a batch: each row comes once."""
    both = nodes()
    chance = random.Random(6)
    with (
        TcpProxy(both.addresses[1]) as proxy,
        connect([both.addresses[0], proxy.address]) as loader,
    ):
        rows = batches_of(loader, 2)
        for _ in range(6):
            cuts = proxy.cuts
            # What a node gives to a batch has about 100 KB, and the credit is four of them.
            proxy.cut_after(chance.randrange(400_000))
            while proxy.cuts == cuts:
                rows += batches_of(loader, 1)
        rows += batches_of(loader, 6)
    assert rows == merged(undisturbed, len(rows))


@pytest.mark.parametrize(
    ("program", "raised"), [("loader", WorkerDied), ("coordinator", ServiceDied)]
)
def test_what_dies_all_the_time_at_a_node_is_an_error(
    nodes: Callable[..., Nodes],
    undisturbed: Undisturbed,
    program: str,
    raised: type[ChunkdlError],
) -> None:
    """The batches come up to there; then the last death is told, also to one that asks again."""
    both = nodes(max_restarts=2)
    with connect(both.addresses) as loader:
        rows = [row for batch in batches_of(loader, 3) for row in batch]
        ((more, error),) = read_while_they_die(both.services[1], program, [loader])
        with pytest.raises(raised, match="SIGKILL"):
            loader.next_batch(60)
    assert type(error) is raised
    assert f"{program} " in str(error)
    assert "SIGKILL" in str(error)
    whole = [row for batch in merged(undisturbed, 60) for row in batch]
    assert rows + more == whole[: len(rows + more)]


def test_a_node_whose_engine_dies_all_the_time_is_left_out(
    nodes: Callable[..., Nodes], undisturbed: Undisturbed, eventually: Eventually
) -> None:
    """Where that was asked: the other gives its rows as if nothing had been."""
    both = nodes()
    last: list[str] = []
    with connect(both.addresses, credit_batches=1, on_node_lost="continue") as loader:
        batches_of(loader, 3)

        def is_lost() -> bool:
            kill_all(both.services[1], "coordinator")
            last[:] = row_digests(loader.next_batch(60, copy=False))
            return bool(loader.state_dict()["nodes"][1]["lost"])

        assert eventually(is_lost, 60)
        number = loader.state_dict()["next_batch"]
        # With a credit of one, nothing may keep what was taken while the other was lost.
        left = [digests_of(loader.next_batch(60, copy=False), (0,)) for _ in range(10)]
    assert "SIGKILL" in loader.state_dict()["nodes"][1]["lost"]
    alone = [batch[:EACH] for batch in merged(undisturbed, number + 10)[number - 1 :]]
    assert [last, *left] == alone
