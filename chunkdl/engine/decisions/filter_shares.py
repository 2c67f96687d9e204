"""How much of each slide the pixel filter refuses, as the loaders tell it."""

from __future__ import annotations

TOLD_AFTER = 1000
"""Anchors of a slide after which its share is told, once."""
FEW = 0.01
"""A slide of which no more passes is told as a warning: it takes long to read."""


class FilterShares:
    """Counts the anchors that were looked at, uniform over the positions of their slide.

    So the share of refused ones is the share of the slide that the filter refuses.
    """

    def __init__(self) -> None:
        self._of_slide: dict[int, tuple[int, int]] = {}
        self._told: set[int] = set()
        self.looked = 0
        self.refused = 0

    def count(self, slide: int, looked: int, refused: int) -> float | None:
        """Take in what a loader has counted.

        Returns:
            The share of the slide that is refused, once, when it is known well enough to be told.
        """
        self.looked += looked
        self.refused += refused
        before = self._of_slide.get(slide, (0, 0))
        looked, refused = before[0] + looked, before[1] + refused
        self._of_slide[slide] = looked, refused
        if looked < TOLD_AFTER or slide in self._told:
            return None
        self._told.add(slide)
        return refused / looked
