"""A service and two consumers on hosts of their own, with a bad network between them.

The hosts are network namespaces, which need root and iproute2; where they cannot be made, the tests
skip and say why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chunkdl.service.client.control import operate
from chunkdl.service.spec import ServiceSpec
from tests.service.consumer_program import lines_of
from tests.service.stand_alone import begin_server
from tests.service.two_ranks import members

REPOSITORY = Path(__file__).parents[2]
PORT = 5555
BATCHES = 110
STOP_TIMEOUT_S = 100
Eventually = Callable[..., bool]


class Hosts:
    """A host for the service and one for each of two consumers, with a link to each of them."""

    def __init__(self) -> None:
        mark = os.getpid()
        self.service = f"chunkdl-{mark}"
        self.consumers = [f"chunkdl-{mark}-{number}" for number in range(2)]
        self._made: list[str] = []

    def make(self) -> None:
        """Make them."""
        for name in (self.service, *self.consumers):
            _ip("netns", "add", name)
            self._made.append(name)
        for number, name in enumerate(self.consumers):
            ends = f"s{number}", f"c{number}"
            _ip("link", "add", ends[0], "netns", self.service, "type", "veth", "peer", "name",
                ends[1], "netns", name)  # fmt: skip
            for host, end, last in ((self.service, ends[0], 1), (name, ends[1], 2)):
                _ip("-n", host, "addr", "add", f"10.77.{number}.{last}/24", "dev", end)
                _ip("-n", host, "link", "set", end, "up")

    def address(self, number: int) -> str:
        """Of the service, for a consumer."""
        return f"tcp://10.77.{number}.1:{PORT}"

    def worsen(self, number: int) -> None:
        """Delay what a consumer sends and is sent, and lose some of it."""
        for host, end in ((self.service, f"s{number}"), (self.consumers[number], f"c{number}")):
            disturb = ["delay", "20ms", "10ms", "loss", "3%"]
            _run("tc", "-n", host, "qdisc", "add", "dev", end, "root", "netem", *disturb)

    def link(self, number: int, state: str) -> None:
        """Cut the link to a consumer ("down"), or mend it ("up")."""
        _ip("-n", self.service, "link", "set", f"s{number}", state)

    def remove(self) -> None:
        """Remove them with their links."""
        for name in self._made:
            _ip("netns", "del", name)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    except subprocess.CalledProcessError as error:
        raise OSError(f"{' '.join(command)}: {error.stderr.strip()}") from error


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Three hosts."""
    missing = [program for program in ("ip", "tc") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"this machine has no {missing[0]} (iproute2)")
    made = Hosts()
    try:
        try:
            made.make()
        except OSError as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield made
    finally:
        made.remove()


def end(process: subprocess.Popen[Any]) -> None:
    """Have a program end, and see that it does."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    finally:
        process.kill()
        process.wait()


def begin(stack: ExitStack, host: str, *command: str) -> None:
    """Start a program on a host; it is ended with the test."""
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "workers")])
    process = subprocess.Popen(
        ["ip", "netns", "exec", host, sys.executable, *command],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": path},
    )
    stack.callback(end, process)


def states(address: str) -> list[str]:
    """Of the ranks, in their order."""
    by_rank = {member["rank"]: member["state"] for member in members(address)}
    return [by_rank[rank] for rank in sorted(by_rank)]


@pytest.mark.parametrize("trouble", ["delay and loss", "a cut"])
def test_a_bad_network_costs_no_row_and_repeats_none(
    hosts: Hosts,
    service_spec: Callable[..., ServiceSpec],
    socket_folder: Path,
    tmp_path: Path,
    row_reference: tuple[str, ...],
    eventually: Eventually,
    trouble: str,
) -> None:
    """One of two ranks has a bad link, or none for some seconds; together they get every row."""
    local = f"ipc://{socket_folder}/s"
    spec = service_spec(
        binds=(local, f"tcp://0.0.0.0:{PORT}"), insecure=True, silent_s=1.0, grace_s=60.0
    )
    if trouble == "delay and loss":
        try:
            hosts.worsen(1)
        except OSError as error:
            pytest.skip(f"no link can be made worse here: {error}")
    files = [tmp_path / f"rank-{rank}" for rank in range(2)]
    with ExitStack() as stack:
        server = begin_server(spec, ("ip", "netns", "exec", hosts.service))
        stack.callback(end, server)
        for rank, host in enumerate(hosts.consumers):
            program = "-m", "tests.service.consumer_program", hosts.address(rank)
            which = f"--rank={rank}", "--world-size=2", "--batch-size=8"
            begin(stack, host, *program, str(files[rank]), *which, f"--batches={BATCHES}")
        assert eventually(lambda: all(len(lines_of(file)) > 3 for file in files), 60)
        if trouble == "a cut":
            hosts.link(1, "down")
            assert eventually(lambda: "suspect" in states(local), 60)
            assert states(local) == ["open", "suspect"]
            assert len(lines_of(files[1])) < BATCHES
            hosts.link(1, "up")
        assert eventually(lambda: all(len(lines_of(file)) == BATCHES for file in files), 60)
        assert operate(local, "status")["joined"] == 2
    parts = [lines_of(file) for file in files]
    steps = [one.rows + other.rows for one, other in zip(*parts, strict=True)]
    assert [row for rows in steps for row in rows] == list(row_reference[: BATCHES * 16])
