"""What a simulated stream must deliver, worked out beside the core: its plan and its faults.

The rows follow from `Rotation` and `UniformSchedule` (or the grid), the faults from a pure function
of (slide, ordinal, attempt), and the rule of substitution is written down here once more.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

from chunkdl.engine.config import OnError, Order, StreamConfig
from chunkdl.engine.decisions.core_config import CoreConfig
from chunkdl.errors import Failure
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.cycle_stream import CycleStream
from chunkdl.sampling.grid_pass import slide_order
from chunkdl.sampling.resolutions import FixedResolution
from chunkdl.sampling.reuse import SURVEYED_WINDOWS
from chunkdl.sampling.rotation import Rotation
from chunkdl.sampling.schedule import UniformSchedule
from chunkdl.slides.resolution import Resolution

PLAN_HASH = "f00d" * 16
TOKEN = b"sixteen bytes ok"

Region = tuple[int, int, int, int]
"""What lies in a BigChunk slot: slide, ordinal, attempt, window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One world, before anything has happened in it.

    `calls` 0 has the SmallChunks per BigChunk surveyed; `windows` are the positions of each window
    of each slide, for a grid or, with `cycles`, for so many cycles without replacement;
    `bad_percent` is the share of regions that cannot be read. A loader
    that does anything for one of the `killer_slides` dies. Batches below `first_batch`, and those
    in `ahead`, were delivered in an earlier life.
    """

    seed: int = 0
    places: int = 2
    calls: int = 2
    batch_rows: int = 4
    loaders: int = 1
    collectors: int = 1
    bigchunk_slots: int = 3
    batch_slots: int = 2
    credit: int = 2
    order: Order = "strict"
    on_error: OnError = "substitute"
    slides_of_patient: tuple[tuple[int, ...], ...] = ((0,), (1,))
    bad_slides: frozenset[int] = frozenset()
    killer_slides: frozenset[int] = frozenset()
    max_restarts: int = 10**6
    bad_percent: int = 0
    grid: bool = False
    cycles: int = 0
    windows: tuple[tuple[int, ...], ...] = ()
    drop_last: bool = False
    first_batch: int = 0
    ahead: tuple[int, ...] = ()

    @property
    def slides(self) -> int:
        """Number of slides."""
        return sum(map(len, self.slides_of_patient))

    @property
    def finite(self) -> bool:
        """Whether there are passes, which end."""
        return self.grid or self.cycles > 0

    @property
    def useless_slides(self) -> frozenset[int]:
        """Of which nobody ever gets anything."""
        return self.bad_slides | self.killer_slides

    def config(self) -> CoreConfig:
        """The same for the core."""
        stream = StreamConfig(
            seed=self.seed,
            batch_size=self.batch_rows,
            smallchunk_px=1,
            bigchunk_px=8,
            resolution=FixedResolution(Resolution("level", 0, "error")),
            num_bigchunks=self.places,
            reuse=1.0,
            smallchunks_per_bigchunk=self.calls,
            tissue_threshold=0.5,
            tissue=None,
            reader="auto",
            grid=self.grid,
            drop_last=self.drop_last,
            shuffle=True,
            replacement=not self.cycles,
            cycles=self.cycles or 1,
        )
        return CoreConfig(
            stream=stream,
            slides_of_patient=self.slides_of_patient,
            slides=tuple(f"{slide}.tif" for slide in range(self.slides)),
            bigchunk_slots=self.bigchunk_slots,
            batch_slots=self.batch_slots,
            loaders=self.loaders,
            collectors=self.collectors,
            order=self.order,
            on_error=self.on_error,
            plan_hash=PLAN_HASH,
            token=TOKEN,
            max_restarts=self.max_restarts,
        )

    def cursor(self) -> Cursor:
        """Where the world begins."""
        before = self.first_batch or self.ahead
        calls = self.settled_calls() if before else 0
        empty = {slide for slide, windows in enumerate(self.windows) if not windows}
        barren = self.useless_slides | empty
        return Cursor(
            plan_hash=PLAN_HASH,
            seed=self.seed,
            next_batch=self.first_batch,
            ahead=self.ahead,
            smallchunks_per_bigchunk=calls,
            substitutions=dict.fromkeys(barren, 0) if self.cycles and before else {},
        )

    def fault(self, slide: int, place: int, attempt: int) -> Literal["slide", "region"] | None:
        """How reading BigChunk (or grid window) `place` of `slide` fails."""
        if slide in self.useless_slides:
            return "slide"
        # A hash of ints is the same in every process.
        number = hash((self.seed, slide, place, attempt)) % 100
        return "region" if number < self.bad_percent else None

    def failure(self, slide: int) -> Failure:
        """What a loader says; without replacement only one without tissue is passed over."""
        kind = "NoTissueError" if self.cycles else "SlideError"
        return Failure(kind, f"cannot read [slide {slide}]", "trace", slide=str(slide).encode())

    def useful_px(self, ordinal: int, attempt: int) -> int:
        """What a loader says about the window of a BigChunk."""
        return 1 + hash((self.seed, ordinal, attempt)) % 5

    def settled_calls(self) -> int:
        """The SmallChunks per BigChunk, surveyed where they are not given; 0 for a grid."""
        if self.finite or self.calls:
            return 0 if self.finite else self.calls
        schedule = UniformSchedule(self.seed, self.slides_of_patient)
        surveyed = []
        for ordinal in range(SURVEYED_WINDOWS):
            attempt = 0
            while schedule.slide(ordinal, attempt) in self.useless_slides:
                attempt += 1
            surveyed.append(self.useful_px(ordinal, attempt))
        return max(1, round(math.fsum(surveyed) / SURVEYED_WINDOWS))


class Accidents:
    """What a plan cannot know: which slides were left out by accident, and what came of it.

    Attributes:
        left_out: slides that have cost too many loaders.
        loaded: (ordinal, attempt) of what was loaded all the same, before that.
        begin: the first attempt that counts, by ordinal, after a resume.
    """

    def __init__(self) -> None:
        self.left_out: set[int] = set()
        self.loaded: set[tuple[int, int]] = set()
        self.begin: dict[int, int] = {}

    def spared(self, slide: int, ordinal: int, attempt: int) -> bool:
        """Whether an attempt at a BigChunk was none of them."""
        return slide not in self.left_out or (ordinal, attempt) in self.loaded


class RandomPlan:
    """The endless stream of a script, row by row."""

    epoch = 0

    def __init__(self, script: Script, accidents: Accidents, calls: int = 0) -> None:
        self._script = script
        self._accidents = accidents
        self.calls = calls or script.settled_calls()
        self._rotation = Rotation(script.seed, script.places, self.calls)
        self._schedule = UniformSchedule(script.seed, script.slides_of_patient)
        self._rows: dict[int, list[tuple[int, int]]] = {}

    def batches(self) -> None:
        """It has no end."""

    def rows(self, batch: int) -> list[tuple[int, int]]:
        """(ordinal, call) of each row."""
        if batch not in self._rows:
            rows = self._script.batch_rows
            ordinals, calls = self._rotation.rows(batch * rows, rows)
            self._rows[batch] = list(zip(ordinals.tolist(), calls.tolist(), strict=True))
        return self._rows[batch]

    def given(self, ordinal: int) -> tuple[int, int, int]:
        """Calls, cycle and first position of a BigChunk, as its ticket has them."""
        return self.calls, -1, 0

    def tried(self, ordinal: int, attempt: int) -> Region:
        """What an attempt at a BigChunk reads."""
        return self._schedule.slide(ordinal, attempt), ordinal, attempt, -1

    def region(self, ordinal: int) -> Region:
        """What a BigChunk is read from in the end: the first attempt that neither fails nor kills.

        Ask only where there is one.
        """
        attempt = self._accidents.begin.get(ordinal, 0)
        while True:
            slide, *_ = tried = self.tried(ordinal, attempt)
            spared = self._accidents.spared(slide, ordinal, attempt)
            if spared and not self._script.fault(slide, ordinal, attempt):
                return tried
            attempt += 1


class GridPlan:
    """One pass over the grid of a script, row by row; `unseen` slides were never surveyed."""

    calls = 0

    def __init__(
        self,
        script: Script,
        accidents: Accidents,
        epoch: int,
        unseen: frozenset[int] = frozenset(),
    ) -> None:
        self._script = script
        self._accidents = accidents
        self.epoch = epoch
        self._windows: Mapping[int, tuple[int, int]] = dict(
            enumerate(
                (slide, window)
                for slide in slide_order(script.seed, epoch, script.slides).tolist()
                if slide not in script.useless_slides | unseen
                for window in range(len(script.windows[slide]))
            )
        )
        rows = [
            (ordinal, call)
            for ordinal, (slide, window) in self._windows.items()
            for call in range(script.windows[slide][window])
        ]
        if script.drop_last:
            rows = rows[: len(rows) // script.batch_rows * script.batch_rows]
        self._rows = rows

    def batches(self) -> int:
        """Batches of the pass."""
        return -(-len(self._rows) // self._script.batch_rows)

    def rows(self, batch: int) -> list[tuple[int, int]]:
        """(ordinal, call) of each row."""
        first = batch * self._script.batch_rows
        return self._rows[first : first + self._script.batch_rows]

    def given(self, ordinal: int) -> tuple[int, int, int]:
        """Calls, cycle and first position of a BigChunk, as its ticket has them."""
        return 0, -1, 0

    def tried(self, ordinal: int, attempt: int) -> Region:
        """What a BigChunk reads."""
        slide, window = self._windows[ordinal]
        return slide, ordinal, attempt, window

    def region(self, ordinal: int) -> Region | None:
        """What a BigChunk is read from; None where its rows are left out."""
        slide, window = self._windows[ordinal]
        spared = self._accidents.spared(slide, ordinal, 0)
        readable = spared and not self._script.fault(slide, window, 0)
        return (slide, ordinal, 0, window) if readable else None


class CyclePlan(GridPlan):
    """One pass without replacement of a script; what is which row is proved in `tests.sampling`."""

    def __init__(
        self,
        script: Script,
        accidents: Accidents,
        epoch: int,
        unseen: frozenset[int] = frozenset(),
    ) -> None:
        self._script = script
        self._accidents = accidents
        self.epoch = epoch
        stream = CycleStream(
            script.config().stream,
            Cursor(plan_hash=PLAN_HASH, seed=script.seed),
            script.slides_of_patient,
            epoch,
        )
        while stream.unsurveyed and (slide := stream.unsurveyed[0]) >= 0:
            stream.add(() if slide in script.useless_slides | unseen else script.windows[slide])
        rows = [stream.rows(n) for n in range(stream.length) if stream.knows(n)]
        self._rows = [
            (int(ordinal), int(call))
            for ordinals, calls in rows
            for ordinal, call in zip(ordinals, calls, strict=True)
        ]
        ordinals = itertools.takewhile(stream.has, itertools.count())
        self._sources = {ordinal: stream.source(ordinal) for ordinal in ordinals}
        self._windows = {o: (source.slide, source.window) for o, source in self._sources.items()}

    def given(self, ordinal: int) -> tuple[int, int, int]:
        """Calls, cycle and first position of a BigChunk, as its ticket has them."""
        source = self._sources[ordinal]
        return source.calls, source.cycle, source.first


def passing(
    script: Script, accidents: Accidents, epoch: int, unseen: frozenset[int] = frozenset()
) -> GridPlan:
    """A pass of a script that has passes."""
    kind = GridPlan if script.grid else CyclePlan
    return kind(script, accidents, epoch, unseen)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Small worlds of every kind, in which something can always be read."""
    patients = draw(st.lists(st.integers(1, 2), min_size=1, max_size=4))
    slides = sum(patients)
    numbers = iter(range(slides))
    places = draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["random", "grid", "cycles"]))
    grid, cycles = kind == "grid", draw(st.integers(1, 2)) if kind == "cycles" else 0
    batch_slots = draw(st.integers(2, 4))
    bad = draw(st.frozensets(st.integers(0, slides - 1), max_size=min(slides - 1, 2)))
    killers = draw(st.frozensets(st.integers(0, slides - 1), max_size=slides - 1 - len(bad)))
    window_counts = st.lists(st.integers(1, 5), max_size=5).map(tuple)
    script = Script(
        seed=draw(st.integers(0, 999)),
        places=places,
        calls=draw(st.sampled_from([0, 1, 1, 2, 3, 5])),
        batch_rows=draw(st.integers(1, 40)),
        loaders=draw(st.integers(1, 3)),
        collectors=draw(st.integers(1, 3)),
        bigchunk_slots=places + draw(st.integers(0, 3)),
        batch_slots=batch_slots,
        credit=draw(st.integers(1, batch_slots + 1)),
        order=draw(st.sampled_from(["strict", "relaxed"])),
        on_error=draw(st.sampled_from(["substitute", "substitute", "substitute", "raise"])),
        slides_of_patient=tuple(tuple(next(numbers) for _ in range(n)) for n in patients),
        bad_slides=bad,
        killer_slides=killers - bad,
        max_restarts=draw(st.sampled_from([10**6, 10**6, 10**6, 6])),
        bad_percent=draw(st.sampled_from([0, 0, 15, 50])),
        grid=grid,
        cycles=cycles,
        windows=tuple(draw(window_counts) for _ in range(slides)) if grid or cycles else (),
        drop_last=draw(st.booleans()),
    )
    most = passing(script, Accidents(), 0).batches() if script.finite else 1000
    first = draw(st.sampled_from([0, 0, 1, 7, 1000]).map(lambda batch: min(batch, most)))
    ahead = draw(st.frozensets(st.integers(first + 1, first + 3), max_size=2))
    past = tuple(sorted(number for number in ahead if not script.finite or number < most))
    return dataclasses.replace(script, first_batch=first, ahead=past)
