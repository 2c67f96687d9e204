"""Which workers are silent over their work for too long, and which are killed and not gone.

Silence is counted in waits of the coordinator, not by the clock: after the whole job was stopped
for minutes every worker looks silent, whichever of them was woken first.
"""

from __future__ import annotations

from collections.abc import Sequence

from chunkdl.system.awake_clock import AwakeClock
from chunkdl.transport.flight_recorder import read_recorder
from chunkdl_workers.supervisor import Worker

START_S = 10.0
"""What a worker may take to begin, at least: it imports what the user's code imports, and none of
it is work."""
STACK_S = 0.3
"""What a silent worker gets to write its stack before it is ended."""
GONE_S = 5.0
"""What one that was killed gets to be gone; the kernel may keep it for as long as a disk or a file
server is away."""
MOST_LOOK_S = 1.0
"""How often it is looked at what workers do, at least, while any has work."""


class Watch:
    """Counts the silence of each worker.

    Args:
        stall_s: without a sign of life that a worker over its work may be, seconds.
        hook_s: in one call of the user's code, seconds; None: as long as it gives signs of life.
    """

    def __init__(self, stall_s: float, hook_s: float | None) -> None:
        self._stall_s = stall_s
        self._hook_s = hook_s
        self._look_s = min(MOST_LOOK_S, stall_s / 4, (hook_s or stall_s) / 4)
        self._clock = AwakeClock(self._look_s)
        self._looked_s = self._clock.now()

    def wait_s(self, workers: Sequence[Worker]) -> float | None:
        """Until they have to be looked at; for ever while nobody works or is to be gone."""
        every_s = self._every_s(workers)
        if every_s is None:
            return None
        return max(0.0, self._looked_s + every_s - self._clock.now()) + 0.001

    def _every_s(self, workers: Sequence[Worker]) -> float | None:
        watched = [worker for worker in workers if worker.busy or _is_ending(worker)]
        if not watched:
            return None
        asked = any(worker.asked_s is not None for worker in watched)
        return min(self._look_s, STACK_S) if asked else self._look_s

    def look(self, workers: Sequence[Worker]) -> tuple[list[Worker], list[Worker]]:
        """Those that are to be ended now, and those that were and are still not gone.

        Who is silent is asked where it is before.
        """
        now_s, every_s = self._clock.now(), self._every_s(workers)
        passed_s = now_s - self._looked_s
        if every_s is not None and passed_s < every_s:
            return [], []
        self._looked_s = now_s
        ending = [worker for worker in workers if _is_ending(worker)]
        busy = [worker for worker in workers if worker.busy]
        held = [worker for worker in ending if _is_held(worker, passed_s)]
        return [worker for worker in busy if self._is_over(worker, passed_s)], held

    def _is_over(self, worker: Worker, passed_s: float) -> bool:
        """Count the time that has passed; whether it is too much, and the worker was asked."""
        before, now = worker.seen, read_recorder(worker.recorder, stack=False)
        worker.seen = now
        worker.silent_s += passed_s
        worker.calling_s += passed_s
        # At the first look after it got on, all that has passed may have been before.
        if before is None or now.alive_s != before.alive_s:
            worker.silent_s = 0.0
        if before is None or now.steps != before.steps:
            worker.calling_s = 0.0
        stall_s = self._stall_s if worker.ready else max(self._stall_s, START_S)
        # Reading on and on inside one call of the user's code does not prolong it.
        in_call = bool(now.hook) and self._hook_s is not None
        late = in_call and worker.calling_s >= (self._hook_s or 0.0)
        if not late and worker.silent_s < stall_s:
            worker.asked_s = None
            return False
        if not worker.ready:
            return True
        if worker.asked_s is None:
            worker.ask_where()
            return False
        worker.asked_s += passed_s
        return worker.asked_s >= STACK_S


def _is_ending(worker: Worker) -> bool:
    return worker.is_ours and worker.killed_s is not None


def _is_held(worker: Worker, passed_s: float) -> bool:
    """Count the time that has passed; whether it is too much for one that was killed."""
    worker.killed_s = (worker.killed_s or 0.0) + passed_s
    return worker.killed_s >= GONE_S
