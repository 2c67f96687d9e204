"""A process that was killed and is not gone, as one is that the kernel holds over a dead disk.

Who traces a process may hold it where it exits: it runs nothing of its own there, cannot be waited
for, and no signal ends it. ``python -m tests.processes.held PID ...`` holds until its stdin ends.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SEIZE, TRACE_EXIT = 0x4206, 0x40


@contextmanager
def held(*pids: int) -> Iterator[None]:
    """Processes that stay when they are killed or end, until this is left."""
    import pytest

    # Not this process: a parent that waits for its child would be told where that stands.
    with subprocess.Popen(
        [sys.executable, "-m", __spec__.name, *map(str, pids)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as tracer:
        assert tracer.stdout is not None
        if said := tracer.stdout.readline().strip():
            pytest.skip(f"processes cannot be held here: {said}")
        try:
            yield
        finally:
            # The kernel lets go of what it has traced.
            tracer.kill()


def main() -> None:
    """Hold."""
    trace = ctypes.CDLL(None, use_errno=True).ptrace
    trace.argtypes = ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p
    trace.restype = ctypes.c_long
    for pid in map(int, sys.argv[1:]):
        if trace(SEIZE, pid, None, TRACE_EXIT):
            print(os.strerror(ctypes.get_errno()), flush=True)
            return
    print(flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
