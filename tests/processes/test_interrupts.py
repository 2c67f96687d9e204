"""An interrupt at any place where Python lets one come breaks nothing."""

from __future__ import annotations

import dis
import functools
import random
import signal
import sys
import threading
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any, Self

import pytest

import chunkdl
from chunkdl import Dataset, LightDL
from chunkdl.sections import Section

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
        # What runs when an object goes cannot be told from outside of an interrupt.
        if not frame.f_code.co_filename.startswith(FOLDER) or frame.f_code.co_name == "__call__":
            return None
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


@pytest.mark.parametrize(("starts", "rounds"), [(True, 20), (False, 120)], ids=["start", "batch"])
def test_an_interrupt_anywhere_loses_no_batch(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], *, starts: bool, rounds: int
) -> None:
    """Of an end and a start, of a batch: the call after it goes on, with what was not returned."""
    places_drawn = random.Random(1 if starts else 2)
    with LightDL(coordinate_dataset, **small_stream) as loader:
        following = 0
        for _ in range(rounds):
            interrupt, numbers = Interrupt(places_drawn.randrange(400)), []
            try:
                with interrupt:
                    if starts:
                        loader.pause()
                    while not interrupt.came:
                        numbers.append(loader.next_batch(60).number)
            except KeyboardInterrupt:
                pass
            numbers += [loader.next_batch(60).number for _ in range(2)]
            # One that was interrupted on its way out of the call was given out all the same.
            steps = [after - before for before, after in pairwise([following - 1, *numbers])]
            assert set(steps) <= {1, 2}, interrupt.came
            assert steps.count(2) <= 1, interrupt.came
            following = numbers[-1] + 1


def test_what_is_done_whole_is_done_to_its_end() -> None:
    """Who waits for it is interrupted at once, and who wants the lock gets it after that."""
    section, begun, go_on, done = Section(), threading.Event(), threading.Event(), []

    def act() -> None:
        begun.set()
        go_on.wait(60)
        done.append(threading.current_thread() is threading.main_thread())

    def interrupt() -> None:
        begun.wait(60)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        section.whole(act)
    interrupter.join()
    assert done == []
    go_on.set()
    with section.lock:
        assert done == [False]


def test_an_error_of_what_is_done_whole_is_the_callers() -> None:
    """As if it had been called."""

    def act() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Section().whole(act)
    assert Section().whole(lambda: 7) == 7
