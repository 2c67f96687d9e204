"""Classes of a user that fail, hang or crash, as `self.const_global_info["do"]` says."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import Any

import numpy as np

from chunkdl import EXHAUSTED, BigChunkLoader, Policy, SmallChunk, SmallChunkCollector
from chunkdl.sampling.policies.policy import Situation

BAD = 12
"""Id of the patient over which things go wrong."""


def hang_here() -> None:
    """A place that a stack can be looked for."""
    while True:
        time.sleep(0.05)


class Loader(BigChunkLoader):
    """A zero array per BigChunk."""

    def extract_bigchunk(self, last_message: Any) -> Any:
        """Whatever "do" says, for the bad patient."""
        do = self.const_global_info["do"] if self.patient.int_uniqueid == BAD else ""
        match do:
            case "raise in loader":
                raise KeyError("no such key")
            case "hang in loader":
                hang_here()
            case "crash in loader":
                ctypes.string_at(0)
            case "unpicklable":
                return {"lock": threading.Lock()}
            case "too large":
                return np.zeros(80 * 2**20, np.uint8)
            case "empty too large":
                self.empty((80, 1024, 1024))
            case "nothing left":
                return EXHAUSTED
        return np.full((8, 8, 3), self.patient.int_uniqueid, np.uint8)


class Collector(SmallChunkCollector):
    """The array of the BigChunk as SmallChunk."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.do = kwargs["const_global_info"]["do"] if self.patient.int_uniqueid == BAD else ""
        if self.do == "raise in init":
            raise OSError("no init")

    def extract_smallchunk(self, call_count: int, bigchunk: Any, last_message: Any) -> Any:
        """Whatever "do" says, for the bad patient."""
        match self.do:
            case "raise in collector" if call_count == 2:
                raise ZeroDivisionError("by zero")
            case "hang in collector":
                hang_here()
            case "crash in collector":
                ctypes.string_at(0)
            case "always None":
                return None
            case "not a SmallChunk":
                return bigchunk
            case "other shape" if call_count == 3:
                return SmallChunk(bigchunk[:4], {}, {}, self.patient)
            case "large info":
                return SmallChunk(bigchunk, {"much": b"x" * 9000}, {}, self.patient)
            case "large checkpoint":
                self.set_checkpoint(np.zeros(100_000))
            case "always exhausted":
                return EXHAUSTED
        return SmallChunk(bigchunk, {}, {}, self.patient)


def failing_transform(data: Any) -> Any:
    """Fails over the bad patient."""
    if int(data.flat[0]) == BAD:
        raise LookupError("no transform")
    return data


def hanging_transform(data: Any) -> Any:
    """Hangs over the bad patient."""
    if int(data.flat[0]) == BAD:
        hang_here()
    return data


class FailingPolicy(Policy):
    """Raises at the fifth choice."""

    def choose(self, now: Situation) -> int:
        """The first that waits."""
        if now.ordinal == 4:
            raise RuntimeError("no choice")
        return now.waiting[0]


class HangingPolicy(Policy):
    """Does not come back from the fifth choice."""

    def choose(self, now: Situation) -> int:
        """The first that waits."""
        if now.ordinal == 4:
            hang_here()
        return now.waiting[0]


class NeverNow(Policy):
    """Has nobody to load, for ever."""

    def choose(self, now: Situation) -> None:
        """Not now."""
        return
