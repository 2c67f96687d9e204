"""Anchors: each position with the same probability, by rejection and by counting alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from scipy import stats

from chunkdl.sampling.anchors import AT_ONCE, CANDIDATES, Anchors
from chunkdl.sampling.positions import PositionSet, positions_of
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.tissue.mask import TissueMask
from tests.sampling.small_plans import EXAMPLES, SmallSlide, accepted, small_slides

Cells = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Place = tuple[int, int]
DRAWS = 3_000

# ---- Exactly: every outcome of every random number.


@dataclass
class ScriptedNumbers:
    """Takes the place of a generator: all candidates are one corner, and then comes one number.

    Every corner of the box is that one once, so the first that is accepted has the distribution
    that it has when the candidates are independent.
    """

    script: list[int]
    bounds: list[int] = field(default_factory=list)
    corner: list[int] = field(default_factory=list)

    def integers(self, low: int, high: int = 0, size: int = 0) -> npt.NDArray[np.int64] | int:
        if not size:
            return self._next(low)
        if len(self.corner) < 2:
            self.corner.append(low + self._next(high - low))
            return np.full(size, self.corner[-1])
        # The rounds of candidates take x and y in turns.
        self.corner.reverse()
        return np.full(size, self.corner[1])

    def _next(self, bound: int) -> int:
        self.bounds.append(bound)
        if len(self.bounds) > len(self.script):
            self.script.append(0)
        return self.script[len(self.bounds) - 1]


def every_anchor(anchors: Anchors) -> Iterator[tuple[Place, Fraction]]:
    """What `draw` gives for every outcome of its random numbers, with its probability."""
    script: list[int] = []
    while True:
        numbers = ScriptedNumbers(script)
        anchor = anchors.draw(cast(np.random.Generator, numbers))
        probability = Fraction(1)
        for bound in numbers.bounds:
            probability /= bound
        yield anchor, probability
        while script and script[-1] + 1 == numbers.bounds[len(script) - 1]:
            script.pop()
        if not script:
            return
        script[-1] += 1


@settings(EXAMPLES, max_examples=40)
@given(slide=small_slides(most_positions=6))
def test_every_position_is_the_anchor_with_exactly_the_probability_one_in_n(
    slide: SmallSlide,
) -> None:
    """Whether a candidate is accepted, or all are refused and positions are counted."""
    anchors = slide.anchors
    assume(anchors.count)
    total = defaultdict[Place, Fraction](Fraction)
    for anchor, probability in every_anchor(anchors):
        total[anchor] += probability
    places = {(int(x), int(y)) for y, x in np.argwhere(accepted(slide.positions))}
    assert total == dict.fromkeys(places, Fraction(1, anchors.count))


@EXAMPLES
@given(slide=small_slides())
def test_a_slide_is_known_to_have_positions_exactly_when_it_has(slide: SmallSlide) -> None:
    """Whether the first candidates find one, or only the count does."""
    assert slide.anchors.exist() == bool(accepted(slide.positions).any())


# ---- Statistically: slides of the sizes in use, whose tissue is hard to find.


def positions_on(
    cells: Cells, width: int, height: int, smallchunk_px: int = 64, threshold: float = 0.5
) -> PositionSet:
    """Of a slide with that mask."""
    grid = TargetGrid(0, 1.0, width, height, 1.0, None)
    return positions_of(grid, TissueMask(cells, width, height), smallchunk_px, threshold)


def two_specks() -> PositionSet:
    """A hundred-thousandth of the slide is tissue: two specks at opposite corners, one cut."""
    cells = np.zeros((625, 625), np.bool_)
    cells[0, 0:2] = cells[623:625, 624] = True
    return positions_on(cells, 20_001, 20_003, threshold=0.4)


def one_cell() -> PositionSet:
    """A single cell of positions, cut at the right and at the lower edge."""
    cells = np.zeros((2, 2), np.bool_)
    cells[1, 1] = True
    # The cells are 8 px; the last ones have 5 columns and 3 rows.
    return positions_on(cells, 64 + 64 + 4, 64 + 64 + 2, threshold=0.97)


def half_found() -> PositionSet:
    """Islands of which the candidates find one in about half of the draws."""
    cells = np.zeros((500, 500), np.bool_)
    for row, column in ((0, 0), (499, 499), (250, 30), (120, 470)):
        cells[max(0, row - 3) : row + 3, max(0, column - 3) : column + 3] = True
    return positions_on(cells, 16_000, 16_000)


def everywhere() -> PositionSet:
    """All tissue, with cells that are cut at both ends."""
    return positions_on(np.ones((1, 1), np.bool_), 64 + 18, 64 + 13)


SLIDES = [
    pytest.param(two_specks, 0.0, id="a hundred-thousandth of the area, at two corners"),
    pytest.param(one_cell, None, id="one cell, cut at the right and below"),
    pytest.param(half_found, 0.5, id="half of the draws are counted"),
    pytest.param(everywhere, 1.0, id="all tissue, cut cells"),
]


def drawn(positions: PositionSet) -> npt.NDArray[np.int64]:
    """The first anchors of a stream, shape (draws, 2)."""
    anchors = Anchors(positions, lambda: None)
    found = [anchors.draw(generator(7, Purpose.WINDOW, ordinal)) for ordinal in range(DRAWS)]
    return np.array(found, dtype=np.int64)


@pytest.mark.parametrize(("slide", "found"), SLIDES)
def test_anchors_are_uniform_where_tissue_is_hard_to_find(
    slide: Callable[[], PositionSet], found: float | None
) -> None:
    """Chi-square over the cells, which weigh by their positions, and over the places in a cell."""
    positions = slide()
    where = np.argwhere(accepted(positions))[:, ::-1]
    anchors = drawn(positions)
    if found is not None:
        tried = Anchors(positions, lambda: None)
        rngs = (generator(7, Purpose.WINDOW, ordinal) for ordinal in range(200))
        by_rejection = np.mean([tried._tried(rng) is not None for rng in rngs])
        assert by_rejection == pytest.approx(found, abs=0.25)
    assert {tuple(place) for place in anchors} <= {tuple(place) for place in where}
    groups: list[Callable[[Ints], Ints]] = [
        lambda place: place[:, 0] // 8 + 10_000 * (place[:, 1] // 8),
        lambda place: place[:, 0] % 8,
        lambda place: place[:, 1] % 8,
    ]
    for group in groups:
        kinds, share = np.unique(group(where), return_counts=True)
        observed = np.bincount(np.searchsorted(kinds, group(anchors)), minlength=len(kinds))
        expected = share / share.sum() * DRAWS
        # Rare ones count together.
        rare = expected < 5
        observed = np.append(observed[~rare], observed[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
        kept = expected > 0
        if kept.sum() > 1:
            assert stats.chisquare(observed[kept], expected[kept]).pvalue > 0.001


# ---- What it costs, and what it may not depend on.


def test_an_anchor_depends_on_its_name_and_on_nothing_that_was_drawn_or_counted_before() -> None:
    """So any loader draws the same, whatever it did until then."""
    positions = half_found()
    fresh = [
        Anchors(positions, lambda: None).draw(generator(3, Purpose.WINDOW, ordinal))
        for ordinal in range(12)
    ]
    counted = Anchors(positions, lambda: None)
    assert counted.count
    again = [counted.draw(generator(3, Purpose.WINDOW, ordinal)) for ordinal in range(11, -1, -1)]
    assert again[::-1] == fresh


def test_positions_are_counted_in_strips_with_a_sign_of_life_after_each() -> None:
    """And a count that is broken off is made anew."""
    signs = 0

    def recalled_at_the_third() -> None:
        nonlocal signs
        signs += 1
        if signs == 3:
            raise KeyboardInterrupt

    anchors = Anchors(two_specks(), recalled_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        _ = anchors.count
    assert anchors.nbytes == 0
    assert anchors.count == int(accepted(two_specks()).sum())
    assert signs > 6


def test_a_slide_where_the_candidates_find_a_position_is_never_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Usual slides cost some hundred look-ups a BigChunk, not a look at the whole slide."""
    asked: list[int] = []
    look = PositionSet.hold

    def watched(self: PositionSet, x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> Cells:
        asked.append(len(x))
        return look(self, x, y)

    monkeypatch.setattr(PositionSet, "hold", watched)
    cells = np.zeros((2_500, 3_125), np.bool_)
    cells[200:1_400, 300:2_000] = True
    anchors = Anchors(positions_on(cells, 100_000, 80_000), lambda: None)
    for ordinal in range(50):
        anchors.draw(generator(1, Purpose.WINDOW, ordinal))
    assert anchors.nbytes == 0
    assert sum(asked) == 50 * AT_ONCE < 50 * CANDIDATES


def test_a_slide_of_gigapixels_takes_a_byte_for_each_cell_of_its_mask() -> None:
    """Whatever the size of a SmallChunk, as long as its footprint has less than 256 cells."""
    cells = np.zeros((2_500, 3_125), np.bool_)
    cells[100:2_000] = True
    for smallchunk_px in (64, 224):
        positions = positions_on(cells, 100_000, 80_000, smallchunk_px)
        anchors = Anchors(positions, lambda: None)
        assert anchors.exist()
        assert positions.nbytes + anchors.nbytes < 1.01 * cells.size + 2**14
