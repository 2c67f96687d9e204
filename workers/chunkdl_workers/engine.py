"""The engine of a group: an embedded service that makes batches, ended and begun as it is asked.

The group decides where it begins; this is only the process. It is replaced when it dies, a few
times a minute at most, and a few times without a batch in between, however slowly that goes.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from chunkdl.engine.config import EngineConfig
from chunkdl.engine.decisions.restarts import WINDOW_S, BarrenDeaths, RecentDeaths
from chunkdl.engine.embedded import EmbeddedEngine, Received, tell_log
from chunkdl.engine.loader_statistics import NOTHING_COUNTED, counted_together
from chunkdl.engine.resume_state import ResumeState
from chunkdl.errors import ChunkdlError, MemoryLimitError
from chunkdl.sampling.cursor import Cursor
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.memory.layouts import BatchLayout, Bytes
from chunkdl.transport.protocol.engine_messages import BatchReady, End, Statistics
from chunkdl.transport.row_format import RowFormat
from chunkdl_workers.remains import Remains

MOST_DEATHS = 5
"""Within a minute, and between two batches, that are made good."""
MOST_TROUBLES, MOST_LETTERS = 20, 1_000
"""Of what went wrong, that an operator is shown."""

log = steady_logger("chunkdl.service")


class GroupEngine:
    """One embedded service after the other, numbered by the group; used by the server's thread.

    The memory of the batches is shared with the collectors, which write into slots that are not
    lent, and with consumers on this machine, which read those that are (`_lent`, `Remains`).

    Args:
        config: of the stream; the cursor is replaced at each start.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._consumer: EmbeddedEngine | None = None
        self._journal = self._new_journal({})
        self._deaths = RecentDeaths(MOST_DEATHS)
        self._barren_deaths = BarrenDeaths(MOST_DEATHS)
        self._made = 0
        self._before = self._now = NOTHING_COUNTED
        self._batches = self._rows = 0
        self._troubles = deque[str](maxlen=MOST_TROUBLES)
        self._lent: dict[tuple[int, int], Received] = {}
        self._remains = Remains()
        self._withheld = 0
        self.number = 0
        """Of the one that runs."""
        self._layout: BatchLayout | None = None

    def _new_journal(self, cursor: dict[str, object]) -> ResumeState:
        of = cursor or self._config.cursor
        known = self._config.row_format
        return ResumeState(Cursor.from_dict(of, self._config.plan_hash), 0, log.info, known)

    @property
    def troubles(self) -> list[str]:
        """What went wrong last, in this one or in those before it."""
        return list(self._troubles)

    def trouble(self, text: str) -> None:
        """Something went wrong."""
        text = text[:MOST_LETTERS]
        if text not in self._troubles:
            self._troubles.append(text)

    def _heard(self, level: int, text: str) -> None:
        tell_log(level, text)
        if level >= logging.WARNING:
            self.trouble(text)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What becomes readable when there may be something to take; changes with each start."""
        return () if self._consumer is None else self._consumer.descriptors

    @property
    def waiting(self) -> bool:
        """Whether `poll` would look at something."""
        return self._consumer is not None and self._consumer.waiting

    @property
    def made_format(self) -> RowFormat | None:
        """The columns of the rows that the user's transform makes, once they are settled."""
        return self._journal.row_format

    @property
    def arena(self) -> tuple[int, int, int] | None:
        """Descriptor, slots and size of a slot of the batches' memory; None while nothing runs."""
        if self._consumer is None or not self._consumer.is_open:
            return None
        run = self._config.run
        return self._consumer.arena_descriptor, run.batch_slots, run.batch_slot_bytes

    def start(
        self,
        number: int,
        cursor: Cursor,
        read: Sequence[tuple[int, int]] = (),
        sent: Iterable[tuple[int, int]] = (),
    ) -> None:
        """End the one that runs and begin there; it is up when there is an `arena`.

        Together with what is left of those before it, it takes no more memory than the first did.

        Args:
            number: of the new one.
            cursor: where it begins.
            read: (engine, slot) of those before it that somebody reads.
            sent: (engine, slot) of those of which something may be on its way.
        """
        self.stop(at_once=True)
        self._config = dataclasses.replace(self._config, row_format=self._journal.row_format)
        self._remains.trim(read, sent)
        run = self._config.run
        # However much is read, it gets on with two slots.
        self._withheld = min(self._remains.slots, run.batch_slots - 2)
        config = dataclasses.replace(
            self._config,
            cursor=cursor.to_dict(),
            run=dataclasses.replace(run, withheld_slots=self._withheld),
        )
        self._journal = self._new_journal(config.cursor)
        self.number = number
        self._consumer = EmbeddedEngine(config, self._journal, self._heard)

    def stop(self, *, at_once: bool = False) -> None:
        """End the one that runs, if one does.

        Args:
            at_once: kill it. One that is just coming up is killed in any case: it would take
                seconds to end by itself, and has made nothing.
        """
        if self._consumer is not None:
            if (arena := self.arena) is not None:
                self._remains.keep(self.number, *arena)
            if at_once or not self._consumer.is_open:
                self._consumer.kill()
            self._consumer.close()
            self._consumer = None
            self._before = self.counted
            self._now, self._batches, self._rows = NOTHING_COUNTED, 0, 0
        self._lent.clear()

    def died(self, now_s: float) -> str:
        """The one that ran is dead; why no other may be started, empty: one may."""
        self.stop(at_once=True)
        too_often, barren = self._deaths.died(now_s), self._barren_deaths.died(self._made)
        if too_often:
            return f"the engine died {MOST_DEATHS + 1} times within {WINDOW_S:g} s"
        if barren:
            return f"the engine died {MOST_DEATHS + 1} times in a row before it made a batch"
        return ""

    def poll(self) -> BatchReady | End | Statistics | None:
        """A batch, the end of a pass or the counters that were asked for, if they are there.

        The counters are those of all engines so far.

        Raises:
            ChunkdlError: the stream failed, or the service died.
        """
        if self._consumer is None:
            return None
        self._consumer.hear(past_batches=True)
        self._let_use_more(self._consumer)
        if (answer := self._consumer.answer) is not None:
            self._consumer.answer = None
            self._now = answer
            return self.counted
        received = None if self._consumer.is_full else self._consumer.take()
        if isinstance(received, Received):
            self._lent[received.message.epoch, received.message.batch] = received
            self._made += 1
            dropped = len(received.message.dropped) // np.dtype(np.int32).itemsize
            self._batches += 1
            self._rows += received.message.rows - dropped
            return received.message
        return received

    @property
    def counted(self) -> Statistics:
        """What this one and those before it have done, as far as it is known."""
        now, side = self._now, self._config.stream.smallchunk_px
        # Of one that is lost without a word the batches are known all the same.
        now = msgspec.structs.replace(
            now,
            batches=max(now.batches, self._batches),
            rows=max(now.rows, self._rows),
            delivered_px=max(now.delivered_px, self._rows * side**2),
        )
        return counted_together(self._before, now)

    def _let_use_more(self, consumer: EmbeddedEngine) -> None:
        """As much as was given back of engines before this one."""
        while consumer.is_open and self._withheld > self._remains.slots:
            self._withheld -= 1
            try:
                consumer.let_use(self._withheld)
            except MemoryLimitError as error:
                log.warning("an engine goes on with less look-ahead: %s", error)

    def free_remains(self, engine: int, slot: int) -> None:
        """Nobody reads a slot of an engine before this one any more."""
        self._remains.free(engine, slot)

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self._remains.close()

    def nothing_came(self) -> None:
        """`poll` had nothing more; see `EmbeddedEngine.nothing_came`.

        Raises:
            ServiceDied: it does not answer.
        """
        if self._consumer is not None:
            self._consumer.nothing_came()

    def hear_channel(self) -> None:
        """Its channel has become readable: it is up, or has ended.

        Raises:
            ChunkdlError: why, if it is so.
        """
        if self._consumer is not None:
            self._consumer.hear_channel()

    def rows(self, slot: int, first: int, rows: int) -> tuple[Bytes, ...]:
        """Records and columns of some rows of the batch in a slot, as bytes there; borrowed."""
        if self._layout is None:
            row_format = self._config.stream.row_format or self._journal.row_format
            if row_format is None:
                raise ChunkdlError("a batch came before anybody said what columns its rows have")
            self._layout = self._config.stream.layout_of(row_format)
        memory = next(lent.slot for lent in self._lent.values() if lent.message.slot == slot)
        return self._layout.parts(memory, first, rows)

    def slot_of(self, epoch: int, batch: int) -> int:
        """Where a batch lies; -1 where it is not lent any more."""
        lent = self._lent.get((epoch, batch))
        return -1 if lent is None else lent.message.slot

    def free(self, epoch: int, batch: int) -> None:
        """Give a batch back."""
        received = self._lent.pop((epoch, batch), None)
        if received is not None and self._consumer is not None:
            self._consumer.release(received.message)
            self._consumer.flush()

    def next_pass(self, epoch: int) -> None:
        """Begin the next pass."""
        if self._consumer is not None:
            self._consumer.next_epoch(epoch)

    @property
    def answers(self) -> int:
        """How often the one that runs has told its counters."""
        return 0 if self._consumer is None else self._consumer.answers

    def ask_statistics(self) -> int:
        """Have `poll` return its counters; the answer to this comes when there are so many.

        Raises:
            ChunkdlError: it does not run.
        """
        if self._consumer is None or not self._consumer.is_open:
            raise ChunkdlError("the engine does not run")
        return self._consumer.ask_statistics()
