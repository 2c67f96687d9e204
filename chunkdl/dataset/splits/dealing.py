"""Patients into parts one by one: exact by class, and spread by further labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from chunkdl.dataset.splits.order import drawn_order
from chunkdl.dataset.splits.shares import rounded


def deal(
    class_of: Mapping[str, str],
    shares: Mapping[str, Fraction],
    spread: Sequence[Mapping[str, str]],
    seed: int,
) -> dict[str, str]:
    """The part of each patient.

    Each class is dealt for itself. Its patients lie in an order in which those with equal further
    labels are neighbours, and neighbours go to different parts, as evenly as the sizes allow.

    Args:
        class_of: the class of each patient.
        shares: of the parts.
        spread: further labels, class by patient.
        seed: draws the order.
    """
    classes: dict[str, list[str]] = {}
    for patient, name in sorted(class_of.items()):
        classes.setdefault(name, []).append(patient)
    parts = list(shares)
    table = rounded(list(shares.values()), [len(members) for members in classes.values()])
    found: dict[str, str] = {}
    for members, sizes in zip(classes.values(), table, strict=True):
        ranks = [_ranks(label, seed) for label in spread]
        order = drawn_order(members, seed)
        order.sort(key=lambda patient: [rank[patient] for rank in ranks])
        found |= {name: parts[part] for name, part in zip(order, _evenly(sizes), strict=True)}
    return found


def _ranks(label: Mapping[str, str], seed: int) -> dict[str, int]:
    place = {name: n for n, name in enumerate(drawn_order(set(label.values()), seed, "group"))}
    return {patient: place[name] for patient, name in label.items()}


def _evenly(sizes: Sequence[int]) -> list[int]:
    """Each part as often as its size says, spread over the whole row."""
    slots = [
        (Fraction(2 * turn + 1, 2 * size), part)
        for part, size in enumerate(sizes)
        for turn in range(size)
    ]
    return [part for _, part in sorted(slots)]
