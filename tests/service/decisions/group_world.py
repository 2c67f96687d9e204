"""A world around a service: its consumers, each with a thread and a user, and all of them together.

Consumers do what `chunkdl.service.client.session_thread` does; nothing here decides by itself.
"""

from __future__ import annotations

from collections import deque
from random import Random

from chunkdl.sampling.shares import Remainder
from chunkdl.service.decisions.actions import (
    Peer,
)
from chunkdl.service.decisions.visitors import Visitor
from chunkdl.transport.protocol.codec import decode_service, encode
from chunkdl.transport.protocol.engine_messages import Message, Ping, Refuse
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    Attach,
    Delivered,
    Join,
    Joined,
    Leave,
    NextPass,
    Operate,
    OperatorAnswer,
    PassEnded,
    Position,
    Released,
    Resume,
    ServiceMessage,
)
from tests.service.decisions.group_script import (
    GRACE_S,
    GROUP,
    ROWS_HASH,
    SILENT_S,
    Arrived,
    Consumer,
    Seat,
)
from tests.service.decisions.group_service import GroupService

OPERATOR = Visitor("an operator", is_operator=True)
MOST_SWEEPS = 400
REFUSALS = (
    "is there already",
    "is shared by",
    "raise max_consumers",
    "stands where no step",
    "has passed row",
)


class GroupWorld(GroupService):
    """A service with one group, and everything around it."""

    def begin_service(self, start: Position) -> None:
        """A service comes up; of one that was, nothing is left."""
        super().begin_service(start)
        for consumer in self.consumers:
            self._disconnect(consumer)

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
            ROWS_HASH,
            consumer.start,
            consumer.step,
            tuple(sorted(consumer.held)),
        )
        known = set(self.desk.sessions)
        self.event(
            lambda: self.desk.handle(peer, join, self.now_s),
            then=lambda: self._joined(join, known),
        )

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
            case _ if type(message).__name__ == "JoinFirst":
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
        self.event(lambda: self.desk.handle(peer, wish, self.now_s, OPERATOR))
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
        if self.engine is not None and not self.engine.dead:
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
