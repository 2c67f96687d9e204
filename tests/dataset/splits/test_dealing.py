"""Patients that are dealt one by one."""

from __future__ import annotations

from fractions import Fraction

from chunkdl.dataset.splits.dealing import deal
from chunkdl.dataset.splits.order import drawn_order

SHARES = {"a": Fraction(3, 5), "b": Fraction(2, 5)}


def test_the_order_of_the_patients_does_not_matter() -> None:
    """Nor that of their classes, which then come in another order too."""
    class_of = {f"p{n}": "xyz"[n % 3] for n in range(13)}
    site_of = {name: name[-1] for name in class_of}
    backwards = dict(reversed(class_of.items()))
    assert deal(class_of, SHARES, [site_of], 3) == deal(backwards, SHARES, [site_of], 3)


def test_a_name_that_goes_leaves_the_others_in_their_order() -> None:
    """As a new one does, wherever it comes."""
    names = [f"p{n}" for n in range(100)]
    order = drawn_order(names, 3)
    assert order != drawn_order(names, 4)
    assert drawn_order(names[:40] + names[41:], 3) == [name for name in order if name != "p40"]
