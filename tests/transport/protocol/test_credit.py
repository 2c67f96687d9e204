"""Credit against a model: never more batches or bytes out than were granted."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chunkdl.errors import ProtocolError
from chunkdl.transport.protocol.credit import MAX_CREDIT, Credit


class CreditMachine(RuleBasedStateMachine):
    """Grants, batches and returns in any order, allowed or not."""

    limit_bytes: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.credit = Credit(self.limit_bytes)
        self.granted = 0
        self.out: list[int] = []

    def _fits(self, size_bytes: int) -> bool:
        if len(self.out) >= self.granted:
            return False
        return not self.out or sum(self.out) + size_bytes <= (self.limit_bytes or 10**9)

    @rule(batches=st.one_of(st.integers(-2, 4), st.integers(MAX_CREDIT - 4, MAX_CREDIT + 1)))
    def grant(self, batches: int) -> None:
        """At least one, and a bounded number in all."""
        if batches < 1 or self.granted + batches > MAX_CREDIT:
            with pytest.raises(ProtocolError, match=str(MAX_CREDIT)):
                self.credit.grant(batches)
        else:
            self.credit.grant(batches)
            self.granted += batches

    @rule(size_bytes=st.integers(0, 40))
    def spend(self, size_bytes: int) -> None:
        """Only while there is credit."""
        assert self.credit.covers(size_bytes) == self._fits(size_bytes)
        if not self._fits(size_bytes):
            with pytest.raises(ProtocolError):
                self.credit.spend(size_bytes)
        else:
            self.credit.spend(size_bytes)
            self.out.append(size_bytes)

    @rule(number=st.integers(0, 9))
    def give_back(self, number: int) -> None:
        """Only what is out."""
        if not self.out:
            with pytest.raises(ProtocolError):
                self.credit.give_back()
        else:
            self.credit.give_back(self.out.pop(number % len(self.out)))

    @rule()
    def give_back_too_much(self) -> None:
        """More bytes than are out were never sent."""
        with pytest.raises(ProtocolError):
            self.credit.give_back(sum(self.out) + 1)

    @invariant()
    def never_more_is_out_than_was_granted(self) -> None:
        """And both counts are right, also after a refusal."""
        assert self.credit.outstanding == len(self.out) <= self.granted
        assert self.credit.available == self.granted - len(self.out)
        if self.limit_bytes is not None:
            assert len(self.out) <= 1 or sum(self.out) <= self.limit_bytes


class LimitedMachine(CreditMachine):
    """The same with a limit of bytes; a single batch may always be out."""

    limit_bytes = 50


TestCreditMachine = CreditMachine.TestCase
TestCreditMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestLimitedMachine = LimitedMachine.TestCase
TestLimitedMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
