"""A session as the desk keeps it: what it must show first, and how it looks to an operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from chunkdl.errors import ProtocolError
from chunkdl.service.decisions.actions import Peer, Say, Tell
from chunkdl.service.decisions.group import Group
from chunkdl.service.decisions.members import Member
from chunkdl.service.decisions.visitors import SOMEBODY, Visitor
from chunkdl.transport.protocol.credit import MAX_CREDIT, Credit
from chunkdl.transport.protocol.service_checks import MOST_CONSUMER_ROWS
from chunkdl.transport.protocol.service_messages import (
    Join,
    Joined,
    Position,
)
from chunkdl.transport.protocol.session_states import State
from chunkdl.transport.row_format import RowFormat

MOST_RANKS = 4096
MOST_NAME = 64
"""Characters of a name of a session or a consumer, or of a token."""
MOST_PASSES, MOST_ROW = 2**31, 2**53
"""Where a position may lie; what is counted from there still fits into 64 bits."""
MOST_PLANNED_ROW = 2**34
"""The same where an engine plans all rows before it again, a million BigChunks in 5 to 10 s."""
MOST_GAP_BATCHES = 2048
"""Between the first row that is left and the tail; an engine holds fewer batches."""
MOST_SUBSTITUTED_BYTES = 40 * 1024
"""Of the attempts in a position, in a message: those of 4,096 BigChunks take fewer."""
OVER = State.CLOSED, State.EXPIRED
"""Where a session does nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskFacts:
    """What the desk has to know.

    Attributes:
        rows_hash: identity of the rows of the stream, however they are cut into batches.
        seed: of the stream.
        batch_rows: of a batch of the engines.
        row_format: the columns of a row; None: the first row shows them.
        patients, slides: how many.
        max_consumers: sessions at a time.
        credit_batches, credit_bytes: that a consumer gets at most.
        silent_s, grace_s: see `ServiceSpec`.
        batch_slots: of an engine; a batch of a consumer has to fit into them.
        most_calls: SmallChunks of a BigChunk, at most.
        most_row: that a position may lie at.
        footprint_px: see `StreamConfig.footprint_px`.
        regions: names of the annotated classes.
    """

    rows_hash: str
    seed: int
    batch_rows: int
    row_format: RowFormat | None
    patients: int
    slides: int
    max_consumers: int
    credit_batches: int
    credit_bytes: int
    silent_s: float
    grace_s: float
    batch_slots: int
    most_calls: int
    most_row: int = MOST_ROW
    footprint_px: int = 0
    regions: tuple[str, ...] = ()


@dataclass(slots=True)
class Session:
    """A consumer.

    Attributes:
        name: which only it and the service know.
        group: that it is a member of.
        peer: connection that it speaks by.
        data: connection that its bytes go to; None: it gets references.
        lease: its lease connection; None: it is on another machine.
        state: of its life.
        heard_s: when it said something last, seconds.
        join: what it asked for.
        who: it is.
        kept: the member that it was, while its batches may still be read.
        paused: it has asked for it.
        stopped: the way for its batches is not there.
        returned: it has come back and is still to be sent again what it has not got.
    """

    name: str
    group: str
    peer: Peer
    data: Peer | None
    lease: int | None
    state: State
    heard_s: float
    join: Join
    who: Visitor = SOMEBODY
    kept: Member | None = None
    paused: bool = False
    stopped: bool = False
    returned: bool = False


def check(join: Join, facts: DeskFacts, groups: Mapping[str, Group]) -> None:
    """Refuse what can never be.

    Raises:
        ProtocolError: and why.
    """
    if join.group not in groups:
        raise ProtocolError(f"there is no group {join.group[:64]!r}; there are {', '.join(groups)}")
    if join.rows_hash and join.rows_hash != facts.rows_hash:
        raise ProtocolError(
            "the consumer expects another stream: dataset, seed, sizes, resolution, tissue "
            "settings, reuse or num_bigchunks of this service differ, or the rules by which its "
            "chunkdl samples and reads"
        )
    sound = (
        1 <= join.world_size <= MOST_RANKS
        and 0 <= join.rank < join.world_size
        and 0 <= join.batch_rows <= MOST_CONSUMER_ROWS
        and 1 <= join.credit_batches <= MAX_CREDIT
        and join.credit_bytes >= 1
        and max(map(len, (join.consumer, join.session, join.token))) <= MOST_NAME
    )
    if not sound:
        raise ProtocolError("rank, world_size, batch_size, credit or name is out of range")
    most = (facts.batch_slots - 1) * facts.batch_rows
    if join.batch_rows > most:
        raise ProtocolError(
            f"batch_size={join.batch_rows} is too large; the service holds batches of up to {most} "
            "rows. Lower it, or raise batch_slots of the service"
        )
    if join.world_size > facts.max_consumers and not groups[join.group].facts.broadcast:
        raise ProtocolError(
            f"the service has its {facts.max_consumers} consumers at most, fewer than "
            f"world_size={join.world_size}; raise max_consumers"
        )
    if join.position is not None and not _is_possible(join.position, join, facts):
        raise ProtocolError(
            "the position that the consumer wants to go on from is invalid or too large"
        )


def _is_possible(position: Position, join: Join, facts: DeskFacts) -> bool:
    """Whether an engine can begin there; else it would fail for all of the group."""
    left, rows = position.left, join.batch_rows or facts.batch_rows
    last = left.tail + (join.step + 1) * join.world_size * rows
    numbers = (join.step, *position.substitutions, *position.substitutions.values())
    return (
        left.is_sound()
        and left.epoch <= MOST_PASSES
        and last <= facts.most_row
        and left.tail - left.first <= MOST_GAP_BATCHES * facts.batch_rows
        and 0 <= position.smallchunks_per_bigchunk <= facts.most_calls
        and min(numbers) >= 0
        and max(numbers) <= MOST_ROW
        and len(msgspec.msgpack.encode(position.substitutions)) <= MOST_SUBSTITUTED_BYTES
    )


def asked_seat(join: Join) -> tuple[str, int, int]:
    """What a session stays with, however often its consumer comes back."""
    return join.group, join.rank, join.world_size


def taken_up(join: Join, session: str) -> Join:
    """What somebody asks for who takes this session up again; what it holds of another counts not.

    Deliveries of every session have the same numbers.
    """
    return join if join.session == session else msgspec.structs.replace(join, held=())


def credit_of(join: Join, facts: DeskFacts, group: Group) -> tuple[Credit, int]:
    """What a consumer may hold at a time, of what it asks for; the number is batches."""
    size = min(join.credit_bytes, facts.credit_bytes)
    rows = join.batch_rows or group.facts.batch_rows
    # As many as the bytes are enough for: who has none left can then be told.
    fit = max(1, size // (rows * group.facts.row_bytes))
    batches = min(join.credit_batches, facts.credit_batches, fit)
    credit = Credit(size)
    credit.grant(batches)
    return credit, batches


def welcome(session: Session, facts: DeskFacts, group: Group) -> Joined:
    """What a consumer is told that has joined."""
    member = group.members[session.name]
    seat = member.seat
    return Joined(
        session.name,
        session.lease is not None,
        "broadcast" if group.facts.broadcast else "shard",
        facts.rows_hash,
        facts.seed,
        facts.batch_rows,
        seat.share.batch_rows,
        facts.row_format,
        facts.patients,
        facts.slides,
        seat.start,
        seat.step,
        group.stands(seat),
        member.credit.available + member.credit.outstanding,
        facts.silent_s,
        group.facts.finite,
        footprint_px=facts.footprint_px,
        regions=facts.regions,
    )


def group_status(group: Group, sessions: Iterable[Session]) -> dict[str, object]:
    """What an operator wants to see of a group, as plain data."""
    members = [
        {
            "rank": session.join.rank,
            "who": session.who.name,
            "world_size": session.join.world_size,
            "state": session.state.value,
            "local": session.lease is not None,
            "paused": session.paused,
            "epoch": member.seat.epoch,
            "step": member.seat.step,
            "held": len(member.held),
            "credit": member.credit.available,
        }
        for session in sessions
        if session.group == group.facts.name
        and (member := group.members.get(session.name) or session.kept) is not None
    ]
    return {
        "mode": "broadcast" if group.facts.broadcast else "shard",
        "engine": group.engine,
        "delivered": group.delivered,
        "position": group.position().left.first,
        "members": members,
    }


def addressed(action: Tell, sessions: Mapping[str, Session]) -> Say | None:
    """Where a message to a session goes; None where it is over."""
    session = sessions.get(action.session)
    return None if session is None else Say(session.peer, action.message)
