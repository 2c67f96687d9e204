"""What the thread of a connection does: it keeps one session with a service up.

It owns the sockets: it joins, says that it is there while the training computes, has batches taken
in (`Arrivals`), gives them back, and joins again when the connection, or the service, was away.
Others reach it by its `Mailbox`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from chunkdl.errors import ChunkdlError, ProtocolError, ServiceDied, ServiceRefused
from chunkdl.sampling.shares import Remainder
from chunkdl.service.client.arrivals import Arrivals
from chunkdl.service.client.mailbox import Mailbox
from chunkdl.service.client.sockets import Wire
from chunkdl.service.keys import ClientKeys
from chunkdl.system.awake_clock import AwakeClock
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.memory.layouts import Bytes
from chunkdl.transport.protocol.engine_messages import (
    Notice,
    Ping,
    Pong,
    Refuse,
    Statistics,
)
from chunkdl.transport.protocol.service_checks import check_joined
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    ArenaPassed,
    Attach,
    CataloguePage,
    Delivered,
    Detached,
    GroupFailed,
    Join,
    Joined,
    JoinFirst,
    Leave,
    NextPass,
    PassEnded,
    Position,
    Released,
    RowFormatKnown,
    ServiceEnding,
    ServiceMessage,
    Waits,
)

PING_S = 1.0
"""How often a silent consumer says that it is there, where nobody wants it more often."""
RELEASED_S = 0.1
"""The longest that a batch is kept after it was released."""
GOODBYE_S = 1.0
"""For the service to take note that a session is over."""
RETRY_S = 0.25
"""Between attempts to reach a service that is away."""

log = steady_logger("chunkdl")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """What a consumer asks a service for; see `Join`."""

    address: str
    group: str
    rank: int
    world_size: int
    batch_rows: int
    credit_batches: int
    credit_bytes: int
    keys: ClientKeys | None
    reconnect_s: float
    """How long a service that was there may be away, seconds."""
    connect_s: float
    """How long it may take to be there first, seconds."""
    take_over: bool = False


class SessionThread:
    """The state of the thread; `run` is the thread.

    All fields are the thread's own; what others may touch is in `box`. Of `arrivals` others empty
    the `inbox` and look at the `layout`.

    Args:
        wish: of the consumer.
        rows_hash: identity of the rows that the service must have; empty: any.
        position, step: where to go on; None: wherever the group is.
        allocate: memory for a batch of so many bytes that comes from another machine.
    """

    def __init__(
        self,
        wish: JoinRequest,
        rows_hash: str,
        position: Position | None,
        step: int,
        allocate: Callable[[int], Bytes],
    ) -> None:
        self.wish = wish
        self.box = Mailbox()
        self._name = secrets.token_hex(16)
        self._rows_hash = rows_hash
        self._ping_s = min(PING_S, wish.reconnect_s / 4)
        self._start = position
        epoch = position.left.epoch if position is not None else 0
        self.arrivals = Arrivals(epoch, step, allocate)
        self._wire: Wire | None = None
        self._kept: list[tuple[Wire, int, set[int]]] = []
        """Connections that are over, with session and numbers of the batches in their memory."""
        self._clock = AwakeClock(2 * self._ping_s)
        self._pongs_due = 0
        """Pings of this connection that were not answered yet."""

    def run(self) -> None:
        """Keep the session up until it is over."""
        try:
            self._keep_up()
        except ChunkdlError as error:
            self._fail(error)
        except BaseException as error:
            self._fail(ServiceDied(f"the connection broke: {type(error).__name__}: {error}"))
            raise
        finally:
            self._outlast()
            self.box.close()

    def _outlast(self) -> None:
        """Keep the memory of batches that came before, until they are given back."""
        if self._wire is not None:
            self._put_aside(self._wire)
        while self._kept:
            while self.box.released:
                self._release_kept(*self.box.released.popleft())
            if self.box.stopping:
                # Nobody will ask for the others any more.
                for _, session, held in tuple(self._kept):
                    for number in [n for n in held if (session, n) not in self.box.in_use]:
                        self._release_kept(session, number)
                self.box.left.set()
            if self._kept:
                self._sleep(PING_S)

    def _fail(self, error: ChunkdlError) -> None:
        self.arrivals.inbox.put(error)
        self.box.welcome.put(error)
        self.box.counters.fail(error)
        self.box.pages.put(error)

    def _keep_up(self) -> None:
        away_since = self._clock.now()
        while not self.box.stopping:
            limit = self.wish.connect_s if self.arrivals.joined is None else self.wish.reconnect_s
            if self._wire is None:
                self._pongs_due = 0
                self._wire = Wire.open(
                    self.wish.address, self.wish.keys, self.box.wake_up, self._clock
                )
                if self._wire is None:
                    if self._clock.now() - away_since > limit:
                        raise ServiceDied(self._nobody(limit))
                    self._sleep(RETRY_S)
                    continue
            wire = self._wire
            if not wire.said_s:
                self._join(wire)
            wait_s = min(self._ping_s, RELEASED_S) if self.arrivals.held else self._ping_s
            wire.wait(wait_s, with_data=self.arrivals.layout is not None)
            self._hear(wire)
            if wire.heard_s > away_since:
                away_since = wire.heard_s
            if wire.is_over:
                # Its memory may still be in use.
                self._put_aside(wire)
                if not wire.joined:
                    self._sleep(RETRY_S)
                continue
            self._speak(wire)
            if self._clock.now() - away_since > limit:
                raise ServiceDied(self._nobody(limit))
        if self._wire is not None and self.arrivals.joined is not None:
            self._speak(self._wire)
            self._wire.say(self.box.leave or Leave(self.arrivals.epoch, self.arrivals.step))
            self._say_goodbye(self._wire)

    def _say_goodbye(self, wire: Wire) -> None:
        """Wait until the service has taken note that the session is over.

        A lease that is closed before looks like a death, after which less is known; and who joins
        again in its place could be heard first.
        """
        deadline = self._clock.now() + GOODBYE_S
        # The service closes the lease of one that has nothing in its memory. Of batches that were
        # still on their way it does not know that nobody will take them.
        closes = wire.is_local and not self.arrivals.held
        while not wire.is_over and self._clock.now() < deadline:
            wire.wait(GOODBYE_S / 10, with_data=False)
            for said in wire.messages():
                closes &= not isinstance(said, Delivered)
                self._pongs_due -= isinstance(said, Pong)
            if self._pongs_due < 0 and not closes:
                return

    def _nobody(self, limit_s: float) -> str:
        wire, address = self._wire, self.wish.address
        why = "" if wire is None or not wire.trouble else f" ({wire.trouble})"
        return (
            f"nobody answers at {address} for {limit_s:g} s{why}; is the service running there, "
            "and is it this address?"
        )

    def _sleep(self, seconds: float) -> None:
        poller = zmq.Poller()
        poller.register(self.box.wake_up, zmq.POLLIN)
        if poller.poll(int(seconds * 1000)):
            os.eventfd_read(self.box.wake_up)

    def _put_aside(self, wire: Wire) -> None:
        self._wire = None
        if not wire.is_local:
            # What came is in memory of our own, and the session outlives its connection.
            wire.close()
            return
        if self.arrivals.held:
            self._kept.append((wire, self.arrivals.session, self.arrivals.held))
        else:
            wire.close()
        self.arrivals.held = set()

    def _join(self, wire: Wire) -> None:
        wish, here = self.wish, self.arrivals
        join = Join(
            SERVICE_PROTOCOL_VERSION,
            wire.token,
            "" if here.joined is None else here.joined.session,
            wish.group,
            wish.rank,
            wish.world_size,
            wish.batch_rows,
            wish.credit_batches,
            wish.credit_bytes,
            self._rows_hash,
            self._start,
            here.step,
            tuple(sorted(here.held)),
            self._name,
            # Who has once been let in takes nothing from anybody when it comes back.
            wish.take_over and here.joined is None,
        )
        wire.say(join)

    def _speak(self, wire: Wire) -> None:
        """Say what there is to say, or that somebody is here."""
        numbers: list[int] = []
        while self.box.released:
            session, number = self.box.released.popleft()
            # An interrupt may have one given back twice.
            if session == self.arrivals.session and number in self.arrivals.held:
                self.arrivals.given_back(wire, number)
                numbers.append(number)
            # Until it is let in again, the present session is the one that was put aside.
            self._release_kept(session, number)
        if self.arrivals.joined is None or not wire.joined:
            return
        said = False
        for first in range(0, len(numbers), 500):
            said |= wire.say(Released(tuple(numbers[first : first + 500])))
        while self.box.to_say:
            message = self.box.to_say.popleft()
            if isinstance(message, NextPass):
                self._start = Position(Remainder(message.epoch))
                self.arrivals.epoch, self.arrivals.step = message.epoch, 0
            said |= wire.say(message)
        if not said and self._clock.now() - wire.said_s >= self._ping_s:
            self._pongs_due += wire.say(Ping())

    def _release_kept(self, session: int, number: int) -> None:
        for kept in tuple(self._kept):
            wire, other, held = kept
            if other == session:
                held.discard(number)
                if not held:
                    wire.close()
                    self._kept.remove(kept)

    def _hear(self, wire: Wire) -> None:
        for message in wire.messages():
            self._take(wire, message)
            if wire.is_over:
                return
        self.arrivals.take_rows(wire)

    def _take(self, wire: Wire, message: ServiceMessage) -> None:
        match message:
            case Joined():
                self._welcomed(wire, message)
            case Refuse(reason):
                raise ServiceRefused(f"{self.wish.address}: {reason}")
            case JoinFirst():
                # A connection that was lost, or a service that was.
                if wire.joined:
                    wire.is_over = True
                else:
                    self._join(wire)
            case RowFormatKnown():
                self.arrivals.know_format(message.format)
            case Delivered() if wire.is_local:
                self.arrivals.take_reference(wire, message)
            case PassEnded():
                self.arrivals.pass_ended(message)
            case Detached(reason, at_once):
                ended = ServiceRefused(f"the service has ended the session: {reason}")
                self.box.lost = ended if at_once else None
                raise ended
            case GroupFailed(failure):
                # Else its place would be kept until it was silent for too long.
                wire.say(self.box.leave or Leave(self.arrivals.epoch, self.arrivals.step))
                raise failure.to_error()
            case Waits(reason):
                self.box.waits = reason
                if reason:
                    log.warning("no batch comes: group %s waits: %s", self.wish.group, reason)
            case Statistics():
                self.box.counters.answer(message)
            case CataloguePage():
                self.box.pages.put(message)
            case ServiceEnding():
                # What was sent is still good; then another service may be at the address.
                wire.is_over = not wire.joined
            case Pong():
                self._pongs_due -= 1
            case ArenaPassed():
                pass
            case Notice():
                self.box.counters.answer(None)
            case _:
                raise ProtocolError(f"the service sent {type(message).__name__}")

    def _welcomed(self, wire: Wire, joined: Joined) -> None:
        here = self.arrivals
        check_joined(joined, here.joined, local=wire.is_local)
        first, before = here.joined is None, here.epoch
        if here.welcomed(joined):
            self._start = joined.position
        elif joined.position.left.epoch < before:
            # What we said about the next pass was lost.
            wire.say(NextPass(before))
        self._rows_hash = joined.rows_hash
        # Often enough that some may be late.
        self._ping_s = min(self._ping_s, joined.silent_s / 4)
        wire.joined, self.box.waits = True, ""
        self.box.late_releases = joined.credit_batches // 2 if joined.local else 0
        if not joined.local:
            wire.attach(Attach(joined.session), self._most_bytes(joined))
        if first:
            self.box.leave = Leave(here.epoch, here.step)
            self.box.welcome.put(joined)

    def _most_bytes(self, joined: Joined) -> int:
        if joined.row_format is None:
            return 2**31
        return joined.batch_rows * joined.row_format.row_bytes + 2**20
