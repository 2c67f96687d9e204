"""What the machine gives: cores, and memory that may still be taken."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil

from chunkdl.errors import ConfigError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def parse_bytes(size: int | str, setting: str) -> int:
    """Bytes of a size like 4294967296, "4GiB", "4G" or "512 MiB" (powers of 1024).

    Raises:
        ConfigError: it is no such size; names the setting.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(size), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f'{setting}={size!r} is no size; give bytes or a text like "4GiB"')
    return int(float(match[1]) * _UNITS[match[2].upper()])


def available_memory() -> int:
    """Bytes that can be taken now: what the system has free, within this cgroup's limit."""
    free = int(psutil.virtual_memory().available)
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, taken = _number(limit), _number(used)
        if most is not None and taken is not None:
            free = min(free, max(0, most - taken))
    return free


def _number(name: str) -> int | None:
    """The number in a file of the cgroup file system, None where there is none."""
    try:
        return int((Path("/sys/fs/cgroup") / name).read_text())
    except (OSError, ValueError):
        return None  # no such controller, or "max": no limit
