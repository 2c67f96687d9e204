"""A service ends when it is asked to and nobody has anything any more, or nobody is there."""

from __future__ import annotations

from chunkdl.service.decisions.ending import IDLE_S, Ending

DRAIN_S = 20.0


def ending(*, exit_when_idle: bool = False) -> Ending:
    """Of a service that serves."""
    return Ending(exit_when_idle=exit_when_idle, drain_s=DRAIN_S)


def test_a_question_changes_nothing() -> None:
    """However often it is asked whether the service is over, or is to drain."""
    it = ending(exit_when_idle=True)
    for now_s in range(100):
        assert not it.is_over(0, float(now_s))
        assert not it.is_to_drain(by_operator=False)
        assert not it.is_near


def test_a_drain_ends_when_all_have_left_or_after_its_time() -> None:
    """By a signal or by an operator; it begins once."""
    for by_operator in (True, False):
        it = ending()
        if not by_operator:
            it.ask()
        assert it.is_to_drain(by_operator=by_operator)
        it.begin_drain(5.0)
        assert not it.is_to_drain(by_operator=by_operator)
        assert it.is_near
        assert it.is_over(0, 5.0)
        assert not it.is_over(1, 5.0 + DRAIN_S - 0.1)
        assert it.is_over(1, 5.0 + DRAIN_S)


def test_the_second_signal_waits_for_nobody() -> None:
    """The first one does."""
    it = ending()
    it.ask()
    it.begin_drain(0.0)
    assert not it.is_over(1, 0.0)
    it.ask()
    assert it.at_once
    assert it.is_over(1, 0.0)


def test_a_service_that_ends_when_idle_waits_for_those_who_come_back_at_once() -> None:
    """And before the first one has come, for ever."""
    it = ending(exit_when_idle=True)
    it.look(0, 0, 0.0)
    assert not it.is_over(0, 100.0)
    it.look(1, 0, 100.0)
    assert not it.is_over(0, 100.0 + IDLE_S / 2)
    it.look(2, 1, 100.0 + IDLE_S / 2)
    it.look(2, 0, 200.0)
    assert not it.is_over(0, 200.0 + IDLE_S / 2)
    assert it.is_over(0, 200.0 + IDLE_S)


def test_a_service_whose_starter_has_ended_ends_with_its_last_consumer() -> None:
    """At once where nobody is there."""
    it = ending()
    it.look(1, 0, 0.0)
    assert not it.is_over(0, 100.0)
    it.starter_ended()
    assert not it.is_over(1, 100.0)
    assert it.is_over(0, 100.0)
