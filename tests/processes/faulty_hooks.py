"""Classes of a user that do something wrong, at the place and for the patient that they are told.

Imports no torch and no pytest, so that the workers need neither.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

import numpy as np

from chunkdl import BigChunk, BigChunkLoader, Policy, SmallChunk, SmallChunkCollector
from chunkdl.errors import SlideError
from chunkdl.sampling.policies.policy import Situation


def wait_for_ever() -> None:
    """The function that a stack has to name."""
    while True:
        time.sleep(1)


def do(what: str) -> None:
    """Do the wrong thing of that name."""
    match what:
        case "raise":
            raise KeyError("a mistake of the user")
        case "hang":
            wait_for_ever()
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "slide":
            raise SlideError("the scanner slipped", slide="/data/a.svs", level=0)


class Faulty:
    """Does the wrong thing of the settings (`what`) at their place (`where`)."""

    patient: Any
    const_global_info: Any

    def at(self, where: str) -> None:
        """Here is that place; the wrong thing is done for patient 11."""
        settings = self.const_global_info
        if settings["where"] == where and self.patient.int_uniqueid == 11:
            do(settings["what"])


class FaultyLoader(Faulty, BigChunkLoader):
    """A BigChunk of a few numbers."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.at("loader init")

    def extract_bigchunk(self, last_message_fromroot: Any) -> BigChunk:
        """Numbers that the plan has drawn."""
        self.at("loader")
        return BigChunk(self.rng.integers(2**31, size=4), {}, self.patient)


class FaultyCollector(Faulty, SmallChunkCollector):
    """Rows of numbers: of the patient, of the BigChunk, of this call."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.at("collector init")

    def extract_smallchunk(
        self, call_count: int, bigchunk: Any, last_message_fromroot: Any
    ) -> SmallChunk:
        """The third one of a BigChunk is where the wrong thing is done."""
        if call_count == 2:
            self.at("collector")
        drawn = int(self.rng.integers(2**31))
        row = np.array([self.patient.int_uniqueid, *bigchunk.data, drawn, call_count])
        return SmallChunk(row, {}, {}, self.patient)


class FaultyTransform:
    """A transform that does the wrong thing for patient 11."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, row: Any) -> Any:
        if row[0] == 11:
            do(self.what)
        return row


class FaultyPolicy(Policy):
    """A policy that does the wrong thing at its fourth choice."""

    def __init__(self, what: str) -> None:
        self.what = what

    def choose(self, now: Situation) -> int:
        """The first that waits."""
        if now.ordinal == 3:
            do(self.what)
        return now.waiting[0]
