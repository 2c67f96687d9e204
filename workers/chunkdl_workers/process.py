"""What every process of chunkdl does first, whichever it is."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from chunkdl.transport.given import FOR_THE_TRAINING
from chunkdl_workers.signal_stack import make_room

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

STACK_SIGNAL = signal.SIGRTMIN + 7
"""Asks a worker where it is. Nobody sends it to a whole job, unlike SIGUSR1."""
NEVER_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that the user's code does not get here either, whatever it installs at its import."""


def begin(name: str, recorder: int | None = None, *, deaf: bool = True) -> None:
    """Set the process up: no signals of its own, stacks on a crash, a name in the process list.

    Args:
        name: for the process list and the log.
        recorder: descriptor of the flight recorder, which gets the stacks of a worker at a crash
            and when it is asked for them.
        deaf: signals that are sent to every process of the training do nothing here.
    """
    if deaf:
        os.register_at_fork(
            before=_hold_back, after_in_parent=_let_through, after_in_child=_hear_again
        )
        _become_deaf(FOR_THE_TRAINING)
    if recorder is None:
        faulthandler.enable()
    else:
        faulthandler.enable(recorder)
        faulthandler.register(STACK_SIGNAL, recorder, all_threads=True)
    make_room()
    logging.basicConfig(
        level=logging.WARNING, format=f"%(asctime)s {name}[%(process)d] %(levelname)s: %(message)s"
    )
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def stay_deaf() -> None:
    """The user's code was imported, and may have installed handlers that end the process."""
    _become_deaf(NEVER_OURS)


def _become_deaf(signals: Sequence[signal.Signals]) -> None:
    for number in signals:
        # Who was started with nohup has that for what it starts, too.
        if signal.getsignal(number) is not signal.SIG_IGN:
            # A handler that does nothing, and not SIG_IGN, which what the user's code starts would
            # inherit: its subprocesses could not be terminated.
            signal.signal(number, _do_nothing)
            signal.siginterrupt(number, False)
    # They were held back since before the process began.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def end_by_signals(end: Callable[..., None]) -> None:
    """Have the signals that are meant to end a daemon call that, and the others do nothing."""
    _become_deaf(FOR_THE_TRAINING)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    # With nohup it stays.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, end)


def _do_nothing(number: int, frame: object) -> None:
    """What a signal means is for the training to decide."""


_of_fork = threading.local()
"""The mask of a thread that is forking."""


def _hold_back() -> None:
    _of_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_TRAINING)


def _let_through() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _of_fork.mask)


def _hear_again() -> None:
    """A fork by the user's code is not a process of ours: multiprocessing ends it by SIGTERM.

    One that comes right after the fork has been held back, for here it would do nothing.
    """
    for number in FOR_THE_TRAINING:
        if signal.getsignal(number) is _do_nothing:
            interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if interrupt else signal.SIG_DFL)
    _let_through()


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
