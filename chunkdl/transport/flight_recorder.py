"""A flight recorder: what a worker was doing, readable after it hangs or dies.

A small piece of anonymous memory that a worker and its parent share. The worker notes which hook
it is in, and beats while it works; `faulthandler` writes its stacks behind that, on request and at
a crash.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass

from chunkdl.transport.memory.arena import create_memory

_NOTE = struct.Struct("<qqqqd")
_ALIVE = struct.Struct("<d")
_ALIVE_AT = _NOTE.size
_STACK_AT = 4096
_BYTES = 64 * 1024
"""Of a recorder; what does not fit of the stacks is lost."""

EXTRACT_BIGCHUNK, EXTRACT_SMALLCHUNK, TRANSFORM, SCHEDULE = 1, 2, 3, 4
HOOKS = ("", "extract_bigchunk", "extract_smallchunk", "the transform", "the schedule")
"""What of the user's code a worker can be in, by number; nothing for 0."""


def create_recorder() -> int:
    """Descriptor of a recorder for one worker; the caller closes it."""
    descriptor = create_memory("chunkdl-recorder", _BYTES)
    # faulthandler writes at the place of the descriptor, which both sides share.
    os.lseek(descriptor, _STACK_AT, os.SEEK_SET)
    return descriptor


class Recorder:
    """The worker's side, which writes; `faulthandler` writes behind it, in any thread or signal.

    The parent reads while it is written: a note that is half old and half new is looked at again at
    the next look.
    """

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, _BYTES)
        self._steps = 0

    def enter(self, hook: int, patient: int, ordinal: int) -> None:
        """Note that a call of the user's code begins."""
        self._steps += 1
        # Its zero is that of the machine, so that other processes can compare it.
        now = time.monotonic()
        _NOTE.pack_into(self._map, 0, self._steps, hook, patient, ordinal, now)
        _ALIVE.pack_into(self._map, _ALIVE_AT, now)

    def leave(self) -> None:
        """Note that no code of the user is running."""
        self.enter(0, 0, 0)

    def beat(self) -> None:
        """Note that the work goes on, inside a call of the user's code or outside."""
        _ALIVE.pack_into(self._map, _ALIVE_AT, time.monotonic())


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a worker noted last.

    Attributes:
        steps: how often a call of the user's code has begun or ended.
        hook: number in `HOOKS`.
        patient: index; meaningless for hook 0.
        ordinal: of the BigChunk; meaningless for hook 0.
        stack: what `faulthandler` wrote.
        called_s: when the last of these calls began or ended, seconds (monotonic); 0 for none.
        alive_s: when the worker last gave any sign of life, the same way.
    """

    steps: int
    hook: int
    patient: int
    ordinal: int
    stack: str
    called_s: float = 0.0
    alive_s: float = 0.0


def clear_stack(descriptor: int) -> None:
    """The parent's side: what is written next is all that is there."""
    os.pwrite(descriptor, bytes(_BYTES - _STACK_AT), _STACK_AT)
    os.lseek(descriptor, _STACK_AT, os.SEEK_SET)


def read_recorder(descriptor: int, *, stack: bool = True) -> Recorded:
    """The parent's side.

    Args:
        descriptor: of the recorder.
        stack: read that too; it is much longer than the rest.
    """
    content = os.pread(descriptor, _BYTES if stack else _STACK_AT, 0)
    steps, hook, patient, ordinal, called_s = _NOTE.unpack_from(content)
    (alive_s,) = _ALIVE.unpack_from(content, _ALIVE_AT)
    written = content[_STACK_AT:].rstrip(b"\0").decode(errors="replace")
    hook = hook if 0 <= hook < len(HOOKS) else 0
    return Recorded(steps, hook, patient, ordinal, written, called_s, alive_s)
