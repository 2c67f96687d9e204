"""Strangers who open connections by tcp without end do not take a service's last descriptors."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from chunkdl.consumers.connect import connect
from chunkdl.service.spec import ServiceSpec
from tests.service.conftest import row_digests
from tests.service.stand_alone import begin_server
from tests.service.two_ranks import addresses

REPOSITORY = Path(__file__).parents[2]
LIMIT = 2048
"""Descriptors of the service: far fewer than any real one has."""


@contextmanager
def unfinished(address: str, count: int) -> Iterator[None]:
    """Another process opens connections there, which say nothing."""
    where = address.removeprefix("tcp://")
    program = [sys.executable, "-m", "tests.service.unfinished_program", where, str(count)]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, cwd=REPOSITORY, text=True, stdin=pipe, stdout=pipe) as there:
        assert there.stdout is not None
        assert int(there.stdout.readline())
        yield
        there.kill()


@pytest.mark.timeout(300)
def test_who_opens_connections_without_end_stops_neither_service_nor_consumers(
    service_spec: Callable[..., ServiceSpec],
    socket_folder: Path,
    row_reference: tuple[str, ...],
    tmp_path: Path,
) -> None:
    """Of this machine anybody gets in meanwhile; by tcp once the strangers are timed out."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < LIMIT:
        pytest.skip(f"this user may have fewer than {LIMIT} descriptors")
    local, remote = addresses(socket_folder)
    told = tmp_path / "log"
    few = ["prlimit", f"--nofile={LIMIT}:{LIMIT}"]
    with ExitStack() as ending:
        log = ending.enter_context(told.open("w"))
        server = begin_server(service_spec(binds=(local, remote)), few, log)
        ending.callback(server.wait, 60)
        ending.callback(server.kill)
        with connect(remote) as loader:
            rows = row_digests(loader.next_batch(60))
            with unfinished(remote, 2 * LIMIT), connect(local, "trials") as other:
                for _ in range(10):
                    rows += row_digests(loader.next_batch(60))
                    other.next_batch(60)
                with connect(remote, "trials", connect_timeout=120) as third:
                    third.next_batch(60)
        assert rows == list(row_reference[: len(rows)])
        assert server.poll() is None
    assert "no more connections by tcp" in told.read_text()
    assert "Traceback" not in told.read_text()
