"""Small slides, ragged tissue and stream settings that the tests of the plan share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chunkdl.engine.config import StreamConfig
from chunkdl.sampling.anchors import Anchors
from chunkdl.sampling.grid import GridWindow, GridWindows
from chunkdl.sampling.grid_shape import GridShape
from chunkdl.sampling.positions import PositionSet, positions_of
from chunkdl.sampling.resolutions import FixedResolution
from chunkdl.sampling.windows import Axis, Lattice
from chunkdl.slides.resolution import Resolution, TargetGrid
from chunkdl.slides.tissue.mask import TissueMask

Flags = npt.NDArray[np.bool_]

EXAMPLES = settings(max_examples=60, deadline=None)
"""For properties whose examples take about ten milliseconds."""

_STREAM = StreamConfig(
    seed=5,
    batch_size=8,
    smallchunk_px=4,
    bigchunk_px=16,
    resolution=FixedResolution(Resolution("level", 0, "error")),
    num_bigchunks=3,
    reuse=1.0,
    smallchunks_per_bigchunk=0,
    tissue_threshold=0.5,
    tissue=None,
    reader="auto",
    grid=False,
    drop_last=False,
)


def stream_config(**changes: Any) -> StreamConfig:
    """The settings of a small stream."""
    return dataclasses.replace(_STREAM, **changes)


@dataclass(frozen=True, slots=True)
class SmallSlide:
    """What the plan knows of a slide, and what is wanted of it."""

    grid: TargetGrid
    mask: TissueMask
    smallchunk_px: int
    threshold: float

    @property
    def positions(self) -> PositionSet:
        return positions_of(self.grid, self.mask, self.smallchunk_px, self.threshold)

    @property
    def anchors(self) -> Anchors:
        return Anchors(self.positions, lambda: None)

    def grid_windows(
        self, window_px: int, stride_px: int = 0, *, pads: bool = False
    ) -> GridWindows:
        side = self.smallchunk_px
        shape = GridShape(side, window_px, stride_px or side, pads)
        return GridWindows(self.grid, self.mask, shape, self.threshold, lambda: None)

    def share(self, x2: npt.NDArray[np.int64], y2: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Tissue share of the footprints at half target pixels x2 / 2, y2 / 2; shape (y, x).

        Counted in integers, so it is exact up to the division at the end.
        """
        across, area_x = self._overlap(x2, self.mask.width0, self.mask.cells.shape[1])
        down, area_y = self._overlap(y2, self.mask.height0, self.mask.cells.shape[0])
        tissue = down @ self.mask.cells.astype(np.int64) @ across.T
        return np.asarray(tissue / (area_y[:, None] * area_x[None, :]))

    def _overlap(
        self, start2: npt.NDArray[np.int64], length0: int, cells: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Length of footprints in every mask cell, and in all; in 1 / (4 * cells) level-0 px."""
        per_half = round(2 * self.grid.downsample) * cells
        assert per_half == 2 * self.grid.downsample * cells, "the downsample must be halves"
        begin, end = start2 * per_half, (start2 + 2 * self.smallchunk_px) * per_half
        borders = np.arange(cells + 1, dtype=np.int64) * 4 * length0
        upper = np.minimum(end[:, None], borders[None, 1:])
        lower = np.maximum(begin[:, None], borders[None, :-1])
        lengths = np.maximum(0, upper - lower)
        return lengths, lengths.sum(axis=1)


@st.composite
def small_slides(draw: st.DrawFn, most_positions: int = 14) -> SmallSlide:
    """Slides with at most about `most_positions` positions a side; some have none."""
    smallchunk = draw(st.sampled_from([1, 2, 3, 5, 7, 16, 25]))
    downsample = draw(st.sampled_from([1.0, 1.5, 4.0]))
    width, height = (
        max(1, smallchunk + draw(st.integers(-4, most_positions - 1))) for _ in range(2)
    )
    cells = draw(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)))
    return SmallSlide(
        TargetGrid(0, 1.0, width, height, downsample, None),
        TissueMask(
            cells,
            int(np.ceil(width * downsample)) + draw(st.integers(0, 1)),
            int(np.ceil(height * downsample)) + draw(st.integers(0, 1)),
        ),
        smallchunk,
        draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])),
    )


@st.composite
def lattices(draw: st.DrawFn, smallchunk_px: int) -> Lattice:
    """Lattices of any stride that leaves no position without a window, unlike in x and y."""
    window = smallchunk_px + draw(st.integers(0, 12))
    most = window - smallchunk_px + 1
    strides = range(max(1, most // 3), most + 1)
    # BigChunks lie in strips where the stride divides the window, so that is to come often.
    dividing = [stride for stride in strides if window % stride == 0] or strides
    any_stride = st.sampled_from(dividing) | st.sampled_from(strides)
    across, down = draw(any_stride), draw(any_stride)
    return Lattice(Axis(across, window, smallchunk_px), Axis(down, window, smallchunk_px))


def accepted(positions: PositionSet) -> Flags:
    """Which corners are positions, shape (height, width); spread out from the cells."""
    down, across = positions.down, positions.across
    cells = positions.accepted(range(down.cells), range(across.cells))
    spread = cells.repeat(down.cell_px, axis=0).repeat(across.cell_px, axis=1)
    return spread[: down.extent, : across.extent]


def all_of(windows: GridWindows) -> list[GridWindow]:
    """Every window of a pass over a slide, in order."""
    return [windows.window(number) for number in range(len(windows.counts))]


def ragged_mask(width0: int, height0: int, seed: int) -> TissueMask:
    """Irregular islands and sparse bits, some of them at each of the four edges."""
    rng = np.random.default_rng(seed)
    rows, columns = height0 // 8, width0 // 8
    y, x = np.mgrid[0:rows, 0:columns]
    field = np.full((rows, columns), -1.0)
    centres = [(0, 0.3), (1, 0.8), (0.6, 0), (0.25, 1), (0.5, 0.45), (0.1, 0.7)]
    for down, across in centres:
        radius = rng.uniform(0.10, 0.2) * min(rows, columns)
        distance = np.hypot(y - down * rows, x - across * columns) / radius
        field = np.maximum(field, 1.2 - distance)
    wobble = np.sin(x / 3.1 + rng.uniform(0, 6)) * np.sin(y / 2.3 + rng.uniform(0, 6))
    islands = field + 0.3 * wobble + rng.normal(0, 0.15, field.shape) > 0
    bits = rng.random(field.shape) < 0.002
    for down, across in [(0, -1), (-1, 0), (rows // 2, -1), (-1, columns // 2)]:
        bits[down, across] = True
    wide = bits | np.roll(bits, 1, 0) | np.roll(bits, 1, 1) | np.roll(np.roll(bits, 1, 0), 1, 1)
    return TissueMask(islands | wide, width0, height0)
