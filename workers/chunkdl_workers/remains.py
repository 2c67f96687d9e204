"""Memory of engines that are gone, as far as consumers still read batches in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from chunkdl.transport.memory.arena import give_back_memory


@dataclass(slots=True)
class _Memory:
    """Of one engine.

    Attributes:
        descriptor: of it.
        slot_bytes, slots: how it is cut.
        read: slots that somebody reads; None: not known yet.
    """

    descriptor: int
    slot_bytes: int
    slots: int
    read: set[int] | None = None


class Remains:
    """What the engines of a group have left, each with its number.

    Consumers have the memory mapped, so it is not free before they drop it all; what nobody reads
    of it is given back to the system under their hands.
    """

    def __init__(self) -> None:
        self._of: dict[int, _Memory] = {}

    @property
    def slots(self) -> int:
        """How many slots are still read."""
        return sum(len(memory.read or ()) for memory in self._of.values())

    def keep(self, engine: int, descriptor: int, slots: int, slot_bytes: int) -> None:
        """An engine ends; a copy of the descriptor is kept."""
        # Without one it is whole until consumers drop it.
        with contextlib.suppress(OSError):
            self._of[engine] = _Memory(os.dup(descriptor), slot_bytes, slots)

    def trim(self, read: Iterable[tuple[int, int]], sent: Iterable[tuple[int, int]]) -> None:
        """Give back what nobody reads.

        Args:
            read: (engine, slot) that somebody reads until `free`.
            sent: (engine, slot) of which something may still be on its way.
        """
        by_engine: dict[int, set[int]] = {engine: set() for engine in self._of}
        for engine, slot in read:
            by_engine.setdefault(engine, set()).add(slot)
        on_its_way = set(sent)
        for engine, memory in tuple(self._of.items()):
            memory.read = by_engine[engine]
            for slot in range(memory.slots):
                if slot not in memory.read and (engine, slot) not in on_its_way:
                    self._give_back(memory, slot)
            self._close_if_unread(engine, memory)

    def free(self, engine: int, slot: int) -> None:
        """Nobody reads a slot any more."""
        memory = self._of.get(engine)
        if memory is None:
            return
        self._give_back(memory, slot)
        if memory.read is not None:
            memory.read.discard(slot)
            self._close_if_unread(engine, memory)

    def close(self) -> None:
        """Keep nothing any more; consumers still have what they read."""
        for memory in self._of.values():
            os.close(memory.descriptor)
        self._of.clear()

    def _give_back(self, memory: _Memory, slot: int) -> None:
        give_back_memory(memory.descriptor, slot * memory.slot_bytes, memory.slot_bytes)

    def _close_if_unread(self, engine: int, memory: _Memory) -> None:
        if not memory.read:
            os.close(memory.descriptor)
            del self._of[engine]
