"""Of services that begin at a time at one address one serves, and the others say which."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chunkdl.errors import AddressInUse, ConfigError
from chunkdl_workers import socket_files
from chunkdl_workers.doors import Doors
from chunkdl_workers.listening import peer_of
from chunkdl_workers.socket_files import remove_dead

RACERS, ROUNDS = 6, 25
RACER = """
import sys
from chunkdl_workers.doors import Doors
from chunkdl.errors import AddressInUse

print("ready", flush=True)
for _ in sys.stdin:
    try:
        doors = Doors((sys.argv[1],), None)
    except AddressInUse as error:
        print(error, flush=True)
        sys.stdin.readline()
    else:
        print("won", flush=True)
        sys.stdin.readline()
        doors.close()
    print("over", flush=True)
"""


@contextmanager
def racers(address: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that try to have an address whenever they are told to."""
    program = [sys.executable, "-c", RACER, address]
    pipe = subprocess.PIPE
    found = [subprocess.Popen(program, text=True, stdin=pipe, stdout=pipe) for _ in range(RACERS)]
    try:
        for racer in found:
            assert hear(racer) == "ready"
        yield found
    finally:
        for racer in found:
            racer.kill()
            racer.communicate()


def tell(program: subprocess.Popen[str]) -> None:
    """Have it go on."""
    assert program.stdin is not None
    program.stdin.write("go\n")
    program.stdin.flush()


def hear(program: subprocess.Popen[str]) -> str:
    """A line of it."""
    assert program.stdout is not None
    return program.stdout.readline().strip()


def leave_dead(path: Path, kind: socket.SocketKind) -> None:
    """A socket at which nobody listens any more."""
    with socket.socket(socket.AF_UNIX, kind) as dead:
        dead.bind(str(path))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", ["path", "name"])
def test_of_many_that_begin_at_a_time_over_a_dead_one_exactly_one_serves(
    tmp_path: Path, place: str
) -> None:
    """Again and again; the others name it, and it can be reached all the while."""
    path = tmp_path / "s"
    name = str(path) if place == "path" else f"@chunkdl-race-{os.getpid()}"
    lease = f"{name}.lease".replace("@", "\0")
    with racers(f"ipc://{name}") as programs:
        for _ in range(ROUNDS):
            if place == "path":
                leave_dead(path, socket.SOCK_STREAM)
                leave_dead(Path(lease), socket.SOCK_SEQPACKET)
            for program in programs:
                tell(program)
            said = [hear(program) for program in programs]
            (winner,) = [
                program.pid for program, told in zip(programs, said, strict=True) if told == "won"
            ]
            losers = [told for told in said if told != "won"]
            assert all("another service is" in told for told in losers), losers
            if place == "path":
                assert all(f"(pid {winner})" in told for told in losers), losers
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as end:
                end.connect(lease)
                assert peer_of(end)[0] == winner
            for program in programs:
                tell(program)
            assert [hear(program) for program in programs] == ["over"] * RACERS
            assert list(tmp_path.iterdir()) == []


def test_a_frozen_service_with_a_full_queue_is_there(tmp_path: Path) -> None:
    """Whoever looks whether it lives does not wait for it, and does not take its place."""
    path = str(tmp_path / "s.lease")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as frozen:
        frozen.bind(path)
        frozen.listen(0)
        waiting = []
        while True:
            end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            end.setblocking(False)
            waiting.append(end)
            try:
                end.connect(path)
            except BlockingIOError:
                break
        with pytest.raises(AddressInUse, match="is busy or frozen"):
            remove_dead(path)
        assert os.path.exists(path)
        for end in waiting:
            end.close()


def test_a_folder_that_somebody_keeps_locked_is_an_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to do; once the lock is gone the next one serves."""
    monkeypatch.setattr(socket_files, "LOCK_S", 0.2)
    address = f"ipc://{tmp_path}/s"
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match=r"has locked the folder .* a folder of its own"):
        Doors((address,), None)
    os.close(held)
    Doors((address,), None).close()
    assert list(tmp_path.iterdir()) == []
