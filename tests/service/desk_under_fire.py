"""A desk whose peers say anything, with engines that make batches without pixels."""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from chunkdl.errors import ProtocolError
from chunkdl.sampling.rotation import Rotation
from chunkdl.sampling.shares import Remainder
from chunkdl.service.decisions.actions import BeginPass, Deliver, FreeBatch, Say, StartEngine
from chunkdl.service.decisions.desk import Desk
from chunkdl.service.decisions.group import Group
from chunkdl.service.decisions.members import GroupFacts
from chunkdl.service.decisions.sessions import DeskFacts
from chunkdl.transport.protocol.codec import decode_service, encode
from chunkdl.transport.protocol.engine_messages import BatchReady, End, Message, Ping
from chunkdl.transport.protocol.service_messages import (
    Attach,
    CataloguePage,
    Drain,
    Join,
    Leave,
    NextPass,
    Pause,
    Position,
    Released,
    Resume,
)
from chunkdl.transport.row_format import RowFormat
from tests.service.strange_messages import near_join, random_messages

BATCH_ROWS, SLOTS, CALLS, PASS_BATCHES, PEERS = 16, 20, 40, 30, 12
LOCAL = 0
"""Number of the socket by which nobody comes without a token."""


@dataclass(slots=True)
class _Engine:
    """Makes batches where a group has it begin; `lent` has the slot of each that is out."""

    number: int = 0
    epoch: int = 0
    next_batch: int = 0
    lent: dict[tuple[int, int], int] = field(default_factory=dict)


def _facts(name: str, *, detach: bool, finite: bool) -> GroupFacts:
    return GroupFacts(
        name=name,
        broadcast=name == "trials",
        max_lag_batches=4,
        detach=detach,
        patience_s=1.0,
        batch_rows=BATCH_ROWS,
        row_bytes=100,
        most_rows=2**20,
        finite=finite,
        drop_last=False,
        plan_hash="0" * 64,
        seed=3,
    )


DESK_FACTS = DeskFacts(
    rows_hash="0" * 64,
    seed=3,
    batch_rows=BATCH_ROWS,
    row_format=RowFormat.of_crops(64),
    patients=2,
    slides=3,
    max_consumers=8,
    credit_batches=4,
    credit_bytes=2**30,
    silent_s=5.0,
    grace_s=30.0,
    batch_slots=SLOTS,
    most_calls=CALLS,
)


class DeskUnderFire:
    """The desk, its groups and their engines.

    Args:
        seed: of what is said.
        finite: the stream has passes.
    """

    def __init__(self, seed: int, *, finite: bool) -> None:
        self._rng = random.Random(seed)
        self._finite = finite
        self._groups = {
            name: Group(_facts(name, detach=bool(seed % 2), finite=finite), Position(Remainder()))
            for name in ("train", "trials")
        }
        self._engines = {name: _Engine() for name in self._groups}
        names = (f"{number:032x}" for number in itertools.count())
        self.desk = Desk(
            DESK_FACTS,
            self._groups,
            names.__next__,
            lambda *at: CataloguePage(at[0], (), at[1], ()),
            {LOCAL},
        )
        self._now_s = 0.0
        self._leases: list[tuple[int, str]] = []
        self.longest_s = 0.0
        """That anything has taken."""
        self.engines_started = 0

    def say(self, count: int) -> None:
        """So many messages of several peers, while time goes by and connections are lost."""
        strange = random_messages(self._rng)
        for number in range(count):
            peer = self._rng.randrange(2), b"%d" % self._rng.randrange(PEERS)
            if number % 20 == 0:
                self._leases.append((number, self.desk.lease_opened(number)))
            if len(self._leases) > PEERS:
                self.desk.lease_lost(self._leases.pop(self._rng.randrange(PEERS))[0])
            if number % 400 == 0:
                self._groups[self._rng.choice(("train", "trials"))].engine_lost()
            if number % 50 == 0:
                self._now_s += self._rng.choice((0.1, 1.0, 1.0, 10.0, 40.0))
            message = self._message(peer) if self._rng.random() < 0.7 else _decoded(next(strange))
            began = time.monotonic()
            if message is not None:
                self.desk.handle(peer, message, self._now_s)
            self.desk.tick(self._now_s)
            self._settle()
            self.longest_s = max(self.longest_s, time.monotonic() - began)
        for group in self._groups.values():
            assert len(msgspec.msgpack.encode(group.position())) < 64 * 1024
        self.desk.status()

    def _message(self, peer: tuple[int, bytes]) -> Any:
        """What may come from one who belongs here, or nearly."""
        rng, names = self._rng, list(self.desk.sessions)
        mine = next((s for s in self.desk.sessions.values() if s.peer == peer), None)
        if mine is None:
            return self._join(names)
        group = self._groups[mine.group]
        member = group.members.get(mine.name)
        held = [] if member is None else list(member.held)
        epoch, step = (0, 0) if member is None else (member.seat.epoch, member.seat.step)
        choices: list[Message] = [
            Released(tuple(rng.sample(held, rng.randrange(len(held) + 1)))),
            Released(tuple(held)),
            Released(tuple(held)),
            NextPass(epoch + rng.choice((1, 1, 1, 0, 2))),
            Attach(mine.name if rng.random() < 0.8 else "0"),
            Attach(mine.name),
            Ping(),
            Pause(),
            Resume(),
        ]
        ends: list[Message] = [Drain(), Leave(epoch, step - rng.randrange(3)), Leave(0, 2**62)]
        return rng.choice(ends if rng.random() < 0.05 else choices)

    def _join(self, names: list[str]) -> Join:
        rng = self._rng
        join = near_join(rng, rng.choice(["", *(token for _, token in self._leases)]))
        if rng.random() < 0.5:
            world_size = rng.choice((1, 2, 2, 2, 3))
            rank = rng.randrange(world_size)
            join = msgspec.structs.replace(join, group="train", world_size=world_size, rank=rank)
        if names and rng.random() < 0.3:
            session = rng.choice(names)
            join = msgspec.structs.replace(self.desk.sessions[session].join, session=session)
        return join

    def _settle(self) -> None:
        """Do what the desk wants, and let each engine make a batch."""
        while actions := self.desk.take():
            for action in actions:
                match action:
                    case StartEngine():
                        self._start(action)
                    case FreeBatch(name, number, epoch, batch):
                        if number == self._engines[name].number:
                            del self._engines[name].lent[epoch, batch]
                    case BeginPass(name, epoch):
                        self._engines[name].epoch, self._engines[name].next_batch = epoch, 0
                    case Say(_, message) | Deliver(_, _, message):
                        encode(message)
        for name, engine in self._engines.items():
            self._make(self._groups[name], engine)

    def _start(self, action: StartEngine) -> None:
        cursor = action.cursor
        # Where no engine could begin, it would fail for the whole group.
        rotation = Rotation(3, 6, cursor.smallchunks_per_bigchunk or CALLS)
        rotation.rows(cursor.next_batch * BATCH_ROWS, BATCH_ROWS)
        rotation.first_needed(cursor.next_batch * BATCH_ROWS)
        assert min((cursor.epoch, *cursor.substitutions, *cursor.substitutions.values())) >= 0
        self._engines[action.group] = _Engine(action.engine, cursor.epoch, cursor.next_batch)
        self.engines_started += 1

    def _make(self, group: Group, engine: _Engine) -> None:
        if not engine.number or len(engine.lent) == SLOTS:
            return
        if self._finite and engine.next_batch >= PASS_BATCHES:
            group.end(engine.number, End(engine.epoch, PASS_BATCHES))
            return
        slot = min(set(range(SLOTS)).difference(engine.lent.values()))
        epoch, batch = engine.epoch, engine.next_batch
        engine.lent[epoch, batch] = slot
        engine.next_batch += 1
        made = BatchReady(batch, epoch, slot, 0, BATCH_ROWS, b"", CALLS, {})
        group.batch(engine.number, made)


def _decoded(data: bytes) -> Any:
    try:
        return decode_service(data)
    except ProtocolError:
        return None
