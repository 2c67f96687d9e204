"""What every process of chunkdl does first, whichever it is."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def begin(name: str, recorder: int | None = None) -> None:
    """Set the process up: no Ctrl-C of its own, stacks on a crash, a name in the process list.

    Args:
        name: for the process list and the log.
        recorder: descriptor of the flight recorder, which gets the stacks of a worker at a crash
            and when it is asked for them with SIGUSR1.
    """
    # The terminal sends Ctrl-C to everybody; only the training process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if recorder is None:
        faulthandler.enable()
    else:
        faulthandler.enable(recorder)
        faulthandler.register(signal.SIGUSR1, recorder, all_threads=True)
    logging.basicConfig(
        level=logging.WARNING, format=f"%(asctime)s {name}[%(process)d] %(levelname)s: %(message)s"
    )
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however the parent dies.

    Args:
        parent: pid that the parent said it has.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The parent may have died before the kernel was told.
    if os.getppid() != parent:
        os._exit(1)


def yield_to_others() -> None:
    """Say that this process computes without pause: those that wake up for a moment go first."""
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def one_thread_for_torch() -> None:
    """Where the user's code has brought torch along: it computes in one thread here."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def pin(cores: tuple[int, ...]) -> None:
    """Keep this process and its children on these cores; nothing for none."""
    if cores:
        os.sched_setaffinity(0, cores)
