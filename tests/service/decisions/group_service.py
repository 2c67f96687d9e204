"""A service's desk and one group with a simulated engine: everything that they do is checked."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from chunkdl.sampling.shares import Remainder
from chunkdl.service.decisions.actions import (
    BeginPass,
    CloseLease,
    Deliver,
    FreeBatch,
    FreeRemains,
    Peer,
    Say,
    ServiceAction,
    StartEngine,
    Tell,
)
from chunkdl.service.decisions.desk import Desk
from chunkdl.service.decisions.group import Group
from chunkdl.service.decisions.sessions import OVER, addressed
from chunkdl.transport.protocol.codec import decode_service, encode
from chunkdl.transport.protocol.engine_messages import BatchReady, End, Message
from chunkdl.transport.protocol.service_messages import (
    CataloguePage,
    Delivered,
    Join,
    Joined,
    PassEnded,
    Position,
    ServiceMessage,
)
from chunkdl.transport.protocol.session_states import State
from tests.service.decisions.group_script import (
    GROUP,
    PLAN_HASH,
    ROW_BYTES,
    Arrived,
    Consumer,
    Seat,
    Setting,
    SimulatedEngine,
    is_dropped,
    rows_left,
)


class GroupService:
    """A service with one group and its engine; every action is checked, then carried out.

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
        self._stay_shut = set[str]()

    # ---------------------------------------------------------------- what the service does

    def event(
        self,
        happens: Callable[[], None],
        went_on: tuple[int, int] | None = None,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Something happens to the service; then all of its actions are carried out."""
        before, shut = self._live(), self._shut()
        happens()
        # Of one that was silent its first word opens it, and may then shut it.
        self._stay_shut = {name for name, _ in shut & self._shut()}
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

    def _shut(self) -> set[tuple[str, object]]:
        """Sessions that are to be sent nothing, and why."""
        sessions = self.desk.sessions.items()
        shut = {(name, one.state) for name, one in sessions if one.state is not State.OPEN}
        held = self.paused or self.desk.draining
        return shut | {(name, "paused") for name, one in sessions if one.paused or held}

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
                read = {
                    (arrived.engine, slot)
                    for arrived in self._arrived()
                    if arrived.service == self.service
                    for slot in arrived.slots
                }
                assert read <= set(action.remains), "memory was given back that somebody reads"
                self.engine = SimulatedEngine(self.setting, action)
            case FreeBatch():
                self._free(action)
            case FreeRemains(_, number, slot):
                assert self.engine is None or number <= self.engine.number
                for arrived in self._arrived():
                    same = (arrived.service, arrived.engine) == (self.service, number)
                    assert not same or slot not in arrived.slots, "somebody reads what was freed"
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
        for arrived in self._arrived():
            if (arrived.service, arrived.engine) == here:
                yield arrived

    def _arrived(self) -> Iterator[Arrived]:
        """The same, of any engine."""
        for consumer in self.consumers:
            if not consumer.over and consumer.local:
                yield from (*consumer.inbox, *consumer.using, *consumer.released)
                for message in self.queues.get(consumer.peer, ()) if consumer.peer else ():
                    if isinstance(message, Delivered):
                        slots = tuple(piece.slot for piece in message.pieces)
                        place = self.service, message.engine, slots
                        yield Arrived(0, message.number, 0, 0, [], *place)

    def _deliver(self, name: str, message: Delivered) -> None:
        session, engine, setting = self.desk.sessions[name], self.engine, self.setting
        assert decode_service(encode(message)) == message
        assert engine is not None
        assert message.engine == engine.number
        if message.number not in self.out[name]:
            assert name not in self._stay_shut, "sent to a session that is not to be sent anything"
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

    # ---------------------------------------------------------------- who must stand where

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
            if late and (message.engine != engine.number or engine.dead):
                lost = min(lost, message.step)
            if not late or lost < seat.step:
                del out[number]
        if lost < seat.step:
            seat.step, seat.ended = lost, False

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
            self.engine.dead = True
            self.event(self.group.engine_lost)
