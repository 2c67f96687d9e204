"""The journal: what of a service that runs ahead belongs to the state of the training loop."""

from __future__ import annotations

import numpy as np

from chunkdl.engine.resume_state import ResumeState
from chunkdl.sampling.cursor import Cursor, Opening
from chunkdl.transport.memory.layouts import RECORD, Array
from chunkdl.transport.protocol.engine_messages import (
    BatchReady,
    BigChunkOpened,
    CheckpointKept,
    RowFormatSet,
)
from chunkdl.transport.row_format import RowFormat

START = Cursor(plan_hash="plan", seed=1)


def opened(
    ordinal: int, attempt: int = 0, first: int = 0, patient: int = 7, **more: object
) -> BigChunkOpened:
    """A report of a load whose patient the policy has just chosen."""
    fields = {"chosen": attempt == 0, "pure": True, "message": b"", "checkpoint": b"", **more}
    return BigChunkOpened(ordinal, attempt, first, patient, **fields)  # type: ignore[arg-type]


def rows(*pairs: tuple[int, int]) -> Array:
    """Records of rows of these (BigChunk, call)."""
    records = np.zeros(len(pairs), dtype=RECORD)
    records["bigchunk"], records["call"] = np.array(pairs).reshape(-1, 2).T
    return records


def receive(
    journal: ResumeState, cursor: Cursor, batch: int, records: Array, *closed: int
) -> Cursor:
    """The loop receives a batch."""
    cursor = cursor.delivered(batch)
    ordinals = np.asarray(closed, dtype=np.int64).tobytes()
    message = BatchReady(batch, 0, 0, 1, len(records), b"", 4, {}, ordinals)
    journal.delivered(message, records, cursor)
    return cursor


def test_what_was_opened_is_opened_again_until_it_is_delivered_whole() -> None:
    """Also what the loop has seen nothing of yet; then it is forgotten."""
    journal = ResumeState(START, 4)
    for ordinal in (0, 1):
        journal.take(opened(ordinal, patient=ordinal))
    cursor = receive(journal, START, 0, rows((0, 0), (0, 1)))
    assert set(journal.state(cursor).openings) == {0, 1}
    cursor = receive(journal, cursor, 1, rows((0, 2), (0, 3)), 0)
    state = journal.state(cursor)
    assert state.openings == {1: (Opening(0, 0, 1),)}
    assert (state.loads, state.recent) == ({0: 1, 1: 1}, (0, 1))


def test_only_so_many_patients_are_recent() -> None:
    """As many as a policy is shown as open."""
    journal = ResumeState(START, 2)
    for ordinal in range(5):
        journal.take(opened(ordinal, patient=ordinal))
    assert journal.state(START).recent == (3, 4)


def test_a_checkpoint_counts_for_others_when_its_bigchunk_is_delivered_whole() -> None:
    """Before that the load is repeated after a resume, and sets it again."""
    journal = ResumeState(START, 4)
    journal.take(opened(0, checkpoint=b"before"))
    journal.take(CheckpointKept(0, 7, b"early"))
    journal.take(CheckpointKept(0, 7, b"late"))
    cursor = receive(journal, START, 0, rows((0, 0)))
    assert journal.checkpoints == {7: b"late"}
    assert journal.state(cursor).checkpoints == {}
    assert journal.state(cursor).openings[0][0].checkpoint == b"before"
    cursor = receive(journal, cursor, 1, rows((0, 1)), 0)
    assert journal.state(cursor).checkpoints == {7: b"late"}


def test_a_checkpoint_that_was_delivered_ahead_is_not_lost() -> None:
    """In relaxed order the last row of a BigChunk may come before its turn."""
    journal = ResumeState(START, 4)
    journal.take(opened(0))
    journal.take(CheckpointKept(0, 7, b"late"))
    cursor = receive(journal, START, 1, rows((0, 1)), 0)
    state = journal.state(cursor)
    assert (state.ahead, state.checkpoints) == ((1,), {7: b"late"})
    assert set(state.openings) == {0}, "a row of batch 0 is still to be made of it"
    assert journal.state(receive(journal, cursor, 0, rows((0, 0)))).openings == {}


def test_attempts_that_no_later_row_needs_are_forgotten() -> None:
    """The one that the next row is made from stays, with all after it."""
    journal = ResumeState(START, 4)
    for attempt, first in enumerate((0, 2, 5)):
        journal.take(opened(0, attempt, first))
    journal.take(CheckpointKept(0, 7, b"of the third"))
    cursor = receive(journal, START, 0, rows((0, 0), (0, 1), (0, 2)))
    assert [o.attempt for o in journal.state(cursor).openings[0]] == [1, 2]
    cursor = receive(journal, cursor, 1, rows((0, 3), (0, 4)))
    assert [o.attempt for o in journal.state(cursor).openings[0]] == [2]
    assert journal.state(cursor).checkpoints == {}


def test_a_load_that_is_repeated_after_a_resume_counts_once() -> None:
    """And those after it are still known, until they are repeated, too."""
    journal = ResumeState(START, 4)
    for attempt, first in enumerate((0, 2, 5)):
        journal.take(opened(0, attempt, first))
    state = journal.state(START)
    again = ResumeState(state, 4)
    again.take(opened(0, chosen=False))
    assert again.state(state) == state


def test_a_load_that_went_otherwise_after_a_resume_replaces_what_was_noted() -> None:
    """The message of one that was not repeated waits again for the next load."""
    journal = ResumeState(START, 4)
    journal.take(opened(0))
    journal.take(opened(0, 1, 2, message=b"m"))
    again = ResumeState(journal.state(START), 4)
    again.take(opened(0, 1, 1, patient=3))
    state = again.state(START)
    assert state.openings == {0: (Opening(0, 0, 7), Opening(1, 1, 3))}
    assert state.messages == {7: b"m"}


def test_a_message_that_was_delivered_ahead_of_a_resume_stays_taken() -> None:
    """Its BigChunk is not opened again, so nothing more is heard of it than its end."""
    journal = ResumeState(START, 4)
    journal.take(opened(1, message=b"m"))
    cursor = receive(journal, START, 1, rows((1, 0)), 1)
    again = ResumeState(journal.state(cursor), 4)
    cursor = receive(again, cursor, 0, rows((0, 0)), 1)
    assert again.state(cursor).messages == {}
    assert again.state(cursor).openings == {}


def test_a_message_waits_until_a_load_has_taken_it() -> None:
    """A newer one to the same patient is not taken with it."""
    journal = ResumeState(START, 4)
    journal.messages = {7: b"old", 8: b"other"}
    journal.take(opened(0, message=b"old"))
    assert journal.state(START).messages == {8: b"other"}
    journal.messages[7] = b"new"
    journal.take(opened(1, message=b"old"))
    assert journal.state(START).messages == {7: b"new", 8: b"other"}


def test_a_stream_that_was_once_steered_from_outside_stays_so() -> None:
    """Also after a resume, whose service knows nothing of it."""
    journal = ResumeState(START, 4)
    journal.take(opened(0, pure=False))
    state = journal.state(START)
    again = ResumeState(state, 4)
    again.take(opened(0, chosen=False))
    again.take(opened(1))
    assert not again.state(state).deterministic


def test_the_shape_of_the_rows_is_kept() -> None:
    """None before the service has said it."""
    journal = ResumeState(START, 4)
    assert journal.row_format is None
    journal.take(RowFormatSet(RowFormat.of_crops(8)))
    assert journal.row_format == RowFormat.of_crops(8)
