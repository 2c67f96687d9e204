"""At which resolution a BigChunk is read, which window it is, and where in it the SmallChunks are.

The endless stream draws all three, with a pixel filter until it says yes; a pass over the grid
takes windows and positions in order, and a stream without replacement in the order of a cycle. For
the loaders `window_plan` is the only place that tells them apart.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from chunkdl.engine.config import StreamConfig
from chunkdl.engine.work.judge import Judge
from chunkdl.engine.work.open_slides import OpenSlide
from chunkdl.engine.work.planned_slide import PlannedSlide
from chunkdl.engine.work.window_pixels import Room, WindowPixels
from chunkdl.errors import (
    NothingPassesError,
    NoTissueError,
    ProtocolError,
    ResolutionError,
    SlideError,
)
from chunkdl.patches.filters.pixel_filter import PixelFilter
from chunkdl.sampling.cycles import positions_in_order
from chunkdl.sampling.filtered_draws import filtered_draws
from chunkdl.sampling.grid import covered_px
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.strata import NO_REGION
from chunkdl.sampling.windows import Draws, Window, WindowContent
from chunkdl.transport.memory.layouts import Strips
from chunkdl.transport.protocol.engine_messages import LoadBigChunk, SurveyGrid, SurveyWindow

Ticket = SurveyWindow | SurveyGrid | LoadBigChunk

DAMAGED = "places that the pixel filter cannot look at, because the file is damaged, are refused"
MOST_LOOKS = 128
"""Resolutions of one BigChunk at which a slide is searched for a place; a mixture has fewer."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """What is planned for one BigChunk.

    Attributes:
        window: the region, target pixels.
        draws: the positions in it, in the order of their calls.
        target_px: target pixels that its SmallChunks can show; of a drawn window also those that
            other draws would show.
    """

    window: Window
    draws: Draws
    target_px: int


class WindowPlan(ABC):
    """What a kind of stream takes from a slide.

    Args:
        config: of the stream.
    """

    def __init__(self, config: StreamConfig) -> None:
        self._seed = config.seed
        self._resolution = config.resolution
        use = config.annotations
        self._regions = None if use is None or use.regions is None else use.regions
        self._names = () if use is None else use.names

    def at(
        self, opened: OpenSlide, ordinal: int, attempt: int, region: int = NO_REGION
    ) -> PlannedSlide:
        """The slide at the resolution, and in the class, of that attempt at a BigChunk.

        It is the first of the candidates at which the slide has a position: what is drawn is the
        wished distribution, restricted to what the slide can give.

        Args:
            opened: the slide.
            ordinal, attempt: of the BigChunk.
            region: the class that was chosen for it; -1: none was.

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
            for chosen in self._classes(region, ordinal, attempt, looks):
                try:
                    planned = opened.at(candidate, chosen)
                    self._find_places(planned)
                except (NoTissueError, ResolutionError) as error:
                    failure, looks = error, looks + 1
                else:
                    return planned
            if looks >= MOST_LOOKS:
                break
        raise failure or ResolutionError(
            f"none of the values that were drawn of {self._resolution} fits the slide",
            slide=opened.entry.path,
        )

    def _classes(self, region: int, ordinal: int, attempt: int, looks: int) -> Sequence[int]:
        """The classes that may be drawn from, in the order in which they are tried.

        Of weights within a slide each order has the probability that draws by weight without
        replacement give it: the first class that the slide has comes in proportion to its weight
        among those that it has.
        """
        if self._regions is None or region >= 0:
            return (region,)
        weights = np.array(list(self._regions.weights.values()))
        rng = generator(self._seed, Purpose.REGION, ordinal, attempt, looks)
        order = np.argsort(rng.exponential(size=len(weights)) / weights, kind="stable")
        every = [self._names.index(name) for name in self._regions.classes]
        return [every[place] for place in order.tolist()]

    def look(self, opened: OpenSlide, ticket: Ticket) -> None:
        """See that a slide can be used at all for a ticket; raises as `find_places`."""
        self.find_places(opened, NO_REGION if isinstance(ticket, SurveyGrid) else ticket.region)

    def find_places(self, opened: OpenSlide, region: int = NO_REGION) -> None:
        """See that there is a place for a SmallChunk in the slide, at some resolution.

        Args:
            opened: the slide.
            region: the class that it has to be of; -1: any that is drawn.

        Raises:
            ResolutionError, NoTissueError: there is none.
        """
        failure: NoTissueError | ResolutionError | None = None
        classes = self._classes(region, 0, 0, 0)
        for example, chosen in itertools.product(self._resolution.examples, classes):
            try:
                self._find_places(opened.at(example, chosen))
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
    def of(self, planned: PlannedSlide, ticket: LoadBigChunk) -> Region:
        """The region of a BigChunk, and the draws in it."""

    def read(self, planned: PlannedSlide, ticket: LoadBigChunk, room: Room) -> Region:
        """The same, with the pixels of the draws in the memory that `room` gives.

        Only the blocks that some draw touches, or that had to be looked at, are decoded.

        Raises:
            SlideError: the region cannot be read, or the pixel filter refuses too much.
            HookError: the user's pixel filter raised.
        """
        region = self.of(planned, ticket)
        WindowPixels(planned, room).read(region.window, region.draws)
        return region


class DrawnWindows(WindowPlan):
    """Of the endless stream."""

    def _find_places(self, planned: PlannedSlide) -> None:
        _ = planned.places

    def of(self, planned: PlannedSlide, ticket: LoadBigChunk) -> Region:
        """See `WindowPlan.of`."""
        content = self.content(planned, ticket.ordinal, ticket.attempt)
        rng = generator(self._seed, Purpose.POSITIONS, ticket.ordinal, ticket.attempt)
        return Region(content.window, content.draw(ticket.calls, rng), content.useful_px())

    def content(self, planned: PlannedSlide, ordinal: int, attempt: int) -> WindowContent:
        """What may be drawn in the window of that attempt at a BigChunk."""
        rng = generator(self._seed, Purpose.WINDOW, ordinal, attempt)
        window = planned.lattice.draw_window(planned.places, rng)
        return planned.places.content(planned.lattice, window)


class FilteredWindows(DrawnWindows):
    """Of the endless stream with a pixel filter.

    The anchor of a trial is read into the place that it has in the window of that trial, so nothing
    of what is delivered is read twice, and the filter sees the very pixels that are delivered.

    Args:
        config: of the stream.
        pixel_filter: its filter.
    """

    def __init__(self, config: StreamConfig, pixel_filter: PixelFilter) -> None:
        super().__init__(config)
        self._filter = pixel_filter

    def _find_places(self, planned: PlannedSlide) -> None:
        super()._find_places(planned)
        # Of a range each value has another answer: values that pass little would be left out by
        # chance. Whether the slide gives anything is found out at its examples.
        if planned.resolution not in self._resolution.examples:
            return
        if refusal := planned.refusal(self._filter):
            raise NothingPassesError(refusal, slide=planned.entry.path)

    def of(self, planned: PlannedSlide, ticket: LoadBigChunk) -> Region:
        """See `WindowPlan.of`; the pixels have to be read for it."""
        side_px = planned.lattice.across.window_px

        def room(strip_px: int) -> Strips:
            return Strips(np.empty((side_px // strip_px, side_px, strip_px, 3), np.uint8))

        return self.read(planned, ticket, room)

    def read(self, planned: PlannedSlide, ticket: LoadBigChunk, room: Room) -> Region:
        """See `WindowPlan.read`."""
        opened = planned.opened
        judge = Judge(planned, self._filter, opened.on_progress)

        begun = accepted = 0

        def named(purpose: Purpose, trial: int) -> np.random.Generator:
            nonlocal begun, accepted
            # The positions of a window are drawn where its anchor was accepted.
            begun, accepted = trial + 1, int(purpose is Purpose.POSITIONS)
            return generator(self._seed, purpose, ticket.ordinal, ticket.attempt, trial)

        try:
            found = filtered_draws(
                planned.lattice,
                planned.places,
                planned.positions,
                ticket.calls,
                named,
                judge.all_of(WindowPixels(planned, room)),
                lambda _: opened.slide.gaps.met(DAMAGED),
            )
        finally:
            # Also where it fails: that is more often so where much was refused before.
            opened.looks.count(opened.index, begun, begun - accepted)
        if found.draws is None:
            raise SlideError(
                f"the pixel filter {self._filter} has refused all of {found.trials:,} places that "
                f"were drawn for BigChunk {ticket.ordinal}, or they are damaged",
                slide=planned.entry.path,
                level=planned.grid.level,
            )
        return Region(found.window, found.draws, found.useful_px)


class GridWindowsInOrder(WindowPlan):
    """Of a pass over the grid."""

    def _find_places(self, planned: PlannedSlide) -> None:
        planned.count_grid()

    def counts(self, planned: PlannedSlide) -> npt.NDArray[np.int32]:
        """Of the windows that have any."""
        return planned.count_grid().counts

    def of(self, planned: PlannedSlide, ticket: LoadBigChunk) -> Region:
        """See `WindowPlan.of`."""
        chosen = planned.grid_windows.window(ticket.window)
        return self._region(planned, chosen.window, chosen.draws)

    def _region(self, planned: PlannedSlide, window: Window, draws: Draws) -> Region:
        side_px, grid = planned.lattice.across.smallchunk_px, planned.grid
        return Region(window, draws, covered_px(draws, side_px, grid.width, grid.height))


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

    def of(self, planned: PlannedSlide, ticket: LoadBigChunk) -> Region:
        """See `WindowPlan.of`."""
        every = planned.grid_windows.at(ticket.window)
        order = positions_in_order(
            self._seed, ticket.slide, ticket.cycle, ticket.window, len(every.draws.x)
        )
        chosen = order[ticket.first : ticket.first + ticket.calls]
        return self._region(planned, every.window, every.draws.taken(chosen))


def window_plan(config: StreamConfig) -> WindowPlan:
    """What a stream takes from its slides."""
    if config.grid:
        return GridWindowsInOrder(config)
    if not config.replacement:
        return GridWindowsInCycles(config)
    if config.pixel_filter is not None:
        return FilteredWindows(config, config.pixel_filter)
    return DrawnWindows(config)
