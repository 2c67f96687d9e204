"""An interrupt at any place where Python lets one come breaks nothing."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from chunkdl import Dataset, LightDL
from chunkdl.system.sections import Section
from tests.interrupting import Interrupt


@pytest.mark.parametrize(("starts", "rounds"), [(True, 19), (False, 100)], ids=["start", "batch"])
def test_an_interrupt_anywhere_loses_no_batch(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], *, starts: bool, rounds: int
) -> None:
    """Of an end and a start, of a batch: the call after it goes on, with what was not returned."""
    drawn = random.Random(1 if starts else 2)
    with LightDL(coordinate_dataset, **small_stream) as loader:
        following = 0
        # Each place once, all over the call: at many of them an interrupt has all start anew.
        for place in drawn.sample(range(400), rounds):
            interrupt, numbers = Interrupt(place), []
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


@pytest.fixture
def interrupted_as_ever() -> Iterator[None]:
    """SIGINT is KeyboardInterrupt also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupted_as_ever")
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
