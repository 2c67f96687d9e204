"""The two kinds of stream as the coordinator sees them: which rows, from which BigChunks, when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence, Set
from typing import Protocol

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ProtocolError
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.grid import GridPass, slide_order
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


RowPlan = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""BigChunk ordinal and call of each row of a batch."""


class Stream(ABC):
    """What the engine asks of any kind of stream; `stream_of` makes them.

    Attributes:
        calls: SmallChunks of a BigChunk; 0 where each has its own number.
        epoch: number of the pass.
        first_ordinal: the first BigChunk that is needed from the cursor on.
        may_replace: whether another region may stand in for one that cannot be read; else its rows
            are left out.
        has_passes: whether another pass comes behind this one.
    """

    calls: int
    epoch: int
    first_ordinal: int
    may_replace: bool
    has_passes: bool

    @property
    @abstractmethod
    def length(self) -> int:
        """Batches of the stream or pass; -1 while that is not known, and for no end."""

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
    def source(self, ordinal: int) -> tuple[int, int] | None:
        """Slide and window of a BigChunk where the stream names them; None where they are drawn."""

    @property
    @abstractmethod
    def unsurveyed(self) -> tuple[int, ...]:
        """Slides whose positions have to be counted first, in the order of need."""

    @abstractmethod
    def add(self, counts: Sequence[int]) -> None:
        """Record the positions per window of the first unsurveyed slide."""

    @property
    @abstractmethod
    def windows(self) -> int:
        """BigChunks known so far; -1: without end."""

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
        self.first_ordinal = self._rotation.first_needed(self._start)
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
    def windows(self) -> int:
        """Without end."""
        return -1

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


class GridStream(Stream):
    """One finite pass over the grid positions; grows as slides are surveyed.

    Args:
        config: of the stream.
        cursor: where it goes on.
        slides: number of slides of the dataset.
        epoch: number of the pass.
    """

    def __init__(self, config: StreamRules, cursor: Cursor, slides: int, epoch: int) -> None:
        self._batch_rows = config.batch_size
        self._drop_last = config.drop_last
        self._cursor = cursor
        order: Sequence[int] = range(slides)
        if not config.in_order:
            order = slide_order(config.seed, epoch if config.shuffle else 0, slides).tolist()
        self._pass = GridPass(order)
        self.calls = 0
        self.epoch = epoch
        self.may_replace, self.has_passes = False, True
        self.first_ordinal = 0

    @property
    def unsurveyed(self) -> tuple[int, ...]:
        """Slides whose positions are not known yet, in the order in which they are needed."""
        return self._pass.upcoming

    @property
    def windows(self) -> int:
        """BigChunks known so far."""
        return self._pass.windows

    def add(self, counts: Sequence[int]) -> None:
        """Record the positions per window of the first unsurveyed slide."""
        self._pass.add(counts)

    def source(self, ordinal: int) -> tuple[int, int]:
        """Slide and window of a BigChunk."""
        return self._pass.source(ordinal)

    def first_call(self, ordinal: int) -> int:
        """Each window is served from its first position on."""
        return 0

    def next_call(self, ordinal: int) -> int:
        """The first position that is not behind the cursor."""
        first, last = self._pass.span(ordinal)
        start = self._cursor.next_batch * self._batch_rows
        return min(max(start, first), last) - first

    def first_batch(self, ordinal: int) -> int:
        """The batch of its first position."""
        return self._pass.span(ordinal)[0] // self._batch_rows

    def last_batch(self, ordinal: int) -> int:
        """The batch of its last position."""
        return (self._pass.span(ordinal)[1] - 1) // self._batch_rows

    def closes(self, batch: int) -> tuple[int, ...]:
        """The windows whose last position is in the batch."""
        found = np.unique(self.rows(batch)[0]).tolist()
        return tuple(ordinal for ordinal in found if self.last_batch(ordinal) == batch)

    @property
    def passed(self) -> Set[int]:
        """None: a pass goes on behind its last batch."""
        return frozenset()

    @property
    def _complete(self) -> bool:
        return self._pass.next_slide is None

    def _row_end(self) -> int:
        """One past the last row that will be delivered, of those known."""
        full = self._pass.rows // self._batch_rows * self._batch_rows
        return self._pass.rows if self._complete and not self._drop_last else full

    def batches(self) -> int:
        """Batches known so far; all of them once every slide is surveyed."""
        return -(-self._row_end() // self._batch_rows)

    @property
    def length(self) -> int:
        """Batches of the pass; -1 while slides are not surveyed."""
        return self.batches() if self._complete else -1

    def rows(self, batch: int) -> RowPlan:
        """The rows of a batch that `knows` says yes to; the last one may be short."""
        first = batch * self._batch_rows
        return self._pass.ordinals(first, min(self._batch_rows, self._row_end() - first))

    def knows(self, batch: int) -> bool:
        """Whether the rows of a batch are settled."""
        return batch < self.batches()

    def has(self, ordinal: int) -> bool:
        """Whether BigChunk `ordinal` is known."""
        return ordinal < self._pass.windows

    def ended(self, batch: int) -> bool:
        """Whether the pass is over before `batch`."""
        return self._complete and batch >= self.batches()

    def uses(self, ordinal: int) -> int:
        """Rows that BigChunk `ordinal` serves from the cursor on; at most, until all is known."""
        first, last = self._pass.span(ordinal)
        if self._complete:
            last = min(last, self._row_end())
        start = self._cursor.next_batch * self._batch_rows
        left = max(0, last - max(first, start))
        for batch in self._cursor.ahead:
            low = batch * self._batch_rows
            left -= max(0, min(last, low + self._batch_rows) - max(first, low))
        return left


def stream_of(
    config: StreamRules, cursor: Cursor, slides: int, epoch: int, calls: int
) -> Stream | None:
    """The stream of a configuration.

    Args:
        config: of the stream.
        cursor: where it goes on.
        slides: of the dataset.
        epoch: number of the pass, where there are passes.
        calls: SmallChunks of a BigChunk; 0 where they are not known yet.

    Returns:
        None while the number of calls has to be known and is not.
    """
    if config.grid:
        return GridStream(config, cursor, slides, epoch)
    return RandomStream(config, cursor, calls) if calls else None
