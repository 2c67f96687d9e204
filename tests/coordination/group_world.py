"""A world around a service's desk and one group: an engine and consumers, simulated and checked.

The engine has slots with content and makes batches only into free ones. Consumers do what
`chunkdl.session_thread` does. Who gets which rows is worked out here once more, from lists of rows.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

import numpy as np

from chunkdl.coordination.desk import Desk
from chunkdl.coordination.group import Group
from chunkdl.coordination.readers import GroupFacts
from chunkdl.coordination.service_actions import (
    BeginPass,
    CloseLease,
    Deliver,
    FreeBatch,
    Peer,
    Say,
    ServiceAction,
    StartEngine,
    Tell,
)
from chunkdl.coordination.sessions import OVER, DeskFacts, addressed
from chunkdl.plan.shares import Remainder
from chunkdl.protocol.codec import decode_service, encode
from chunkdl.protocol.messages import BatchReady, End, Message, Refuse
from chunkdl.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    Attach,
    CataloguePage,
    Delivered,
    Join,
    Joined,
    Leave,
    NextPass,
    Operate,
    OperatorAnswer,
    PassEnded,
    Ping,
    Position,
    Released,
    Resume,
    ServiceMessage,
)
from chunkdl.protocol.session import State

GROUP = "train"
PLAN_HASH = "f00d" * 16
SILENT_S, GRACE_S, PATIENCE_S = 5.0, 30.0, 10.0
ROW_BYTES = 10
MOST_SWEEPS = 400
REFUSALS = (
    "is there already",
    "is shared by",
    "raise max_consumers",
    "stands where no step",
    "has passed row",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One world, before anything has happened in it; `totals` are the rows of its passes."""

    broadcast: bool = False
    batch_rows: int = 4
    slots: int = 8
    totals: tuple[int, ...] = ()
    drop_last: bool = False
    max_lag_batches: int = 2
    detach: bool = False
    credit_batches: int = 3
    credit_bytes: int = 200
    max_consumers: int = 6

    def total(self, epoch: int) -> int | None:
        """Rows of a pass as the engine makes them; None: endless."""
        if not self.totals:
            return None
        rows = self.totals[epoch % len(self.totals)]
        return rows // self.batch_rows * self.batch_rows if self.drop_last else rows

    def group_facts(self) -> GroupFacts:
        """The same for the group."""
        return GroupFacts(
            name=GROUP,
            broadcast=self.broadcast,
            max_lag_batches=self.max_lag_batches,
            detach=self.detach,
            patience_s=PATIENCE_S,
            batch_rows=self.batch_rows,
            row_bytes=ROW_BYTES,
            finite=bool(self.totals),
            drop_last=self.drop_last,
            plan_hash=PLAN_HASH,
            seed=1,
        )

    def desk_facts(self) -> DeskFacts:
        """The same for the desk."""
        return DeskFacts(
            plan_hash=PLAN_HASH,
            seed=1,
            batch_rows=self.batch_rows,
            smallchunk_px=8,
            plain=True,
            patients=0,
            slides=0,
            max_consumers=self.max_consumers,
            credit_batches=self.credit_batches,
            credit_bytes=self.credit_bytes,
            silent_s=SILENT_S,
            grace_s=GRACE_S,
        )


def is_dropped(epoch: int, row: int) -> bool:
    """Whether a row of the stream holds nothing."""
    return (row * 7 + epoch) % 11 == 3


def rows_left(left: Remainder, total: int | None, most: int) -> list[int]:
    """The first rows that are left, one by one."""
    listed = [row for first, end in left.left for row in range(first, end)]
    listed += range(left.tail, left.tail + most)
    return [row for row in listed if total is None or row < total][:most]


@dataclass(slots=True)
class Seat:
    """Where a rank, or a member of a broadcast, must stand."""

    rank: int
    world_size: int
    batch_rows: int
    left: Remainder
    step: int = 0
    ended: bool = False
    owner: str = ""

    def chunk(self, total: int | None, step: int | None = None) -> list[int]:
        """The rows of all ranks in a step."""
        size = self.world_size * self.batch_rows
        number = self.step if step is None else step
        return rows_left(self.left, total, (number + 1) * size)[number * size :]

    def rows(self, total: int | None, step: int | None = None, *, drop_last: bool) -> list[int]:
        """Its rows in a step."""
        chunk = self.chunk(total, step)
        if len(chunk) == self.world_size * self.batch_rows:
            return chunk[self.rank * self.batch_rows :][: self.batch_rows]
        if drop_last or len(chunk) < self.world_size:
            return []
        bounds = [len(chunk) * rank // self.world_size for rank in range(self.world_size + 1)]
        return chunk[bounds[self.rank] : bounds[self.rank + 1]]

    def next_row(self) -> int:
        """The first row of its next step."""
        size = self.world_size * self.batch_rows
        return rows_left(self.left, None, self.step * size + 1)[-1]


@dataclass(slots=True)
class Arrived:
    """A batch that a consumer has; `service` and `engine` say whose memory it reads, 0: none."""

    session: int
    number: int
    epoch: int
    step: int
    rows: list[int]
    service: int = 0
    engine: int = 0
    slots: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Consumer:
    """A consumer: its thread (`start`, `epoch`, `step`, `held`) and the user behind it."""

    rank: int
    world_size: int
    batch_rows: int
    local: bool
    credit_batches: int
    credit_bytes: int
    start: Position | None = None
    step: int = 0
    epoch: int = 0
    peer: Peer | None = None
    data: Peer | None = None
    lease: int | None = None
    token: str = ""
    session: str = ""
    sessions: int = 0
    joined: bool = False
    outbox: deque[NextPass] = field(default_factory=deque)
    released: deque[Arrived] = field(default_factory=deque)
    held: set[int] = field(default_factory=set)
    told: int = -1
    end: PassEnded | None = None
    ended: bool = False
    frozen: bool = False
    over: bool = False
    received: int = 0
    passes: int = 0
    inbox: deque[Arrived] = field(default_factory=deque)
    using: list[Arrived] = field(default_factory=list)
    kept: list[tuple[int, int, set[int]]] = field(default_factory=list)
    states: list[Position] = field(default_factory=list)


class SimulatedEngine:
    """What makes batches: rows in order, into free slots."""

    def __init__(self, setting: Setting, action: StartEngine) -> None:
        self._setting = setting
        self.number = action.engine
        self.epoch, self.next_batch = action.cursor.epoch, action.cursor.next_batch
        self.ended = False
        self.slots: list[tuple[int, int] | None] = [None] * setting.slots
        """What lies in each: epoch and batch."""

    def make(self) -> BatchReady | End | None:
        """The next message; None: no slot is free, or the pass is over."""
        setting, first = self._setting, self.next_batch * self._setting.batch_rows
        total = setting.total(self.epoch)
        rows = setting.batch_rows if total is None else min(setting.batch_rows, total - first)
        if rows <= 0:
            if self.ended:
                return None
            self.ended = True
            assert total is not None
            return End(self.epoch, -(-total // setting.batch_rows))
        if None not in self.slots:
            return None
        slot = self.slots.index(None)
        self.slots[slot] = self.epoch, self.next_batch
        dropped = [row for row in range(rows) if is_dropped(self.epoch, first + row)]
        message = BatchReady(
            batch=self.next_batch,
            epoch=self.epoch,
            slot=slot,
            generation=1,
            rows=rows,
            dropped=np.array(dropped, dtype=np.int32).tobytes(),
            smallchunks_per_bigchunk=5,
            substitutions={},
        )
        self.next_batch += 1
        return message

    def rows(self, slot: int, first: int, count: int) -> tuple[int, list[int]]:
        """Epoch and rows of the stream that lie there."""
        content = self.slots[slot]
        assert content is not None, "a slot with nothing in it was sent"
        epoch, batch = content
        low = batch * self._setting.batch_rows + first
        total = self._setting.total(epoch)
        assert first + count <= self._setting.batch_rows
        assert total is None or low + count <= total
        return epoch, list(range(low, low + count))


class GroupWorld:
    """A service with one group, and everything around it.

    Args:
        setting: of the world.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.consumers: list[Consumer] = []
        self.service = 0
        self.now_s = 0.0
        self._numbers = itertools.count(1)
        self.begin_service(Position())

    def begin_service(self, start: Position) -> None:
        """A service comes up; of one that was, nothing is left."""
        self.service += 1
        self.start = start
        self.group = Group(self.setting.group_facts(), start)
        self.desk = Desk(
            self.setting.desk_facts(),
            {GROUP: self.group},
            lambda: f"name {next(self._numbers)}",
            lambda patient, slide: CataloguePage(patient, (), slide, ()),
        )
        self.engine: SimulatedEngine | None = None
        self.queues: dict[Peer, deque[ServiceMessage]] = {}
        self.seats: list[Seat] = []
        self.out: dict[str, dict[int, tuple[Delivered, int]]] = {}
        """Of each session, what it was sent and the service has not got back; with bytes."""
        self._returning: dict[str, Join] = {}
        self.paused = self._left = False
        for consumer in self.consumers:
            self._disconnect(consumer)

    # ---------------------------------------------------------------- what the service does

    def event(
        self,
        happens: Callable[[], None],
        went_on: tuple[int, int] | None = None,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Something happens to the service; then all of its actions are carried out."""
        before = self._live()
        happens()
        over = before - self._live()
        for name in over:
            self._ended(name, went_on)
        self._left = bool(over)
        then()
        while actions := self.desk.take():
            for action in actions:
                self._do(action)

    def _live(self) -> set[str]:
        return {name for name, one in self.desk.sessions.items() if one.state not in OVER}

    def seat(self, session: str) -> Seat:
        """Of a member."""
        return next(seat for seat in self.seats if seat.owner == session)

    def _ended(self, name: str, went_on: tuple[int, int] | None) -> None:
        """A session is over: what it has not given back, it has not had."""
        seat, epoch = self.seat(name), self.seat(name).left.epoch
        unread = [one.step for one, _ in self.out.pop(name).values() if one.epoch == epoch]
        if went_on is not None:
            unread = [step for step in unread if (epoch, step) >= went_on]
        if unread:
            seat.step, seat.ended = min(unread), False
        seat.owner = ""
        self._returning.pop(name, None)
        if self.setting.broadcast:
            self.seats.remove(seat)

    def _do(self, action: ServiceAction) -> None:
        match action:
            case Say(peer, message):
                self._say(peer, message)
            case Tell():
                say = addressed(action, self.desk.sessions)
                if say is not None:
                    self._say(say.peer, say.message)
            case Deliver(_, session, message):
                self._deliver(session, message)
            case StartEngine():
                assert self.engine is None or action.engine > self.engine.number
                assert action.cursor.plan_hash == PLAN_HASH
                self.engine = SimulatedEngine(self.setting, action)
            case FreeBatch():
                self._free(action)
            case BeginPass(_, epoch):
                assert self.engine is not None
                assert self.engine.ended
                assert epoch == self.engine.epoch + 1
                self.engine.epoch, self.engine.next_batch = epoch, 0
                self.engine.ended = False
            case CloseLease():
                pass

    def _say(self, peer: Peer, message: Message) -> None:
        told = decode_service(encode(message))
        assert told == message
        if isinstance(told, Joined):
            self._stands(told)
        if isinstance(told, PassEnded):
            session = next(s for s in self.desk.sessions.values() if s.peer == peer)
            seat = self.seat(session.name)
            total = self.setting.total(told.epoch)
            assert told.epoch == seat.left.epoch
            assert told.steps == seat.step
            assert seat.rows(total, drop_last=self.setting.drop_last) == []
            assert told.left_out == len(seat.chunk(total))
            seat.ended = True
        if peer in self.queues:
            self.queues[peer].append(told)

    def _free(self, action: FreeBatch) -> None:
        engine = self.engine
        assert engine is not None
        assert action.engine == engine.number
        slot = engine.slots.index((action.epoch, action.batch))
        for reader in self._readers():
            assert slot not in reader.slots, "a batch was given back that somebody reads"
        engine.slots[slot] = None

    def _readers(self) -> Iterator[Arrived]:
        """What local consumers read, or may read soon, of the engine that runs."""
        assert self.engine is not None
        here = self.service, self.engine.number
        for consumer in self.consumers:
            if not consumer.over and consumer.local:
                for arrived in (*consumer.inbox, *consumer.using, *consumer.released):
                    if (arrived.service, arrived.engine) == here:
                        yield arrived
                for message in self.queues.get(consumer.peer, ()) if consumer.peer else ():
                    if isinstance(message, Delivered) and message.engine == here[1]:
                        slots = tuple(piece.slot for piece in message.pieces)
                        yield Arrived(0, message.number, 0, 0, [], *here, slots)

    def _deliver(self, name: str, message: Delivered) -> None:
        session, engine, setting = self.desk.sessions[name], self.engine, self.setting
        assert decode_service(encode(message)) == message
        assert engine is not None
        assert message.engine == engine.number
        if message.number not in self.out[name]:
            assert session.state is State.OPEN, "sent to a session that is not open"
            assert not session.paused
            assert not self.paused
            assert not self.desk.draining
        assert session.state in (State.OPEN, State.DRAINING)
        seat = self.seat(name)
        rows: list[int] = []
        for piece in message.pieces:
            epoch, part = engine.rows(piece.slot, piece.first, piece.rows)
            assert epoch == message.epoch
            dropped = np.frombuffer(piece.dropped, dtype=np.int32).tolist()
            assert dropped == [n for n, row in enumerate(part) if is_dropped(epoch, row)]
            rows += part
        total = setting.total(message.epoch)
        assert message.epoch == seat.left.epoch
        assert rows == seat.rows(total, message.step, drop_last=setting.drop_last), "other rows"
        again = self.out[name].get(message.number)
        if again is None:
            assert message.step == seat.step, "a step was left out, or sent twice"
            seat.step += 1
            if setting.broadcast:
                self._check_lag(seat, rows)
            self.out[name][message.number] = message, len(rows) * ROW_BYTES
        else:
            assert again[0] == message
        out, join = self.out[name].values(), session.join
        assert len(out) <= min(setting.credit_batches, join.credit_batches)
        most = min(setting.credit_bytes, join.credit_bytes)
        assert len(out) == 1 or sum(size for _, size in out) <= most
        behind = rows_left(message.after.left, total, 200)
        size = (message.step + 1) * seat.world_size * seat.batch_rows
        assert behind[:100] == rows_left(seat.left, total, size + 200)[size:][:100]
        peer = session.peer if session.lease is not None else session.data
        if peer in self.queues:
            self.queues[peer].append(message)

    def _check_lag(self, seat: Seat, rows: list[int]) -> None:
        if self._left:
            # Somebody left and came back further behind; what others got in between was right.
            return
        most = max(self.setting.max_lag_batches * self.setting.batch_rows, seat.batch_rows)
        for other in self.seats:
            if other is not seat and not other.ended:
                assert other.left.epoch >= seat.left.epoch, "a pass ahead of another"
                if other.left.epoch == seat.left.epoch:
                    assert rows[-1] < other.next_row() + most

    # ---------------------------------------------------------------- what the engine does

    def make(self) -> bool:
        """The engine makes a batch, or ends the pass."""
        if self.engine is None:
            return False
        message, number = self.engine.make(), self.engine.number
        if isinstance(message, BatchReady):
            made = message
            self.event(lambda: self.group.batch(number, made))
        elif isinstance(message, End):
            ended = message
            self.event(lambda: self.group.end(number, ended))
        return message is not None

    def kill_engine(self) -> None:
        """It is gone with all slots."""
        if self.engine is not None:
            self.engine.ended, self.engine.next_batch = True, 10**9
            self.event(self.group.engine_lost)

    # ---------------------------------------------------------------- what consumers do

    def newcomer(self, consumer: Consumer) -> None:
        """Somebody starts and joins."""
        self.consumers.append(consumer)
        self.connect(consumer)

    def _new_peer(self) -> Peer:
        peer = 0, f"peer {next(self._numbers)}".encode()
        self.queues[peer] = deque()
        return peer

    def connect(self, consumer: Consumer) -> None:
        """It opens a connection, and joins by it."""
        if consumer.peer is not None:
            return
        consumer.peer = self._new_peer()
        if consumer.local:
            consumer.lease = next(self._numbers)
            consumer.token = self.desk.lease_opened(consumer.lease)
        self._join(consumer)

    def _join(self, consumer: Consumer) -> None:
        assert consumer.peer is not None
        peer = consumer.peer
        join = Join(
            SERVICE_PROTOCOL_VERSION,
            consumer.token if consumer.local else "",
            consumer.session,
            GROUP,
            consumer.rank,
            consumer.world_size,
            consumer.batch_rows,
            consumer.credit_batches,
            consumer.credit_bytes,
            PLAN_HASH,
            consumer.start,
            consumer.step,
            tuple(sorted(consumer.held)),
        )
        known = set(self.desk.sessions)
        self.event(
            lambda: self.desk.handle(peer, join, self.now_s),
            then=lambda: self._joined(join, known),
        )

    def _joined(self, join: Join, known: set[str]) -> None:
        """Where the one that has just come must stand."""
        new = [name for name in self.desk.sessions if name not in known]
        if not new:
            if join.session in self.out:
                self._returning[join.session] = join
            return
        rows = join.batch_rows or self.setting.batch_rows
        self.out[new[0]] = {}
        if self.setting.broadcast:
            seat = Seat(0, 1, rows, self._oldest())
            if join.position is not None:
                seat.left, seat.step = join.position.left, join.step
            self.seats.append(seat)
        else:
            seat = self._rank(join, rows)
        assert not seat.owner
        seat.owner, seat.ended = new[0], False

    def _stands(self, joined: Joined) -> None:
        """What one that has come is told about its place; the same rows may have other numbers."""
        seat, start = self.seat(joined.session), joined.position.left
        now = Seat(seat.rank, seat.world_size, seat.batch_rows, start, joined.step)
        total, drop = self.setting.total(seat.left.epoch), self.setting.drop_last
        assert start.epoch == seat.left.epoch
        assert joined.batch_rows == seat.batch_rows
        for ahead in range(4):
            here, there = now.step + ahead, seat.step + ahead
            assert now.rows(total, here, drop_last=drop) == seat.rows(total, there, drop_last=drop)
        seat.left, seat.step = now.left, now.step

    def _oldest(self) -> Remainder:
        open_seats = [seat for seat in self.seats if not seat.ended] or self.seats
        here = [(seat.left.epoch, seat.next_row()) for seat in open_seats]
        return Remainder(min(here)[0], (), min(here)[1]) if here else self.start.left

    def _rank(self, join: Join, rows: int) -> Seat:
        owned = any(seat.owner for seat in self.seats)
        same = len(self.seats) == join.world_size and self.seats[0].batch_rows == rows
        over = all(seat.ended for seat in self.seats)
        assert same or not owned
        if not same or (not owned and (over or join.position is not None)):
            left, step = self.undelivered(), 0
            if join.position is not None:
                left, step = join.position.left, join.step
            self.seats = [
                Seat(rank, join.world_size, rows, left, step) for rank in range(join.world_size)
            ]
        seat = self.seats[join.rank]
        if join.position is not None:
            seat.left, seat.step = join.position.left, join.step
        return seat

    def undelivered(self) -> Remainder:
        """What is left for ranks that come when nobody is there."""
        if not self.seats or self.setting.broadcast:
            return self.start.left
        epoch = min(seat.left.epoch + seat.ended for seat in self.seats)
        start = next((s.left for s in self.seats if s.left.epoch == epoch), Remainder(epoch))
        total, gone = self.setting.total(epoch), set[int]()
        listed = rows_left(start, total, 3000)
        for seat in self.seats:
            like = Seat(seat.rank, seat.world_size, seat.batch_rows, start)
            past = seat.left.epoch + seat.ended > epoch
            steps = 200 if past else seat.step if seat.left.epoch == epoch else 0
            for step in range(steps):
                gone.update(like.rows(total, step, drop_last=self.setting.drop_last))
        left = [row for row in listed if row not in gone]
        if total is not None:
            return Remainder(epoch, tuple((row, row + 1) for row in left), total)
        return Remainder(epoch, tuple((row, row + 1) for row in left[:-1]), left[-1])

    def say(self, consumer: Consumer, message: Message) -> None:
        """It says something, if it is connected."""
        peer = consumer.peer
        if peer is None:
            return
        said = decode_service(encode(message))
        name = consumer.session
        went_on = (said.epoch, said.step) if isinstance(said, Leave) else None
        known = name in self._live() and self.desk.sessions[name].peer == peer

        def then() -> None:
            if isinstance(said, NextPass) and known:
                seat = self.seat(name)
                if said.epoch == seat.left.epoch + 1:
                    seat.left, seat.step, seat.ended = Remainder(said.epoch), 0, False
            if isinstance(said, Attach) and name in self._returning:
                self._repeat(name, self._returning.pop(name))

        if isinstance(said, Released) and known:
            for number in said.numbers:
                self.out[name].pop(number)
        sender = peer
        if isinstance(said, Attach):
            assert consumer.data is not None
            sender = consumer.data
        self.event(lambda: self.desk.handle(sender, said, self.now_s), went_on, then)

    def _repeat(self, name: str, join: Join) -> None:
        """What the one that has come back has not got is sent again, or cut anew."""
        seat, out, engine = self.seat(name), self.out[name], self.engine
        assert join.position is not None
        assert engine is not None
        lost = seat.step
        for number, (message, _) in sorted(out.items()):
            if number in join.held:
                continue
            late = (message.epoch, message.step) >= (join.position.left.epoch, join.step)
            if late and message.engine != engine.number:
                lost = min(lost, message.step)
            if not late or lost < seat.step:
                del out[number]
        if lost < seat.step:
            seat.step, seat.ended = lost, False

    def lose_connection(self, consumer: Consumer) -> None:
        """What is under way is lost; of a local one the lease stays."""
        for peer in (consumer.peer, consumer.data):
            if peer is not None:
                self.queues.pop(peer, None)
        consumer.peer = consumer.data = None
        consumer.joined = consumer.joined and not consumer.local
        self._put_aside(consumer)

    def _disconnect(self, consumer: Consumer) -> None:
        """The service is gone; so are all leases."""
        consumer.peer = consumer.data = consumer.lease = None
        consumer.joined = consumer.joined and not consumer.local
        consumer.kept.clear()
        if consumer.local:
            consumer.held = set()

    def _put_aside(self, consumer: Consumer) -> None:
        if not consumer.local or consumer.lease is None:
            return
        lease, consumer.lease = consumer.lease, None
        if consumer.held:
            consumer.kept.append((lease, consumer.sessions, set(consumer.held)))
        else:
            self.event(lambda: self.desk.lease_lost(lease))
        consumer.held = set()

    def hear(self, consumer: Consumer) -> bool:
        """It takes the next thing that it was sent; False: there is none."""
        if consumer.over or consumer.frozen:
            return False
        for peer in (consumer.peer, consumer.data):
            if peer is not None and self.queues[peer]:
                self._take(consumer, self.queues[peer].popleft())
                return True
        return False

    def _take(self, consumer: Consumer, message: ServiceMessage) -> None:
        match message:
            case Joined():
                self._welcomed(consumer, message)
            case Delivered():
                self._received(consumer, message)
            case PassEnded():
                # It may overtake the last batches, which come by another connection.
                consumer.end = message
                self._end_of_pass(consumer)
            case Refuse(reason):
                assert any(words in reason for words in REFUSALS), reason
                self.close_abruptly(consumer)
            case _ if type(message).__name__ == "Detached":
                self.close_abruptly(consumer)
            case _ if type(message).__name__ == "WhoAreYou":
                if consumer.local:
                    self.lose_connection(consumer)
                    self.connect(consumer)
                else:
                    self._join(consumer)

    def _end_of_pass(self, consumer: Consumer) -> None:
        end = consumer.end
        if end is None or (end.epoch, end.steps) != (consumer.epoch, consumer.step):
            return
        if consumer.told != end.epoch:
            consumer.told, consumer.ended = end.epoch, True
            consumer.passes += 1

    def _welcomed(self, consumer: Consumer, joined: Joined) -> None:
        if joined.session != consumer.session:
            consumer.held = set()
            consumer.sessions += 1
            consumer.start, consumer.step = joined.position, joined.step
            consumer.epoch = joined.position.left.epoch
            consumer.session = joined.session
        elif joined.position.left.epoch < consumer.epoch:
            self.say(consumer, NextPass(consumer.epoch))
        consumer.joined = True
        if not joined.local:
            consumer.data = self._new_peer()
            self.say(consumer, Attach(joined.session))
        self._speak(consumer)

    def _received(self, consumer: Consumer, message: Delivered) -> None:
        here, there = (consumer.epoch, consumer.step), (message.epoch, message.step)
        assert there <= here, "a step was left out"
        if there < here:
            self.say(consumer, Released((message.number,)))
            return
        assert consumer.start is not None
        consumer.held.add(message.number)
        seat = Seat(
            consumer.rank if not self.setting.broadcast else 0,
            consumer.world_size if not self.setting.broadcast else 1,
            consumer.batch_rows or self.setting.batch_rows,
            consumer.start.left,
        )
        total, drop = self.setting.total(message.epoch), self.setting.drop_last
        rows = seat.rows(total, message.step, drop_last=drop)
        arrived = Arrived(consumer.sessions, message.number, *there, rows)
        if consumer.local:
            arrived.service, arrived.engine = self.service, message.engine
            arrived.slots = tuple(piece.slot for piece in message.pieces)
        consumer.step += 1
        consumer.received += 1
        consumer.inbox.append(arrived)
        consumer.states.append(message.after)
        self._end_of_pass(consumer)

    def use(self, consumer: Consumer) -> bool:
        """The user takes a batch."""
        if consumer.over or not consumer.inbox:
            return False
        arrived = consumer.inbox.popleft()
        consumer.using.append(arrived)
        return True

    def release(self, consumer: Consumer, number: int) -> bool:
        """The user drops a batch; which one is up to it."""
        if consumer.over or not consumer.using:
            return False
        consumer.released.append(consumer.using.pop(number % len(consumer.using)))
        self._speak(consumer)
        return True

    def _release_kept(self, consumer: Consumer, arrived: Arrived) -> None:
        for kept in tuple(consumer.kept):
            lease, session, held = kept
            if session == arrived.session:
                held.discard(arrived.number)
                if not held:
                    consumer.kept.remove(kept)
                    self.event(lambda lease=lease: self.desk.lease_lost(lease))  # type: ignore[misc]

    def next_pass(self, consumer: Consumer) -> bool:
        """The user iterates again."""
        if consumer.over or not consumer.ended or consumer.inbox:
            return False
        consumer.ended = False
        consumer.outbox.append(NextPass(consumer.epoch + 1))
        self._speak(consumer)
        return True

    def _speak(self, consumer: Consumer) -> None:
        """It says what waits to be said, once its session is open."""
        if consumer.frozen:
            return
        numbers = []
        while consumer.released:
            arrived = consumer.released.popleft()
            if arrived.session == consumer.sessions:
                consumer.held.discard(arrived.number)
                numbers.append(arrived.number)
            else:
                self._release_kept(consumer, arrived)
        if not consumer.joined:
            return
        if numbers:
            self.say(consumer, Released(tuple(numbers)))
        while consumer.outbox:
            message = consumer.outbox.popleft()
            consumer.start, consumer.step = Position(Remainder(message.epoch)), 0
            consumer.epoch = message.epoch
            self.say(consumer, message)

    def leave(self, consumer: Consumer) -> None:
        """It says goodbye, with what it has not used under way."""
        if not consumer.session or consumer.peer is None:
            self.close_abruptly(consumer)
            return
        epoch, step = consumer.epoch, consumer.step
        if consumer.inbox:
            epoch, step = consumer.inbox[0].epoch, consumer.inbox[0].step
        consumer.over = True
        self.say(consumer, Leave(epoch, step))
        self.close_abruptly(consumer)

    def close_abruptly(self, consumer: Consumer) -> None:
        """It is gone; of a local one the kernel says so."""
        consumer.over = True
        leases = [lease for lease, _, _ in consumer.kept]
        leases += [consumer.lease] if consumer.lease is not None else []
        consumer.lease, consumer.kept = None, []
        for peer in (consumer.peer, consumer.data):
            if peer is not None:
                self.queues.pop(peer, None)
        consumer.peer = consumer.data = None
        for lease in leases:
            self.event(lambda lease=lease: self.desk.lease_lost(lease))  # type: ignore[misc]

    # ---------------------------------------------------------------- time

    def pass_time(self, seconds: float) -> None:
        """Time goes by in small steps; whoever can says that it is there."""
        until = self.now_s + seconds
        while self.now_s < until:
            self.now_s = min(until, self.now_s + 1.0)
            for consumer in self.consumers:
                if not consumer.over and not consumer.frozen and consumer.session:
                    self.say(consumer, Ping())
            self.event(lambda: self.desk.tick(self.now_s))

    # ---------------------------------------------------------------- all together

    @property
    def live(self) -> set[str]:
        """Names of the sessions that are not over."""
        return self._live()

    def operate(self, verb: str) -> None:
        """An operator acts on the group."""
        peer = self._new_peer()
        wish = Operate(SERVICE_PROTOCOL_VERSION, "", verb, GROUP)
        if verb in ("pause", "resume"):
            self.paused = verb == "pause"
        self.event(lambda: self.desk.handle(peer, wish, self.now_s))
        answer = self.queues.pop(peer).popleft()
        assert isinstance(answer, OperatorAnswer)

    def resume(self, seed: int, world_size: int, batch_rows: int) -> None:
        """A training of that many ranks goes on from a state that a rank once had."""
        states = [state for consumer in self.consumers for state in consumer.states]
        for consumer in self.there:
            self.close_abruptly(consumer)
        if not states:
            return
        for rank in range(world_size):
            one = Consumer(rank, world_size, batch_rows, bool(seed % 2), 3, 10**6)
            one.start = states[seed % len(states)]
            one.epoch = one.start.left.epoch
            self.newcomer(one)

    def check_memory(self) -> None:
        """No slot that somebody reads is free."""
        if self.engine is not None and self.engine.next_batch < 10**9:
            for reader in self._readers():
                for slot in reader.slots:
                    assert self.engine.slots[slot] is not None

    def bustle(self, random: Random, steps: int) -> None:
        """Everybody does something, in random order."""
        for _ in range(steps):
            self.make() if random.random() < 0.3 else None
            if not self.there:
                return
            consumer = random.choice(self.there)
            act = random.random()
            if act < 0.5:
                self.hear(consumer)
            elif act < 0.7:
                self.use(consumer)
            elif act < 0.92:
                self.release(consumer, random.randrange(5))
            elif act < 0.96:
                self.next_pass(consumer)
            elif not consumer.frozen and consumer.session:
                self.say(consumer, Ping())

    def drive(self) -> None:
        """Everybody is willing and all ranks are there: everybody gets two more steps."""
        for consumer in self.there:
            consumer.frozen = False
            self._speak(consumer)
        self.operate("resume")
        before: dict[int, int] = {}
        for sweep in range(MOST_SWEEPS):
            if sweep % 40 == 39:
                # Whoever has died on another machine is given up.
                self.pass_time(SILENT_S + GRACE_S + 2)
            self._fill()
            for consumer in self.there:
                self.connect(consumer)
                before.setdefault(id(consumer), consumer.received + consumer.passes)
                while self.hear(consumer):
                    pass
                if consumer.session:
                    self.say(consumer, Resume())
                while self.use(consumer):
                    pass
                while self.release(consumer, 0):
                    pass
                self.next_pass(consumer)
            for _ in range(3):
                self.make()
            if sweep > 3 and all(
                consumer.received + consumer.passes >= before[id(consumer)] + 2
                for consumer in self.there
            ):
                return
        raise AssertionError("somebody does not get on")

    def _fill(self) -> None:
        """All places are taken."""
        if self.setting.broadcast or not self.seats:
            if not self.there:
                self.newcomer(Consumer(0, 1, 2, True, 2, 10**6))
            return
        size, rows = self.seats[0].world_size, self.seats[0].batch_rows
        ranks = {c.rank for c in self.there if c.world_size == size}
        for rank in set(range(size)) - ranks:
            self.newcomer(Consumer(rank, size, rows, rank % 2 == 0, 2, 10**6))

    def finish(self) -> None:
        """All leave; nothing is read any more."""
        for consumer in self.there:
            self.leave(consumer)
        self.pass_time(2 * (SILENT_S + GRACE_S))
        assert not self.desk.sessions
        assert not self.group.members
        assert self.engine is not None
        made = [content for content in self.engine.slots if content is not None]
        for _ in range(3 * self.setting.slots):
            self.make()
        assert all(content in self.engine.slots for content in made), "it does not rest"

    @property
    def there(self) -> list[Consumer]:
        """Consumers that are not over."""
        return [consumer for consumer in self.consumers if not consumer.over]
