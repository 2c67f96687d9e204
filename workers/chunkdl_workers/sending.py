"""The batches that are on their way to other machines: their memory is not given back before.

ZeroMQ sends from the memory of the engine, when the network takes it, and says when it has read a
part. A consumer may have given its batch back before that, or its session is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import zmq

from chunkdl.service.decisions.actions import FreeBatch, FreeRemains
from chunkdl_workers.engine import GroupEngine

Memory = tuple[str, int, int]
"""Group, number of the engine, slot."""


class Sending:
    """What is being sent, and what is given back after that; of the server's thread.

    Args:
        engines: of the groups, by name.
    """

    def __init__(self, engines: Mapping[str, GroupEngine]) -> None:
        self._engines = engines
        self._under_way: dict[Memory, list[zmq.MessageTracker]] = {}
        """Of batches that are lent."""
        self._last: list[tuple[Memory, FreeBatch, list[zmq.MessageTracker]]] = []
        """Of batches that are given back once these were sent."""
        self._remains: list[FreeRemains] = []
        """Memory of engines that are gone, which is given back the same way."""

    @property
    def waits(self) -> bool:
        """Whether something is given back as soon as it was sent."""
        return bool(self._last or self._remains)

    def began(
        self, group: str, engine: int, slots: Iterable[int], tracker: zmq.MessageTracker
    ) -> None:
        """A message with rows out of these slots is being sent."""
        for slot in slots:
            self._under_way.setdefault((group, engine, slot), []).append(tracker)

    def free(self, action: FreeBatch) -> None:
        """Give a batch back, once nothing of it waits to be sent."""
        engine = self._engines[action.group]
        if action.engine != engine.number:
            return
        key = action.group, action.engine, engine.slot_of(action.epoch, action.batch)
        self._last.append((key, action, self._under_way.pop(key, [])))
        self._free_sent()

    def free_remains(self, action: FreeRemains) -> None:
        """The same for memory of an engine that is gone."""
        self._remains.append(action)

    def settle(self) -> None:
        """Give back what was sent meanwhile."""
        if self._last:
            self._free_sent()
        remains, self._remains = self._remains, []
        for action in remains:
            if (action.engine, action.slot) in self.of_group(action.group):
                self._remains.append(action)
            else:
                self._engines[action.group].free_remains(action.engine, action.slot)

    def _free_sent(self) -> None:
        last, self._last = self._last, []
        for key, action, trackers in last:
            if not all(tracker.done for tracker in trackers):
                self._last.append((key, action, trackers))
                continue
            engine = self._engines[action.group]
            if action.engine == engine.number:
                engine.free(action.epoch, action.batch)

    def of_group(self, group: str) -> set[tuple[int, int]]:
        """Engine and slot of what is still to be read."""
        self._under_way = {
            key: waiting
            for key, trackers in self._under_way.items()
            if (waiting := [tracker for tracker in trackers if not tracker.done])
        }
        keys = [*self._under_way]
        keys += [key for key, _, trackers in self._last if not all(t.done for t in trackers)]
        return {(engine, slot) for name, engine, slot in keys if name == group}
