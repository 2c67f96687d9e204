"""Where every random number of the plan comes from.

A generator is named by (seed, purpose, ordinal, attempt) and by nothing else: no clock, no pid, no
rank, no order of calls. Philox is counter-based, so generators of different names never overlap
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11).
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a generator is used for; the numbers are part of the plan and never change."""

    SCHEDULE = 1
    """The order of patients in a round of the schedule."""
    SUBSTITUTE = 2
    """The patient that replaces one that cannot be used."""
    SLIDE = 3
    """Which slide of the patient."""
    WINDOW = 4
    """The anchor and the window of a BigChunk."""
    POSITIONS = 5
    """The positions inside a window."""
    ROTATION = 6
    """The order of the open places in a round."""
    GRID = 7
    """The order of slides and windows in a grid pass."""
    BIGCHUNK = 8
    """What the hook that extracts a BigChunk draws."""
    SMALLCHUNK = 9
    """What the hook that extracts a SmallChunk, and its transform, draw."""
    TRANSFORM = 10
    """What generators that a transform keeps for itself draw."""
    RESOLUTION = 11
    """The resolution of a BigChunk, where it is drawn."""
    PROBE = 12
    """The places of a slide by which it is found out whether a pixel filter passes any."""
    REGION = 13
    """The class of annotations that a BigChunk is drawn from, in its slide."""
    STRATUM = 14
    """The slide and the class that a BigChunk is drawn from, in a round of them."""
    CYCLE = 16
    """The order of windows, and of positions in them, in a cycle of a slide."""


MAX_SEED = 2**64 - 1


def generator(
    seed: int, purpose: Purpose, ordinal: int = 0, attempt: int = 0, call: int = 0
) -> np.random.Generator:
    """The generator of that name; equal names give equal numbers on every machine.

    Args:
        seed: of the stream, 0 to 2**64 - 1.
        purpose: what the numbers are for.
        ordinal: which of the things of that purpose, at least 0.
        attempt: how often that thing was replaced before, at least 0.
        call: which of several uses of that thing, at least 0.
    """
    key = np.array([seed, purpose], dtype=np.uint64)
    # The lowest counter word is the generator's own; 2**64 blocks of numbers fit under each name.
    counter = np.array([0, call, ordinal, attempt], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def number(seed: int, purpose: Purpose, ordinal: int, attempt: int, call: int) -> int:
    """A number of that name, 0 to 2**64 - 1, to seed generators of other libraries with."""
    name = struct.pack("<5Q", seed, purpose, ordinal, attempt, call)
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def nth(number: int, index: int) -> int:
    """Of the numbers that belong to a number, the one of that index, 0 to 2**64 - 1."""
    name = struct.pack("<2Q", number, index)
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
