"""Credit against a model: never more batches out than were granted."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chunkdl.errors import ProtocolError
from chunkdl.protocol.credit import MAX_CREDIT, Credit


class CreditMachine(RuleBasedStateMachine):
    """Grants, batches and returns in any order, allowed or not."""

    def __init__(self) -> None:
        super().__init__()
        self.credit = Credit()
        self.granted = self.out = 0

    @rule(batches=st.one_of(st.integers(-2, 4), st.integers(MAX_CREDIT - 4, MAX_CREDIT + 1)))
    def grant(self, batches: int) -> None:
        """At least one, and a bounded number in all."""
        if batches < 1 or self.granted + batches > MAX_CREDIT:
            with pytest.raises(ProtocolError, match=str(MAX_CREDIT)):
                self.credit.grant(batches)
        else:
            self.credit.grant(batches)
            self.granted += batches

    @rule()
    def spend(self) -> None:
        """Only while there is credit."""
        if self.out == self.granted:
            with pytest.raises(ProtocolError):
                self.credit.spend()
        else:
            self.credit.spend()
            self.out += 1

    @rule()
    def give_back(self) -> None:
        """Only what is out."""
        if self.out == 0:
            with pytest.raises(ProtocolError):
                self.credit.give_back()
        else:
            self.credit.give_back()
            self.out -= 1

    @invariant()
    def never_more_is_out_than_was_granted(self) -> None:
        """And both counts are right, also after a refusal."""
        assert self.credit.outstanding == self.out <= self.granted
        assert self.credit.available == self.granted - self.out


TestCreditMachine = CreditMachine.TestCase
TestCreditMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
