"""What the machine gives: cores, and memory that may still be taken."""

from __future__ import annotations

import os

import psutil

from chunkdl.system.cgroups import allowed_memory


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def available_memory() -> int:
    """Bytes that can be taken now: what the system has, within the limits of the cgroups.

    Page cache does not count as taken; it is given back when memory is short.
    """
    free, allowed = int(psutil.virtual_memory().available), allowed_memory()
    return free if allowed is None else min(free, allowed)
