"""The flight recorder: what a worker was doing, readable when it cannot say so itself."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from chunkdl.transport.flight_recorder import (
    EXTRACT_BIGCHUNK,
    HOOKS,
    SCHEDULE,
    TRANSFORM,
    Recorder,
    clear_stack,
    create_recorder,
    read_recorder,
)


@pytest.fixture
def descriptor() -> Iterator[int]:
    """Of a fresh recorder."""
    descriptor = create_recorder()
    yield descriptor
    os.close(descriptor)


def test_a_fresh_recorder_says_nothing(descriptor: int) -> None:
    """No hook, no step, no stack."""
    recorded = read_recorder(descriptor)
    assert (recorded.steps, recorded.hook, recorded.stack) == (0, 0, "")
    assert HOOKS[recorded.hook] == ""


def test_the_last_note_is_what_is_read(descriptor: int) -> None:
    """And the steps grow with every note: so who gets on is told from who hangs."""
    recorder = Recorder(descriptor)
    recorder.enter(EXTRACT_BIGCHUNK, 3, 2**40)
    first = read_recorder(descriptor)
    recorder.enter(TRANSFORM, 4, 7)
    second = read_recorder(descriptor)
    recorder.leave()
    third = read_recorder(descriptor)

    assert (first.hook, first.patient, first.ordinal) == (EXTRACT_BIGCHUNK, 3, 2**40)
    assert (second.hook, second.patient, second.ordinal) == (TRANSFORM, 4, 7)
    assert third.hook == 0
    assert first.steps < second.steps < third.steps


def test_a_beat_shows_that_the_work_goes_on(descriptor: int) -> None:
    """Inside a call and outside; it is not a step, so the deadline of the call stays."""
    recorder = Recorder(descriptor)
    recorder.enter(EXTRACT_BIGCHUNK, 3, 5)
    before = read_recorder(descriptor)
    recorder.beat()
    inside = read_recorder(descriptor)
    recorder.leave()
    recorder.beat()
    after = read_recorder(descriptor)

    assert before.called_s == before.alive_s == inside.called_s
    assert inside.called_s < inside.alive_s <= after.called_s < after.alive_s
    assert (inside.steps, inside.hook, inside.ordinal) == (before.steps, EXTRACT_BIGCHUNK, 5)


def test_every_hook_has_a_name() -> None:
    """The numbers are those of the names."""
    assert len(HOOKS) == len(set(HOOKS)) == SCHEDULE + 1


def test_reading_disturbs_nobody(descriptor: int) -> None:
    """The place where a stack will be written stays what it was."""
    Recorder(descriptor).enter(SCHEDULE, 0, 1)
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    read_recorder(descriptor)
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == before


def test_stacks_lie_behind_the_note(descriptor: int) -> None:
    """One after the other, and neither harms the note."""
    Recorder(descriptor).enter(TRANSFORM, 1, 2)
    faulthandler.dump_traceback(descriptor)
    once = read_recorder(descriptor)
    faulthandler.dump_traceback(descriptor)
    twice = read_recorder(descriptor)

    name = test_stacks_lie_behind_the_note.__name__
    assert (once.stack.count(name), twice.stack.count(name)) == (1, 2)
    assert (twice.hook, twice.patient, twice.ordinal) == (TRANSFORM, 1, 2)


def test_more_stacks_than_fit_harm_nobody(descriptor: int) -> None:
    """The memory has a fixed size; what is too much is lost."""
    Recorder(descriptor).enter(TRANSFORM, 1, 2)
    size = os.fstat(descriptor).st_size
    try:
        for _ in range(200):
            faulthandler.dump_traceback(descriptor)
    except OSError:
        pass
    assert os.fstat(descriptor).st_size == size
    assert read_recorder(descriptor).hook == TRANSFORM


CRASH = """
import ctypes, faulthandler, sys
from chunkdl.transport.flight_recorder import Recorder
descriptor = int(sys.argv[1])
faulthandler.enable(descriptor)
Recorder(descriptor).enter(2, 5, 6)
def the_hook():
    ctypes.string_at(0)
the_hook()
"""


def test_it_outlives_a_process_that_crashes(descriptor: int) -> None:
    """The parent reads what it did last, and where it was."""
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(descriptor)],
        pass_fds=[descriptor],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
        check=False,
    )
    recorded = read_recorder(descriptor)

    assert done.returncode < 0
    assert (HOOKS[recorded.hook], recorded.patient, recorded.ordinal) == (
        "extract_smallchunk",
        5,
        6,
    )
    assert "in the_hook" in recorded.stack
    assert "Segmentation fault" in recorded.stack


def test_a_stack_that_is_asked_for_is_all_that_is_there(descriptor: int) -> None:
    """What was written before, for whatever reason, is not taken for it."""
    os.write(descriptor, b"of long ago, and longer")
    clear_stack(descriptor)
    os.write(descriptor, b"of now")
    assert read_recorder(descriptor).stack == "of now"
    assert read_recorder(descriptor, stack=False).stack == ""
