"""What the training process keeps of a stream whose patients a policy chooses, for its state.

The coordinator runs ahead of the training loop. It reports every BigChunk that it opens and every
checkpoint; what of it counts is decided here, by the batches that the loop has received.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from chunkdl.sampling.cursor import Cursor, Opening
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.memory.layouts import Array
from chunkdl.transport.protocol.engine_messages import (
    BatchReady,
    BigChunkOpened,
    CheckpointKept,
    RowFormatSet,
)
from chunkdl.transport.row_format import RowFormat

_user_log = steady_logger("chunkdl.user")

Report = RowFormatSet | BigChunkOpened | CheckpointKept


class ResumeState:
    """The reports of a service, from a cursor on.

    Args:
        cursor: where the stream begins.
        recent: patients that a policy is kept from choosing again; more are forgotten.
        log: takes what the user's classes log.
        row_format: as an engine before has settled it.
    """

    def __init__(
        self,
        cursor: Cursor,
        recent: int,
        log: Callable[[str], None] = _user_log.info,
        row_format: RowFormat | None = None,
    ) -> None:
        self.log = log
        self.row_format = row_format
        """The columns of a row that the user's code makes, once they are settled."""
        self.checkpoints: dict[int, bytes] = dict(cursor.checkpoints)
        """What each patient's collectors have set last, delivered or not."""
        self.messages: dict[int, bytes] = dict(cursor.messages)
        """To each patient, not yet taken by a load."""
        self.deterministic = cursor.deterministic
        self._kept: dict[int, bytes] = dict(cursor.checkpoints)
        self._loads: dict[int, int] = dict(cursor.loads)
        self._recent = deque(cursor.recent, maxlen=recent)
        self._openings: dict[int, list[Opening]] = {
            ordinal: list(openings) for ordinal, openings in cursor.openings.items()
        }
        self._serving: dict[int, int] = {}
        self._pending: dict[tuple[int, int], tuple[int, int, bytes]] = {}
        self._heard = 0
        self._kept_as: dict[int, int] = {}
        self._closed: dict[int, tuple[int, ...]] = {}

    def take(self, report: Report) -> None:
        """Note a report of the service."""
        match report:
            case RowFormatSet():
                self.row_format = report.format
            case BigChunkOpened():
                self._opened(report)
            case CheckpointKept():
                self.checkpoints[report.patient] = report.checkpoint
                if report.ordinal in self._serving:
                    key = report.ordinal, self._serving[report.ordinal]
                    self._heard += 1
                    self._pending[key] = self._heard, report.patient, report.checkpoint

    def _opened(self, report: BigChunkOpened) -> None:
        opening = Opening(
            report.attempt, report.first, report.patient, report.message, report.checkpoint
        )
        openings = self._openings.setdefault(report.ordinal, [])
        self._serving[report.ordinal] = report.attempt
        self.deterministic = self.deterministic and report.pure
        if opening in openings:
            # A resumed stream opens again what is noted already, and later what came after it.
            return
        for other in [other for other in openings if other.attempt >= report.attempt]:
            openings.remove(other)
            self._take_back(other)
        openings.append(opening)
        if report.chosen:
            self._loads[report.patient] = self._loads.get(report.patient, 0) + 1
            self._recent.append(report.patient)
        if report.message and self.messages.get(report.patient) == report.message:
            del self.messages[report.patient]

    def delivered(self, message: BatchReady, records: Array, cursor: Cursor) -> None:
        """The loop has received a batch.

        Args:
            message: what the service said about it.
            records: of its rows.
            cursor: after it.
        """
        closed = tuple(np.frombuffer(message.closed, dtype=np.int64).tolist())
        self._closed[message.batch] = closed
        for ordinal in closed:
            for opening in self._openings.get(ordinal, ()):
                self._retire(ordinal, opening)
        for batch in [number for number in self._closed if number < cursor.next_batch]:
            for ordinal in self._closed.pop(batch):
                # None: it was delivered whole before a resume, so nobody has opened it again.
                serving = self._serving.pop(ordinal, None)
                for opening in self._openings.pop(ordinal, ()):
                    if serving is not None and opening.attempt > serving:
                        self._take_back(opening)
                    else:
                        self._retire(ordinal, opening)
        if not cursor.ahead:
            self._prune(records)

    def _prune(self, records: Array) -> None:
        """Forget the attempts at a BigChunk that no later row needs."""
        if not any(len(openings) > 1 for openings in self._openings.values()):
            return
        for ordinal in np.unique(records["bigchunk"]).tolist():
            openings = self._openings.get(ordinal, [])
            if len(openings) > 1:
                served = int(records["call"][records["bigchunk"] == ordinal].max()) + 1
                while len(openings) > 1 and openings[1].first <= served:
                    self._retire(ordinal, openings.pop(0))

    def _take_back(self, opening: Opening) -> None:
        """A load of before the resume was not repeated; its message goes to another."""
        if opening.message:
            self.messages.setdefault(opening.patient, opening.message)

    def _retire(self, ordinal: int, opening: Opening) -> None:
        number, patient, note = self._pending.pop((ordinal, opening.attempt), (-1, -1, b""))
        # A batch that overtook another may have brought a later load of the patient before.
        if number > self._kept_as.get(patient, 0):
            self._kept_as[patient] = number
            self._kept[patient] = note

    def state(self, cursor: Cursor) -> Cursor:
        """The cursor with what the journal knows."""
        fields: dict[str, Any] = {
            "deterministic": self.deterministic,
            "loads": dict(self._loads),
            "recent": tuple(self._recent),
            "openings": {key: tuple(openings) for key, openings in self._openings.items()},
            "checkpoints": dict(self._kept),
            "messages": dict(self.messages),
        }
        return msgspec.structs.replace(cursor, **fields)
