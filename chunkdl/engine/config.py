"""What a stream is and what runs it: frozen values that every process is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from chunkdl.annotations.use import AnnotationUse
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.patches.filters.pixel_filter import PixelFilter
from chunkdl.sampling.grid_shape import GridShape
from chunkdl.sampling.policies.policy import Policy
from chunkdl.sampling.resolutions import DrawnResolution, FixedResolution
from chunkdl.sampling.strata import Group
from chunkdl.slides.slide import AS_STORED, PixelRule
from chunkdl.slides.tissue.detectors.detector import TissueDetector
from chunkdl.transport.memory.layouts import INFO_BYTES, BatchLayout, BigChunkLayout
from chunkdl.transport.row_format import ColumnFormat, RowFormat

Order = Literal["strict", "relaxed"]
OnError = Literal["substitute", "raise"]
Edge = Literal["inside", "pad"]
GridOrder = Literal["mixed", "dataset"]
Colour = tuple[int, int, int]


class RowSource(Enum):
    """What makes a row.

    Attributes:
        are_crops: a row is a crop as it was read: its size is known before, and so is its slot's.
        by_hooks: the user's own classes read and make it; no window, tissue or position is planned.
    """

    CROP = "plain"
    TRANSFORM = "transformed"
    HOOKS = "hooks"

    @property
    def are_crops(self) -> bool:
        return self is RowSource.CROP

    @property
    def by_hooks(self) -> bool:
        return self is RowSource.HOOKS


Program = Literal["loader", "collector", "scheduler"]
"""The kinds of workers."""


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Everything that the plan depends on, besides the dataset.

    Attributes:
        seed: 0 to 2**64 - 1.
        batch_size: rows of a batch.
        smallchunk_px: side of a SmallChunk, target pixels.
        bigchunk_px: side of a BigChunk, target pixels.
        resolution: the wished resolution, or from which it is drawn for each BigChunk.
        num_bigchunks: BigChunks open at a time.
        reuse: wished SmallChunk pixels delivered per target pixel that they can show; sets the
            SmallChunks per BigChunk unless they are given.
        smallchunks_per_bigchunk: 0 where `reuse` sets it.
        tissue_threshold: least share of tissue in a SmallChunk, 0 to 1.
        tissue: detector of tissue, or None for the whole slide.
        pixel_filter: looks at the pixels of each SmallChunk of the plan, or None for no filter.
        reader: name of the slide reader, or "auto".
        pixels: how samples that are not 8-bit RGB become it, and the colour profile.
        grid: a finite pass over a grid instead of the endless random stream.
        drop_last: leave out the short batch at the end of a grid pass.
        shuffle: each grid pass has an order of its own; False: all have the same.
        stride_px: distance of grid positions, target pixels; 0: the side of a SmallChunk.
        edge: whether footprints of a grid may overhang the slide at its right and lower edge.
        edge_fill: red, green and blue of what lies outside the slide.
        grid_order: in which a grid pass visits the slides.
        replacement: False: the positions of a grid in mixed order, each once in a cycle of its
            slide.
        cycles: without replacement: how often each position comes in a pass; None: without end.
        annotations: what is made of the annotations of slides; None: they are not looked at.
        rows: who makes a row.
        objects: rows travel as Python objects, for a `collate_func`.
        policy: chooses the patient of each BigChunk; None: all in turn, in closed form.
        one_load_per_patient: a load waits until those before it of the same patient are over, as
            checkpoints need it.
    """

    seed: int
    batch_size: int
    smallchunk_px: int
    bigchunk_px: int
    resolution: FixedResolution | DrawnResolution
    num_bigchunks: int
    reuse: float
    smallchunks_per_bigchunk: int
    tissue_threshold: float
    tissue: TissueDetector | None
    reader: str
    grid: bool
    drop_last: bool
    shuffle: bool = False
    stride_px: int = 0
    edge: Edge = "inside"
    edge_fill: Colour = (255, 255, 255)
    grid_order: GridOrder = "mixed"
    replacement: bool = True
    cycles: int | None = 1
    rows: RowSource = RowSource.CROP
    objects: bool = False
    policy: Policy | None = None
    one_load_per_patient: bool = False
    pixels: PixelRule = AS_STORED
    pixel_filter: PixelFilter | None = None
    annotations: AnnotationUse | None = None

    @property
    def in_order(self) -> bool:
        """Whether a grid pass visits the slides in the order of the dataset."""
        return self.grid_order == "dataset"

    @property
    def on_grid(self) -> bool:
        """Whether positions are those of a grid."""
        return self.grid or not self.replacement

    @property
    def finite(self) -> bool:
        """Whether the stream has passes, which end."""
        return self.grid or (not self.replacement and self.cycles is not None)

    @property
    def grid_shape(self) -> GridShape:
        """How the grid lies on a slide."""
        return GridShape(
            self.smallchunk_px,
            self.bigchunk_px,
            self.stride_px or self.smallchunk_px,
            self.edge == "pad",
        )

    @property
    def least_side_px(self) -> int:
        """A slide whose shorter side has fewer target pixels holds no SmallChunk."""
        return 1 if self.on_grid and self.grid_shape.pads else self.smallchunk_px

    @property
    def most_calls(self) -> int:
        """Bound of the SmallChunks of one BigChunk, whatever the slides are."""
        if self.on_grid:
            return self.grid_shape.along**2
        return self.smallchunks_per_bigchunk or self.calls_for(self.bigchunk_px**2)

    @property
    def bigchunk_layout(self) -> BigChunkLayout:
        """How a BigChunk lies in its slot."""
        return BigChunkLayout(
            self.bigchunk_px,
            self.most_calls,
            columns_of(self.annotations),
            has_label_mask=self.annotations is not None and self.annotations.label_mask,
        )

    @property
    def footprint_px(self) -> int:
        """Side of the square of its BigChunk that a row shows, target pixels; 0: the user's classes
        make rows, and do not say what they show."""
        return 0 if self.rows.by_hooks else self.smallchunk_px

    def calls_for(self, useful_px: float) -> int:
        """The SmallChunks of a BigChunk for the wished reuse.

        Args:
            useful_px: target pixels of its window that SmallChunks can show.
        """
        return max(1, round(self.reuse * useful_px / self.smallchunk_px**2))

    @property
    def row_format(self) -> RowFormat | None:
        """The columns of a row; None: the first row that the user's code makes shows them."""
        if not self.rows.are_crops:
            return None
        masked = self.annotations is not None and self.annotations.label_mask
        return RowFormat.of_crops(
            self.smallchunk_px, columns_of(self.annotations), has_label_mask=masked
        )

    def layout_of(self, row_format: RowFormat) -> BatchLayout:
        """How a batch of such rows lies in its slot."""
        return BatchLayout(self.batch_size, row_format, INFO_BYTES if self.rows.by_hooks else 0)


def columns_of(use: AnnotationUse | None) -> tuple[ColumnFormat, ...]:
    """The columns of crops that say what is annotated there, beside the label mask."""
    if use is None:
        return ()
    found = [ColumnFormat("region", "<i8", ())]
    if use.regions is not None:
        found.append(ColumnFormat("drawn_region", "<i8", ()))
    if use.shares:
        found.append(ColumnFormat("region_shares", "<f4", (len(use.names),)))
    if use.cells is not None:
        found.append(ColumnFormat("cells", "<f4", (use.most_cells, 2)))
        found.append(ColumnFormat("cell_class", "<i8", (use.most_cells,)))
        found.append(ColumnFormat("cell_count", "<i8", ()))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that changes how fast a stream comes, and nothing of what is in it.

    Attributes:
        num_loaders, num_collectors: processes.
        bigchunk_slots: BigChunks in memory: the open ones and the look-ahead.
        batch_slots: batches in memory: being filled, waiting, or held by the consumer.
        bigchunk_slot_bytes, batch_slot_bytes: sizes of the slots, whole pages; what the user's
            code makes must fit, and takes only the memory that it fills.
        order: "strict": batches in the order of the plan; "relaxed": as they are ready.
        on_error: "substitute" another BigChunk for one that cannot be read, or "raise".
        on_hook_error: the same for one over which the user's code raised.
        mask_cache: folder of the tissue mask cache and of what headers said; None: the user's
            cache folder.
        cpu_affinity: cores that the processes may use; empty: all.
        stall_timeout_s: a worker that is silent for so long over one ticket is replaced, seconds.
        hook_timeout_s: one call of the user's code may take so long, seconds; None: no deadline
            but the one for stalled workers.
        max_restarts: worker deaths within a minute, and between two batches, that are made good
            before the stream fails.
        withheld_slots: batch slots, from the first on, that are not used and take no memory until
            they are released; as much is still in use of another engine.
    """

    num_loaders: int
    num_collectors: int
    bigchunk_slots: int
    batch_slots: int
    bigchunk_slot_bytes: int
    batch_slot_bytes: int
    order: Order
    on_error: OnError
    on_hook_error: OnError
    mask_cache: Path | None
    cpu_affinity: tuple[int, ...]
    stall_timeout_s: float
    hook_timeout_s: float | None
    max_restarts: int
    withheld_slots: int = 0

    @property
    def memory_bytes(self) -> tuple[int, int]:
        """Bytes of the BigChunk arena and of the batch arena, at most."""
        return (
            self.bigchunk_slots * self.bigchunk_slot_bytes,
            self.batch_slots * self.batch_slot_bytes,
        )


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the coordinator is started with, over the private pipe of its parent."""

    stream: StreamConfig
    run: RunConfig
    slides: tuple[SlideEntry, ...]
    """Those of the plan; what was left out is not among them."""
    slides_of_patient: tuple[tuple[int, ...], ...]
    """By the index of the patient in the dataset."""
    patients: tuple[str, ...]
    """Names of all patients of the dataset, for messages."""
    user: Mapping[Program, bytes]
    """A pickled `UserCode` for each kind of worker that runs any."""
    has_scheduler: bool
    """The user's own policy chooses, in a process of its own."""
    rows_hash: str
    """Identifies the rows of the stream."""
    plan_hash: str
    """Identifies its batches."""
    cursor: dict[str, Any]
    token: bytes
    row_format: RowFormat | None = None
    """The columns of the rows that the user's code makes, where an engine before has settled them:
    whoever reads has one layout for all engines."""
    groups: tuple[Group, ...] = ()
    """What has weights, where slides or classes have them over the stream; else empty."""
