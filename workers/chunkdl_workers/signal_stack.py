"""Room for signals that come all at once.

Handlers run on the stack that faulthandler has set up for crashes, of two times the smallest size.
Signals that were sent while a process did not run interrupt each other there, one within the
other, each with all registers of the processor: a dozen is more than fits, and ends the process.
"""

from __future__ import annotations

import ctypes
import os
import sys

STACK_BYTES = 2**20
"""For each of the 64 signals the largest set of registers there is; only what is used is taken."""


class _Stack(ctypes.Structure):
    """`stack_t` of sigaltstack(2)."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t))


def make_room() -> None:
    """Give this thread a large stack for handlers; after the last call of faulthandler.

    Raises:
        OSError: the system does not.
    """
    if sys.platform != "linux":
        return
    system = ctypes.CDLL(None, use_errno=True)
    system.malloc.restype, system.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    # Never freed: signals come to the very end of a process.
    stack = _Stack(system.malloc(STACK_BYTES), 0, STACK_BYTES)
    if stack.start is None or system.sigaltstack(ctypes.byref(stack), None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
