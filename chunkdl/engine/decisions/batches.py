"""What the collectors do and the consumer gets: batches from planning to release."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from chunkdl.engine.decisions.bigchunks import BigChunks
from chunkdl.engine.decisions.core_config import CoreConfig
from chunkdl.engine.decisions.outbox import Outgoing
from chunkdl.engine.decisions.tickets import BigChunkState
from chunkdl.errors import ProtocolError
from chunkdl.sampling.streams import Stream
from chunkdl.transport.memory.slots import Lease, SlotLedger
from chunkdl.transport.protocol.credit import Credit
from chunkdl.transport.protocol.engine_messages import (
    WITHHELD_BATCH,
    WITHHELD_GENERATION,
    BatchReady,
    End,
    FillRows,
    Release,
    RowGroup,
    RowsEnded,
    RowsFilled,
)

TICKET_BYTES = 32 * 1024
"""Of the rows that one ticket asks of a collector, about; more rows are several tickets."""
GROUP_BYTES = 112
"""What a group of rows takes in a message beside its rows, at most."""


@dataclass(slots=True)
class _Group:
    """The rows of a batch that one BigChunk serves.

    `collector` has them in hand, for the `attempt` at the BigChunk that it was told of.
    """

    rows: bytes
    calls: bytes
    count: int
    collector: int | None = None
    attempt: int = 0


@dataclass(slots=True)
class _Batch:
    """A batch in a slot, from planning until it is sent."""

    lease: Lease
    rows: int
    groups: dict[int, _Group]
    closes: tuple[int, ...]
    dropped: list[int] = field(default_factory=list)
    ready: bool = False


class Batches:
    """The batches in memory, the rows that the collectors have in hand, and the credit.

    Args:
        config: fixed facts.
        loads: the BigChunks that the rows are cut from.
        outgoing: where tickets and batches go.
    """

    def __init__(self, config: CoreConfig, loads: BigChunks, outgoing: Outgoing) -> None:
        self._config = config
        self._loads = loads
        self._outgoing = outgoing
        self._stream: Stream | None = None
        self._batches: dict[int, _Batch] = {}
        self._out: dict[Lease, int] = {}
        self._back: dict[int, int] = {}
        """Generation of the last batch in each slot that was given back."""
        self._waiting: dict[int, list[int]] = {}
        self._outbox: list[dict[int, list[int]]] = [{} for _ in range(config.collectors)]
        self._ahead: frozenset[int] = frozenset()
        self.next_batch = 0
        """The batch that is planned next."""
        self.slots = SlotLedger(config.batch_slots)
        self._withhold(config.withheld_slots)
        self.credit: Credit | None = None
        """Of the consumer, once it is there."""
        self.end_sent = False
        """The pass is over and the consumer knows it."""
        self.sent = 0
        self.rows_sent = 0

    def _withhold(self, slots: int) -> None:
        """Have so many slots be out with nothing in them, until they are released."""
        for slot in range(slots):
            lease = self.slots.acquire()
            if lease != Lease(slot, WITHHELD_GENERATION):
                raise ProtocolError(f"slot {slot} cannot be withheld")
            self.slots.publish(lease)
            self._out[lease] = WITHHELD_BATCH

    def opened(self, batches: int) -> None:
        """The consumer is there, and takes so many batches at a time."""
        credit = Credit()
        credit.grant(batches)
        for _ in self._out:
            credit.spend()
        self.credit = credit

    @property
    def idle(self) -> bool:
        """Whether nobody makes rows, and nothing that the consumer does can change that."""
        in_hand = any(
            group.collector is not None
            for batch in self._batches.values()
            for group in batch.groups.values()
        )
        strict = self._config.order == "strict"
        due = [batch.ready for batch in self._batches.values()][: 1 if strict else None]
        wanted = any(due) or (self._out and not self.slots.free)
        return not in_hand and not wanted and not any(self._outbox)

    @property
    def ready(self) -> int:
        """Batches that are filled and not sent."""
        return sum(batch.ready for batch in self._batches.values())

    def begin(self, stream: Stream, next_batch: int, ahead: tuple[int, ...]) -> None:
        """Plan this stream from now on, from `next_batch` on without those in `ahead`."""
        self._stream = stream
        self.next_batch = next_batch
        self._ahead = frozenset(ahead)
        self.end_sent = False

    # ------------------------------------------------------------------ planning

    def plan(self) -> None:
        """Give a slot to every batch that there is room for."""
        while self._stream is not None and self.slots.free:
            while self.next_batch in self._ahead:
                self.next_batch += 1
            # What may overtake the oldest batch is bounded, and with it the state of a resume.
            oldest = next(iter(self._batches), self.next_batch)
            far = self.next_batch - oldest >= self._config.batch_slots
            if far or not self._stream.knows(self.next_batch):
                return
            if self._loads.over_before(self.next_batch):
                return
            lease = self.slots.acquire()
            if lease is None:
                return
            number = self.next_batch
            self.next_batch += 1
            self._batches[number] = self._planned(self._stream, number, lease)
            for ordinal in tuple(self._batches[number].groups):
                self._place(number, ordinal)

    def _planned(self, stream: Stream, number: int, lease: Lease) -> _Batch:
        """A batch with its rows grouped by the BigChunk that serves them."""
        ordinals, calls = stream.rows(number)
        order = np.argsort(ordinals, kind="stable").astype(np.int32)
        edges = np.flatnonzero(np.diff(ordinals[order], prepend=-1)).tolist()
        calls_sorted = calls[order].astype(np.int32)
        groups = {
            int(ordinals[order[low]]): _Group(
                order[low:high].tobytes(), calls_sorted[low:high].tobytes(), high - low
            )
            for low, high in zip(edges, [*edges[1:], len(order)], strict=True)
        }
        closes = stream.closes(number) if self._config.has_places else ()
        return _Batch(lease, len(order), groups, closes)

    def _place(self, number: int, ordinal: int) -> None:
        """See to the rows of a batch that one BigChunk serves."""
        bigchunk = self._loads.bigchunks.get(ordinal)
        if self._loads.is_dropped(ordinal):
            self._drop_rows(number, ordinal)
        elif bigchunk is not None and bigchunk.ready and not self._in_hand(ordinal, bigchunk):
            self._hand_out(number, ordinal)
        else:
            # Rows of a BigChunk are made in the order of the batches.
            bisect.insort(self._waiting.setdefault(ordinal, []), number)

    def _in_hand(self, ordinal: int, bigchunk: BigChunkState) -> bool:
        """Whether a collector still has rows of an attempt at a BigChunk that was replaced."""
        return bigchunk.attempt > 0 and any(
            group.collector is not None and group.attempt != bigchunk.attempt
            for batch in self._batches.values()
            if (group := batch.groups.get(ordinal)) is not None
        )

    def bigchunk_ready(self, ordinal: int) -> None:
        """The rows that waited for a BigChunk can be cut, or are left out where it was dropped."""
        for number in self._waiting.pop(ordinal, ()):
            self._place(number, ordinal)

    def drop_rows(self) -> None:
        """Leave out the rows that nobody will serve: of windows that were dropped, or after the
        policy has ended the stream."""
        for ordinal in [number for number in self._waiting if self._loads.is_dropped(number)]:
            self.bigchunk_ready(ordinal)

    def _drop_rows(self, number: int, ordinal: int) -> None:
        batch = self._batches[number]
        group = batch.groups.pop(ordinal)
        batch.dropped.extend(np.frombuffer(group.rows, dtype=np.int32).tolist())
        self._check_ready(batch)

    # ------------------------------------------------------------------- filling

    def _hand_out(self, number: int, ordinal: int) -> None:
        """A BigChunk is served by one collector as long as it lives."""
        outbox = self._outbox[ordinal % self._config.collectors]
        outbox.setdefault(number, []).append(ordinal)

    def flush(self, ready: list[bool]) -> None:
        """Send the collectors that are ready what they have to do."""
        for collector, outbox in enumerate(self._outbox):
            worker = self._config.loaders + collector
            if not ready[worker]:
                continue
            # In their order: rows of a BigChunk are made in the order of the batches.
            for number, ordinals in sorted(outbox.items()):
                batch = self._batches[number]
                for ordinal in ordinals:
                    group = batch.groups[ordinal]
                    group.collector = collector
                    group.attempt = self._loads.bigchunks[ordinal].attempt
                for groups in self._tickets(batch, ordinals):
                    lease = batch.lease
                    ticket = FillRows(number, lease.slot, lease.generation, groups)
                    self._outgoing.tell(worker, ticket)
            outbox.clear()

    def _tickets(self, batch: _Batch, ordinals: list[int]) -> Iterator[tuple[RowGroup, ...]]:
        """The groups of rows, in parts that fit into messages."""
        groups: list[RowGroup] = []
        size = 0
        for ordinal in ordinals:
            group = batch.groups[ordinal]
            takes = GROUP_BYTES + len(group.rows) + len(group.calls)
            if groups and size + takes > TICKET_BYTES:
                yield tuple(groups)
                groups, size = [], 0
            bigchunk = self._loads.bigchunks[ordinal]
            slot, first = bigchunk.lease.slot, bigchunk.first
            groups.append(RowGroup(ordinal, slot, group.rows, group.calls, group.attempt, first))
            size += takes
        yield tuple(groups)

    def filled(self, collector: int, message: RowsFilled) -> None:
        """A collector has cut rows."""
        if not message.ordinals:
            # Each of them had ended; what became of the batch since is nobody's business here.
            return
        batch = self._batches.get(message.batch)
        if (
            batch is None
            or batch.lease.generation != message.generation
            or not all(
                ordinal in batch.groups and batch.groups[ordinal].collector == collector
                for ordinal in message.ordinals
            )
        ):
            raise ProtocolError(f"rows of batch {message.batch} came that nobody waits for")
        for ordinal in message.ordinals:
            self._loads.use(ordinal, batch.groups.pop(ordinal).count)
        self._check_ready(batch)

    def ended(self, collector: int, message: RowsEnded) -> int:
        """A BigChunk gave only a part of its rows; the rest waits for what takes its place.

        Returns:
            The first call of the BigChunk that was not served.
        """
        batch = self._batches.get(message.batch)
        group = None if batch is None else batch.groups.get(message.ordinal)
        if (
            batch is None
            or group is None
            or batch.lease.generation != message.generation
            or group.collector != collector
            or not 0 <= message.done < group.count
        ):
            raise ProtocolError(f"rows of batch {message.batch} ended that nobody waits for")
        if message.done:
            cut = message.done * np.dtype(np.int32).itemsize
            group.rows, group.calls = group.rows[cut:], group.calls[cut:]
            group.count -= message.done
            self._loads.use(message.ordinal, message.done)
        group.collector = None
        self._place_again(message.batch, message.ordinal)
        return int(np.frombuffer(group.calls, dtype=np.int32, count=1)[0])

    def _place_again(self, number: int, ordinal: int) -> None:
        bisect.insort(self._waiting.setdefault(ordinal, []), number)

    def first_call(self, ordinal: int) -> int | None:
        """The first call of a BigChunk that is planned and not served."""
        for batch in self._batches.values():
            if ordinal in batch.groups:
                calls = batch.groups[ordinal].calls
                return int(np.frombuffer(calls, dtype=np.int32, count=1)[0])
        return None

    def _check_ready(self, batch: _Batch) -> None:
        if not batch.groups and not batch.ready:
            batch.ready = True
            self.slots.publish(batch.lease)

    def collector_lost(self, collector: int) -> None:
        """What it had in hand is done again by its successor."""
        lost = [
            (number, ordinal, group)
            for number, batch in self._batches.items()
            for ordinal, group in batch.groups.items()
            if group.collector == collector
        ]
        for number, ordinal, group in lost:
            group.collector = None
            self._place_again(number, ordinal)
        # Together with those that waited for it to be done with a replaced BigChunk.
        for ordinal in dict.fromkeys(ordinal for _, ordinal, _ in lost):
            self.bigchunk_ready(ordinal)

    # ------------------------------------------------------------------ delivery

    def deliver(self) -> None:
        """Send what is ready, in order or as it comes, as far as the credit goes."""
        if self._stream is None or self.credit is None:
            return
        # They were planned in order, so they are in order.
        for number, batch in tuple(self._batches.items()):
            if not self.credit.available or (not batch.ready and self._config.order == "strict"):
                break
            if batch.ready:
                self._send(number, self._stream, self.credit)
        self._deliver_end(self._stream)

    def _send(self, number: int, stream: Stream, credit: Credit) -> None:
        credit.spend()
        batch = self._batches.pop(number)
        self._out[batch.lease] = number
        self.sent += 1
        self.rows_sent += batch.rows - len(batch.dropped)
        sources = self._loads.sources
        sources.forget_before(number - self._config.batch_slots, stream)
        message = BatchReady(
            number,
            stream.epoch,
            batch.lease.slot,
            batch.lease.generation,
            batch.rows,
            np.asarray(sorted(batch.dropped), dtype=np.int32).tobytes(),
            stream.calls,
            sources.substitutions(stream),
            np.asarray(batch.closes, dtype=np.int64).tobytes(),
            stream.length,
        )
        self._outgoing.say(message)

    def _deliver_end(self, stream: Stream) -> None:
        if self._batches or self.end_sent:
            return
        if stream.ended(self.next_batch):
            self.end_sent = True
            self._loads.free()
            self._outgoing.say(End(stream.epoch, stream.length))
        elif self._loads.over_before(self.next_batch):
            self.end_sent = True
            self._outgoing.say(End(stream.epoch, self.next_batch))

    def released(self, release: Release) -> None:
        """The consumer is done with a batch; it may say so twice where it was interrupted."""
        lease = Lease(release.slot, release.generation)
        if release.generation <= self._back.get(release.slot, -1):
            return
        if self.credit is None or self._out.get(lease) != release.batch:
            raise ProtocolError(f"batch {release.batch} was released but is not out")
        self.slots.release(lease)
        self.credit.give_back()
        del self._out[lease]
        self._back[release.slot] = release.generation
