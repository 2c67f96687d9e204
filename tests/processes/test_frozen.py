"""A coordinator that stands still is noticed however it is asked, and it blocks nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from chunkdl import Dataset, LightDL, Patient
from chunkdl.errors import ChunkdlError, GetTimeout, ServiceDied
from tests.processes.hook_classes import GivenCollector, GivenLoader

Processes = Callable[..., list[psutil.Process]]

STALL_S = 0.5
PATIENCE_S = 60.0


@pytest.fixture
def frozen(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> Iterator[LightDL]:
    """A loader whose coordinator stands still."""
    with LightDL(coordinate_dataset, **{**small_stream, "stall_timeout": STALL_S}) as loader:
        loader.get(timeout=PATIENCE_S)
        for process in processes_of_this_run("coordinator"):
            process.suspend()
        yield loader


def ask_until_it_is_dead(loader: LightDL, timeout: float, pause_s: float = 0.0) -> None:
    """Ask again and again for as long as it is patient to."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with contextlib.suppress(GetTimeout):
            loader.get(timeout=timeout)
        time.sleep(pause_s)


@pytest.mark.parametrize(
    ("timeout", "pause_s"), [(0.0, 0.0), (0.0, 0.2), (0.01, 0.0), (0.4, 0.0), (PATIENCE_S, 0.0)]
)
def test_a_frozen_coordinator_is_noticed_with_any_timeout(
    frozen: LightDL, timeout: float, pause_s: float
) -> None:
    """Also by one that looks for a moment now and then."""
    with pytest.raises(ServiceDied, match="has not answered"):
        ask_until_it_is_dead(frozen, timeout, pause_s)


def test_a_frozen_coordinator_is_noticed_while_another_thread_asks_for_more(
    frozen: LightDL,
) -> None:
    """What wakes the one that waits does not make it forget how long it has."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            with contextlib.suppress(ChunkdlError):
                frozen.stats()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        with pytest.raises(ServiceDied, match="has not answered"):
            ask_until_it_is_dead(frozen, PATIENCE_S)
    finally:
        over.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_coordinator_with_nothing_to_say_is_not_taken_for_dead_by_one_that_looks_for_moments(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """It answers when it is asked, and has the time to."""

    def slowly(pixels: Any) -> Any:
        import time

        time.sleep(0.2)
        return pixels

    patient = {**small_stream, "batch_size": 8, "stall_timeout": 1.0, "hook_timeout": 60.0}
    with LightDL(coordinate_dataset, **patient, tfms=slowly) as loader:
        batches = timeouts = 0
        while batches < 2:
            try:
                loader.get(timeout=0)
                batches += 1
            except GetTimeout:
                timeouts += 1
                time.sleep(0.01)
        assert timeouts > 0


def test_messages_to_a_frozen_coordinator_are_kept_and_block_nobody(
    processes_of_this_run: Processes,
) -> None:
    """As many as there are; what was kept comes when it goes on."""
    patients = [Patient(number, {"label": 0}) for number in range(3)]
    stream: dict[str, Any] = {
        "batch_size": 2,
        "num_bigchunks": 1,
        "smallchunks_per_bigchunk": 2,
        "num_loaders": 1,
        "num_collectors": 1,
        "memory_limit": "64MiB",
        "stall_timeout": 30.0,
    }
    dataset, settings = Dataset("three", patients), {"given": [1]}
    with LightDL(dataset, GivenLoader, GivenCollector, settings, **stream) as loader:
        loader.next_batch(PATIENCE_S)
        (coordinator,) = processes_of_this_run("coordinator")
        coordinator.suspend()

        def send() -> None:
            for number in range(500):
                loader.send_message(patients[number % 3], "x" * 4000)

        sending = threading.Thread(target=send)
        sending.start()
        sending.join(PATIENCE_S)
        assert not sending.is_alive()
        coordinator.resume()
        for _ in range(20):
            loader.next_batch(PATIENCE_S)
