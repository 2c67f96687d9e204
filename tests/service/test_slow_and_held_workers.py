"""Workers of a service that are slow, or that the kernel holds: its consumers get their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl.dataset.patients import Dataset
from tests.processes.held import held
from tests.service.ways import WAYS, Serve, readers_by, rows_expected, rows_of, serving

Processes = Callable[..., list[psutil.Process]]


@pytest.fixture(scope="session")
def small_stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """With two loaders: one goes on where the other does not."""
    return {**small_stream, "num_loaders": 2}


@pytest.fixture
def serve(socket_folder: Path) -> Iterator[Serve]:
    """Starts services of a dataset."""
    with serving(socket_folder) as begin:
        yield begin


@pytest.mark.parametrize("way", WAYS)
def test_the_work_of_a_worker_that_the_kernel_holds_is_done_by_others(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    serve: Serve,
    processes_of_this_run: Processes,
    way: str,
) -> None:
    """It is silent, is killed, stays, and is set aside; each row comes once."""
    most = 110
    expected = rows_expected(way, coordinate_dataset, small_stream, most)
    with ExitStack() as stack:
        stream = {**small_stream, "stall_timeout": 2.0}
        readers = readers_by(way, serve, coordinate_dataset, stream, stack)
        rows = rows_of(readers, 5)
        # All of that kind of all services: one that happened to be idle might never be missed.
        stuck = processes_of_this_run("collector")
        with held(*(process.pid for process in stuck)):
            for process in stuck:
                process.suspend()
            for reader, got, more in zip(readers, rows, rows_of(readers, 60), strict=True):
                got += more
                assert reader.stats(60).restarts > 0
            # Else this test has said nothing.
            assert all(process.is_running() for process in stuck)
        for got, more in zip(rows, rows_of(readers, 20), strict=True):
            got += more
    assert rows == [all_rows[: len(got)] for all_rows, got in zip(expected, rows, strict=True)]
