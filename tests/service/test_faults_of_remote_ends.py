"""A consumer on another machine dies, freezes or vanishes: another goes on in its place.

In a broadcast the others go on without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chunkdl.consumers.connect import connect
from chunkdl.service.settings import GroupSpec
from tests.service.both_modes import in_turn, is_stretch
from tests.service.conftest import Start, row_digests
from tests.service.consumer_program import lines_of, rows_in
from tests.service.tcp_proxy import PART_BYTES, TcpProxy
from tests.service.two_ranks import addresses, members, steps_of

Eventually = Callable[..., bool]
Program = subprocess.Popen[bytes]
Begin = Callable[..., Program]

BATCH = "--batch-size", "8"
BLOCKING = GroupSpec(name="trials", mode="broadcast")
DETACHING = GroupSpec(name="trials", mode="broadcast", laggard="detach")
NEVER_S = 1000.0
"""Longer than any test."""


class BlackHole(TcpProxy):
    """A stretch of network that from one moment on takes nothing, passes nothing, closes nothing.

    Args:
        behind: tcp address of the service.
    """

    def __init__(self, behind: str) -> None:
        self._swallows, self._over = threading.Event(), threading.Event()
        super().__init__(behind)

    def swallow(self) -> None:
        """From now on it is as if the machine at one end were gone."""
        self._swallows.set()

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        del counted
        with contextlib.suppress(OSError):
            while not self._swallows.is_set() and (data := source.recv(PART_BYTES)):
                if not self._swallows.is_set():
                    target.sendall(data)
        if self._swallows.is_set():
            self._over.wait()
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *raised: Any) -> None:
        self._over.set()
        super().__exit__(*raised)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts consumers of their own; all are killed after the test."""
    running: list[Program] = []

    def start_one(address: str, file: Path, *options: str) -> Program:
        program = [sys.executable, "-m", "tests.service.consumer_program", address, str(file)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with _errors_of(file).open("wb") as said:
            running.append(subprocess.Popen([*program, *options], env=environment, stderr=said))
        return running[-1]

    yield start_one
    for process in running:
        process.kill()
        process.wait()


def _errors_of(file: Path) -> Path:
    return file.with_suffix(".stderr")


def said_by(file: Path) -> str:
    """What the consumer that writes a file has said on stderr."""
    return _errors_of(file).read_text()


def end(process: Program, how: str, hole: BlackHole) -> None:
    """A consumer behind a hole is killed or frozen, or its machine vanishes."""
    if how == "vanished":
        hole.swallow()
    else:
        process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)


def states_of(address: str, group: str) -> list[str]:
    """The states of the members of a group, sorted."""
    return sorted(member["state"] for member in members(address, group))


@pytest.mark.parametrize(
    ("how", "when"),
    [
        ("killed", "silent"),
        ("frozen", "silent"),
        ("frozen", "overdue"),
        ("vanished", "silent"),
        ("vanished", "overdue"),
    ],
)
def test_another_takes_the_rank_of_a_remote_one(
    start: Start,
    socket_folder: Path,
    tmp_path: Path,
    row_reference: tuple[str, ...],
    begin: Begin,
    eventually: Eventually,
    how: str,
    when: str,
) -> None:
    """As soon as it is silent, or when its time is over: what it had not given back comes again."""
    silent = when == "silent"
    local, tcp = addresses(socket_folder)
    start(binds=(local, tcp), silent_s=1.0, grace_s=NEVER_S if silent else 2.0)
    options = ("--rank", "1", "--world-size", "2", *BATCH)
    before, after = tmp_path / "before", tmp_path / "after"
    with BlackHole(tcp) as hole, connect(local, rank=0, world_size=2, batch_size=8) as loader:
        first = begin(hole.address, before, *options)
        rows = [row_digests(loader.next_batch(60)) for _ in range(5)]
        assert eventually(lambda: len(lines_of(before)) >= 5, 60)
        end(first, how, hole)
        states = ["open", "suspect"] if silent else ["open"]
        assert eventually(lambda: states_of(local, "train") == states, 60)
        second = begin(tcp, after, *options, "--batches", "12")
        rows += [row_digests(loader.next_batch(60)) for _ in range(25)]
        assert second.wait(60) == 0
        # What wakes has as much as its credit; the other was sent the same.
        had = lines_of(before)
        if how == "frozen":
            first.send_signal(signal.SIGCONT)
            assert first.wait(60) == 1
            assert "ServiceRefused: the service has ended the session" in said_by(before)
            assert not silent or "rank 1 of group train was taken by" in said_by(before)
    again = lines_of(after)
    assert [line.step for line in had] == list(range(len(had)))
    assert [line.step for line in again] == list(range(again[0].step, again[0].step + 12))
    assert len(had) - 4 <= again[0].step <= len(had)
    of_step = {line.step: line.rows for line in [*had, *again]}
    assert all(of_step[line.step] == line.rows for line in lines_of(before))
    mine = [row for step in range(min(30, len(of_step))) for row in (*rows[step], *of_step[step])]
    assert mine == list(row_reference[: len(mine)])


@pytest.mark.parametrize("group", [BLOCKING, DETACHING], ids=lambda group: group.laggard)
@pytest.mark.parametrize("how", ["killed", "frozen", "vanished"])
def test_a_broadcast_goes_on_without_a_remote_member(
    start: Start,
    socket_folder: Path,
    tmp_path: Path,
    row_reference: tuple[str, ...],
    begin: Begin,
    eventually: Eventually,
    how: str,
    group: GroupSpec,
) -> None:
    """When its time is over, or when it has kept them waiting for too long."""
    both = addresses(socket_folder)
    grace_s = 2.0 if group is BLOCKING else NEVER_S
    start(binds=both, groups=(group,), silent_s=1.0, grace_s=grace_s)
    file = tmp_path / "member"
    with BlackHole(both[1]) as hole, ExitStack() as stack:
        member = begin(hole.address, file, "--group", "trials")
        assert eventually(lambda: len(lines_of(file)) >= 1, 60)
        readers = [stack.enter_context(connect(address, "trials")) for address in both]
        rows = [steps_of([reader], 2) for reader in readers]
        end(member, how, hole)
        in_turn(readers, rows, 30)
        assert states_of(both[0], "trials") == ["open", "open"]
        if how == "frozen":
            member.send_signal(signal.SIGCONT)
            assert member.wait(60) == 1
            assert "ServiceRefused: the service has ended the session" in said_by(file)
    for got in (*rows, rows_in(file)):
        assert is_stretch(got, row_reference)
