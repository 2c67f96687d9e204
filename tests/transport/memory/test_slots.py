"""The ledger of slots against a simple model, and the moves that it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chunkdl.errors import ProtocolError
from chunkdl.transport.memory.slots import Lease, SlotLedger, SlotState


@dataclass
class Use:
    """One use of one slot in the model."""

    writing: bool = True
    readers: int = 0


class LedgerMachine(RuleBasedStateMachine):
    """Every move in any order, with leases that hold and leases that do not."""

    @initialize(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        """All slots are free."""
        self.count = count
        self.ledger = SlotLedger(count)
        self.uses: dict[Lease, Use] = {}
        self.all: list[Lease] = []

    def _lease(self, number: int) -> Lease:
        """A lease that holds, mostly; one of any age, or one that was never given."""
        if self.uses and number < 40:
            return list(self.uses)[number % len(self.uses)]
        if self.all and number < 55:
            return self.all[number % len(self.all)]
        return Lease(number % 6 - 1, number % 3)

    @rule()
    def acquire(self) -> None:
        """A slot that nobody uses, with a lease that never was; none only where all are used."""
        lease = self.ledger.acquire()
        if lease is None:
            assert len(self.uses) == self.count
            return
        assert 0 <= lease.slot < self.count
        assert lease.slot not in {other.slot for other in self.uses}, "reused early"
        assert lease not in self.all, "a generation came twice"
        self.uses[lease] = Use()
        self.all.append(lease)

    @rule(number=st.integers(0, 60), readers=st.integers(-1, 3))
    def publish(self, number: int, readers: int) -> None:
        """Only what is being written, and for somebody."""
        lease = self._lease(number)
        use = self.uses.get(lease)
        if use is None or not use.writing or readers < 1:
            with pytest.raises(ProtocolError):
                self.ledger.publish(lease, readers)
            return
        self.ledger.publish(lease, readers)
        self.uses[lease] = Use(False, readers)

    @rule(number=st.integers(0, 60))
    def abandon(self, number: int) -> None:
        """Only what is being written."""
        lease = self._lease(number)
        use = self.uses.get(lease)
        if use is None or not use.writing:
            with pytest.raises(ProtocolError):
                self.ledger.abandon(lease)
            return
        self.ledger.abandon(lease)
        del self.uses[lease]

    @rule(number=st.integers(0, 60))
    def release(self, number: int) -> None:
        """Once for every reader, and not once more."""
        lease = self._lease(number)
        use = self.uses.get(lease)
        if use is None or use.writing:
            with pytest.raises(ProtocolError):
                self.ledger.release(lease)
            return
        self.ledger.release(lease)
        use.readers -= 1
        if use.readers == 0:
            del self.uses[lease]

    @invariant()
    def the_ledger_agrees_with_the_model(self) -> None:
        """In the state of every slot, also after a refused move; so no slot is ever lost."""
        if not hasattr(self, "ledger"):
            return
        states = dict.fromkeys(range(self.count), SlotState.FREE)
        for lease, use in self.uses.items():
            states[lease.slot] = SlotState.WRITING if use.writing else SlotState.READY
        assert {slot: self.ledger.state(slot) for slot in range(self.count)} == states
        assert self.ledger.free == self.count - len(self.uses)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_slot_that_was_freed_last_is_used_next() -> None:
    """Its pages are the likeliest to be in a cache."""
    ledger = SlotLedger(3)
    leases = [ledger.acquire() for _ in range(3)]
    assert [lease.slot for lease in leases if lease] == [0, 1, 2]
    assert leases[1] is not None
    ledger.abandon(leases[1])
    assert ledger.acquire() == Lease(1, 2)


def test_a_refusal_says_what_the_slot_is_and_what_it_was_thought_to_be() -> None:
    """State and generation, both of them."""
    ledger = SlotLedger(1)
    old = ledger.acquire()
    assert old is not None
    ledger.abandon(old)
    ledger.acquire()
    with pytest.raises(ProtocolError, match=r"slot 0 is writing in generation 2, not .*1"):
        ledger.publish(old)
