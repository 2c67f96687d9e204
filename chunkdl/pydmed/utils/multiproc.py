"""PyDmed's helpers for processes and queues of Python's multiprocessing."""

from __future__ import annotations

import os
import queue as queues
from typing import Any, Protocol

from chunkdl.errors import ChunkdlError
from chunkdl.pydmed import star

__all__ = ["poplast_from_queue", "set_nicemax", "terminaterecursively", *star.MULTIPROC]

__getattr__ = star.importer(__name__, star.MULTIPROC)

_ALL_NICE_STEPS = 39
"""From -20 to 19."""


class NonWaitingQueue(Protocol):
    """A queue of multiprocessing, or any other that raises `queue.Empty`."""

    def get_nowait(self) -> Any:
        """The oldest element."""


def poplast_from_queue(queue: NonWaitingQueue) -> Any:
    """Empties a queue and gives its newest element, None when nothing was in it.

    What a process has put but its feeder thread has not yet sent is left for the next call.
    """
    newest = None
    while True:
        try:
            newest = queue.get_nowait()
        except queues.Empty:
            return newest


def set_nicemax() -> None:
    """Gives this process the lowest priority there is: niceness 19.

    The name is PyDmed's, which promised the highest priority; but a nice process lets all others
    go first, and that is what its function did too. It cannot be taken back without privileges.
    """
    os.nice(_ALL_NICE_STEPS)


def terminaterecursively(pid: int) -> None:
    """Kills a process and everything that it started, directly or not; waits for none of them.

    Args:
        pid: of the process; one that has ended already is left alone.

    Raises:
        ChunkdlError: some may not be killed; all others were.
    """
    # Every program imports this module with `lightdl`; few end processes.
    import psutil

    try:
        process = psutil.Process(pid)
        doomed = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    refused = []
    # The first one first, so that it replaces none of the others.
    for process in doomed:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            refused.append(process.pid)
    if refused:
        raise ChunkdlError(f"not allowed to kill {refused}; only their owner or root can")
