"""At which resolution a BigChunk is read, which window it is, and where in it the SmallChunks are.

The endless stream draws all three; a pass over the grid takes windows and positions in order, and a
stream without replacement in the order of a cycle. For the loaders `window_plan` is the only place
that tells them apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

import numpy as np
import numpy.typing as npt

from chunkdl.engine.config import StreamConfig
from chunkdl.engine.work.open_slides import OpenSlide, PlannedSlide
from chunkdl.errors import NoTissueError, ProtocolError, ResolutionError
from chunkdl.sampling.cycles import positions_in_order
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.windows import Draws, Window
from chunkdl.transport.protocol.engine_messages import LoadBigChunk, SurveyGrid, SurveyWindow

Ticket = SurveyWindow | SurveyGrid | LoadBigChunk

MOST_LOOKS = 128
"""Resolutions of one BigChunk at which a slide is searched for a place; a mixture has fewer."""


class WindowPlan(ABC):
    """What a kind of stream takes from a slide.

    Args:
        config: of the stream.
    """

    def __init__(self, config: StreamConfig) -> None:
        self._seed = config.seed
        self._resolution = config.resolution

    def at(self, opened: OpenSlide, ordinal: int, attempt: int) -> PlannedSlide:
        """The slide at the resolution of that attempt at a BigChunk.

        It is the first of the candidates at which the slide has a position: what is drawn is the
        wished distribution, restricted to what the slide can give.

        Raises:
            ResolutionError, NoTissueError: it has no position at any of them.
        """
        rng = partial(generator, self._seed, Purpose.RESOLUTION, ordinal, attempt)
        failure: NoTissueError | ResolutionError | None = None
        looks = 0
        for candidate in self._resolution.candidates(rng):
            # What a header rules out costs microseconds, and tissue milliseconds.
            if not opened.has_room(candidate):
                continue
            try:
                planned = opened.at(candidate)
                self._find_places(planned)
            except (NoTissueError, ResolutionError) as error:
                failure, looks = error, looks + 1
                if looks == MOST_LOOKS:
                    break
            else:
                return planned
        raise failure or ResolutionError(
            f"none of the values that were drawn of {self._resolution} fits the slide",
            slide=opened.entry.path,
        )

    def look(self, opened: OpenSlide, ticket: Ticket) -> None:
        """See that a slide can be used at all for a ticket; raises as `find_places`."""
        self.find_places(opened)

    def find_places(self, opened: OpenSlide) -> None:
        """See that there is a place for a SmallChunk in the slide, at some resolution.

        Raises:
            ResolutionError, NoTissueError: there is none.
        """
        failure: NoTissueError | ResolutionError | None = None
        for example in self._resolution.examples:
            try:
                self._find_places(opened.at(example))
            except (NoTissueError, ResolutionError) as error:
                # A slide that says why there is no tissue says more than one that is too coarse.
                failure = error if failure is None or isinstance(error, NoTissueError) else failure
            else:
                return
        raise failure or ResolutionError("there is no resolution", slide=opened.entry.path)

    @abstractmethod
    def _find_places(self, planned: PlannedSlide) -> None:
        """See that there is a place for a SmallChunk at this resolution."""

    def counts(self, planned: PlannedSlide) -> npt.NDArray[np.int32]:
        """Positions of the windows of a grid, by the numbers that tickets have.

        Raises:
            ProtocolError: windows are drawn.
        """
        raise ProtocolError(f"windows of {planned.entry.path} were to be counted that are drawn")

    @abstractmethod
    def of(self, planned: PlannedSlide, ticket: LoadBigChunk) -> tuple[Window, Draws]:
        """The window of a BigChunk, and the draws in it."""


class DrawnWindows(WindowPlan):
    """Of the endless stream."""

    def _find_places(self, planned: PlannedSlide) -> None:
        _ = planned.anchors

    def of(self, planned: PlannedSlide, ticket: LoadBigChunk) -> tuple[Window, Draws]:
        """See `WindowPlan.of`."""
        window = self.window(planned, ticket.ordinal, ticket.attempt)
        rng = generator(self._seed, Purpose.POSITIONS, ticket.ordinal, ticket.attempt)
        return window, planned.lattice.draw_positions(planned.positions, window, ticket.calls, rng)

    def window(self, planned: PlannedSlide, ordinal: int, attempt: int) -> Window:
        """The window of that attempt at a BigChunk."""
        rng = generator(self._seed, Purpose.WINDOW, ordinal, attempt)
        return planned.lattice.draw_window(planned.anchors, rng)


class GridWindowsInOrder(WindowPlan):
    """Of a pass over the grid."""

    def _find_places(self, planned: PlannedSlide) -> None:
        planned.count_grid()

    def counts(self, planned: PlannedSlide) -> npt.NDArray[np.int32]:
        """Of the windows that have any."""
        return planned.count_grid().counts

    def of(self, planned: PlannedSlide, ticket: LoadBigChunk) -> tuple[Window, Draws]:
        """See `WindowPlan.of`."""
        chosen = planned.grid_windows.window(ticket.window)
        return chosen.window, chosen.draws


class GridWindowsInCycles(GridWindowsInOrder):
    """Of a stream without replacement."""

    def look(self, opened: OpenSlide, ticket: Ticket) -> None:
        """See `WindowPlan.look`; who asks for a BigChunk has had the positions counted before."""
        super().look(opened, ticket)
        if isinstance(ticket, SurveyGrid):
            self.at(opened, 0, 0).count_grid()

    def _find_places(self, planned: PlannedSlide) -> None:
        _ = planned.grid_windows

    def counts(self, planned: PlannedSlide) -> npt.NDArray[np.int32]:
        """Of all windows: which have any would have to be found out again for each BigChunk."""
        return planned.count_grid().all_counts

    def of(self, planned: PlannedSlide, ticket: LoadBigChunk) -> tuple[Window, Draws]:
        """See `WindowPlan.of`."""
        chosen = planned.grid_windows.at(ticket.window)
        draws = chosen.draws
        order = positions_in_order(
            self._seed, ticket.slide, ticket.cycle, ticket.window, len(draws.x)
        )
        some = order[ticket.first : ticket.first + ticket.calls]
        return chosen.window, Draws(draws.x[some], draws.y[some], draws.fraction[some])


def window_plan(config: StreamConfig) -> WindowPlan:
    """What a stream takes from its slides."""
    if config.grid:
        return GridWindowsInOrder(config)
    return DrawnWindows(config) if config.replacement else GridWindowsInCycles(config)
