"""What every state says of itself, and how one is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chunkdl.errors import StateError
from chunkdl.sampling.state_envelope import LOADERS, STATE_VERSION, Kind, unwrapped, wrapped

KINDS: tuple[Kind, ...] = ("embedded", "service", "services", "machines")


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_comes_back_with_its_epoch(kind: Kind) -> None:
    """The same four names for each kind, beside what only that one knows."""
    state = wrapped(kind, {"rows": ({"first": (3,)},)}, epoch=2, epoch_batches=None)
    assert list(state)[:4] == ["version", "kind", "epoch", "epoch_batches"]
    assert unwrapped(state, kind) == {"epoch": 2, "epoch_batches": None, "rows": [{"first": [3]}]}
    assert json.loads(json.dumps(state)) == state


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_another_kind_of_loader_is_refused_by_both_names(kind: Kind) -> None:
    """And it is said what to do."""
    state = wrapped(kind, {}, epoch=0, epoch_batches=None)
    for here in set(KINDS) - {kind}:
        with pytest.raises(StateError, match="load the state into a loader of its kind") as error:
            unwrapped(state, here)
        words = str(error.value)
        assert f"of kind {kind!r}, saved by {LOADERS[kind]}" in words
        assert f"this loader is of kind {here!r} ({LOADERS[here]})" in words


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_another_version_is_refused_by_its_number(kind: Kind) -> None:
    """Whatever else is in it, and before its kind is looked at, which may have other names."""
    state = {**wrapped(kind, {}, epoch=0, epoch_batches=None)}
    for other in (STATE_VERSION - 1, STATE_VERSION + 1, "two"):
        for changed in ({"version": other}, {"version": other, "kind": "new", "epoch": "0"}):
            with pytest.raises(
                StateError, match=f"has version {other}, .* reads version {STATE_VERSION}; continue"
            ):
                unwrapped({**state, **changed}, kind)


SOUND = wrapped("service", {}, epoch=0, epoch_batches=None)


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        "state",
        {},
        {"epoch": 0, "epoch_batches": None, "kind": "service"},
        {"version": STATE_VERSION},
        {**SOUND, "kind": "other"},
        {**SOUND, "kind": ["service"]},
        {**SOUND, "epoch": -1},
        {**SOUND, "epoch": True},
        {**SOUND, "epoch_batches": 1.5},
        {name: SOUND[name] for name in SOUND if name != "epoch_batches"},
    ],
    ids=str,
)
def test_what_is_no_state_is_refused_as_such(state: Any) -> None:
    """With what is wrong with it."""
    with pytest.raises(StateError, match=r"not a state of a chunkdl stream: \w"):
        unwrapped(state, "service")
