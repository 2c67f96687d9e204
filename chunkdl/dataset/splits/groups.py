"""Whole groups of patients, such as those of a hospital, into parts that are alike by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from chunkdl.dataset.splits.order import drawn_order

_STARTS = 8
_LEAST_GAIN = 1e-9

Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


def place_groups(
    class_of: Mapping[str, str],
    group_of: Mapping[str, str],
    shares: Mapping[str, Fraction],
    seed: int,
) -> dict[str, str]:
    """The part of each group.

    What is made small is Pearson's statistic: the sum over classes and parts of (n - t)² / t, where
    n is how many patients of the class the part has, and t how many it would have by its share.
    Groups are placed where this is least, the largest first, and in seven further starts in random
    orders. Then one group is moved, or two are exchanged, as long as that makes it smaller. The
    best start is taken. So no move of one group and no exchange of two would be better; another
    arrangement may be.

    Args:
        class_of: the class of each patient.
        group_of: the group of each patient; at least as many groups as parts.
        shares: of the parts.
        seed: draws the orders.
    """
    groups = sorted(set(group_of.values()))
    counts = _counts(class_of, group_of, groups)
    best: tuple[float, list[int]] | None = None
    for start in range(_STARTS):
        order = drawn_order(groups, seed, start)
        if start == 0:
            order.sort(key=lambda name: -int(counts[groups.index(name)].sum()))
        search = _Search(counts, list(shares.values()))
        search.begin([groups.index(name) for name in order])
        search.improve()
        if best is None or search.cost() < best[0] - _LEAST_GAIN:
            best = search.cost(), search.part
    assert best is not None
    names = list(shares)
    return {group: names[part] for group, part in zip(groups, best[1], strict=True)}


def _counts(
    class_of: Mapping[str, str], group_of: Mapping[str, str], groups: Sequence[str]
) -> Counts:
    """Patients by group and class."""
    pairs = Counter((group_of[patient], name) for patient, name in class_of.items())
    classes = sorted(set(class_of.values()))
    return np.array([[pairs[group, name] for name in classes] for group in groups], dtype=np.int64)


class _Search:
    """An arrangement that becomes better step by step.

    All sums over classes are loops over them, in their order: elements of arrays are rounded alike
    on every machine, and sums that numpy makes are not.

    Attributes:
        part: of each group; -1 where it has none yet.
    """

    def __init__(self, counts: Counts, shares: Sequence[Fraction]) -> None:
        self._counts = counts
        totals = [int(total) for total in counts.sum(axis=0)]
        wished = [[float(share * total) for share in shares] for total in totals]
        self._weight: Numbers = 1 / np.array(wished)
        # By class and part: what there is less what the shares say.
        self._over: Numbers = -np.array(wished)
        self._members = [0] * len(shares)
        self.part = [-1] * len(counts)

    def cost(self) -> float:
        squares = self._weight * self._over * self._over
        return float(sum(sum(row) for row in squares.tolist()))

    def begin(self, order: Sequence[int]) -> None:
        """Place the groups one after the other where the cost is then least.

        Where as few are left as parts are empty, they go into these.
        """
        for done, group in enumerate(order):
            prices = self._prices(group)
            empty = [part for part, members in enumerate(self._members) if not members]
            if len(order) - done <= len(empty):
                prices[[part for part in range(len(prices)) if part not in empty]] = np.inf
            self._put(group, int(np.argmin(prices)))

    def improve(self) -> None:
        """Move one group or exchange two while the cost becomes smaller."""
        changed = True
        while changed:
            changed = False
            for group in range(len(self.part)):
                changed |= self._move(group) or self._exchange(group)

    def _prices(self, group: int) -> Numbers:
        """What the cost grows by, for each part that the group could come into."""
        price = np.zeros(len(self._members))
        for name, size in enumerate(self._counts[group].tolist()):
            price += self._weight[name] * (size * size + 2 * size * self._over[name])
        return price

    def _put(self, group: int, part: int) -> None:
        before = self.part[group]
        if before >= 0:
            self._over[:, before] -= self._counts[group]
            self._members[before] -= 1
        self._over[:, part] += self._counts[group]
        self._members[part] += 1
        self.part[group] = part

    def _move(self, group: int) -> bool:
        before = self.part[group]
        if self._members[before] == 1:
            return False
        now = 0.0
        for name, size in enumerate(self._counts[group].tolist()):
            over = float(self._over[name, before])
            now += float(self._weight[name, before]) * (size * size - 2 * size * over)
        gains = now + self._prices(group)
        gains[before] = 0
        best = int(np.argmin(gains))
        if gains[best] > -_LEAST_GAIN:
            return False
        self._put(group, best)
        return True

    def _exchange(self, group: int) -> bool:
        here, there = self.part[group], np.array(self.part)
        gains = np.zeros(len(there))
        for name in range(self._counts.shape[1]):
            less = self._counts[group, name] - self._counts[:, name]
            weight, over = self._weight[name], self._over[name]
            gains += weight[here] * (less * less - 2 * less * over[here])
            gains += weight[there] * (less * less + 2 * less * over[there])
        gains[there == here] = 0
        best = int(np.argmin(gains))
        if gains[best] > -_LEAST_GAIN:
            return False
        self._put(group, self.part[best])
        self._put(best, here)
        return True
