"""The loader of one rank of a training, as `LightDL.for_ddp` makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from chunkdl.consumers.batches.arrays import ArrayKind
from chunkdl.consumers.batches.batch import Batch, Stand
from chunkdl.consumers.meeting import Meeting
from chunkdl.consumers.ranks import WHERE, Place, Ranks, find
from chunkdl.consumers.shared import SharedDL
from chunkdl.errors import ConfigError, EndOfStream, ServiceDied, StateError
from chunkdl.sampling.shares import Remainder
from chunkdl.service.client.machines import (
    MOST_REMEMBERED,
    Learned,
    MachinesState,
    after_whole_steps,
    last_before,
    read_state,
)
from chunkdl.service.client.session_thread import JoinRequest
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.protocol.service_messages import Position

LEARNED = "learned"
_HISTORY = msgspec.json.Decoder(list[Learned])

log = steady_logger("chunkdl")


class Machines:
    """What the machines of a training know of each other.

    Args:
        meeting: where they tell each other.
        place: of this rank.
        rows_hashes: identity of the rows of each machine.
    """

    def __init__(self, meeting: Meeting, place: Place, rows_hashes: tuple[str, ...]) -> None:
        self._meeting = meeting
        self.place = place
        self.rows_hashes = rows_hashes
        self._history: list[Learned] = []
        self._tells = place.local_rank == 0

    def learn(self, position: Position) -> None:
        """Tell the others what is new on this machine, behind a batch that was delivered."""
        learned = Learned.of(position)
        if not self._tells or (self._history and self._history[-1].says_the_same(learned)):
            return
        self._history = [*self._history, learned][-MOST_REMEMBERED:]
        try:
            self._meeting.tell(LEARNED, self.place.node, msgspec.json.encode(self._history))
        except ServiceDied as error:
            # The first rank may be done; the batches are good. Who saves a state now is told.
            self._tells = False
            log.warning("%s", error)

    def begin(self, position: Position) -> None:
        """What was learned before is that of another position."""
        self._history = []
        self.learn(position)

    def state(self, position: Position, left: Remainder) -> MachinesState:
        """The state of all machines at a position of this one.

        Args:
            position: of this machine.
            left: of every machine.

        Raises:
            StateError: what the others have learned is not known.
        """
        learned = [self._of(node, position) for node in range(self.place.nodes)]
        # Since when each is known is another thing for each rank, and says nothing about the rows.
        known = [msgspec.structs.replace(one, epoch=0, rows=0) for one in learned]
        return MachinesState(self.rows_hashes, left, tuple(known))

    def _of(self, node: int, position: Position) -> Learned:
        if node == self.place.node:
            return Learned.of(position)
        try:
            said = self._meeting.told(LEARNED, node)
        except ServiceDied as error:
            raise StateError(f"the state of machine {node} is not known: {error}") from error
        history = [] if said is None else _HISTORY.decode(said)
        return last_before(history, position.left)


@dataclass(frozen=True, slots=True)
class MachinesStand:
    """A place in the stream of several machines; the others are asked when it is wanted.

    Attributes:
        machines: what they know of each other.
        position: of this machine.
        left: of every machine.
        epoch_batches: see `MachinesState`.
    """

    machines: Machines
    position: Position
    left: Remainder
    epoch_batches: int | None

    def to_dict(self) -> dict[str, Any]:
        """The state of all machines.

        Raises:
            StateError: the other machines cannot be asked.
        """
        found = self.machines.state(self.position, self.left)
        return msgspec.structs.replace(found, epoch_batches=self.epoch_batches).to_dict()


class RankDL(SharedDL):
    """A `SharedDL` of a rank that `LightDL.for_ddp` has made.

    Of several machines a state holds what each of them needs: that of any rank is enough for all.
    After the end of a pass it is the beginning of the next.

    Args:
        wish: what is asked of the service.
        kind: of the arrays.
        ranks: which process it was made for.
        machines: where there are several; None: one.
        batches, tensors_only, when_closed: see `SharedDL`.
    """

    def __init__(
        self,
        wish: JoinRequest,
        kind: ArrayKind,
        *,
        ranks: Ranks,
        machines: Machines | None,
        batches: int | None,
        tensors_only: bool,
        when_closed: Callable[[], None],
    ) -> None:
        self._ranks = ranks
        self._machines = machines
        super().__init__(
            wish, kind, batches=batches, tensors_only=tensors_only, when_closed=when_closed
        )
        kind.know(RankDL)
        # Also where it has its machine for itself.
        self._in_step = ranks.world_size > 1
        # Passes differ in length: where this one is over, another machine may be in the middle.
        self._goes_past_the_end = machines is None

    def _take(self, timeout: float | None, *, copy: bool | None) -> Batch:
        self._refuse_another_world()
        try:
            batch = super()._take(timeout, copy=copy)
        except EndOfStream:
            if self._machines is not None:
                # Passes differ in length, so the end of this one is not a place on other machines.
                left = Remainder(self._after.left.epoch + 1)
                after = msgspec.structs.replace(self._after, left=left)
                self._stands_at(MachinesStand(self._machines, after, left, None), self._taken)
            raise
        if self._machines is not None:
            self._machines.learn(self._after)
        return batch

    def _refuse_another_world(self) -> None:
        """A loader that was made for one process would give its rank all rows."""
        if self._ranks.world_size > 1:
            return
        now = find()
        if now.world_size > 1:
            raise ConfigError(
                f"LightDL.for_ddp was called while this was one process, and now it is rank "
                f"{now.rank} of {now.world_size} (by {now.source}), which would get the rows of "
                f"all; {WHERE}"
            )

    def _stand(self, after: Position, taken: int) -> Stand:
        if self._machines is None:
            return super()._stand(after, taken)
        joined, position = self._running().joined, after
        start = joined.position.left
        if start.epoch != position.left.epoch:
            start = Remainder(position.left.epoch)
        rows = joined.batch_rows * self._wish.world_size
        left = after_whole_steps(position.left, start, rows)
        epoch_batches = None if self._batches is None else taken
        return MachinesStand(self._machines, position, left, epoch_batches)

    def _position_of(self, state: Mapping[str, Any]) -> tuple[Position, int]:
        if self._machines is None:
            return super()._position_of(state)
        found = read_state(state, self._machines.rows_hashes)
        return found.position(self._machines.place.node), found.epoch_batches or 0

    def _load_state(self, state: Mapping[str, Any]) -> None:
        super()._load_state(state)
        if self._machines is not None:
            self._machines.begin(self._after)
