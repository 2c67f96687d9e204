"""The processes that look at slides: started, given one slide at a time, ended, replaced.

A slide over which one of them crashes, or that takes longer than the limit, is reported with that;
the others are looked at all the same.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
from collections import deque
from collections.abc import Generator, Iterator, Sequence

import cloudpickle

from chunkdl.errors import WorkerDied
from chunkdl.survey.look import DECODER, Kind, Look, Problem
from chunkdl.survey.looking import Task
from chunkdl.survey.pieces import Pieces
from chunkdl.system.awake_clock import PIECE_S, AwakeClock
from chunkdl.transport.channel import channel, descriptor_of, receive, send
from chunkdl.transport.programs import KILLED_S, ChildProgram

PROGRAM = "chunkdl_workers.surveyor"
START_S = 120.0
"""For a process to begin; what it imports may lie on a slow file server."""
MOST_STILLBORN = 3
"""Processes that end in a row before they have begun: there will never be one that begins."""
CRASHED = (
    "the process that looked at it {}; a stream leaves out a slide over which two loaders end "
    "(SIGKILL comes from outside, most often where memory is short)"
)


class _Surveyor:
    """One process, and the slide that it has in hand."""

    def __init__(self, number: int, specification: int, now_s: float) -> None:
        self.number = number
        self.index: int | None = None
        self.ready = False
        self.since_s = now_s
        self.pieces = Pieces()
        self.end, theirs = channel()
        try:
            descriptors = [theirs.fileno(), specification]
            self.child = ChildProgram(PROGRAM, [number, os.getpid()], descriptors)
        except BaseException:
            self.end.close()
            raise
        finally:
            theirs.close()

    def give(self, index: int, now_s: float) -> None:
        """Have it look at a slide."""
        self.index, self.since_s = index, now_s
        # If it has died, that is noticed where it is listened to.
        with contextlib.suppress(OSError):
            send(self.end, b"%d" % index)

    def hear(self) -> bytes:
        """What it says; empty: it has ended."""
        try:
            return receive(self.end)[0]
        except OSError:
            return b""

    def has_ended(self) -> str:
        """How it has ended, for people."""
        try:
            self.child.wait(KILLED_S)
        except subprocess.TimeoutExpired:
            self.child.end()
        return self.child.ended_how()

    def close(self) -> None:
        """End it; nothing of it is left."""
        self.end.close()
        self.child.end()


def looks(
    task: Task, indices: Sequence[int], processes: int, limit_s: float
) -> Generator[tuple[int, Look]]:
    """Look at slides; each answer comes as soon as it is there, in any order.

    The processes end with the generator, which is closed by who uses it.

    Args:
        task: the slides, and what they are looked at for.
        indices: of the slides that are looked at.
        processes: that look at the same time.
        limit_s: for one slide, seconds in which this process runs.

    Raises:
        WorkerDied: the processes cannot begin.
    """
    if not indices:
        return
    specification = descriptor_of(cloudpickle.dumps(task))
    team = _Team(specification, indices, limit_s)
    try:
        yield from team.work(min(processes, len(indices)))
    finally:
        team.close()
        os.close(specification)


class _Team:
    """All processes of a survey; used by one thread."""

    def __init__(self, specification: int, indices: Sequence[int], limit_s: float) -> None:
        self._specification = specification
        self._waiting = deque(indices)
        self._limit_s = limit_s
        self._clock = AwakeClock(2 * PIECE_S)
        self._selector = selectors.DefaultSelector()
        self._members: dict[socket.socket, _Surveyor] = {}
        self._started = self._stillborn = 0

    def work(self, processes: int) -> Iterator[tuple[int, Look]]:
        for _ in range(processes):
            self._start()
        while self._members:
            ready = self._selector.select(PIECE_S)
            now_s = self._clock.now()
            for key, _ in ready:
                yield from self._heard(self._members[key.data], now_s)
            for member in list(self._members.values()):
                yield from self._overdue(member, now_s)

    def close(self) -> None:
        """End all of them."""
        for member in self._members.values():
            member.child.kill()
        for member in self._members.values():
            member.close()
        self._members.clear()
        self._selector.close()

    def _start(self) -> None:
        member = _Surveyor(self._started, self._specification, self._clock.now())
        self._started += 1
        self._members[member.end] = member
        self._selector.register(member.end, selectors.EVENT_READ, member.end)

    def _heard(self, member: _Surveyor, now_s: float) -> Iterator[tuple[int, Look]]:
        data = member.hear()
        if not data:
            yield from self._lost(member, "crash", CRASHED)
            return
        if not member.ready:
            member.ready, self._stillborn = True, 0
        else:
            whole = member.pieces.take(data)
            if whole is None:
                return
            assert member.index is not None
            yield member.index, DECODER.decode(whole)
            member.index = None
        self._next(member, now_s)

    def _next(self, member: _Surveyor, now_s: float) -> None:
        if self._waiting:
            member.give(self._waiting.popleft(), now_s)
        else:
            self._dismiss(member)

    def _overdue(self, member: _Surveyor, now_s: float) -> Iterator[tuple[int, Look]]:
        limit_s = self._limit_s if member.ready else START_S
        if now_s - member.since_s < limit_s:
            return
        member.child.kill()
        yield from self._lost(
            member,
            "no answer",
            f"nothing was found out about it within {limit_s:g} s, and the process that looked at "
            "it was ended; a stream replaces loaders that stand still (is the file server away, "
            "or is the slide very large? slide_timeout= sets another limit)",
        )

    def _lost(self, member: _Surveyor, kind: Kind, why: str) -> Iterator[tuple[int, Look]]:
        how = member.has_ended()
        index, was_ready = member.index, member.ready
        last_lines = member.child.last_lines()
        self._dismiss(member)
        if index is not None:
            yield index, Look(problems=(Problem(kind, why.format(how)),))
        elif not was_ready:
            self._stillborn += 1
            if self._stillborn >= MOST_STILLBORN:
                raise WorkerDied(f"the processes of the survey cannot begin: one {how}{last_lines}")
        if self._waiting:
            self._start()

    def _dismiss(self, member: _Surveyor) -> None:
        self._selector.unregister(member.end)
        del self._members[member.end]
        member.close()
