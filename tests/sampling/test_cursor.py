"""The cursor: it survives every format, refuses what is not its own, and knows what was given."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.errors import StateError
from chunkdl.sampling.cursor import Cursor, Opening
from chunkdl.sampling.rules import READING_VERSION, SAMPLING_VERSION
from chunkdl.sampling.state_envelope import STATE_VERSION

COUNTS = st.integers(0, 2**62)
NOTES = st.dictionaries(COUNTS, st.binary(max_size=20), max_size=3)
PLAN = "0123abcd"
OPENINGS = st.builds(
    Opening,
    attempt=COUNTS,
    first=COUNTS,
    patient=COUNTS,
    message=st.binary(max_size=20),
    checkpoint=st.binary(max_size=20),
)


@st.composite
def cursors(draw: st.DrawFn) -> Cursor:
    next_batch = draw(COUNTS)
    ahead = draw(st.sets(st.integers(next_batch + 1, next_batch + 50), max_size=6))
    return Cursor(
        plan_hash=PLAN,
        seed=draw(st.integers(0, 2**64 - 1)),
        epoch=draw(COUNTS),
        next_batch=next_batch,
        ahead=tuple(sorted(ahead)),
        smallchunks_per_bigchunk=draw(COUNTS),
        substitutions=draw(st.dictionaries(COUNTS, st.integers(1, 100), max_size=5)),
        deterministic=draw(st.booleans()),
        loads=draw(st.dictionaries(COUNTS, COUNTS, max_size=5)),
        recent=draw(st.lists(COUNTS, max_size=5).map(tuple)),
        openings=draw(
            st.dictionaries(COUNTS, st.lists(OPENINGS, max_size=3).map(tuple), max_size=3)
        ),
        checkpoints=draw(NOTES),
        messages=draw(NOTES),
    )


def through_json(state: dict[str, Any]) -> Any:
    return json.loads(json.dumps(state))


def through_msgpack(state: dict[str, Any]) -> Any:
    return msgpack.unpackb(msgpack.packb(state))


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every class, as `torch.load` with ``weights_only`` does for unknown ones."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not a plain data")


def through_a_checkpoint(state: dict[str, Any]) -> Any:
    return _PlainUnpickler(io.BytesIO(pickle.dumps({"loader": state}))).load()["loader"]


@pytest.mark.parametrize("through", [through_json, through_msgpack, through_a_checkpoint])
@given(cursor=cursors())
def test_a_cursor_comes_back_from_every_format_as_it_was(
    through: Callable[[dict[str, Any]], Any], cursor: Cursor
) -> None:
    """JSON, MessagePack, and a pickle that takes nothing but plain data (as torch.save)."""
    assert Cursor.from_dict(through(cursor.to_dict()), PLAN) == cursor


def test_the_state_is_small_and_made_of_plain_values() -> None:
    """Readable by a person, and with no class of chunkdl in it."""
    cursor = Cursor(plan_hash=PLAN, seed=7, next_batch=3, ahead=(5,), substitutions={12: 2, 4: 1})
    assert through_json(cursor.to_dict()) == {
        "version": STATE_VERSION,
        "kind": "embedded",
        "plan_hash": PLAN,
        "seed": 7,
        "epoch": 0,
        "epoch_batches": None,
        "next_batch": 3,
        "ahead": [5],
        "smallchunks_per_bigchunk": 0,
        "substitutions": [[4, 1], [12, 2]],
        "deterministic": True,
        "loads": [],
        "recent": [],
        "openings": [],
        "checkpoints": [],
        "messages": [],
        "rules": {"sampling": SAMPLING_VERSION, "reading": READING_VERSION},
    }


def test_what_a_policy_and_the_hooks_left_is_plain_as_well() -> None:
    """Bytes travel as text, so that JSON takes them."""
    opening = Opening(1, 4, 2, message=b"\xff\x00", checkpoint=b"")
    cursor = Cursor(
        plan_hash=PLAN,
        seed=7,
        deterministic=False,
        loads={2: 3},
        recent=(0, 2),
        openings={9: (opening,)},
        checkpoints={2: b"c"},
        messages={1: b"m"},
    )
    state = through_json(cursor.to_dict())
    assert {name: state[name] for name in ("loads", "recent", "openings", "messages")} == {
        "loads": [[2, 3]],
        "recent": [0, 2],
        "openings": [
            [
                9,
                [{"attempt": 1, "first": 4, "patient": 2, "message": "/wA=", "checkpoint": ""}],
            ]
        ],
        "messages": [[1, "bQ=="]],
    }


def test_a_cursor_is_not_changed_by_its_state() -> None:
    """What is done to the plain data stays there, and the other way round."""
    cursor = Cursor(plan_hash=PLAN, seed=7, substitutions={12: 2})
    state = cursor.to_dict()
    state["substitutions"].append([13, 1])
    assert cursor.substitutions == {12: 2}
    again = Cursor.from_dict(state, PLAN)
    state["substitutions"].clear()
    assert again.substitutions == {12: 2, 13: 1}


GOOD = Cursor(plan_hash=PLAN, seed=7, next_batch=3, ahead=(5, 6)).to_dict()


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="a list"),
        pytest.param("state", id="a text"),
        pytest.param({}, id="an empty state"),
        pytest.param({"epoch": 3, "model": {}}, id="a state of something else"),
        pytest.param({1: 2}, id="keys that are no names"),
        pytest.param({**GOOD, "seed": "7"}, id="a text for a number"),
        pytest.param({**GOOD, "next_batch": 3.5}, id="half a batch"),
        pytest.param({**GOOD, "next_batch": None}, id="no batch"),
        pytest.param({**GOOD, "returned": 3}, id="more than a state has"),
        pytest.param({k: GOOD[k] for k in GOOD if k != "messages"}, id="without messages"),
        pytest.param({**GOOD, "ahead": 5}, id="a number for a list"),
        pytest.param({**GOOD, "substitutions": None}, id="no substitutions"),
        pytest.param({**GOOD, "substitutions": [[1, 2, 3]]}, id="no pairs"),
        pytest.param({**GOOD, "substitutions": [[[1], 2]]}, id="a pair of a list"),
        pytest.param({**GOOD, "next_batch": -1}, id="a batch before the first"),
        pytest.param({**GOOD, "epoch": -1}, id="a pass before the first"),
        pytest.param({**GOOD, "seed": -1}, id="a seed below 0"),
        pytest.param({**GOOD, "seed": 2**64}, id="a seed of more than 64 bits"),
        pytest.param({**GOOD, "smallchunks_per_bigchunk": -4}, id="fewer than no SmallChunks"),
        pytest.param({**GOOD, "substitutions": [[-1, 2]]}, id="a BigChunk before the first"),
        pytest.param({**GOOD, "substitutions": [[1, -2]]}, id="an attempt before the first"),
        pytest.param({**GOOD, "checkpoints": [[1, "%"]]}, id="a note that is not a base64"),
        pytest.param({**GOOD, "openings": [[1, [{"attempt": 1}]]]}, id="half an opening"),
        pytest.param({**GOOD, "ahead": [2]}, id="ahead, but before the next"),
        pytest.param({**GOOD, "ahead": [3]}, id="ahead, but the next itself"),
        pytest.param({**GOOD, "ahead": [5, 5]}, id="delivered twice"),
        pytest.param({**GOOD, "ahead": [6, 5]}, id="out of order"),
    ],
)
def test_what_is_no_state_is_refused(state: Any) -> None:
    """With an error that says so, before anything is done with it."""
    with pytest.raises(StateError, match="not a state of a chunkdl stream"):
        Cursor.from_dict(state, PLAN)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"sampling": 0}, r"rules of sampling \(version 0 in the state, \d+ here\), so"),
        ({"reading": 99}, r"rules of reading slides \(version 99 in the state"),
        ({"sampling": 0, "reading": 1}, "sampling .* and of reading slides"),
    ],
)
def test_a_state_of_other_rules_is_refused_with_the_reason(
    rules: dict[str, int], words: str
) -> None:
    """Before it is said to be of another stream, which it is as well."""
    ours = GOOD["rules"]
    for plan in (PLAN, "another plan"):
        with pytest.raises(StateError, match=words):
            Cursor.from_dict({**GOOD, "rules": {**ours, **rules}}, plan)


def test_the_state_of_another_stream_is_refused() -> None:
    """The error lists the settings that may differ."""
    with pytest.raises(StateError, match="another stream: dataset, seed"):
        Cursor.from_dict(GOOD, "another plan")


@given(next_batch=COUNTS, order=st.permutations(range(8)))
def test_batches_delivered_in_any_order_end_at_the_same_cursor(
    next_batch: int, order: list[int]
) -> None:
    """On the way there the cursor says exactly which batches were delivered."""
    cursor = Cursor(plan_hash=PLAN, seed=1, next_batch=next_batch, substitutions={3: 1})
    given_so_far: set[int] = set()
    for step in order:
        cursor = cursor.delivered(next_batch + step)
        given_so_far.add(next_batch + step)
        assert cursor.next_batch not in given_so_far
        before = set(range(next_batch, cursor.next_batch))
        assert before | set(cursor.ahead) == given_so_far
        assert list(cursor.ahead) == sorted(given_so_far - before)
        assert Cursor.from_dict(cursor.to_dict(), PLAN) == cursor
    assert cursor == Cursor(plan_hash=PLAN, seed=1, next_batch=next_batch + 8, substitutions={3: 1})
