"""The pixel filter of a stream in a loader: what it says and raises, what is known of slides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from chunkdl.engine.work.marked_pixels import MarkedPixels
from chunkdl.engine.work.window_pixels import crop_of
from chunkdl.errors import HookError
from chunkdl.patches.filters.pixel_filter import Look, LookAtPixels, PixelFilter
from chunkdl.sampling.windows import Draws, Window
from chunkdl.slides.resolution import Resolution

if TYPE_CHECKING:
    from chunkdl.engine.work.planned_slide import PlannedSlide
    from chunkdl.engine.work.window_pixels import WindowPixels


MOST_REMEMBERED = 20_000
"""Slides, resolutions and classes of which a loader remembers whether anything passes, some MiB."""


class Judge:
    """Asks the filter about SmallChunks of one slide, for one BigChunk or one search.

    Args:
        planned: the slide.
        pixel_filter: of the stream.
        on_progress: called before each question; what it raises ends the work.
    """

    def __init__(
        self, planned: PlannedSlide, pixel_filter: PixelFilter, on_progress: Callable[[], None]
    ) -> None:
        self._planned = planned
        self._filter = pixel_filter
        self._on_progress = on_progress
        self._asked_twice = False

    def passes(self, look: Look, x: int, y: int) -> bool:
        """Whether a SmallChunk passes.

        Args:
            look: at it.
            x, y: its corner, target pixels.

        Raises:
            HookError: the filter raised, or has two answers for the same pixels.
        """
        answer = self._answer(look, x, y)
        if not self._asked_twice:
            # A function that counts or draws random numbers would make a stream that nobody can
            # make again; one question more for each BigChunk finds it soon.
            self._asked_twice = True
            if self._answer(look, x, y) != answer:
                raise self._error(
                    "it has given two answers for the same pixels; it may not count, draw random "
                    "numbers, or write into the pixels",
                    "ValueError",
                    x,
                    y,
                )
        return answer

    def all_of(self, pixels: WindowPixels) -> Callable[[Window, Draws], npt.NDArray[np.bool_]]:
        """Whether draws in a window pass, by pixels that are read for it."""
        marked = MarkedPixels(self._planned, self._filter)

        def passes(window: Window, draws: Draws) -> npt.NDArray[np.bool_]:
            strips = pixels.read(window, draws)
            x, y = draws.x.tolist(), draws.y.tolist()
            if len(x) == 1:
                # Of an anchor that is refused, the blocks around it are of no use.
                rgb = crop_of(strips, self._planned, window, x[0], y[0])
                return np.array([self.passes(LookAtPixels(rgb), x[0], y[0])])
            looks = marked.looks(window, draws, strips)
            return np.fromiter(map(self.passes, looks, x, y), np.bool_, len(x))

        return passes

    def _answer(self, look: Look, x: int, y: int) -> bool:
        self._on_progress()
        try:
            return self._filter.judge(look)
        except Exception as error:
            kind = type(error).__name__
            raise self._error(f"{kind}: {error}", kind, x, y) from error

    def _error(self, what: str, kind: str, x: int, y: int) -> HookError:
        downsample = self._planned.grid.downsample
        return HookError(
            f"{what}; over the SmallChunk at ({round(x * downsample)}, {round(y * downsample)}) of "
            f"slide {self._planned.entry.path}, in level-0 pixels",
            hook=f"pixel_filter {self._filter}"[:200],
            kind=kind,
        )


class Refusals:
    """Why slides give nothing at a resolution: found out once, however often they are opened.

    Of streams of many slides and resolutions only some are remembered.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, Resolution, int], str] = {}

    def of(self, what: tuple[int, Resolution, int], find_out: Callable[[], str]) -> str:
        """Why a slide gives nothing, empty where it does; what `find_out` raises is not kept."""
        if what not in self._known:
            found = find_out()
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[what] = found
        return self._known[what]


class FilterLooks:
    """What a loader has seen with the filter.

    It counts, by slide, the anchors that the filter looked at and those that it refused.

    Attributes:
        refusals: what is known of slides.
    """

    def __init__(self) -> None:
        self._counted: dict[int, tuple[int, int]] = {}
        self.refusals = Refusals()

    def count(self, slide: int, looked: int, refused: int) -> None:
        """Add what was done for one BigChunk."""
        before = self._counted.get(slide, (0, 0))
        self._counted[slide] = before[0] + looked, before[1] + refused

    def news(self) -> Iterator[tuple[int, int, int]]:
        """What was counted since the last call: slide, looked at, refused."""
        counted, self._counted = self._counted, {}
        for slide, (looked, refused) in counted.items():
            yield slide, looked, refused
