"""The first rank of `LightDL.for_ddp` is killed, which has started the service of the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

from chunkdl.dataset.patients import Dataset
from tests.service.consumer_program import lines_of

Processes = Callable[..., list[psutil.Process]]
Eventually = Callable[..., bool]
Program = subprocess.Popen[str]

WORLD_SIZE = 2
PROGRAM = """
import os, pickle, sys
from pathlib import Path
from chunkdl import LightDL
from chunkdl.errors import GetTimeout
from tests.service.conftest import row_digests

dataset, stream = pickle.loads(Path(sys.argv[1]).read_bytes())
file = Path(sys.argv[2]).open("a")
with LightDL.for_ddp(dataset, **stream) as loader:
    got = 0
    while True:
        try:
            # Where the machine is busy the first take long.
            batch = loader.next_batch(2 if got >= 5 else 60)
        except GetTimeout:
            print("waiting", flush=True)
            if not sys.stdin.readline():
                break
            continue
        got += 1
        print(0, batch.number, *row_digests(batch), file=file, flush=True)
"""

AGENT = """
import sys
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
print(store.port, flush=True)
sys.stdin.read()
"""


@contextmanager
def started(program: str, *arguments: object, **environment: object) -> Iterator[Program]:
    """A program that ends with the block at the latest."""
    variables = {name: str(value) for name, value in environment.items()}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: Program) -> str:
    """The next line that a program prints."""
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def ranks(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], tmp_path: Path
) -> Iterator[list[Program]]:
    """Two ranks of a training as torchrun would start them; each writes what it gets to a file."""
    given = tmp_path / "given"
    stream = {**small_stream, "batch_size": 16 // WORLD_SIZE, "memory_limit": "512MiB"}
    given.write_bytes(cloudpickle.dumps((coordinate_dataset, stream)))
    with ExitStack() as stack:
        # torchrun's part: it has the store, and lives on.
        port = line_of(stack.enter_context(started(AGENT))).strip()
        training = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": WORLD_SIZE}
        yield [
            stack.enter_context(
                started(PROGRAM, given, tmp_path / str(rank), **training, RANK=rank)
            )
            for rank in range(WORLD_SIZE)
        ]


@pytest.mark.parametrize("ending", ["close", "kill", "at once"])
def test_the_service_outlives_the_first_rank_and_ends_with_the_last(
    ranks: list[Program],
    tmp_path: Path,
    row_reference: tuple[str, ...],
    processes_of_this_run: Processes,
    eventually: Eventually,
    ending: str,
) -> None:
    """The other gets its rows as far as they go without its partner, then waits no longer than it
    asked to; nothing is left behind it.
    """
    files = [tmp_path / str(rank) for rank in range(WORLD_SIZE)]
    assert eventually(lambda: all(len(lines_of(file)) >= 5 for file in files), 60)
    (server,) = processes_of_this_run("server")
    first, second = ranks
    first.send_signal(signal.SIGKILL)
    first.wait()
    if ending == "at once":
        second.kill()
    else:
        assert line_of(second) == "waiting\n"
        assert server.is_running()
        assert len(lines_of(files[1])) >= len(lines_of(files[0]))
        if ending == "close":
            assert second.stdin is not None
            second.stdin.close()
            assert second.wait(60) == 0
        else:
            second.kill()
    assert eventually(lambda: not processes_of_this_run(), 60)
    for rank, file in enumerate(files):
        steps = lines_of(file)
        assert [line.step for line in steps] == list(range(len(steps)))
        for line in steps:
            row = line.step * 16 + rank * 8
            assert line.rows == list(row_reference[row : row + 8])
