"""A service and its consumers, as their users meet them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from chunkdl.consumers.batches.batch import Batch
from chunkdl.consumers.connect import connect
from chunkdl.consumers.shared import SharedDL
from chunkdl.errors import EndOfStream, ServiceDied, ServiceRefused, StateError
from chunkdl.service.process import ServiceProcess
from chunkdl.service.spec import ServiceSpec
from tests.service.conftest import Start, row_digests
from tests.service.stand_alone import stand_alone


def rows_of(loader: SharedDL, batches: int, **given: Any) -> list[str]:
    """Digests of the rows of so many batches."""
    return [row for _ in range(batches) for row in row_digests(loader.next_batch(60, **given))]


Place = tuple[str, int, int]


def places_of(batch: Batch) -> list[Place]:
    """Slide, x and y of each row."""
    return list(zip(batch["slide"], batch["x"].tolist(), batch["y"].tolist(), strict=True))


@pytest.mark.parametrize("group", ["train", "trials"])
@pytest.mark.parametrize("copy", [None, True, False])
def test_a_lone_consumer_gets_the_rows_of_lightdl(
    start: Start, row_reference: tuple[str, ...], group: str, copy: bool | None
) -> None:
    """Bit for bit, in the same order, whatever the group and the way of the memory."""
    _, address = start()
    with connect(address, group) as loader:
        assert rows_of(loader, 20, copy=copy) == list(row_reference[: 20 * 16])


@pytest.mark.parametrize("batch_size", [1, 5, 16, 33])
def test_a_batch_may_have_any_size(
    start: Start, row_reference: tuple[str, ...], batch_size: int
) -> None:
    """It is cut from the same rows in the same order."""
    _, address = start()
    with connect(address, batch_size=batch_size) as loader:
        rows = rows_of(loader, 12)
    assert rows == list(row_reference[: 12 * batch_size])


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_of_a_step_get_the_same_rows_together(
    start: Start, row_reference: tuple[str, ...], world_size: int
) -> None:
    """For every number of ranks, where the rows of a step are as many."""
    _, address = start()
    loaders = [
        connect(address, rank=rank, world_size=world_size, batch_size=16 // world_size)
        for rank in range(world_size)
    ]
    for step in range(15):
        together = [row for loader in loaders for row in rows_of(loader, 1)]
        assert together == list(row_reference[step * 16 : (step + 1) * 16])
    for loader in loaders:
        loader.close()


def test_ranks_go_on_from_a_state_with_another_number_of_ranks(
    start: Start, row_reference: tuple[str, ...]
) -> None:
    """All ranks have the same state after a step, and what is left is dealt out anew."""
    _, address = start()
    two = [connect(address, rank=rank, world_size=2, batch_size=8) for rank in range(2)]
    for loader in two:
        rows_of(loader, 7)
    states = [loader.state_dict() for loader in two]
    assert states[0] == states[1]
    for loader in two:
        rows_of(loader, 3)
        loader.close()
    with connect(address, rank=0, world_size=1, batch_size=16) as alone:
        alone.load_state_dict(states[0])
        assert rows_of(alone, 5) == list(row_reference[7 * 16 : 12 * 16])


def test_ranks_that_are_all_there_load_a_state_one_after_the_other(
    start: Start, row_reference: tuple[str, ...]
) -> None:
    """As programs do it: all connect, then each loads the state of another number of ranks."""
    _, address = start()
    two = [connect(address, rank=rank, world_size=2, batch_size=8) for rank in range(2)]
    for loader in two:
        rows_of(loader, 5)
    state = two[0].state_dict()
    for loader in two:
        # Who comes next begins behind these, and not where the state is.
        rows_of(loader, 3)
        loader.close()
    three = [connect(address, rank=rank, world_size=3, batch_size=8) for rank in range(3)]
    for loader in three:
        loader.load_state_dict(state)
    rows = [row for _ in range(4) for loader in three for row in rows_of(loader, 1)]
    assert rows == list(row_reference[80 : 80 + len(rows)])
    with pytest.raises(ServiceRefused, match="where no step of the others begins"):
        three[2].load_state_dict({**state, "position": {**state["position"], "left": {"tail": 7}}})
    for loader in three:
        loader.close()


def test_who_leaves_while_the_service_sleeps_has_left_all_the_same(
    start: Start, row_reference: tuple[str, ...]
) -> None:
    """What it said last is heard before the news that it is gone; its rank goes on behind it."""
    service, address = start()
    loader = connect(address, rank=0, world_size=1)
    rows = rows_of(loader, 5)
    service.process.send_signal(signal.SIGSTOP)
    loader.close()
    service.process.send_signal(signal.SIGCONT)
    with connect(address, rank=0, world_size=1) as successor:
        rows += rows_of(successor, 5)
    assert rows == list(row_reference[: 10 * 16])


def test_who_comes_later_takes_over_where_the_departed_left_off(
    start: Start, row_reference: tuple[str, ...]
) -> None:
    """Nothing is lost and nothing comes twice, though the ranks were not at the same step."""
    _, address = start()
    first = connect(address, rank=0, world_size=2)
    second = connect(address, rank=1, world_size=2)
    rows = rows_of(first, 3) + rows_of(second, 1)
    first.close()
    second.close()
    with connect(address, rank=0, world_size=1) as alone:
        rows += rows_of(alone, 10)
    assert sorted(rows) == sorted(row_reference[: 14 * 16])


def test_a_pass_ends_for_every_rank_after_as_many_batches(start: Start) -> None:
    """Each position once, dealt out to three ranks, and the next pass has all of them again."""
    _, address = start(stream={"grid": True})
    with connect(address, "trials") as loader:
        whole = {place for batch in loader for place in places_of(batch)}
    ranks = [connect(address, rank=rank, world_size=3, batch_size=8) for rank in range(3)]
    for _ in range(2):
        passes: list[list[Place]] = [[], [], []]
        batches = 0
        iterators = [iter(loader) for loader in ranks]
        while True:
            try:
                parts = [places_of(next(iterator)) for iterator in iterators]
            except EndOfStream:
                break
            batches += 1
            for rank, part in enumerate(parts):
                passes[rank] += part
        for loader in ranks[1:]:
            with pytest.raises(EndOfStream):
                loader.next_batch(60)
        assert batches >= 2
        together = [place for part in passes for place in part]
        assert set(together) <= whole
        assert len(whole) - 2 <= len(together) == len(set(together))
    for loader in ranks:
        loader.close()


@pytest.mark.parametrize("group", ["train", "trials"])
def test_consumers_outlive_a_service_that_is_drained_and_comes_back(
    service_spec: Callable[..., ServiceSpec], row_reference: tuple[str, ...], group: str
) -> None:
    """Each goes on with the row behind its last one, though nobody told the new service."""
    spec = service_spec(drain_s=1.0)
    world = 2 if group == "train" else 1
    with ExitStack() as ending:
        first = ending.enter_context(stand_alone(spec))
        ranks = [
            ending.enter_context(connect(spec.binds[0], group, rank % world, world))
            for rank in range(2)
        ]
        rows = [rows_of(loader, 3) for loader in ranks]
        first.terminate()
        assert first.wait(100) == 0
        second = ServiceProcess(spec)
        ending.callback(second.close)
        for _ in range(12):
            for loader, got in zip(ranks, rows, strict=True):
                got += rows_of(loader, 1)
        for loader in ranks:
            loader.close()
    for rank, got in enumerate(rows):
        batches = [range(b * 16, b * 16 + 16) for b in range(rank % world, 15 * world, world)]
        assert got == [row_reference[row] for batch in batches for row in batch]


def test_a_wrong_consumer_is_told_why(start: Start) -> None:
    """Group, rank, stream: each refusal says what does not fit."""
    _, address = start()
    with pytest.raises(ServiceRefused, match="no group 'nobody'; there are train, trials"):
        connect(address, "nobody")
    with connect(address, rank=0, world_size=2) as loader:
        state = loader.state_dict()
        with pytest.raises(ServiceRefused, match="rank 0 of group train is there already"):
            connect(address, rank=0, world_size=2)
        with pytest.raises(ServiceRefused, match="shared by 2 ranks"):
            connect(address, rank=1, world_size=3)
        with pytest.raises(StateError, match="another stream"):
            loader.load_state_dict({**state, "rows_hash": "0" * 64})
    with pytest.raises(ServiceDied, match="nobody answers"):
        connect(address + "-elsewhere", connect_timeout=0.5)
