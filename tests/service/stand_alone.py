"""A server that belongs to nobody, as `chunkdl serve` becomes one: ended by signals."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import cloudpickle

from chunkdl.service.client.control import operate
from chunkdl.service.spec import ServiceSpec
from chunkdl.transport.channel import descriptor_of
from chunkdl.transport.programs import command_of


def begin_server(
    spec: ServiceSpec, before: Sequence[str] = (), stderr: int | IO[str] | None = None
) -> subprocess.Popen[str]:
    """Start a server, which may not be up yet.

    Args:
        spec: of the service.
        before: words of another program that starts it.
        stderr: as of `subprocess.Popen`.
    """
    command, environment, given = command_of("chunkdl_workers.server", stderr=2)
    descriptor = descriptor_of(cloudpickle.dumps(spec))
    try:
        return subprocess.Popen(
            [*before, *command, str(given), "0", str(descriptor)],
            pass_fds=[given, descriptor],
            env=environment,
            stderr=stderr,
            text=True,
        )
    finally:
        os.close(given)
        os.close(descriptor)


@contextmanager
def stand_alone(spec: ServiceSpec) -> Iterator[subprocess.Popen[str]]:
    """A server that is up; it is killed with the block, if it still runs."""
    with begin_server(spec) as process:
        try:
            operate(spec.binds[0], "status", timeout_s=60)
            yield process
        finally:
            process.kill()
