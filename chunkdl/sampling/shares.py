"""Who gets which rows of a stream: what is left of it, dealt out to ranks step by step. Pure.

The rows of a stream have numbers, whatever the size of its batches. What is left to be delivered
is a `Remainder`; a `Share` cuts it into the batches of one rank. In step c of W ranks with m rows
each, rank r has the rows from (c·W + r)·m on of what was left, so the union of a step is the same
for every W with the same W·m.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import msgspec

Rows = tuple[int, int]
"""Rows [first, end) of a stream."""


class Remainder(msgspec.Struct, frozen=True):
    """The rows of a stream that are left to be delivered.

    Attributes:
        epoch: number of the pass.
        left: rows before `tail` that are left, ascending, each [first, end).
        tail: every row from here on is left.
    """

    epoch: int = 0
    left: tuple[Rows, ...] = ()
    tail: int = 0

    @property
    def before_tail(self) -> int:
        """How many rows are left before `tail`."""
        return sum(end - first for first, end in self.left)

    @property
    def first(self) -> int:
        """The first row that is left."""
        return self.left[0][0] if self.left else self.tail

    def total(self, rows: int) -> int:
        """How many rows are left of a pass of so many rows."""
        return self.before_tail + max(0, rows - self.tail)

    def take(self, first: int, end: int) -> tuple[Rows, ...]:
        """The rows that are the `first` to `end`-th of those left, as few intervals as possible."""
        if not self.left:
            return ((self.tail + first, self.tail + end),) if end > 0 else ()
        taken: list[Rows] = []
        passed = 0
        for low, high in self.left:
            size = high - low
            a, b = max(first - passed, 0), min(end - passed, size)
            if a < b:
                taken.append((low + a, low + b))
            passed += size
        if end > passed:
            taken.append((self.tail + max(first - passed, 0), self.tail + end - passed))
        return tuple(taken)

    def after(self, count: int) -> Remainder:
        """What is left after the first `count` rows of it."""
        inside = self.before_tail
        if count >= inside:
            return Remainder(self.epoch, (), self.tail + count - inside)
        return Remainder(self.epoch, self.take(count, inside), self.tail)

    def is_sound(self) -> bool:
        """Whether the numbers can be those of a stream."""
        if not self.left:
            return self.epoch >= 0 and self.tail >= 0
        edges = [0, *(edge for rows in self.left for edge in rows), self.tail]
        ascending = all(a <= b for a, b in pairwise(edges))
        return self.epoch >= 0 and ascending and all(a < b for a, b in self.left)


class Cut(NamedTuple):
    """One batch of a share.

    Attributes:
        rows: that it has, none at the end of a pass.
        left_out: rows at the end of the pass that no rank gets.
    """

    rows: tuple[Rows, ...]
    left_out: int = 0


class Share(msgspec.Struct, frozen=True):
    """What one of several ranks gets of a remainder, in steps.

    Attributes:
        rank, world_size: which of how many.
        batch_rows: of each rank in a step.
    """

    rank: int
    world_size: int
    batch_rows: int

    @property
    def step_rows(self) -> int:
        """Rows of a step, of all ranks together."""
        return self.world_size * self.batch_rows

    def cut(self, left: Remainder, step: int, total: int | None, *, drop_last: bool) -> Cut:
        """The rows of a step.

        The last step of a pass has fewer rows; they are dealt out evenly, so that each rank has as
        many batches as the others. Where there are fewer rows than ranks nobody gets them.

        Args:
            left: what was left before the first step.
            step: number of the step.
            total: how many rows were left; None where the step is known to be full.
            drop_last: leave the short step out.
        """
        start = step * self.step_rows
        rest = self.step_rows if total is None else min(self.step_rows, max(0, total - start))
        if rest == self.step_rows:
            first = start + self.rank * self.batch_rows
            return Cut(left.take(first, first + self.batch_rows))
        if drop_last or rest < self.world_size:
            return Cut((), rest)
        low = start + rest * self.rank // self.world_size
        return Cut(left.take(low, start + rest * (self.rank + 1) // self.world_size))

    def steps(self, total: int, *, drop_last: bool) -> int:
        """How many steps so many rows make."""
        full, rest = divmod(total, self.step_rows)
        return full + (rest >= self.world_size and not drop_last)

    def after(self, left: Remainder, steps: int, total: int | None) -> Remainder:
        """What is left when every rank has had so many steps."""
        count = steps * self.step_rows
        return left.after(count if total is None else min(count, total))

    def needs(self, left: Remainder, step: int, rows: Rows, total: int | None) -> bool:
        """Whether this rank gets any of these rows in a step from `step` on.

        Of a short last step every rank counts as needing all of it.
        """
        for first, last in _numbered(left, rows):
            end = last if total is None else min(last, total)
            for number in range(max(step, first // self.step_rows), -(-end // self.step_rows)):
                if total is not None and (number + 1) * self.step_rows > total:
                    return True
                low = number * self.step_rows + self.rank * self.batch_rows
                if first < low + self.batch_rows and low < end:
                    return True
        return False


def _numbered(left: Remainder, rows: Rows) -> Iterator[Rows]:
    """Which of those left these rows are, counted from 0."""
    passed = 0
    for low, high in (*left.left, (left.tail, max(left.tail, rows[1]))):
        a, b = max(low, rows[0]), min(high, rows[1])
        if a < b:
            yield passed + a - low, passed + b - low
        passed += high - low


def undelivered(
    left: Remainder,
    shares: dict[int, int],
    batch_rows: int,
    total: int | None = None,
    *,
    drop_last: bool = False,
) -> Remainder:
    """What is left where ranks stand at different steps.

    Args:
        left: before the first step.
        shares: of each rank, the step that it gets next.
        batch_rows: of each rank in a step.
        total: how many rows were left; None where all steps so far are known to be full.
        drop_last: the short step is left out.
    """
    world_size, far = len(shares), max(shares.values())
    open_rows: list[Rows] = []
    for step in range(min(shares.values()), far):
        for rank, reached in sorted(shares.items()):
            if step >= reached:
                share = Share(rank, world_size, batch_rows)
                open_rows += share.cut(left, step, total, drop_last=drop_last).rows
    after = Share(0, world_size, batch_rows).after(left, far, total)
    return Remainder(left.epoch, merged([*open_rows, *after.left]), after.tail)


def merged(rows: list[Rows]) -> tuple[Rows, ...]:
    """Intervals in order, with those that touch made one."""
    out: list[Rows] = []
    for first, end in sorted(rows):
        if out and out[-1][1] >= first:
            out[-1] = out[-1][0], max(end, out[-1][1])
        else:
            out.append((first, end))
    return tuple(out)
