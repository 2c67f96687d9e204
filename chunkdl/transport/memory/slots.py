"""The ledger of an arena's slots: who may write or read which slot. Pure; holds no memory.

::

    FREE ──acquire──▶ WRITING ──publish(readers)──▶ READY ──release (last reader)──▶ FREE
                         └────────abandon─────────────────────────────────────────────▲

Every acquisition has a new generation number, and every later call must name it, so a message that
arrives late can never free or publish a slot that has long been somebody else's. An illegal move
raises and leaves the ledger as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from chunkdl.errors import ProtocolError


class SlotState(Enum):
    """Where a slot is in its life."""

    FREE = "free"
    WRITING = "writing"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to one use of one slot."""

    slot: int
    generation: int


@dataclass(slots=True)
class _Slot:
    state: SlotState = SlotState.FREE
    generation: int = 0
    readers: int = 0


class SlotLedger:
    """The slots of one arena; owned by the coordinator.

    Args:
        count: slots of the arena, at least 1.
    """

    def __init__(self, count: int) -> None:
        self._slots = [_Slot() for _ in range(count)]
        # The slot freed last is used next: its pages are the likeliest to be in a cache.
        self._free = list(range(count - 1, -1, -1))

    @property
    def free(self) -> int:
        """How many slots can be acquired."""
        return len(self._free)

    def state(self, slot: int) -> SlotState:
        """The state of a slot."""
        return self._slots[slot].state

    def acquire(self) -> Lease | None:
        """A free slot to write, None when there is none."""
        if not self._free:
            return None
        number = self._free.pop()
        slot = self._slots[number]
        slot.state = SlotState.WRITING
        slot.generation += 1
        return Lease(number, slot.generation)

    def publish(self, lease: Lease, readers: int = 1) -> None:
        """The writer is done; `readers` (at least 1) may read until each has released."""
        slot = self._held(lease, SlotState.WRITING)
        if readers < 1:
            raise ProtocolError(f"slot {lease.slot} was published for {readers} readers")
        slot.state = SlotState.READY
        slot.readers = readers

    def abandon(self, lease: Lease) -> None:
        """The writer gave up or is confirmed dead; nobody writes the slot any more."""
        slot = self._held(lease, SlotState.WRITING)
        self._give_back(lease.slot, slot)

    def release(self, lease: Lease) -> None:
        """One reader is done; the last one frees the slot."""
        slot = self._held(lease, SlotState.READY)
        slot.readers -= 1
        if slot.readers == 0:
            self._give_back(lease.slot, slot)

    def _give_back(self, number: int, slot: _Slot) -> None:
        slot.state = SlotState.FREE
        self._free.append(number)

    def _held(self, lease: Lease, expected: SlotState) -> _Slot:
        if not 0 <= lease.slot < len(self._slots):
            raise ProtocolError(f"there is no slot {lease.slot}")
        slot = self._slots[lease.slot]
        if slot.generation != lease.generation or slot.state is not expected:
            raise ProtocolError(
                f"slot {lease.slot} is {slot.state.value} in generation {slot.generation}, "
                f"not {expected.value} in generation {lease.generation}"
            )
        return slot
