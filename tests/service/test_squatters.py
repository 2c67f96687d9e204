"""Another user who takes over the name of a service hears nothing of those who look for it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chunkdl.consumers.connect import connect
from chunkdl.errors import ServiceRefused
from chunkdl.service.client.control import operate
from tests.service.conftest import Start, row_digests

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
REPOSITORY = Path(__file__).parents[2]


@contextmanager
def squatter(name: str) -> Iterator[subprocess.Popen[str]]:
    """Another user at an abstract address."""
    program = [sys.executable, "-m", "tests.service.squatter_program", name]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, cwd=REPOSITORY, text=True, stdin=pipe, stdout=pipe) as there:
        assert there.stdout is not None
        assert there.stdout.readline() == "ready\n"
        yield there
        there.kill()


@as_root
def test_who_takes_the_name_of_a_dead_service_hears_nothing(
    start: Start, row_reference: tuple[str, ...]
) -> None:
    """Not from its consumers, which come back, nor from new ones, nor from an operator."""
    name = f"chunkdl-test-{secrets.token_hex(6)}"
    service, address = start(binds=(f"ipc://@{name}",))
    with connect(address) as loader:
        rows = row_digests(loader.next_batch(60))
        assert rows == list(row_reference[: len(rows)])
        service.process.kill()
        service.process.wait(30)
        with squatter(name) as there:
            with pytest.raises(ServiceRefused, match="belongs to another user"):
                for _ in range(100):
                    loader.next_batch(60)
            with pytest.raises(ServiceRefused, match="belongs to another user"):
                connect(address)
            with pytest.raises(ServiceRefused, match="belongs to another user"):
                operate(address, "status")
            out, _ = there.communicate(timeout=60)
    came, said = map(int, out.split())
    assert came >= 3
    assert said == 0


def test_messages_go_to_the_service_itself_whatever_is_at_its_path(
    start: Start, row_reference: tuple[str, ...]
) -> None:
    """The place is passed over the lease socket, of which the kernel says whose it is."""
    _, address = start()
    path = Path(address.removeprefix("ipc://"))
    path.rename(path.with_name("away"))
    with connect(address) as loader:
        rows = row_digests(loader.next_batch(60))
    assert rows == list(row_reference[: len(rows)])
    path.with_name("away").rename(path)
