"""Forks, children and threads beside a loader: they end nothing of it, and can have their own."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from chunkdl import Dataset, LightDL

Digest = Callable[[Any], str]
Processes = Callable[..., list[psutil.Process]]


def _leave(loaders: list[LightDL]) -> None:
    """As a program does that ends."""
    atexit._run_exitfuncs()


def _close(loaders: list[LightDL]) -> None:
    loaders[0].close()


def _collect(loaders: list[LightDL]) -> None:
    loaders.clear()
    gc.collect()


@pytest.mark.parametrize("ending", [_leave, _close, _collect])
def test_a_fork_that_is_done_with_a_loader_leaves_it_to_the_training(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    reference: tuple[str, ...],
    digest_of: Digest,
    ending: Callable[[list[LightDL]], None],
) -> None:
    """It ends, closes or forgets the loader it has inherited; the stream goes on."""
    with LightDL(coordinate_dataset, **small_stream) as loader:
        digests = [digest_of(loader.next_batch(60)) for _ in range(2)]
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                inherited = [loader]
                del loader
                ending(inherited)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        digests += [digest_of(loader.next_batch(60)) for _ in range(20)]
    assert digests == list(reference[:22])


@pytest.fixture
def fork() -> Iterator[Callable[[], int]]:
    """Makes forks of this process that live on; they are killed after the test."""
    pids: list[int] = []

    def make() -> int:
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        pids.append(pid)
        return pid

    yield make
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_loader_is_closed_at_once_though_a_fork_lives_on(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    processes_of_this_run: Processes,
    fork: Callable[[], int],
) -> None:
    """The workers of a DataLoader have the training's descriptors for as long as they live."""
    patience_s = 60.0
    monkeypatch.setattr("chunkdl.engine.coordinator_process.STOP_TIMEOUT_S", patience_s)
    loader = LightDL(coordinate_dataset, **small_stream)
    loader.get(timeout=60)
    fork()
    begun = time.monotonic()
    loader.close()
    assert time.monotonic() - begun < patience_s / 2
    assert processes_of_this_run() == []


def _own(dataset: Dataset, stream: dict[str, Any], numbers: Any) -> None:
    with LightDL(dataset, **{**stream, "num_loaders": 1}, batches=2) as loader:
        numbers.put([batch.number for batch in loader])


@pytest.mark.parametrize(
    ("how", "daemon"), [("fork", False), ("fork", True), ("spawn", False), ("spawn", True)]
)
def test_a_child_can_have_a_loader_of_its_own(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], how: str, daemon: bool
) -> None:
    """Also one that multiprocessing lets have no children, and beside its parent's loader."""
    context: Any = multiprocessing.get_context(how)
    with LightDL(coordinate_dataset, **small_stream) as loader:
        loader.get(timeout=60)
        numbers = context.Queue()
        child = context.Process(
            target=_own, args=(coordinate_dataset, small_stream, numbers), daemon=daemon
        )
        child.start()
        assert numbers.get(timeout=100) == [0, 1]
        child.join(60)
        assert child.exitcode == 0
        loader.get(timeout=60)


def test_a_loader_outlives_the_thread_that_has_started_it(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    reference: tuple[str, ...],
    digest_of: Digest,
) -> None:
    """And goes from thread to thread."""
    loader = LightDL(coordinate_dataset, **small_stream)
    digests: list[str] = []

    def take() -> None:
        digests.append(digest_of(loader.next_batch(60)))

    for _ in range(3):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(100)
        take()
    loader.close()
    assert digests == list(reference[:6])
