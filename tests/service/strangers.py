"""Processes of another user, and the sockets that they might try."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from tests.service.stranger_program import NOBODY

REPOSITORY = Path(__file__).parents[2]
LISTENS = 0x10000
"""The flag of a socket that listens, in /proc/net/unix."""
MOST_S = 3600.0
"""For a million messages on a slow machine."""


def listening(pids: Iterable[int]) -> list[str]:
    """Every Unix socket that these processes listen on, "NAME:TYPE"."""
    inodes = {
        link.removeprefix("socket:[").removesuffix("]")
        for pid in pids
        for link in links_of(pid).values()
        if link.startswith("socket:[")
    }
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sorted(
        f"{line[7]}:{int(line[4], 16)}"
        for line in lines
        if len(line) == 8 and line[6] in inodes and int(line[3], 16) & LISTENS
    )


def links_of(pid: int) -> dict[str, str]:
    """What the descriptors of a process are."""
    found = {}
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            found[entry.path] = os.readlink(entry.path)
        except FileNotFoundError:
            continue
    return found


def doors_without_a_name() -> list[str]:
    """Descriptors of this process that lead to the sockets of embedded services."""
    places = links_of(os.getpid())
    return [path for path, link in places.items() if "/.chunkdl-" in link and "/s" in link]


def strangers(names: Iterable[str], messages: int, user: int = NOBODY) -> subprocess.Popen[str]:
    """A process of another user that pesters these sockets."""
    program = [sys.executable, "-m", "tests.service.stranger_program"]
    options = ["--messages", str(messages), "--user", str(user)]
    return subprocess.Popen(
        [*program, *options, *names], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )


def told(program: subprocess.Popen[str]) -> dict[str, dict[str, int]]:
    """What became of each socket."""
    out, _ = program.communicate(timeout=MOST_S)
    assert program.returncode == 0
    counts: dict[str, dict[str, int]] = json.loads(out)["told"]
    return counts


def size_of(processes: Iterable[psutil.Process]) -> int:
    """Bytes that they hold, without what they share."""
    infos = [process.memory_info() for process in processes]
    return sum(info.rss - info.shared for info in infos)
