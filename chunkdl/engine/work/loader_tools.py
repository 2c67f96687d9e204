"""What the engine gives to a user's loader class: the plan's facts, the fast reader, the slot.

Each object serves one BigChunk. Whatever is expensive is made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from chunkdl.dataset.patients import Patient, Record
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.config import StreamConfig
from chunkdl.engine.work.load_bigchunk import BigChunkPx, describe
from chunkdl.engine.work.open_slides import OpenSlide, OpenSlides
from chunkdl.engine.work.planned_slide import PlannedSlide
from chunkdl.engine.work.window_pixels import WindowPixels
from chunkdl.engine.work.window_plans import Region, window_plan
from chunkdl.errors import ConfigError, PackingError
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.windows import Draws, Window
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.resampling import read_target_into
from chunkdl.slides.resolution import Resolution, resolve, wished_resolution
from chunkdl.slides.slide import Slide
from chunkdl.slides.tissue.mask import TissueMask
from chunkdl.transport.memory.layouts import RECORD, Array, Strips
from chunkdl.transport.memory.packing import Packer
from chunkdl.transport.protocol.engine_messages import LoadBigChunk

ROOM = (
    "each BigChunk has an equal share of memory_limit: raise memory_limit, or lower num_bigchunks "
    "(num_bigchunkloaders)"
)
"""What to do where a BigChunk is too large for its slot."""
MOST_POSITIONS = 100_000
"""Positions that are drawn for one BigChunk; one that serves longer begins again with the first."""

MOST_FILTERED = 4096
"""The same where each has to be looked at."""


class LoaderTools:
    """For one `extract_bigchunk`.

    Args:
        config: of the stream.
        ticket: which BigChunk.
        patient: whose it is.
        entries: the slides of the dataset.
        slides: those that this loader has open.
        packer: of the BigChunk's slot.
        log: takes lines for the log of the training process.
    """

    def __init__(
        self,
        config: StreamConfig,
        ticket: LoadBigChunk,
        patient: Patient,
        entries: tuple[SlideEntry, ...],
        slides: OpenSlides,
        packer: Packer,
        log: Callable[[str], None],
    ) -> None:
        self._config = config
        self._ticket = ticket
        self._patient = patient
        self._entries = entries
        self._slides = slides
        self._packer = packer
        self._decoded_before: dict[int, int] = {}
        self._target_px = 0
        self.log = log
        self._filtered: Strips | None = None
        """Pixels of the window, where a pixel filter had to look at them."""
        self.took_positions = False
        """Whether the class knows where the plan takes its SmallChunks."""

    @property
    def read_px(self) -> BigChunkPx:
        """What the slides have decoded for this BigChunk, and what was asked of the fast reader."""
        decoded = sum(
            # A slide that was closed in between and opened again has begun to count anew.
            max(0, self._slides.get(index).slide.decoded_px - before)
            for index, before in self._decoded_before.items()
        )
        return BigChunkPx(decoded, self._target_px)

    def _opened(self, index: int) -> OpenSlide:
        opened = self._slides.get(index)
        self._decoded_before.setdefault(index, opened.slide.decoded_px)
        return opened

    @cached_property
    def rng(self) -> np.random.Generator:
        """Random numbers for this BigChunk."""
        ticket = self._ticket
        return generator(self._config.seed, Purpose.BIGCHUNK, ticket.ordinal, ticket.attempt)

    @property
    def _chosen(self) -> OpenSlide:
        """The slide that the plan has chosen."""
        if self._ticket.slide < 0:
            raise ConfigError(
                f"patient {self._patient.name} has no record that is a slide; use a file name that "
                'ends like a slide, or Record(..., {"slide": True})'
            )
        return self._opened(self._ticket.slide)

    @property
    def planned(self) -> PlannedSlide:
        """The slide that the plan has chosen, with its part of the plan.

        Raises:
            NoTissueError: it has no place for a SmallChunk.
        """
        return self._chosen.at(self._planned_at)

    @cached_property
    def _planned_at(self) -> Resolution:
        plan = window_plan(self._config)
        return plan.at(self._chosen, self._ticket.ordinal, self._ticket.attempt).resolution

    @property
    def _resolution(self) -> Resolution:
        """Of this BigChunk; where it is the same for all, the slide may have no tissue."""
        return self._config.resolution.only or self._planned_at

    @property
    def slide(self) -> Slide:
        """The slide that the plan has chosen."""
        return self._chosen.slide

    @property
    def tissue_mask(self) -> TissueMask:
        """Its tissue."""
        return self._chosen.mask

    @cached_property
    def _plan(self) -> Region:
        filtered = self._config.pixel_filter is not None
        calls = min(self._ticket.calls, MOST_FILTERED if filtered else MOST_POSITIONS)
        ticket = msgspec.structs.replace(self._ticket, calls=calls)
        plan = window_plan(self._config)
        if filtered:
            return plan.read(self.planned, ticket, self._room)
        return plan.of(self.planned, ticket)

    def _room(self, strip_px: int) -> Strips:
        # All windows of a slide lie in strips of one width, so trials share one place in the slot.
        if self._filtered is None or self._filtered.array.shape[2] != strip_px:
            self._filtered = self._strips(strip_px)
        return self._filtered

    def _strips(self, strip_px: int) -> Strips:
        side_px = self._config.bigchunk_px
        return Strips(self.empty((side_px // strip_px, side_px, strip_px, 3), np.uint8))

    @property
    def window(self) -> Window:
        """The region of this BigChunk."""
        return self._plan.window

    @property
    def positions(self) -> Draws:
        """The corners of its SmallChunks."""
        self.took_positions = True
        return self._plan.draws

    @property
    def described(self) -> Mapping[str, Any]:
        """Slide and ordinal."""
        return {"slide": self.slide.info.path, "bigchunk": self._ticket.ordinal}

    def records(self) -> Array | None:
        """A record for each position, where the plan was looked at."""
        if "_plan" not in self.__dict__:
            return None
        window, draws = self._plan.window, self._plan.draws
        records = np.zeros(len(draws.x), dtype=RECORD)
        describe(self.planned, self._ticket, self._ticket.slide, window, draws, records)
        return records

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array in the slot."""
        try:
            return self._packer.empty(shape, dtype)
        except PackingError as error:
            raise PackingError(f"{error}; {ROOM}") from error

    def read_window(self) -> Strips:
        """The part of the window that the positions touch."""
        region = self._plan
        self._target_px += region.target_px
        if self._filtered is not None:
            return self._filtered
        return WindowPixels(self.planned, self._strips).read(region.window, region.draws)

    def read_region(
        self,
        x: float,
        y: float,
        width: int,
        height: int,
        resolution: tuple[int | None, float | None, float | None],
        record: Record | None,
    ) -> npt.NDArray[np.uint8]:
        """A region in the slot; see `BigChunkLoader.read_region`."""
        opened = self._chosen if record is None else self._of(record)
        asked = resolution != (None, None, None)
        wish = wished_resolution(*resolution) if asked else self._resolution
        grid = resolve(opened.slide.info, wish, opened.entry.mpp)
        out = self.empty((height, width, 3), np.uint8)
        left, top = round(x / grid.downsample), round(y / grid.downsample)
        read_target_into(opened.slide, grid, out, left, top)
        self._target_px += height * width
        return out

    def open_file(self, path: str) -> Slide:
        """Any slide file, opened with the reader and the rule for pixels of the stream; whoever
        asks closes it.

        Raises:
            SlideError: it cannot be opened.
        """
        return open_slide(path, self._config.reader, self._config.pixels)

    def _of(self, record: Record) -> OpenSlide:
        found = [index for index, one in enumerate(self._entries) if one.path == record.path]
        # A file of two patients may have another mpp or mask for each of them.
        own = [index for index in found if self._entries[index].patient == self._ticket.patient]
        if found:
            return self._opened((own or found)[0])
        raise ConfigError(
            f"{record.path} is not a slide of patient {self._patient.name}; name it like a slide "
            'file, or say Record(..., {"slide": True})'
        )
