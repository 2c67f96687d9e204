"""Starts the workers, notices their deaths, and says when there have been too many.

The only place that starts, signals or reaps a worker. A worker's number is its place: a new
process takes the number of the one that died, or was killed and is held by the kernel: such a one
is set aside. It does nothing more when it is let go, and nobody waits for that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from chunkdl.engine.config import Program
from chunkdl.engine.decisions.restarts import RecentDeaths
from chunkdl.system.awake_clock import deadline_of
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.channel import channel
from chunkdl.transport.flight_recorder import Recorded, clear_stack, create_recorder, read_recorder
from chunkdl.transport.programs import ChildProgram
from chunkdl.transport.protocol.codec import MAX_MESSAGE_BYTES, Parts
from chunkdl_workers.process import STACK_SIGNAL

MOST_STILLBORN = 3
"""A worker that ends so often in a row, by itself and before it was ready, will never be."""
STOP_S = 3.0
"""For all workers to be gone, at the end."""

log = steady_logger(__name__)


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended.

    Attributes:
        reason: for people.
        by_itself: it crashed or hung; False: somebody killed it.
        stalled: it hung.
        recorded: what it was doing, and where.
        last_lines: of its stderr, as the end of a sentence.
        alive_s: its last sign of life, seconds (monotonic).
    """

    reason: str
    by_itself: bool
    stalled: bool
    recorded: Recorded
    last_lines: str
    alive_s: float


@dataclass(slots=True)
class Worker:
    """One running worker.

    Attributes:
        number: its place.
        program: "loader", "collector" or "scheduler".
        process: the running program.
        end: our end of its channel, non-blocking.
        pidfd: becomes readable when it dies.
        recorder: descriptor of its flight recorder.
        unsent: messages that did not fit into the channel yet.
        parts: of a message of it that has not come whole.
        in_hand: tickets it has not answered.
        since: when it last took up or answered a ticket, seconds (monotonic).
        ready: it has said so.
        seen: its signs of life when they were looked at last; None: not since it got on.
        silent_s: waited since without a new one.
        calling_s: waited since its present call of the user's code has begun.
        asked_s: waited since it was asked where it is; None: it was not.
        stalled: it is being replaced because it was silent.
        killed_s: waited since it was killed; None: it was not.
    """

    number: int
    program: Program
    process: ChildProgram
    end: socket.socket
    pidfd: int
    recorder: int
    unsent: deque[bytes] = field(default_factory=deque)
    parts: Parts = field(default_factory=Parts)
    in_hand: int = 0
    since: float = 0.0
    ready: bool = False
    seen: Recorded | None = None
    silent_s: float = 0.0
    calling_s: float = 0.0
    asked_s: float | None = None
    stalled: bool = False
    killed_s: float | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it was neither reaped nor set aside."""
        return self.end.fileno() >= 0

    @property
    def busy(self) -> bool:
        """Whether it has something to do: to begin, or tickets to answer."""
        return self.is_ours and self.killed_s is None and (self.in_hand > 0 or not self.ready)

    def send(self, data: bytes) -> None:
        """Queue a message and send what fits; never blocks."""
        self.unsent.append(data)
        self.flush()

    def flush(self) -> None:
        """Send what fits."""
        while self.unsent:
            try:
                self.end.send(self.unsent[0])
            except BlockingIOError:
                return
            except OSError:
                # Its death is reported by the pidfd; what it did not get is given to another.
                self.unsent.clear()
                return
            self.unsent.popleft()

    def receive(self) -> bytes | None:
        """A message, b"" at the end of the channel, None when there is nothing now."""
        try:
            return self.end.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def kill(self) -> None:
        """End it at once; the pidfd reports when it is gone."""
        if self.killed_s is None:
            self.killed_s = 0.0
        self.process.kill()

    def made_progress(self) -> None:
        """It has shown that it works."""
        self.since = time.monotonic()
        self.seen = self.asked_s = None

    def ask_where(self) -> None:
        """Have it write its stack into its recorder."""
        clear_stack(self.recorder)
        self.asked_s = 0.0
        self.process.send_signal(STACK_SIGNAL)

    def reap(self) -> Death:
        """It has ended: collect its exit, close what belongs to it, and say how it ended."""
        code = self.process.poll() or 0
        how, last_lines = self.process.ended_how(), self.process.last_lines()
        if self.stalled:
            how = "was silent for too long and was ended"
        outside = not self.stalled and -code in (signal.SIGKILL, signal.SIGTERM)
        death = self._death(how, last_lines, by_itself=not outside)
        self._close()
        self.forget()
        return death

    def set_aside(self) -> Death:
        """It was killed and is not gone: close all but its pidfd, and say how it was."""
        silent = "was silent for too long, " if self.stalled else ""
        held = "was ended and is held by the kernel (is a disk or a file server away?)"
        death = self._death(silent + held, "", by_itself=True)
        self._close()
        return death

    def forget(self) -> None:
        """It is gone."""
        os.close(self.pidfd)
        self.pidfd = -1

    def _death(self, how: str, last_lines: str, *, by_itself: bool) -> Death:
        recorded = read_recorder(self.recorder)
        reason = f"{self.program} {self.number} (pid {self.process.pid}) {how}"
        alive_s = max(self.since, recorded.alive_s)
        return Death(reason, by_itself, self.stalled, recorded, last_lines, alive_s)

    def _close(self) -> None:
        self.end.close()
        os.close(self.recorder)


class Supervisor:
    """Keeps one process per number running; used by the thread of the coordinator.

    A worker shares with it the memory of its recorder, where it alone writes (but that the stack is
    emptied here before it is asked for), and the channel between them.

    Args:
        programs: of each worker, by number.
        specification: descriptor of the configuration.
        arenas: descriptors of the BigChunk arena and of the batch arena.
        max_restarts: deaths within a minute that are made good.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        specification: int,
        arenas: tuple[int, int],
        max_restarts: int,
    ) -> None:
        self._programs = programs
        self._specification = specification
        self._arenas = arenas
        self._deaths = RecentDeaths(max_restarts)
        self._stillborn = [0] * len(programs)
        """Of each number, those in a row that have ended before they were ready."""
        self._aside: list[Worker] = []
        """Killed, and held by the kernel; their places are taken by others."""
        self.workers = [self._start(number) for number in range(len(programs))]

    def _start(self, number: int) -> Worker:
        program = self._programs[number]
        arenas = self._arenas[: {"loader": 1, "collector": 2, "scheduler": 0}[program]]
        ours, theirs = channel()
        ours.setblocking(False)
        recorder = create_recorder()
        descriptors = [theirs.fileno(), self._specification, recorder, *arenas]
        child = ChildProgram(f"chunkdl_workers.{program}", [number, os.getpid()], descriptors)
        theirs.close()
        return Worker(number, program, child, ours, os.pidfd_open(child.pid), recorder)

    def restart(self, number: int, now: float) -> tuple[Death, bool]:
        """Replace a worker that has ended, or that was killed and is held by the kernel.

        Args:
            number: of the worker.
            now: time, seconds.

        Returns:
            How it ended, and whether a new one was started; False: there were too many deaths.
        """
        worker = self.workers[number]
        if worker.process.poll() is None:
            death = worker.set_aside()
            self._aside.append(worker)
        else:
            death = worker.reap()
        stillborn = death.by_itself and not worker.ready
        self._stillborn[number] = self._stillborn[number] + 1 if stillborn else 0
        log.warning("%s", death.reason)
        if self._deaths.died(now) or self._stillborn[number] >= MOST_STILLBORN:
            return death, False
        self.workers[number] = self._start(number)
        return death, True

    def by_descriptor(self, descriptor: int) -> Worker | None:
        """The worker whose channel or pidfd this is, if there is one."""
        for worker in self.workers:
            if descriptor in (worker.pidfd, worker.end.fileno()):
                return worker
        return None

    def is_set_aside(self, descriptor: int) -> bool:
        """Whether this is the pidfd of one that was set aside; if it is gone it is forgotten."""
        for worker in self._aside:
            if descriptor == worker.pidfd:
                if worker.process.poll() is not None:
                    log.warning("%s %d is gone at last", worker.program, worker.number)
                    worker.forget()
                    self._aside.remove(worker)
                return True
        return False

    def stop(self) -> None:
        """End all workers and wait until they are gone, if the kernel lets them."""
        left = deadline_of(STOP_S)
        ours = [worker for worker in self.workers if worker.is_ours]
        for worker in ours:
            worker.kill()
        for worker in ours:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(left(STOP_S))
                worker.reap()
