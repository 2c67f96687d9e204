"""Which window of its slide a BigChunk is, and where in it the SmallChunks are.

The endless stream draws both; a pass over the grid takes them in order. For the loaders
`window_plan` is the only place that tells the two apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from chunkdl.engine.config import StreamConfig
from chunkdl.engine.work.open_slides import PlannedSlide
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.windows import Draws, Window
from chunkdl.transport.protocol.engine_messages import LoadBigChunk


class WindowPlan(ABC):
    """What a kind of stream takes from a slide."""

    @abstractmethod
    def find_places(self, planned: PlannedSlide) -> None:
        """See that there is a place for a SmallChunk in the slide.

        Raises:
            NoTissueError: there is none.
        """

    @abstractmethod
    def of(self, planned: PlannedSlide, ticket: LoadBigChunk) -> tuple[Window, Draws]:
        """The window of a BigChunk, and the draws in it."""


class DrawnWindows(WindowPlan):
    """Of the endless stream.

    Args:
        seed: of the plan.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def find_places(self, planned: PlannedSlide) -> None:
        """See `WindowPlan.find_places`."""
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

    def find_places(self, planned: PlannedSlide) -> None:
        """See `WindowPlan.find_places`."""
        _ = planned.grid_windows

    def of(self, planned: PlannedSlide, ticket: LoadBigChunk) -> tuple[Window, Draws]:
        """See `WindowPlan.of`."""
        chosen = planned.grid_windows.window(ticket.window)
        return chosen.window, chosen.draws


def window_plan(config: StreamConfig) -> WindowPlan:
    """What a stream takes from its slides."""
    return GridWindowsInOrder() if config.grid else DrawnWindows(config.seed)
