"""Memory that is being sent from is not given back."""

from __future__ import annotations

import threading
from typing import Any

import zmq

from chunkdl.service.decisions.actions import FreeBatch, FreeRemains
from chunkdl_workers.sending import Sending


class Engine:
    """What was given back to an engine of which batch b lies in slot b."""

    number = 2

    def __init__(self) -> None:
        self.freed: list[tuple[int, ...]] = []

    def slot_of(self, _: int, batch: int) -> int:
        """Where a batch lies."""
        return batch

    def free(self, epoch: int, batch: int) -> None:
        """A batch is given back."""
        self.freed.append((epoch, batch))

    def free_remains(self, engine: int, slot: int) -> None:
        """A slot of an engine before this one is given back."""
        self.freed.append((engine, slot))


def sending_of(engine: Engine) -> tuple[Sending, list[threading.Event]]:
    """Slot 0 is being sent to two consumers; an event for each says that it was."""
    engines: Any = {"train": engine}
    sending, sent = Sending(engines), [threading.Event(), threading.Event()]
    for event in sent:
        sending.began("train", engine.number, [0], zmq.MessageTracker(event))
    return sending, sent


def test_a_batch_is_given_back_when_all_to_whom_it_is_sent_have_it() -> None:
    """Whichever of them has it last; others do not wait for it."""
    for order in ((0, 1), (1, 0)):
        engine = Engine()
        sending, sent = sending_of(engine)
        sending.free(FreeBatch("train", engine.number, 0, 0))
        sending.free(FreeBatch("train", engine.number, 0, 1))
        assert engine.freed == [(0, 1)]
        assert sending.of_group("train") == {(engine.number, 0)}
        sent[order[0]].set()
        sending.settle()
        assert engine.freed == [(0, 1)]
        sent[order[1]].set()
        sending.settle()
        assert engine.freed == [(0, 1), (0, 0)]
        assert not sending.waits
        assert not sending.of_group("train")


def test_memory_of_an_engine_that_is_gone_waits_the_same_way() -> None:
    """And what was still to be given back to that engine is not given to the next one."""
    engine = Engine()
    sending, sent = sending_of(engine)
    sending.free(FreeBatch("train", engine.number, 0, 0))
    engine.number += 1
    sending.free_remains(FreeRemains("train", engine.number - 1, 0))
    sending.settle()
    assert engine.freed == []
    for event in sent:
        event.set()
    sending.settle()
    assert engine.freed == [(engine.number - 1, 0)]
