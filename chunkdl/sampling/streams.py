"""What a stream is to the coordinator (which rows, of which BigChunks, when), and the endless one.

The others are in `grid_stream` and `cycle_stream`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ProtocolError
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.rotation import Rotation


class StreamRules(Protocol):
    """What a stream has to know of its configuration; see `chunkdl.engine.config.StreamConfig`."""

    @property
    def seed(self) -> int:
        """Of the plan."""

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""

    @property
    def num_bigchunks(self) -> int:
        """BigChunks open at a time."""

    @property
    def drop_last(self) -> bool:
        """Whether a pass leaves out a short batch at its end."""

    @property
    def grid(self) -> bool:
        """Whether it is a finite pass over a grid."""

    @property
    def shuffle(self) -> bool:
        """Whether each pass visits the slides in another order."""

    @property
    def in_order(self) -> bool:
        """Whether a pass visits the slides in the order of the dataset."""

    @property
    def replacement(self) -> bool:
        """Whether positions are drawn without regard to those before."""

    @property
    def cycles(self) -> int | None:
        """Without replacement: how often each position comes; None: without end."""


class Source(NamedTuple):
    """What a BigChunk is, where the stream names it.

    Attributes:
        slide, window: which.
        calls: how many positions of the window it has; 0: all.
        cycle: that names the order of the positions; -1: they are in reading order.
        first: the first of its positions in that order.
    """

    slide: int
    window: int
    calls: int = 0
    cycle: int = -1
    first: int = 0


RowPlan = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""BigChunk ordinal and call of each row of a batch."""


class Stream(ABC):
    """What the engine asks of any kind of stream; `stream_kinds.stream_of` makes them.

    Attributes:
        calls: SmallChunks of a BigChunk; 0 where each has its own number.
        epoch: number of the pass.
        may_replace: whether another region may stand in for one that cannot be read; else its rows
            are left out.
        has_passes: whether another pass comes behind this one.
        missing: a slide that gave rows before the cursor and has none now, so that the stream
            cannot go on; None: there is none.
    """

    calls: int
    epoch: int
    may_replace: bool
    has_passes: bool
    missing: int | None = None

    @property
    def left_out(self) -> Mapping[int, int]:
        """Slides without a position, each with a 0, where a resume has to know them."""
        return {}

    @property
    @abstractmethod
    def length(self) -> int:
        """Batches of the stream or pass; -1 while that is not known, and for no end."""

    @property
    @abstractmethod
    def first_ordinal(self) -> int:
        """The first BigChunk that is needed from the cursor on, or one before it."""

    @abstractmethod
    def rows(self, batch: int) -> RowPlan:
        """The rows of a batch that `knows` says yes to."""

    @abstractmethod
    def knows(self, batch: int) -> bool:
        """Whether the rows of a batch are settled."""

    @abstractmethod
    def has(self, ordinal: int) -> bool:
        """Whether BigChunk `ordinal` is known."""

    @abstractmethod
    def ended(self, batch: int) -> bool:
        """Whether the stream is over before `batch`."""

    @abstractmethod
    def source(self, ordinal: int) -> Source | None:
        """What a BigChunk is where the stream names it; None where it is drawn."""

    @property
    @abstractmethod
    def unsurveyed(self) -> tuple[int, ...]:
        """Slides whose positions have to be counted first, in the order of need."""

    @abstractmethod
    def add(self, counts: Sequence[int]) -> None:
        """Record the positions per window of the first unsurveyed slide."""

    @abstractmethod
    def uses(self, ordinal: int) -> int:
        """Rows that BigChunk `ordinal` serves from the cursor on; at most, until all is known."""

    @abstractmethod
    def first_call(self, ordinal: int) -> int:
        """The call with which BigChunk `ordinal` begins."""

    @abstractmethod
    def next_call(self, ordinal: int) -> int:
        """The first call of BigChunk `ordinal` from the cursor on."""

    @abstractmethod
    def first_batch(self, ordinal: int) -> int:
        """The first batch that may hold rows of BigChunk `ordinal`."""

    @abstractmethod
    def last_batch(self, ordinal: int) -> int:
        """The last batch that holds rows of BigChunk `ordinal`, or one after it."""

    @abstractmethod
    def closes(self, batch: int) -> tuple[int, ...]:
        """The BigChunks that are delivered whole when `batch` and all before it are."""

    @property
    @abstractmethod
    def passed(self) -> Set[int]:
        """The BigChunks whose last call was delivered before the cursor (relaxed order)."""


class RandomStream(Stream):
    """The endless stream of random positions.

    Args:
        config: of the stream.
        cursor: where it goes on.
        calls: SmallChunks per BigChunk.
    """

    def __init__(self, config: StreamRules, cursor: Cursor, calls: int) -> None:
        self._rows = config.batch_size
        self._rotation = Rotation(config.seed, config.num_bigchunks, calls)
        self._start = cursor.next_batch * self._rows
        self._ahead = Counter[int]()
        for batch in cursor.ahead:
            self._ahead.update(self.rows(batch)[0].tolist())
        self.calls = calls
        self.epoch = 0
        self.may_replace, self.has_passes = True, False
        self._first_needed = self._rotation.first_needed(self._start)
        self._passed: dict[int, int] = {}
        for batch in cursor.ahead:
            between = set(range(cursor.next_batch, batch)).difference(cursor.ahead)
            for ordinal in self.closes(batch):
                left = (number for number in between if ordinal in self.rows(number)[0])
                self._passed[ordinal] = max(left, default=cursor.next_batch)

    @property
    def length(self) -> int:
        """Batches of the stream: it has no end."""
        return -1

    def rows(self, batch: int) -> RowPlan:
        """The rows of a batch."""
        return self._rotation.rows(batch * self._rows, self._rows)

    def knows(self, batch: int) -> bool:
        """Whether the rows of a batch are settled: always."""
        return True

    def has(self, ordinal: int) -> bool:
        """Whether there is such a BigChunk: always."""
        return True

    def source(self, ordinal: int) -> None:
        """Slide and window are drawn."""

    @property
    def unsurveyed(self) -> tuple[int, ...]:
        """None: what is surveyed, by `calls_for_reuse`, is over when the stream begins."""
        return ()

    def add(self, counts: Sequence[int]) -> None:
        """Nothing is counted here.

        Raises:
            ProtocolError: always.
        """
        raise ProtocolError(f"{len(counts)} windows were counted for a stream that draws its own")

    @property
    def first_ordinal(self) -> int:
        """The first BigChunk that is needed from the cursor on."""
        return self._first_needed

    def ended(self, batch: int) -> bool:
        """Whether the stream is over before `batch`: never."""
        return False

    def uses(self, ordinal: int) -> int:
        """Rows that BigChunk `ordinal` still serves from the cursor on."""
        before = self._rotation.used_before(ordinal, self._start)
        return self._rotation.uses(ordinal) - before - self._ahead[ordinal]

    def next_call(self, ordinal: int) -> int:
        """The first call of BigChunk `ordinal` from the cursor on."""
        return self.first_call(ordinal) + self._rotation.used_before(ordinal, self._start)

    def first_call(self, ordinal: int) -> int:
        """The call with which BigChunk `ordinal` begins; later ones in the first generation."""
        generation, place = divmod(ordinal, self._rotation.places)
        return self._rotation.offset(place) if generation == 0 else 0

    def first_batch(self, ordinal: int) -> int:
        """The first batch that may hold rows of BigChunk `ordinal`."""
        return self._rotation.first_draw(ordinal) // self._rows

    def closes(self, batch: int) -> tuple[int, ...]:
        """The BigChunks that are delivered whole when `batch` and all before it are."""
        ordinals, calls = self.rows(batch)
        last = ordinals[calls == self.calls - 1].tolist()
        return (*last, *(ordinal for ordinal, late in self._passed.items() if late == batch))

    @property
    def passed(self) -> Set[int]:
        """The BigChunks whose last call was delivered before the cursor (relaxed order)."""
        return self._passed.keys()

    def last_batch(self, ordinal: int) -> int:
        """The last batch that holds rows of BigChunk `ordinal`, or one after it."""
        rotation = self._rotation
        end = rotation.first_draw(ordinal) + rotation.uses(ordinal) * rotation.places
        return (end - 1) // self._rows
