"""Who reads a group's stream: the facts of the group, a seat in it, the member that has it."""

from __future__ import annotations

from dataclasses import dataclass, field

from chunkdl.sampling.shares import Cut, Rows, Share
from chunkdl.transport.protocol.credit import Credit
from chunkdl.transport.protocol.service_messages import Delivered, Position


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """What a group has to know of its stream.

    Attributes:
        name: of the group.
        broadcast: every member gets all rows, instead of its share.
        max_lag_batches: of the engine, that the fastest of a broadcast may be ahead of the slowest.
        detach: a member that keeps others waiting is sent away, instead of waited for.
        patience_s: after so long, seconds.
        batch_rows: of a batch of the engine.
        row_bytes: of one row, about.
        most_rows: that may be wanted at a time; more would never be in memory together.
        finite: the stream has passes that end.
        drop_last: the short step at the end of a pass is left out.
        plan_hash, seed: of the stream.
    """

    name: str
    broadcast: bool
    max_lag_batches: int
    detach: bool
    patience_s: float
    batch_rows: int
    row_bytes: int
    most_rows: int
    finite: bool
    drop_last: bool
    plan_hash: str
    seed: int


@dataclass(slots=True)
class Seat:
    """Where a rank, or a member of a broadcast, stands.

    Attributes:
        share: what it gets of what is left.
        start: where it stood before its step 0.
        step: that it gets next.
        owner: session of the member that has the seat; empty: nobody.
        ended: it has been told that the pass is over.
        came: somebody has had the seat.
    """

    share: Share
    start: Position
    step: int = 0
    owner: str = ""
    ended: bool = False
    came: bool = False
    _cut: tuple[object, Cut] | None = None
    _row: tuple[object, int] | None = None

    @property
    def epoch(self) -> int:
        """Number of the pass."""
        return self.start.left.epoch

    def next_row(self) -> int:
        """The first row that it may still get, or one before it."""
        # Asked for every time that anything happens, and the same until the next step.
        asked = self.start, self.step
        if self._row is None or self._row[0] != asked:
            # A short last step is dealt out anew; a step begins with the first row of all ranks.
            first = self.step * self.share.step_rows
            self._row = asked, self.start.left.take(first, first + 1)[0][0]
        return self._row[1]

    def cut(self, total: int | None, *, drop_last: bool) -> Cut:
        """The rows of its next step; see `Share.cut`."""
        asked = self.start, self.step, total, drop_last
        if self._cut is None or self._cut[0] != asked:
            cut = self.share.cut(self.start.left, self.step, total, drop_last=drop_last)
            self._cut = asked, cut
        return self._cut[1]

    def needs(self, rows: Rows, total: int | None) -> bool:
        """Whether it will get any of these rows."""
        return self.share.needs(self.start.left, self.step, rows, total)


@dataclass(slots=True)
class Member:
    """A consumer in a group.

    Attributes:
        seat: that it has.
        credit: how much more it may be sent.
        flows: it may be sent batches now.
        used: it has given something back, so it has used some.
        held: the deliveries that it has not given back, by number.
        next_number: of the next delivery.
    """

    seat: Seat
    credit: Credit
    flows: bool = False
    used: bool = False
    held: dict[int, Delivered] = field(default_factory=dict)
    next_number: int = 0
    _keys: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    def lend(self, delivery: Delivered, keys: tuple[tuple[int, int], ...]) -> None:
        """It is sent a batch, cut out of these batches (epoch, number) of the engine."""
        self.held[delivery.number] = delivery
        self._keys[delivery.number] = keys
        self.next_number += 1

    def give_back(self, number: int) -> tuple[tuple[int, int], ...]:
        """It has given a batch back; the batches that it was cut out of."""
        del self.held[number]
        return self._keys.pop(number)
