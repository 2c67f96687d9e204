"""What the machine gives: cores, and memory that may still be taken."""

from __future__ import annotations

import os
import re

import psutil

from chunkdl.cgroups import allowed_memory
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
    """Bytes that can be taken now: what the system has, within the limits of the cgroups.

    Page cache does not count as taken; it is given back when memory is short.
    """
    free, allowed = int(psutil.virtual_memory().available), allowed_memory()
    return free if allowed is None else min(free, allowed)
