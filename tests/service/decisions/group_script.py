"""What a simulated service must deliver, worked out from lists of rows; its engine and consumers.

The engine has slots with content and makes batches only into free ones.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from chunkdl.sampling.shares import Remainder
from chunkdl.service.decisions.actions import (
    Peer,
    StartEngine,
)
from chunkdl.service.decisions.members import GroupFacts
from chunkdl.service.decisions.sessions import DeskFacts
from chunkdl.transport.protocol.engine_messages import BatchReady, End
from chunkdl.transport.protocol.service_messages import (
    NextPass,
    PassEnded,
    Position,
)
from chunkdl.transport.row_format import RowFormat

GROUP = "train"
PLAN_HASH = "f00d" * 16
ROWS_HASH = "beef" * 16
SILENT_S, GRACE_S, PATIENCE_S = 5.0, 30.0, 10.0
ROW_BYTES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One world, before anything has happened in it; `totals` are the rows of its passes."""

    broadcast: bool = False
    batch_rows: int = 4
    slots: int = 8
    totals: tuple[int, ...] = ()
    drop_last: bool = False
    max_lag_batches: int = 2
    detach: bool = False
    credit_batches: int = 3
    credit_bytes: int = 200
    max_consumers: int = 6

    def total(self, epoch: int) -> int | None:
        """Rows of a pass as the engine makes them; None: endless."""
        if not self.totals:
            return None
        rows = self.totals[epoch % len(self.totals)]
        return rows // self.batch_rows * self.batch_rows if self.drop_last else rows

    def group_facts(self) -> GroupFacts:
        """The same for the group."""
        return GroupFacts(
            name=GROUP,
            broadcast=self.broadcast,
            max_lag_batches=self.max_lag_batches,
            detach=self.detach,
            patience_s=PATIENCE_S,
            batch_rows=self.batch_rows,
            row_bytes=ROW_BYTES,
            most_rows=2**20,
            finite=bool(self.totals),
            drop_last=self.drop_last,
            plan_hash=PLAN_HASH,
            seed=1,
        )

    def desk_facts(self) -> DeskFacts:
        """The same for the desk."""
        return DeskFacts(
            rows_hash=ROWS_HASH,
            seed=1,
            batch_rows=self.batch_rows,
            row_format=RowFormat.of_crops(8),
            patients=0,
            slides=0,
            max_consumers=self.max_consumers,
            credit_batches=self.credit_batches,
            credit_bytes=self.credit_bytes,
            silent_s=SILENT_S,
            grace_s=GRACE_S,
            batch_slots=2**20,
            most_calls=2**20,
        )


def is_dropped(epoch: int, row: int) -> bool:
    """Whether a row of the stream holds nothing."""
    return (row * 7 + epoch) % 11 == 3


def rows_left(left: Remainder, total: int | None, most: int) -> list[int]:
    """The first rows that are left, one by one."""
    listed = [row for first, end in left.left for row in range(first, end)]
    listed += range(left.tail, left.tail + most)
    return [row for row in listed if total is None or row < total][:most]


@dataclass(slots=True)
class Seat:
    """Where a rank, or a member of a broadcast, must stand."""

    rank: int
    world_size: int
    batch_rows: int
    left: Remainder
    step: int = 0
    ended: bool = False
    owner: str = ""

    def chunk(self, total: int | None, step: int | None = None) -> list[int]:
        """The rows of all ranks in a step."""
        size = self.world_size * self.batch_rows
        number = self.step if step is None else step
        return rows_left(self.left, total, (number + 1) * size)[number * size :]

    def rows(self, total: int | None, step: int | None = None, *, drop_last: bool) -> list[int]:
        """Its rows in a step."""
        chunk = self.chunk(total, step)
        if len(chunk) == self.world_size * self.batch_rows:
            return chunk[self.rank * self.batch_rows :][: self.batch_rows]
        if drop_last or len(chunk) < self.world_size:
            return []
        bounds = [len(chunk) * rank // self.world_size for rank in range(self.world_size + 1)]
        return chunk[bounds[self.rank] : bounds[self.rank + 1]]

    def next_row(self) -> int:
        """The first row of its next step."""
        size = self.world_size * self.batch_rows
        return rows_left(self.left, None, self.step * size + 1)[-1]


@dataclass(slots=True)
class Arrived:
    """A batch that a consumer has; `service` and `engine` say whose memory it reads, 0: none."""

    session: int
    number: int
    epoch: int
    step: int
    rows: list[int]
    service: int = 0
    engine: int = 0
    slots: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Consumer:
    """A consumer: its thread (`start`, `epoch`, `step`, `held`) and the user behind it."""

    rank: int
    world_size: int
    batch_rows: int
    local: bool
    credit_batches: int
    credit_bytes: int
    start: Position | None = None
    step: int = 0
    epoch: int = 0
    peer: Peer | None = None
    data: Peer | None = None
    lease: int | None = None
    token: str = ""
    session: str = ""
    sessions: int = 0
    joined: bool = False
    outbox: deque[NextPass] = field(default_factory=deque)
    released: deque[Arrived] = field(default_factory=deque)
    held: set[int] = field(default_factory=set)
    told: int = -1
    end: PassEnded | None = None
    ended: bool = False
    frozen: bool = False
    over: bool = False
    received: int = 0
    passes: int = 0
    inbox: deque[Arrived] = field(default_factory=deque)
    using: list[Arrived] = field(default_factory=list)
    kept: list[tuple[int, int, set[int]]] = field(default_factory=list)
    states: list[Position] = field(default_factory=list)


class SimulatedEngine:
    """What makes batches: rows in order, into free slots."""

    def __init__(self, setting: Setting, action: StartEngine) -> None:
        self._setting = setting
        self.number = action.engine
        self.epoch, self.next_batch = action.cursor.epoch, action.cursor.next_batch
        self.ended = self.dead = False
        self.slots: list[tuple[int, int] | None] = [None] * setting.slots
        """What lies in each: epoch and batch."""

    def make(self) -> BatchReady | End | None:
        """The next message; None: no slot is free, or the pass is over."""
        if self.dead:
            return None
        setting, first = self._setting, self.next_batch * self._setting.batch_rows
        total = setting.total(self.epoch)
        rows = setting.batch_rows if total is None else min(setting.batch_rows, total - first)
        if rows <= 0:
            if self.ended:
                return None
            self.ended = True
            assert total is not None
            return End(self.epoch, -(-total // setting.batch_rows))
        if None not in self.slots:
            return None
        slot = self.slots.index(None)
        self.slots[slot] = self.epoch, self.next_batch
        dropped = [row for row in range(rows) if is_dropped(self.epoch, first + row)]
        message = BatchReady(
            batch=self.next_batch,
            epoch=self.epoch,
            slot=slot,
            generation=1,
            rows=rows,
            dropped=np.array(dropped, dtype=np.int32).tobytes(),
            smallchunks_per_bigchunk=5,
            substitutions={},
        )
        self.next_batch += 1
        return message

    def rows(self, slot: int, first: int, count: int) -> tuple[int, list[int]]:
        """Epoch and rows of the stream that lie there."""
        content = self.slots[slot]
        assert content is not None, "a slot with nothing in it was sent"
        epoch, batch = content
        low = batch * self._setting.batch_rows + first
        total = self._setting.total(epoch)
        assert first + count <= self._setting.batch_rows
        assert total is None or low + count <= total
        return epoch, list(range(low, low + count))
