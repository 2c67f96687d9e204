"""Several services as one stream."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.consumers.connect import connect
from chunkdl.consumers.several_services import portions
from chunkdl.errors import ConfigError, GetTimeout, ServiceDied
from chunkdl.service.client.control import operate
from tests.service.conftest import Start, row_digests


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8), st.integers(0, 500))
def test_portions_are_in_proportion(patients: list[int], more: int) -> None:
    """They add up, every node has one, and more patients never give fewer rows."""
    rows = len(patients) + more
    given_rows = portions(patients, rows)
    assert sum(given_rows) == rows
    assert min(given_rows) >= 1
    exact = [1 + more * count / sum(patients) for count in patients]
    assert all(abs(a - b) < 1 for a, b in zip(given_rows, exact, strict=True))
    ordered = [portion for _, portion in sorted(zip(patients, given_rows, strict=True))]
    assert all(a <= b + 1 for a, b in pairwise(ordered))


def test_every_batch_has_rows_of_every_node_in_the_same_order(
    start: Start, row_reference: tuple[str, ...]
) -> None:
    """What a node gives are its rows from the first on, and a state goes on exactly."""
    addresses = [start(stream={"seed": seed})[1] for seed in (3, 4)]
    with connect(addresses) as loader:
        for _ in range(5):
            loader.next_batch(60)
        state = loader.state_dict()
        batches = [loader.next_batch(60) for _ in range(6)]
        assert [batch["node"].tolist() for batch in batches] == [[0] * 8 + [1] * 8] * 6
        rows = [row_digests(batch) for batch in batches]
        assert [row for batch in rows for row in batch[:8]] == list(row_reference[40:88])
        loader.load_state_dict(state)
        assert [row_digests(loader.next_batch(60)) for _ in range(6)] == rows


def test_ranks_share_every_node(start: Start, row_reference: tuple[str, ...]) -> None:
    """Each rank gets its part of what each node gives."""
    addresses = [start(stream={"seed": seed})[1] for seed in (3, 4)]
    ranks = [connect(addresses, rank=rank, world_size=2, batch_size=8) for rank in range(2)]
    rows: list[str] = []
    for _ in range(5):
        for loader in ranks:
            rows += row_digests(loader.next_batch(60))[:4]
    assert rows == list(row_reference[:40])
    for loader in ranks:
        loader.close()


def test_a_node_that_goes_away_is_an_error_or_left_out(start: Start) -> None:
    """As it is asked; the batches have fewer rows then, and the state says which node is gone."""
    (_, first), (second, other) = start(stream={"seed": 3}), start(stream={"seed": 4})
    strict = connect([first, other], "trials", reconnect_timeout=3)
    going_on = connect([first, other], "trials", reconnect_timeout=3, on_node_lost="continue")
    for loader in (strict, going_on):
        assert len(loader.next_batch(60).patients) == 16
    second.process.kill()
    with pytest.raises(ServiceDied, match=f"node {other} is gone"):
        for _ in range(50):
            strict.next_batch(60)
    # As long as it is there the others of the broadcast wait for it.
    strict.close()
    sizes = [len(going_on.next_batch(60).patients) for _ in range(50)]
    assert sizes[-1] == 8
    lost = [bool(node["lost"]) for node in going_on.state_dict()["nodes"]]
    assert lost == [False, True]
    going_on.close()


def test_all_nodes_together_have_one_timeout(start: Start, row_reference: tuple[str, ...]) -> None:
    """Where the first comes late the others do not have it once more; nothing is lost by that."""
    addresses = [start(stream={"seed": seed})[1] for seed in (3, 4)]
    timeout_s = 8.0
    with connect(addresses) as loader:
        rows = row_digests(loader.next_batch(60))[:8]
        for address in addresses:
            operate(address, "pause")
        with pytest.raises(GetTimeout):
            while True:
                rows += row_digests(loader.next_batch(2))[:8]
        late = threading.Timer(0.75 * timeout_s, operate, (addresses[0], "resume"))
        late.start()
        # The second may have sent more than the first before it was paused.
        with pytest.raises(GetTimeout):
            while True:
                asked = time.monotonic()
                rows += row_digests(loader.next_batch(timeout_s))[:8]
        assert time.monotonic() - asked < 1.5 * timeout_s
        late.join()
        operate(addresses[1], "resume")
        rows += row_digests(loader.next_batch(60))[:8]
        assert rows == list(row_reference[: len(rows)])


def test_too_small_a_batch_for_the_nodes_is_refused(start: Start) -> None:
    """Each node gives at least one row."""
    addresses = [start(stream={"seed": seed})[1] for seed in (3, 4)]
    with pytest.raises(ConfigError, match="too small for 2 nodes"):
        connect(addresses, batch_size=1)


def test_what_is_for_one_or_for_several_is_heard_or_refused(start: Start) -> None:
    """`when_closed` is called once for several services; `on_node_lost` is refused for one."""
    addresses = [start(stream={"seed": seed})[1] for seed in (3, 4)]
    calls: list[int] = []
    loader = connect(addresses, when_closed=lambda: calls.append(1))
    assert calls == []
    loader.close()
    loader.close()
    assert calls == [1]
    with pytest.raises(ConfigError, match="on_node_lost='continue' is for several services"):
        connect(addresses[0], on_node_lost="continue")
