"""A fork of a consumer lives on: what the consumer had is free with the consumer all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from chunkdl.consumers.connect import connect
from chunkdl.service.client.control import operate
from tests.service.conftest import Start
from tests.service.two_ranks import addresses, steps_of

Eventually = Callable[..., bool]

CONSUMER = """
import os, signal, sys
from chunkdl import connect

loader = connect(sys.argv[1], rank=0, world_size=1)
batch = loader.next_batch(60, copy=False)
fork = os.fork()
if not fork:
    signal.pause()
    os._exit(0)
print(fork, flush=True)
sys.stdin.readline()
loader.close()
del batch
print("closed", flush=True)
sys.stdin.readline()
"""
"""Has a batch and a fork, and is closed when it is told so."""


@contextmanager
def forked_consumer(address: str) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
    """A consumer that has a fork, with its standard input and output; both are killed."""
    program = [sys.executable, "-c", CONSUMER, address]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as consumer:
        assert consumer.stdin is not None
        assert consumer.stdout is not None
        try:
            fork = int(consumer.stdout.readline())
            try:
                yield consumer, consumer.stdin, consumer.stdout
                os.kill(fork, 0)
            finally:
                os.kill(fork, signal.SIGKILL)
        finally:
            consumer.kill()


def test_a_consumer_that_was_killed_has_nothing_though_its_fork_lives_on(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], eventually: Eventually
) -> None:
    """The kernel tells of the process itself, long before its silence would."""
    both = addresses(socket_folder)
    start(binds=both, silent_s=500.0, grace_s=1000.0)
    with forked_consumer(both[0]) as (consumer, _, _):
        consumer.kill()
        assert eventually(lambda: operate(both[0], "status")["sessions"] == 0)
        with connect(both[0], rank=0, world_size=1) as successor:
            assert steps_of([successor], 5) == list(row_reference[: 5 * 16])


def test_a_consumer_that_was_closed_has_nothing_though_its_fork_lives_on(
    start: Start, socket_folder: Path, eventually: Eventually
) -> None:
    """Once the last batch is given back, which was still in use when it was closed."""
    both = addresses(socket_folder)
    start(binds=both, silent_s=500.0, grace_s=1000.0)
    with forked_consumer(both[0]) as (consumer, told, said):
        print(file=told, flush=True)
        assert said.readline() == "closed\n"
        assert eventually(lambda: operate(both[0], "status")["sessions"] == 0)
        assert consumer.poll() is None
