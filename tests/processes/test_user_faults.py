"""What becomes of a stream when the user's code raises, hangs, crashes or gives the wrong thing."""

from __future__ import annotations

from typing import Any

import pytest

from chunkdl import Dataset, LightDL, Patient
from chunkdl.errors import ChunkdlError, ConfigError, HookError, HookTimeout, WorkerDied
from tests.processes.failing_classes import (
    BAD,
    Collector,
    FailingPolicy,
    HangingPolicy,
    Loader,
    NeverNow,
    failing_transform,
    hanging_transform,
)

DATASET = Dataset("patients", [Patient(10 + n, {}) for n in range(6)])
BATCHES = 30


def loader_of(do: str, **more: Any) -> LightDL:
    """A loader whose user code does that over one of six patients."""
    arguments: dict[str, Any] = {
        "batch_size": 8,
        "num_bigchunks": 3,
        "smallchunks_per_bigchunk": 10,
        "num_loaders": 1,
        "num_collectors": 1,
        "memory_limit": "256MiB",
        "const_global_info": {"do": do},
    }
    return LightDL(DATASET, Loader, Collector, **{**arguments, **more})


def consume(loader: LightDL) -> set[int]:
    """The patients of some batches."""
    with loader:
        return {
            patient.int_uniqueid
            for _ in range(BATCHES)
            for patient in loader.next_batch(60).patients
        }


RAISED = {
    "raise in loader": ("KeyError", "Loader.extract_bigchunk", "no such key"),
    "raise in init": ("OSError", "Collector.__init__", "no init"),
    "raise in collector": ("ZeroDivisionError", "Collector.extract_smallchunk", "by zero"),
    "unpicklable": (
        "PackingError",
        "Loader.extract_bigchunk",
        "lock.*cannot be pickled|cannot pickle.*lock",
    ),
    "too large": ("PackingError", "Loader.extract_bigchunk", "ndarray.*80.*memory_limit"),
    "empty too large": ("PackingError", "Loader.extract_bigchunk", "memory_limit"),
    "always None": ("ValueError", "Collector.extract_smallchunk", "None 500 times"),
    "not a SmallChunk": ("TypeError", "Collector.extract_smallchunk", "returned a ndarray"),
    "other shape": ("PackingError", "Collector.extract_smallchunk", r"\(4, 8, 3\).*\(8, 8, 3\)"),
    "large info": ("PackingError", "Collector.extract_smallchunk", "info dicts"),
    "large checkpoint": ("PackingError", "Collector.extract_smallchunk", "a checkpoint.*31 KiB"),
}


@pytest.mark.parametrize("do", RAISED)
def test_what_a_hook_raises_reaches_get(do: str) -> None:
    """With its class, its message, the hook, the patient and the remote traceback."""
    kind, hook, message = RAISED[do]
    with pytest.raises(HookError, match=f"(?s){message}") as caught:
        consume(loader_of(do))

    error = caught.value
    assert (error.kind, error.hook, error.patient) == (kind, hook, str(BAD))
    assert "Traceback" in str(error.__cause__)


@pytest.mark.parametrize("do", [name for name in RAISED if name != "always None"])
def test_with_substitute_the_others_go_on(do: str) -> None:
    """The patient over which the hook raises is replaced, every batch is full."""
    patients = consume(loader_of(do, on_error="substitute"))

    assert patients >= {10, 11, 13, 14, 15}


def test_a_stream_in_which_a_hook_failed_says_that_it_cannot_be_repeated() -> None:
    """Whose place is filled anew first depends on when the failure was told."""
    told = []
    for do in ("", "raise in collector"):
        with loader_of(do, on_error="substitute") as loader:
            for _ in range(BATCHES):
                loader.next_batch(60)
            told.append(loader.state_dict()["deterministic"])
    assert told == [True, False]


def test_a_hook_that_always_raises_ends_the_stream_all_the_same() -> None:
    """Substitutes have a budget."""
    only = Dataset("bad", [Patient(BAD, {})])
    with (
        LightDL(
            only,
            Loader,
            Collector,
            const_global_info={"do": "raise in loader"},
            on_error="substitute",
        ) as loader,
        pytest.raises(ChunkdlError, match="100 substitutes in a row"),
    ):
        loader.get(60)


@pytest.mark.parametrize("do", ["nothing left", "always exhausted"])
def test_a_patient_with_nothing_to_give_is_left_to_the_others(do: str) -> None:
    """Whichever hook says so."""
    assert consume(loader_of(do)) == {10, 11, 13, 14, 15}


def test_what_a_transform_raises_reaches_get() -> None:
    """As of a hook."""
    with pytest.raises(HookError, match="LookupError: no transform") as caught:
        consume(loader_of("", tfms=failing_transform))
    assert (caught.value.hook, caught.value.patient) == ("failing_transform", str(BAD))


def test_what_a_policy_raises_reaches_get() -> None:
    """As of a hook, without a patient."""
    with pytest.raises(HookError, match="RuntimeError: no choice") as caught:
        consume(loader_of("", schedule=FailingPolicy()))
    assert caught.value.hook == "FailingPolicy.choose"


def test_a_policy_that_never_chooses_is_an_error() -> None:
    """And not a wait for ever."""
    with pytest.raises(HookError, match="not now"):
        consume(loader_of("", schedule=NeverNow()))


@pytest.mark.parametrize(
    ("do", "more", "hook"),
    [
        ("hang in loader", {}, "extract_bigchunk"),
        ("hang in collector", {}, "extract_smallchunk"),
        ("", {"tfms": hanging_transform}, "the transform"),
        ("", {"schedule": HangingPolicy()}, "the schedule"),
    ],
)
def test_a_call_that_does_not_come_back_is_named_with_its_stack(
    do: str, more: dict[str, Any], hook: str
) -> None:
    """After hook_timeout, at once."""
    with pytest.raises(HookTimeout, match=r"(?s)hook_timeout=1 s.*hang_here") as caught:
        consume(loader_of(do, hook_timeout=1.0, **more))
    assert caught.value.hook == hook
    assert caught.value.patient == ("" if hook == "the schedule" else str(BAD))


@pytest.mark.parametrize("do", ["hang in loader", "hang in collector"])
def test_with_substitute_a_call_that_does_not_come_back_is_skipped(do: str) -> None:
    """The others go on."""
    patients = consume(loader_of(do, hook_timeout=0.5, on_error="substitute"))
    assert patients == {10, 11, 13, 14, 15}


@pytest.mark.parametrize("do", ["crash in loader", "crash in collector"])
def test_a_crash_is_reported_with_its_stack(do: str) -> None:
    """After a second try; the last words of the worker are in the message."""
    with pytest.raises(WorkerDied, match=r"(?s)SIGSEGV.*string_at"):
        consume(loader_of(do, on_error="raise"))


def test_a_class_that_cannot_be_sent_to_the_workers_is_refused_at_once() -> None:
    """Before anything starts, with the reason."""
    import threading

    with pytest.raises(ConfigError, match=r"cannot be sent to its workers.*lock"):
        loader_of("", const_global_info={"do": threading.Lock()})
