"""The server of a service: sockets, clock and engines around `chunkdl.service.decisions.desk`.

Started by ``chunkdl serve``, or by the first rank of a training. One thread: whatever happens is
told to the desk, and what it answers is carried out. An idle service sleeps.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import resource
import secrets
import select
import signal
import socket
import sys
from functools import partial
from typing import Any

from chunkdl.errors import (
    AddressInUse,
    ChunkdlError,
    Failure,
    OtherVersion,
    ProtocolError,
    ServiceDied,
)
from chunkdl.sampling.shares import Remainder
from chunkdl.service.daemon_log import write_log
from chunkdl.service.decisions.actions import (
    AskEngine,
    BeginPass,
    CloseLease,
    Deliver,
    FreeBatch,
    FreeRemains,
    Note,
    PassArena,
    Say,
    ServiceAction,
    StartEngine,
    Tell,
)
from chunkdl.service.decisions.desk import Desk
from chunkdl.service.decisions.ending import Ending
from chunkdl.service.decisions.group import Group
from chunkdl.service.decisions.sessions import addressed
from chunkdl.service.facts import desk_facts, group_facts
from chunkdl.service.spec import ServiceSpec
from chunkdl.slides.tissue.given import keep
from chunkdl.system.awake_clock import AwakeClock
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.channel import content_of
from chunkdl.transport.protocol.engine_messages import (
    BatchReady,
    End,
    Message,
    Notice,
    Refuse,
    ServiceStays,
    ServiceUp,
    Statistics,
    StreamFailed,
)
from chunkdl.transport.protocol.service_messages import (
    ArenaPassed,
    Delivered,
    LeaseOpened,
    Position,
)
from chunkdl_workers import process
from chunkdl_workers.arenas import try_memory
from chunkdl_workers.catalogue import page
from chunkdl_workers.doors import Doors
from chunkdl_workers.engine import GroupEngine
from chunkdl_workers.position_file import PositionFile
from chunkdl_workers.sending import Sending
from chunkdl_workers.starter import Starter
from chunkdl_workers.systemd import Notifier

EXIT_OK, EXIT_FAILED, EXIT_CONFIG, EXIT_IN_USE = 0, 1, 2, 3
LAST_WORDS_S = 0.1
"""What somebody has said before it left may come by ZeroMQ so much later than the news of it."""
READY_S = 30.0
"""For the service manager to hear that it serves."""
TICK_S = 0.5
"""How often the silence of consumers is looked at, while there are any."""
COUNT_TICKS = 10
"""How often engines are asked what they have done, for one that is lost later."""

log = steady_logger("chunkdl.service")


class Server:
    """A running service; everything in it belongs to the one thread that calls `run`, of which
    signal handlers call `stop`.

    Args:
        spec: of the service.
        doors: its sockets, bound.
        starter: the process that has started it for itself; None: nobody has.
    """

    def __init__(self, spec: ServiceSpec, doors: Doors, starter: Starter | None) -> None:
        self._spec = spec
        self._doors = doors
        self._starter = starter
        self._clock = AwakeClock(2 * TICK_S)
        self._positions = PositionFile(spec.journal, spec.config.rows_hash)
        cursor = spec.config.cursor
        start = Position(
            Remainder(cursor["epoch"], (), cursor["next_batch"] * spec.config.stream.batch_size)
        )
        self._groups = {
            group.name: Group(
                group_facts(spec, group), self._positions.of(group.name, group.mode) or start
            )
            for group in spec.groups
        }
        self._engines = {group.name: GroupEngine(spec.config) for group in spec.groups}
        self._desk = Desk(
            desk_facts(spec),
            self._groups,
            partial(secrets.token_hex, 16),
            partial(page, spec),
            doors.local,
            lambda name: self._engines[name].troubles,
        )
        self._failed: set[str] = set()
        """Groups whose streams cannot go on."""
        self._up: dict[str, int] = {}
        """Number of the engine of each group whose memory was passed to its members."""
        self._gone: dict[int, float] = {}
        """Lease connections that are over, and since when."""
        self._asking: dict[str, list[tuple[str, int]]] = {name: [] for name in self._groups}
        """Sessions that want counters, and with which answer of their engine they have them."""
        self._sending = Sending(self._engines)
        self._ending = Ending(exit_when_idle=spec.exit_when_idle, drain_s=spec.drain_s)
        self._looked_s, self._looks = 0.0, 0
        """When engines were looked at last, and how often."""
        self._notifier = Notifier()
        # Python writes there when a signal comes, so that the wait ends.
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)

    def stop(self, *_: object) -> None:
        """End the service: after a drain the first time, at once the second; a signal handler."""
        self._ending.ask()

    # --------------------------------------------------------------------- the loop

    def run(self) -> int:
        """Serve until everything is over; the exit status."""
        signal.set_wakeup_fd(self._wake.fileno())
        # Without this line the manager would end the service after a while.
        ready = "READY=1\nSTATUS=serving " + " ".join(self._doors.addresses)
        self._notifier.tell(ready, READY_S)
        try:
            while True:
                for source in self._wait():
                    self._take_in(source)
                self._from_doors()
                now = self._clock.now()
                self._end_lost_leases(now)
                self._desk.tick(now)
                self._carry_out()
                self._from_engines()
                self._look_at_engines(now)
                self._positions.keep(self._groups, now)
                self._notifier.alive()
                if self._see_to_end(now):
                    return EXIT_FAILED if self._failed == set(self._groups) else EXIT_OK
        finally:
            signal.set_wakeup_fd(-1)
            self._close()

    def _wait(self) -> list[int]:
        """Sleep until something happens or has to be looked at; the descriptors that tell so."""
        # Made anew each time: engines come and go, and the numbers of their descriptors come again.
        poll = select.poll()
        wanted = {self._woken.fileno(), *self._doors.listeners}
        wanted.update(self._doors.leases.keys() - self._gone.keys())
        wanted.update(end for end, its in self._doors.holders.items() if its not in self._gone)
        wanted.update(self._doors.descriptors)
        for engine in self._engines.values():
            wanted.update(engine.descriptors)
        if self._starter is not None:
            wanted.update(self._starter.descriptors)
        for descriptor in wanted:
            poll.register(descriptor, select.POLLIN)
        wait_s = self._wait_s()
        return [source for source, _ in poll.poll(None if wait_s is None else int(wait_s * 1000))]

    def _wait_s(self) -> float | None:
        """Until something has to be looked at; for ever where nobody is there."""
        # A ZeroMQ descriptor tells of changes only, and sending may have eaten one.
        waiting = any(engine.waiting for engine in self._engines.values())
        if waiting or self._doors.waiting or self._ending.at_once:
            return 0.0
        waits = [self._notifier.watchdog_s] if self._notifier.watchdog_s else []
        if self._desk.sessions or self._sending.waits or self._ending.is_near:
            waits.append(TICK_S)
        if self._gone:
            waits.append(LAST_WORDS_S)
        return min(waits, default=None)

    def _see_to_end(self, now_s: float) -> bool:
        """Begin a drain that was asked for; whether the service is over."""
        if self._ending.is_to_drain(by_operator=self._desk.draining):
            log.info("draining: no more consumers, no more batches")
            self._notifier.tell("STOPPING=1")
            self._ending.begin_drain(now_s)
            self._desk.begin_drain()
            self._carry_out()
        self._ending.look(self._desk.joined, self._desk.present, now_s)
        return self._ending.is_over(self._desk.present, now_s)

    def _close(self) -> None:
        if self._desk.present:
            log.warning("%d sessions did not give everything back", self._desk.present)
        self._positions.keep(self._groups, float("inf"))
        for engine in self._engines.values():
            engine.close()
        # While nobody else can be at the address, who would read them.
        self._positions.close()
        self._wake.close()
        self._woken.close()
        self._doors.close()
        if self._starter is not None:
            self._starter.detach()

    # --------------------------------------------------------------------- what comes in

    def _take_in(self, source: int) -> None:
        if source == self._woken.fileno():
            self._woken.recv(4096)
        elif source in self._doors.listeners:
            lease = self._doors.accept(source)
            if lease is None:
                self._desk.drop("a lease connection: of another user, or one too many")
            else:
                token = self._desk.lease_opened(lease, self._doors.visitor_at(lease))
                self._doors.pass_on(lease, LeaseOpened(token), [self._doors.places[source]])
        elif source in self._doors.leases:
            if self._doors.is_over(source):
                self._gone[source] = self._clock.now()
        elif source in self._doors.holders:
            self._gone[self._doors.holders[source]] = self._clock.now()
        elif self._starter is not None and source in self._starter.descriptors:
            if self._desk.present:
                self._starter.tell(ServiceStays())
            self._starter.detach()
            self._starter = None
            self._ending.starter_ended()
            log.info("whoever started the service has ended; it ends with the last consumer")
        else:
            self._engine_ended(source)

    def _engine_ended(self, source: int) -> None:
        for name, engine in self._engines.items():
            if len(engine.descriptors) > 1 and source == engine.descriptors[1]:
                try:
                    engine.hear_channel()
                except ChunkdlError as error:
                    self._engine_failed(name, error)
                except OSError as error:
                    self._engine_failed(name, ServiceDied(f"its memory cannot be used: {error}"))

    def _end_lost_leases(self, now_s: float) -> None:
        """End the sessions of lease connections that are over, once they cannot say any more."""
        for lease, since_s in tuple(self._gone.items()):
            if now_s - since_s >= LAST_WORDS_S:
                del self._gone[lease]
                self._doors.close_lease(lease)
                self._desk.lease_lost(lease)

    def _from_doors(self) -> None:
        for peer, message, who in self._doors.messages():
            if isinstance(message, ProtocolError):
                self._desk.drop(str(message))
                if isinstance(message, OtherVersion):
                    self._doors.say(peer, Refuse(str(message)))
            else:
                # An engine that was started meanwhile has taken its time.
                self._desk.handle(peer, message, self._clock.now(), who)
                self._carry_out()

    def _from_engines(self) -> None:
        for name, engine in self._engines.items():
            try:
                while (message := self._poll(name, engine)) is not None:
                    made = engine.made_format
                    if made is not None and name not in self._desk.row_formats:
                        self._desk.know_format(name, made)
                    if isinstance(message, Statistics):
                        self._answer(name, message)
                    elif isinstance(message, End):
                        self._groups[name].end(engine.number, message)
                    else:
                        self._groups[name].batch(engine.number, message)
                    self._carry_out()
            except ChunkdlError as error:
                self._engine_failed(name, error)

    def _poll(self, name: str, engine: GroupEngine) -> BatchReady | End | Statistics | None:
        """What the engine of a group has; its memory is passed before the first batch in it."""
        message = engine.poll()
        if engine.arena is not None and self._up.get(name) != engine.number:
            self._up[name] = engine.number
            self._desk.engine_up(name)
            self._carry_out()
        return message

    def _look_at_engines(self, now_s: float) -> None:
        """Have one replaced that stands still."""
        if now_s - self._looked_s < TICK_S:
            return
        self._looked_s, self._looks = now_s, self._looks + 1
        for name, engine in self._engines.items():
            try:
                engine.nothing_came()
                if not self._looks % COUNT_TICKS and engine.arena is not None:
                    engine.ask_statistics()
            except ServiceDied as error:
                self._engine_failed(name, error)

    def _engine_failed(self, name: str, error: ChunkdlError) -> None:
        engine = self._engines[name]
        # A coordinator that was killed is replaced; a stream that cannot go on stays where it is.
        enough = engine.died(self._clock.now())
        again = not enough and isinstance(error, ServiceDied)
        if enough and isinstance(error, ServiceDied):
            remedy = "do what the last one says; after SIGKILL, give it more memory"
            error = ServiceDied(f"{enough}; {remedy}; the last: {error}")
        log.warning("the engine of group %s: %s", name, error)
        engine.trouble(f"the engine: {error}")
        asking, self._asking[name] = self._asking[name], []
        for session, _ in asking:
            self._say(session, Notice(logging.WARNING, f"the engine was lost: {error}"))
        if again:
            self._groups[name].engine_lost()
        else:
            engine.close()
            self._failed.add(name)
            self._desk.failed(name, Failure.of(error))
        self._carry_out()

    # --------------------------------------------------------------------- what goes out

    def _carry_out(self) -> None:
        while actions := self._desk.take():
            for action in actions:
                self._do(action)
        self._sending.settle()

    def _do(self, action: ServiceAction) -> None:
        match action:
            case Say(peer, message):
                self._doors.say(peer, message)
            case Tell():
                say = addressed(action, self._desk.sessions)
                if say is not None:
                    self._doors.say(say.peer, say.message)
            case Deliver(group, session, message):
                self._deliver(group, session, message)
            case FreeBatch():
                self._sending.free(action)
            case StartEngine():
                self._start(action)
            case FreeRemains():
                self._sending.free_remains(action)
            case BeginPass(group, epoch):
                self._engines[group].next_pass(epoch)
            case PassArena(group, lease):
                self._pass_arena(group, lease)
            case CloseLease(lease):
                self._gone.pop(lease, None)
                self._doors.close_lease(lease)
            case AskEngine(group, session):
                self._ask(group, session)
            case Note(level, text):
                log.log(level, "%s", text)

    def _start(self, action: StartEngine) -> None:
        group = action.group
        if group in self._failed:
            return
        sent = self._sending.of_group(group)
        try:
            self._engines[group].start(action.engine, action.cursor, action.remains, sent)
            # The one that was asked has ended.
            asking, self._asking[group] = self._asking[group], []
            for name, _ in asking:
                self._say(name, self._engines[group].counted)
        except ChunkdlError as error:
            self._engine_failed(group, error)
        except OSError as error:
            self._engine_failed(group, ServiceDied(f"it cannot be started: {error}"))

    def _pass_arena(self, group: str, lease: int) -> None:
        arena = self._engines[group].arena
        if arena is None:
            return
        descriptor, slots, slot_bytes = arena
        message = ArenaPassed(self._engines[group].number, slots, slot_bytes)
        # Whoever reads it next must find what the engine has written.
        try:
            passed = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
        except OSError as error:
            log.warning("no memory can be passed to a consumer: %s", error)
            return
        try:
            if not self._doors.pass_on(lease, message, [passed]):
                log.warning("a lease connection takes no memory")
        finally:
            os.close(passed)

    def _deliver(self, group: str, name: str, message: Delivered) -> None:
        session, engine = self._desk.sessions.get(name), self._engines[group]
        if session is None:
            return
        if session.lease is not None:
            self._doors.say(session.peer, message)
        elif session.data is not None and message.engine == engine.number:
            slots: list[Any] = []
            for piece in message.pieces:
                slots += engine.rows(piece.slot, piece.first, piece.rows)
            tracker = self._doors.send(session.data, message, slots)
            if tracker is not None and not tracker.done:
                lie_in = (piece.slot for piece in message.pieces)
                self._sending.began(group, engine.number, lie_in, tracker)

    def _ask(self, group: str, name: str) -> None:
        try:
            self._asking[group].append((name, self._engines[group].ask_statistics()))
        except ChunkdlError as error:
            self._say(name, Notice(logging.WARNING, str(error)))

    def _answer(self, group: str, counted: Statistics) -> None:
        here, asking = self._engines[group].answers, self._asking[group]
        self._asking[group] = [(name, number) for name, number in asking if number > here]
        for name, number in asking:
            if number <= here:
                self._say(name, counted)

    def _say(self, name: str, message: Message) -> None:
        session = self._desk.sessions.get(name)
        if session is not None:
            self._doors.say(session.peer, message)


def main() -> None:
    """Run the service until it is over."""
    starter_pid, specification, *channel = map(int, sys.argv[1:])
    spec: ServiceSpec = pickle.loads(content_of(specification))  # noqa: S301
    os.close(specification)
    # It may outlive the process that has made their files.
    keep(entry.tissue_mask for entry in spec.config.slides)
    # What belongs to a training ends with it; a daemon is told by signals.
    process.begin("chunkdl-server", deaf=bool(channel))
    starter = Starter(socket.socket(fileno=channel[0]), starter_pid) if channel else None
    # Each connection takes a descriptor, and whoever connects must not take those of the engines.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    write_log(spec.log_format)
    try:
        with contextlib.ExitStack() as on_error:
            doors = Doors(spec.binds, spec.keys)
            on_error.callback(doors.close)
            try_memory(spec.config, len(spec.groups))
            on_error.pop_all()
    except ChunkdlError as error:
        if starter is not None:
            starter.tell(StreamFailed(Failure.of(error)))
        log.error("%s", error)
        sys.exit(EXIT_IN_USE if isinstance(error, AddressInUse) else EXIT_CONFIG)
    server = Server(spec, doors, starter)
    if starter is None:
        process.end_by_signals(server.stop)
    log.info("at most %d descriptors (LimitNOFILE=, ulimit -Hn)", most)
    log.info("serving at %s", " ".join(doors.addresses))
    if starter is not None:
        starter.tell(ServiceUp(doors.addresses[0]))
    status = server.run()
    # One that comes while the interpreter ends must not change how it ended.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status)
