"""The engine of a service dies, freezes, or cannot read: its consumers notice nothing.

There are two ranks in most tests, one on this machine and one that comes by tcp, whose batches
together are a step of the undisturbed stream.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from chunkdl.connecting import connect
from chunkdl.lightdl import LightDL
from chunkdl.operator import operate
from chunkdl.patients import Dataset, Patient, Record
from chunkdl.service_process import ServiceProcess
from chunkdl.service_settings import ServiceSettings, configure_service
from chunkdl.shared import SharedDL
from tests.conftest import ragged_mask
from tests.service.conftest import GROUPS, Start, arguments, row_digests
from tests.service.two_ranks import addresses, joined, nobody_gets_more, rest_of, steps_of

Processes = Callable[..., list[psutil.Process]]
Eventually = Callable[..., bool]
Hit = Callable[[str, int], None]

KILL, STOP = signal.SIGKILL, signal.SIGSTOP
STALL: dict[str, Any] = {"stall_timeout": 1.0}


@pytest.fixture
def hit(processes_of_this_run: Processes) -> Iterator[Hit]:
    """Sends a signal to all processes of a kind; what stands still goes on after the test."""
    stopped: list[psutil.Process] = []

    def send(program: str, number: int) -> None:
        victims = processes_of_this_run(program)
        assert victims
        for victim in victims:
            victim.send_signal(number)
        stopped.extend(victims if number == STOP else [])

    yield send
    for victim in stopped:
        if victim.is_running():
            victim.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def whole_pass(coordinate_dataset: Dataset, small_stream: dict[str, Any]) -> list[str]:
    """Digests of the rows of a grid pass, in their order, as `LightDL` gives them."""
    with LightDL(coordinate_dataset, **small_stream, grid=True) as loader:
        return [row for batch in loader for row in row_digests(batch)]


@pytest.mark.parametrize(
    ("program", "number", "when"),
    [
        ("loader", KILL, "at the start"),
        ("collector", STOP, "at the start"),
        ("coordinator", KILL, "at the start"),
        ("collector", KILL, "on the way"),
        ("loader", STOP, "on the way"),
        ("coordinator", KILL, "on the way"),
        ("loader", KILL, "while nobody reads"),
        ("collector", STOP, "while nobody reads"),
        ("coordinator", KILL, "while nobody reads"),
    ],
)
def test_a_worker_or_the_engine_dies_or_freezes(
    start: Start,
    socket_folder: Path,
    row_reference: tuple[str, ...],
    hit: Hit,
    eventually: Eventually,
    program: str,
    number: int,
    when: str,
) -> None:
    """Before the first batch, between two, and when all credit is spent: each row comes once."""
    both = addresses(socket_folder)
    start(stream=STALL, binds=both)
    with joined(both) as ranks:
        before = 0 if when == "at the start" else 5
        rows = steps_of(ranks, before)
        if when == "while nobody reads":
            assert eventually(lambda: nobody_gets_more(both[0]))
        hit(program, number)
        assert rows + steps_of(ranks, 40 - before) == list(row_reference[: 40 * 16])
