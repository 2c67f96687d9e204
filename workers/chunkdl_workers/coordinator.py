"""The coordinator: sockets, clock and processes around `chunkdl.engine.decisions.core`.

Started by the training process. It ends with it: the private channel to it reports its death as an
end of file, a pidfd confirms it. Everything that happens becomes an event for the core; what the
core answers is carried out here and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time

import zmq

from chunkdl.engine.config import EngineConfig, Program
from chunkdl.engine.decisions.core import Core
from chunkdl.engine.decisions.core_config import CoreConfig
from chunkdl.engine.decisions.events import (
    Action,
    Event,
    FromConsumer,
    FromWorker,
    Silence,
    ToWorker,
    WorkerLost,
)
from chunkdl.errors import Failure, HookTimeout, OtherVersion, ProtocolError, WorkerDied
from chunkdl.sampling.cursor import Cursor
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.channel import receive, send
from chunkdl.transport.contexts import end_context
from chunkdl.transport.flight_recorder import HOOKS, SCHEDULE, Recorded
from chunkdl.transport.protocol.codec import MAX_MESSAGE_BYTES, decode, encode, encode_parts
from chunkdl.transport.protocol.engine_messages import (
    AnyMessage,
    BigChunkLoaded,
    GridSurveyed,
    Hello,
    LoadFailed,
    MessageToPatient,
    NothingLeft,
    PatientChosen,
    Recall,
    Refuse,
    RowFormatSet,
    RowsFilled,
    ScheduleFailed,
    ServiceUp,
    StreamFailed,
    WindowSurveyed,
    WorkerReady,
)
from chunkdl_workers import process
from chunkdl_workers.arenas import create_arenas
from chunkdl_workers.link import read_config
from chunkdl_workers.listening import bind_private
from chunkdl_workers.supervisor import Death, Supervisor, Worker
from chunkdl_workers.watch import Watch

ANSWERS = (
    *(BigChunkLoaded, GridSurveyed, LoadFailed, NothingLeft, RowsFilled, WindowSurveyed),
    *(PatientChosen, ScheduleFailed),
)
"""Messages with which a worker gives a ticket back."""
TURN_MESSAGES = 256
"""Of a socket, before it is the turn of anything else."""
MOST_REASON = 8_000
"""Characters of what is told about a death."""

log = steady_logger(__name__)


def core_config(config: EngineConfig) -> CoreConfig:
    """What the core needs of the configuration."""
    return CoreConfig(
        groups=config.groups,
        stream=config.stream,
        slides_of_patient=config.slides_of_patient,
        slides=tuple(entry.path for entry in config.slides),
        bigchunk_slots=config.run.bigchunk_slots,
        batch_slots=config.run.batch_slots,
        loaders=config.run.num_loaders,
        collectors=config.run.num_collectors,
        order=config.run.order,
        on_error=config.run.on_error,
        plan_hash=config.plan_hash,
        token=config.token,
        on_hook_error=config.run.on_hook_error,
        has_scheduler=config.has_scheduler,
        patients=config.patients,
        max_restarts=config.run.max_restarts,
        withheld_slots=config.run.withheld_slots,
        row_format=config.row_format,
    )


class Coordinator:
    """The service of one stream.

    Args:
        config: of the service.
        parent: our end of the private channel to the training process.
        parent_pidfd: becomes readable when the training process dies.
        router: bound socket of the consumers.
        supervisor: with all workers started.
    """

    def __init__(
        self,
        config: EngineConfig,
        parent: socket.socket,
        parent_pidfd: int,
        router: zmq.Socket[bytes],
        supervisor: Supervisor,
    ) -> None:
        self._config = config
        self._stall_timeout_s = config.run.stall_timeout_s
        self._watching = Watch(config.run.stall_timeout_s, config.run.hook_timeout_s)
        self._parent = parent
        self._router = router
        self._supervisor = supervisor
        self._core = Core(core_config(config), Cursor.from_dict(config.cursor, config.plan_hash))
        self._consumer: bytes | None = None
        self._dropped = 0
        self._parent_pidfd = parent_pidfd
        self._poll = select.epoll()
        # The descriptor of a ZeroMQ socket only says that something may have happened to it.
        self._poll.register(router.fileno(), select.EPOLLIN)
        for descriptor in (parent.fileno(), parent_pidfd):
            self._poll.register(descriptor, select.EPOLLIN)
        for worker in supervisor.workers:
            self._watch(worker)

    def run(self) -> None:
        """Serve until the training process closes its channel or is gone."""
        with self._poll:
            while True:
                more = self._from_consumer()
                wait_s = 0.0 if more else self._watching.wait_s(self._supervisor.workers)
                for source, _ in self._poll.poll(wait_s):
                    if source == self._parent_pidfd:
                        return
                    if source == self._parent.fileno() and not self._from_parent():
                        return
                    worker = self._supervisor.by_descriptor(source)
                    if not self._supervisor.is_set_aside(source) and worker is not None:
                        self._from_worker(worker, source)
                self._look_at_workers()

    def _watch(self, worker: Worker) -> None:
        self._poll.register(worker.end.fileno(), select.EPOLLIN)
        self._poll.register(worker.pidfd, select.EPOLLIN)
        worker.made_progress()

    def _look_at_workers(self) -> None:
        """A worker that is silent over its work has said where it is, and is killed.

        One that is killed and not gone has its work done by others: whatever the kernel does for it
        still, it runs no instruction of its own, so it writes to no slot.
        """
        silent, held = self._watching.look(self._supervisor.workers)
        for worker in silent:
            log.warning("%s %d is silent; it is replaced", worker.program, worker.number)
            worker.stalled = True
            worker.kill()
        for worker in held:
            self._replace(worker)

    # ------------------------------------------------------------------- workers

    def _from_worker(self, worker: Worker, source: int) -> None:
        while data := worker.receive():
            message = worker.parts.take(data)
            if message is None:
                continue
            if isinstance(message, WorkerReady):
                worker.ready = True
            elif isinstance(message, ANSWERS):
                worker.in_hand -= 1
                worker.made_progress()
            self._handle(FromWorker(worker.number, message))
        if worker.unsent:
            worker.flush()
            self._watch_writing(worker)
        if data == b"" and source == worker.end.fileno():
            # It has closed its channel; whatever it still does, it is not a worker any more.
            self._poll.unregister(source)
            worker.kill()
        if source == worker.pidfd and worker.process.poll() is not None:
            self._replace(worker)

    def _from_parent(self) -> bool:
        """What the training process says over the private channel; False: it is gone."""
        data, _ = receive(self._parent)
        if data and isinstance(message := decode(data), MessageToPatient):
            self._handle(FromConsumer(message))
        return bool(data)

    def _lost(self, worker: Worker, death: Death) -> WorkerLost:
        """What the core has to know of a death."""
        recorded, reason = death.recorded, death.reason
        failure = None
        if recorded.hook:
            reason = f"{reason}, over {self._doing(recorded)}"
            # A policy that is asked the same again hangs again.
            once = self._config.run.hook_timeout_s is not None or recorded.hook == SCHEDULE
            if death.stalled and once:
                failure = self._too_late(recorded)
        if recorded.stack:
            reason = f"{reason}; it was at\n{recorded.stack}"
        reason = (reason + death.last_lines)[:MOST_REASON]
        ordinal = recorded.ordinal if recorded.hook else -1
        silence = Silence(death.alive_s, time.monotonic()) if death.stalled else None
        return WorkerLost(worker.number, reason, death.by_itself, ordinal, failure, silence)

    def _doing(self, recorded: Recorded) -> str:
        hook, patient = HOOKS[recorded.hook], self._patient(recorded)
        return f"{hook} of patient {patient}" if patient else hook

    def _patient(self, recorded: Recorded) -> str:
        """Name of the patient that the user's code was about, empty for none."""
        known = 0 <= recorded.patient < len(self._config.patients)
        return (
            self._config.patients[recorded.patient] if known and recorded.hook != SCHEDULE else ""
        )

    def _too_late(self, recorded: Recorded) -> Failure:
        hook_s, stall_s = self._config.run.hook_timeout_s, self._stall_timeout_s
        own = hook_s is not None and hook_s <= stall_s
        limit = f"hook_timeout={hook_s:g}" if own else f"stall_timeout={stall_s:g}"
        error = HookTimeout(
            f"it did not come back within {limit} s; it was at\n{recorded.stack[:6_000]}",
            hook=HOOKS[recorded.hook],
            patient=self._patient(recorded),
            kind="HookTimeout",
        )
        return Failure.of(error)

    def _replace(self, worker: Worker) -> None:
        # Closing the descriptors, which happens when the worker is reaped, unregisters them.
        death, replaced = self._supervisor.restart(worker.number, time.monotonic())
        self._handle(self._lost(worker, death))
        if replaced:
            self._watch(self._supervisor.workers[worker.number])
            return
        last = self._core.last_loss
        error = WorkerDied(
            "workers die faster than they can be replaced; do what the last one says; after "
            f"SIGKILL, have fewer loaders or more memory; the last: {last}"
        )
        self._carry_out(self._core.fail(Failure.of(error)))

    def _watch_writing(self, worker: Worker) -> None:
        flags = select.EPOLLIN | (select.EPOLLOUT if worker.unsent else 0)
        self._poll.modify(worker.end.fileno(), flags)

    # ------------------------------------------------------------------ consumer

    def _from_consumer(self) -> bool:
        """Take in what has come; whether there may be more."""
        for _ in range(TURN_MESSAGES):
            try:
                identity, *frames = self._router.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return False
            try:
                message = _only(frames)
            except ProtocolError as error:
                self._drop(str(error))
                if isinstance(error, OtherVersion):
                    self._say(identity, Refuse(str(error)))
                continue
            if self._consumer is None and isinstance(message, Hello):
                self._greet(identity, message)
            elif identity != self._consumer:
                self._drop(f"{type(message).__name__} of somebody who is not its consumer")
                self._say(identity, Refuse("this service has its consumer already"))
            else:
                self._handle(FromConsumer(message))
        return True

    def _drop(self, why: str) -> None:
        """Tell of messages that were not looked at; ever more of them for each line."""
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:
            log.warning("dropped %d messages; the last: %s", self._dropped, why)

    def _greet(self, identity: bytes, hello: Hello) -> None:
        self._consumer = identity
        self._handle(FromConsumer(hello))

    def _say(self, identity: bytes, message: Refuse) -> None:
        """Answer somebody who may be gone."""
        with contextlib.suppress(zmq.ZMQError):
            self._router.send_multipart([identity, encode(message)], zmq.DONTWAIT)

    # ------------------------------------------------------------------- actions

    def _handle(self, event: Event) -> None:
        self._carry_out(self._core.handle(event))

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, ToWorker):
                worker = self._supervisor.workers[action.worker]
                if not isinstance(action.message, RowFormatSet | Recall):
                    if worker.in_hand == 0:
                        worker.made_progress()
                    worker.in_hand += 1
                for data in encode_parts(action.message):
                    worker.send(data)
                if worker.unsent:
                    self._watch_writing(worker)
            elif self._consumer is not None and isinstance(action.message, Refuse):
                self._say(self._consumer, action.message)
                self._consumer = None
            elif self._consumer is not None:
                for data in encode_parts(action.message):
                    self._router.send_multipart([self._consumer, data])


def _only(frames: list[bytes]) -> AnyMessage:
    """The message in the frames of one.

    Raises:
        ProtocolError: they hold none.
    """
    if len(frames) != 1:
        raise ProtocolError(f"a message of {len(frames)} frames")
    return decode(frames[0])


def bind(context: zmq.Context[zmq.Socket[bytes]]) -> tuple[zmq.Socket[bytes], int]:
    """A bound ROUTER that drops nothing in silence, and the descriptor of its place.

    Only who has that can connect, and a session needs the token that only the parent has.
    """
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.LINGER, 200)
    router.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    router.setsockopt(zmq.SNDHWM, 0)
    # libzmq 4.3.5 aborts the process over heartbeats behind messages that it has to hold back.
    router.setsockopt(zmq.RCVHWM, 0)
    return router, bind_private(router)


def main() -> None:
    """Run the service until the training process is done with it."""
    parent_pid, channel, specification = map(int, sys.argv[1:4])
    process.begin("chunkdl-coordinator")
    parent = socket.socket(fileno=channel)
    try:
        parent_pidfd = os.pidfd_open(parent_pid)
    except ProcessLookupError:
        return
    try:
        _serve(parent, parent_pidfd, specification)
    except (BrokenPipeError, ConnectionResetError):
        return  # the training process ended while we told it something
    except Exception as error:
        send(parent, encode(StreamFailed(Failure.of(error))))
        raise


def _serve(parent: socket.socket, parent_pidfd: int, specification: int) -> None:
    config = read_config(specification)
    # What the configuration names of the user's, such as a detector, was imported.
    process.stay_deaf()
    process.pin(config.run.cpu_affinity)
    run, arenas = config.run, create_arenas(config)
    kinds: tuple[tuple[Program, int], ...] = (
        ("loader", run.num_loaders),
        ("collector", run.num_collectors),
        ("scheduler", int(config.has_scheduler)),
    )
    programs = [program for program, count in kinds for _ in range(count)]
    supervisor = Supervisor(programs, specification, arenas, run.max_restarts)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        router, door = bind(context)
        send(parent, encode(ServiceUp("")), [arenas[1], door])
        os.close(door)
        with router:
            Coordinator(config, parent, parent_pidfd, router, supervisor).run()
    finally:
        supervisor.stop()
        end_context(context)
