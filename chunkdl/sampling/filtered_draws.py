"""Windows and positions under a filter that looks at pixels: the anchor rule.

A filter f says yes or no to a position, by the pixels there; who knows the answer only after
reading them cannot draw from the accepted positions directly. To filter what was drawn in a window
is wrong: windows are as frequent as before, so accepted positions of windows that have few of them
come more often than others. Instead,

- draw an anchor and a window around it, as without a filter (`chunkdl.sampling.windows`); the
  window is accepted if and only if f says yes to its *anchor*, else draw both again;
- the anchor is the first draw; the others are drawn in the window, and again where f says no.

With N positions, Z_f(w) the sum of 1/A over the accepted positions of window w, and N_f accepted
positions in all,

    P(w, and it is accepted) = sum over accepted p in w of 1/N · 1/A(p) = Z_f(w)/N

so accepted windows have P(w) = Z_f(w)/N_f, and inside, each draw has (1/A(p))/Z_f(w), the anchor
too. Every accepted position is equally likely, with no pass over the slide.

Where a window has so few accepted positions that the draws for it are used up, the calls that are
still missing repeat accepted ones. Given how many there are, each of them has the same distribution
as before, so every call is uniform all the same; only their number of different ones is smaller.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chunkdl.errors import SlideError
from chunkdl.sampling.positions import PositionSet
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.windows import Draws, Lattice, Places, Window, WindowContent

MOST_TRIALS = 4096
"""Anchors that are drawn for one BigChunk. Where 1 in 100 passes, none of them does so once in
1e18 BigChunks; where 1 in 1,000 does, once in 60. Then another slide takes the turn."""
DRAWS_PER_CALL = 16
"""Draws in an accepted window, for each of its calls, before calls repeat accepted positions."""
FEWEST_DRAWS = 1024
"""So many may be drawn, however few calls there are."""
PROBES = 4096
"""Places that are looked at before a slide counts as refused, over all its resolutions."""
FEWEST_PROBES = 128
"""At one resolution."""


Passes = Callable[[Window, Draws], npt.NDArray[np.bool_]]
"""What the filter says of draws in a window: whether each passes, shape (n,). Equal positions have
equal answers."""


@dataclass(frozen=True, slots=True, eq=False)
class FilteredDraws:
    """What a BigChunk gets.

    Attributes:
        window: of the last trial, which was accepted; of the last one, where none was.
        draws: one for each call, all accepted; None: all trials were refused.
        trials: anchors that were looked at.
        useful_px: of the window that was accepted, as of `WindowContent`.
    """

    window: Window
    draws: Draws | None
    trials: int
    useful_px: int = 0


def filtered_draws(
    lattice: Lattice,
    places: Places,
    positions: PositionSet,
    calls: int,
    named: Callable[[Purpose, int], np.random.Generator],
    passes: Passes,
    on_damage: Callable[[SlideError], None],
) -> FilteredDraws:
    """The window of a BigChunk and its accepted positions.

    Args:
        lattice, places, positions: of the slide, which has a position.
        calls: how many draws are wanted, at least 1.
        named: makes the generator of the BigChunk for a purpose and a trial.
        passes: the filter; asked for the anchor alone first.
        on_damage: told of an anchor that cannot be read, which is refused.

    Raises:
        SlideError: the file is away, or an accepted window cannot be read.
    """
    for trial in range(MOST_TRIALS):
        rng = named(Purpose.WINDOW, trial)
        x, y = places.draw(rng)
        window = lattice.window_around(x, y, rng)
        anchor = _at(positions, x, y)
        if _is_accepted(window, anchor, passes, on_damage):
            rng = named(Purpose.POSITIONS, trial)
            content = places.content(lattice, window)
            draws = _drawn(content, anchor, calls, rng, passes)
            return FilteredDraws(window, draws, trial + 1, content.useful_px())
    return FilteredDraws(window, None, MOST_TRIALS)


def _is_accepted(
    window: Window, anchor: Draws, passes: Passes, on_damage: Callable[[SlideError], None]
) -> bool:
    """Whether an anchor passes; one that is damaged is no place, as one that is refused.

    If it cost the BigChunk, a slide with one damaged spot would give fewer BigChunks the more the
    filter refuses of it.
    """
    try:
        return bool(passes(window, anchor)[0])
    except SlideError as error:
        if error.may_pass:
            raise
        on_damage(error)
        return False


def _drawn(
    content: WindowContent,
    anchor: Draws,
    calls: int,
    rng: np.random.Generator,
    passes: Passes,
) -> Draws:
    """The anchor, and what is accepted of the draws behind it."""
    found, have = [anchor], 1
    left = max(FEWEST_DRAWS, DRAWS_PER_CALL * calls)
    while have < calls and left:
        draws = content.draw(min(calls - have, left), rng)
        left -= len(draws.x)
        found.append(draws.taken(passes(content.window, draws)))
        have += len(found[-1].x)
    every = Draws(
        *(np.concatenate([getattr(one, name) for one in found]) for name in ("x", "y", "fraction"))
    )
    # Each of them as often as the others, or once more.
    again = np.resize(rng.permutation(have), max(0, calls - have))
    return every.taken(np.concatenate((np.arange(have), again)).astype(np.intp))


def _at(positions: PositionSet, x: int, y: int) -> Draws:
    """A position, as a draw."""
    row, column = np.array([y // positions.down.cell_px]), np.array([x // positions.across.cell_px])
    fraction = positions.fractions(row, column)
    return Draws(np.array([x], np.int32), np.array([y], np.int32), fraction)


def probes_at_each(resolutions: int) -> int:
    """Places that are looked at in a slide, at each of the resolutions that it may be read at."""
    return max(FEWEST_PROBES, PROBES // resolutions)


def probes(
    places: Places, seed: int, slide: int, resolution: float, count: int
) -> Iterator[tuple[int, int]]:
    """Positions (x, y) of a slide that are the same for every BigChunk and in every process.

    Whether a slide is left out may not depend on the BigChunk that comes to it first.

    Args:
        places: of the slide at the resolution.
        seed: of the stream.
        slide: its index.
        resolution: the value that is wished, whatever its unit.
        count: how many.
    """
    (bits,) = struct.unpack("<Q", struct.pack("<d", resolution))
    for number in range(count):
        yield places.draw(generator(seed, Purpose.PROBE, slide, bits, number))
