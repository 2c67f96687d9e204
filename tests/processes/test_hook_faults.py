"""What the user's code does wrong is told with its name, its patient and its place."""

from __future__ import annotations

from typing import Any

import pytest

from chunkdl import Dataset, LightDL, Patient
from chunkdl.errors import HookError, HookTimeout, SlideError, WorkerDied
from tests.processes.faulty_hooks import (
    FaultyCollector,
    FaultyLoader,
    FaultyPolicy,
    FaultyTransform,
)

PATIENTS = Dataset("patients", [Patient(10 + number, {}) for number in range(4)])
STREAM: dict[str, Any] = {
    "batch_size": 8,
    "num_bigchunks": 2,
    "smallchunks_per_bigchunk": 10,
    "num_loaders": 1,
    "num_collectors": 1,
    "memory_limit": "64MiB",
    "seed": 5,
}


def faulty(where: str, what: str, **more: Any) -> LightDL:
    """A loader whose user code does `what` at `where`."""
    settings = {"where": where, "what": what}
    if where == "transform":
        more["tfms"] = FaultyTransform(what)
    if where == "policy":
        more["schedule"] = FaultyPolicy(what)
    return LightDL(PATIENTS, FaultyLoader, FaultyCollector, settings, **{**STREAM, **more})


def run_out(loader: LightDL, batches: int = 100) -> None:
    """Take batches until there is an error; fails without one."""
    with loader:
        for _ in range(batches):
            loader.next_batch(60)


HOOKS = {
    "loader init": "FaultyLoader.__init__",
    "collector init": "FaultyCollector.__init__",
    "transform": "FaultyTransform",
}


@pytest.mark.parametrize("where", HOOKS)
def test_an_exception_of_the_user_says_what_where_and_of_whom(where: str) -> None:
    """Type, message, patient and hook, and the remote lines as the cause; again at every get."""
    loader = faulty(where, "raise")
    with pytest.raises(HookError, match=r"KeyError: 'a mistake of the user'") as caught:
        run_out(loader)

    error = caught.value
    assert (error.kind, error.hook) == ("KeyError", HOOKS[where])
    assert error.patient == PATIENTS[1].name
    assert error.patient in str(error)
    assert 'raise KeyError("a mistake of the user")' in str(error.__cause__)


def test_a_slide_error_of_a_hook_stays_one() -> None:
    """With its slide."""
    with pytest.raises(SlideError, match="the scanner slipped") as caught:
        run_out(faulty("loader", "slide", on_error="raise"))
    assert caught.value.slide == "/data/a.svs"


@pytest.mark.parametrize("where", ["loader", "collector"])
def test_a_hook_that_hangs_without_a_deadline_is_named_after_stall_timeout(where: str) -> None:
    """Its worker is replaced; a second try is all it gets."""
    loader = faulty(where, "hang", stall_timeout=1.0, on_error="raise")
    with pytest.raises(WorkerDied, match="silent for too long") as caught:
        run_out(loader)

    assert "wait_for_ever" in str(caught.value)
    assert PATIENTS[1].name in str(caught.value)


def test_a_policy_that_hangs_ends_the_stream_after_stall_timeout() -> None:
    """There is no other policy to go on with; the error has its stack."""
    with pytest.raises(HookTimeout, match="stall_timeout=1 s") as caught:
        run_out(faulty("policy", "hang", stall_timeout=1.0))

    assert "wait_for_ever" in str(caught.value)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("transform", "segfault"),
        ("policy", "segfault"),
        ("loader", "exit"),
        ("collector init", "exit"),
    ],
)
def test_a_hook_that_ends_its_process_is_named(where: str, what: str) -> None:
    """How it ended, of whom, and for a crash the stack; it gets few tries."""
    loader = faulty(where, what, on_error="raise", max_restarts=3)
    with pytest.raises(WorkerDied) as caught:
        run_out(loader)

    message = str(caught.value)
    assert ("SIGSEGV" if what == "segfault" else "ended with 3") in message
    if where != "policy":
        assert PATIENTS[1].name in message
    if what == "segfault":
        assert "string_at" in message


@pytest.mark.parametrize("where", ["loader init", "collector"])
def test_what_raises_is_replaced_where_the_user_wants_it(where: str) -> None:
    """The others go on, and what was left out is counted."""
    with faulty(where, "raise", on_error="substitute") as loader:
        rows = [row for _ in range(15) for row in loader.next_batch(60)["image"].tolist()]
        assert loader.stats(60).substitutions > 0

    # Of its BigChunks only what was made before the mistake.
    assert all(where == "collector" and row[-1] < 2 for row in rows if row[0] == 11)
    assert {row[0] for row in rows} >= {10, 12, 13}
    assert len(rows) == 15 * 8


def test_a_slide_error_of_one_patient_is_replaced_as_one_of_ours() -> None:
    """By default, as for a file that is damaged; what the user's code raises is not."""
    with faulty("loader", "slide") as loader:
        rows = [row for _ in range(15) for row in loader.next_batch(60)["image"].tolist()]

    assert {row[0] for row in rows} == {10, 12, 13}
