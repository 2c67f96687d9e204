"""Processes that were killed and are not gone: nobody waits for them, and nothing is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from chunkdl import Dataset, LightDL
from tests.processes.held import held

Processes = Callable[..., list[psutil.Process]]


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


@pytest.mark.parametrize("program", ["loader", "collector"])
def test_the_work_of_a_worker_that_the_kernel_holds_is_done_by_others(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    reference: tuple[str, ...],
    digest_of: Callable[[Any], str],
    processes_of_this_run: Processes,
    caplog: pytest.LogCaptureFixture,
    program: str,
) -> None:
    """It is silent, is killed, stays, and is set aside; the stream is the same bit for bit."""
    stream = {**small_stream, "stall_timeout": 2.0}
    with caplog.at_level(logging.WARNING, "chunkdl"), LightDL(coordinate_dataset, **stream) as it:
        got = [digest_of(it.next_batch(60))]
        stuck = processes_of_this_run(program)[0]
        with held(stuck.pid):
            stuck.suspend()
            # It may have nothing to do at first, and what was ready before lasts for a while.
            while not it.stats(60).restarts:
                got.append(digest_of(it.next_batch(100)))
                assert len(got) < 2000, "it was never missed"
            # Else this test has said nothing.
            assert stuck.is_running()
            got += [digest_of(it.next_batch(100)) for _ in range(20)]
        got += [digest_of(it.next_batch(100)) for _ in range(20)]
    assert got[: len(reference)] == list(reference[: len(got)])
    assert f"(pid {stuck.pid}) was silent for too long, was ended and is held" in caplog.text


@pytest.mark.parametrize("program", ["loader", "coordinator"])
def test_closing_waits_for_nothing_that_the_kernel_holds(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    processes_of_this_run: Processes,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
) -> None:
    """`close` comes to its end, whichever process stays."""
    monkeypatch.setattr("chunkdl.engine.coordinator_process.STOP_TIMEOUT_S", 5.0)
    monkeypatch.setattr("chunkdl.transport.programs.KILLED_S", 1.0)
    with LightDL(coordinate_dataset, **small_stream) as loader:
        loader.next_batch(60)
        stuck = processes_of_this_run(program)[0]
        with held(stuck.pid):
            closing = threading.Thread(target=loader.close)
            closing.start()
            closing.join(60)
            assert not closing.is_alive()
            assert stuck.is_running()
