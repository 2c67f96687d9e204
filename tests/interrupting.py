"""Interrupts at chosen places of a program, as Python lets them come."""

from __future__ import annotations

import dis
import functools
import sys
import weakref
from types import CodeType, FrameType
from typing import Any, Self

import chunkdl

FOLDER = chunkdl.__path__[0]
LOOKS_FOR_SIGNALS = frozenset(("CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"))
"""Behind these Python runs the handlers of signals that have come."""


@functools.cache
def places(code: CodeType) -> frozenset[int]:
    """Offsets of the instructions before which an interrupt may come."""
    table = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]

    def handled_by(offset: int) -> int:
        return min(
            (entry.target for entry in table if entry.start <= offset < entry.end), default=-1
        )

    found, before = set(), None
    for instruction in dis.get_instructions(code):
        # The error counts as that of the instruction that looked, which may be handled where this
        # one is not.
        if (
            before is not None
            and before.opname in LOOKS_FOR_SIGNALS
            and handled_by(before.offset) == handled_by(instruction.offset)
        ):
            found.add(instruction.offset)
        before = instruction
    return frozenset(found)


class Interrupt:
    """Raises KeyboardInterrupt at the n-th such place of chunkdl in this thread.

    Args:
        number: of the place, from 0.
    """

    def __init__(self, number: int) -> None:
        self._left = number
        self.came = ""
        """Where it came."""

    def __enter__(self) -> Self:
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        back: FrameType | None = frame
        while back is not None:
            # What runs when an object goes cannot raise.
            if back.f_code.co_filename == weakref.__file__:
                return None
            back = back.f_back
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._step

    def _step(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode" and not self.came and frame.f_lasti in places(frame.f_code):
            self._left -= 1
            if self._left < 0:
                self.came = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                sys.settrace(None)
                raise KeyboardInterrupt(self.came)
        return self._step
