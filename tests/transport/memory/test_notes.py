"""Notes: small objects between loads and processes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.errors import PackingError
from chunkdl.transport.memory.notes import MAX_NOTE_BYTES, note_of, value_of
from chunkdl.transport.protocol.codec import decode, encode
from chunkdl.transport.protocol.engine_messages import BigChunkOpened

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(PLAIN)
def test_a_note_comes_back_as_it_was(value: Any) -> None:
    """Whatever it is; None is not a bytes at all."""
    note = note_of(value, "a message")
    assert value_of(note) == value
    assert (note == b"") == (value is None)


def test_what_comes_back_is_a_copy() -> None:
    """Nobody sees what another one changes in it later."""
    mine = {"seen": np.arange(3)}
    note = note_of(mine, "a checkpoint")
    mine["seen"][0] = 9
    first, second = value_of(note), value_of(note)
    first["seen"][1] = 9
    assert second["seen"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "value", ["x" * MAX_NOTE_BYTES, threading.Lock(), np.zeros(MAX_NOTE_BYTES)]
)
def test_a_note_that_cannot_travel_is_refused(value: Any) -> None:
    """By its name, with what to do instead."""
    with pytest.raises(PackingError, match="a status is pickled into at most 31 KiB; keep large"):
        note_of(value, "a status")


def test_two_of_the_largest_notes_fit_into_one_message() -> None:
    """As a load that gets both a message and a checkpoint needs it."""
    note = b"x" * MAX_NOTE_BYTES
    message = BigChunkOpened(2**40, 100, 10**6, 4999, True, True, note, note)
    assert decode(encode(message)) == message
