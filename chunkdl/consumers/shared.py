"""`chunkdl.connect`: batches of a service, in a training loop; the interface of `LightDL`.

Several consumers share one stream: the ranks of a training get its batches in turn, or several
trainings get all of them each. See `docs/service.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from chunkdl.consumers.batches.arrays import ArrayKind
from chunkdl.consumers.batches.batch import Batch, Stand
from chunkdl.consumers.batches.batch_rows import Hold
from chunkdl.consumers.batches.service_batches import SharedAssembly
from chunkdl.consumers.callers import Caller
from chunkdl.consumers.loader import Loader, check_batches
from chunkdl.consumers.shared_state import SharedState, state_of
from chunkdl.engine.loader_statistics import Told
from chunkdl.errors import Closed, ConfigError, EndOfStream, GetTimeout, ProtocolError, StateError
from chunkdl.sampling.shares import Remainder
from chunkdl.service.client.arrivals import Arrived
from chunkdl.service.client.connection import Connection
from chunkdl.service.client.moves import Moves
from chunkdl.service.client.session_thread import JoinRequest
from chunkdl.system.awake_clock import PIECE_S, deadline_of
from chunkdl.transport.protocol.service_messages import (
    NextPass,
    PassEnded,
    Pause,
    Position,
    Resume,
)

MOST_PASSES = 1000
"""That `set_epoch` may leave out."""


@dataclass(frozen=True, slots=True)
class _Given:
    """A batch that is being given out.

    Attributes:
        connection: that has received it.
        arrived: what it was made of.
        hold: of its memory.
        lent: it lies there.
        stand: where the loader stands behind it.
        taken: batches of the epoch or the pass behind it.
    """

    connection: Connection
    arrived: Arrived
    hold: Hold
    lent: bool
    stand: Stand
    taken: int


class SharedDL(Loader):
    """Streams batches from a service; made by `chunkdl.connect` and `LightDL.for_ddp`.

    Args:
        wish: what is asked of the service.
        kind: of the arrays.
        batches: batches of an epoch of an endless stream.
        tensors_only: batches have no columns but arrays.
        when_closed: called once it is closed.

    Raises:
        ServiceRefused: the service does not take this consumer.
        ServiceDied: nobody answers at the address.
    """

    def __init__(
        self,
        wish: JoinRequest,
        kind: ArrayKind,
        *,
        batches: int | None = None,
        tensors_only: bool = False,
        when_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._when_closed = when_closed
        self._wish = wish
        self._in_step = wish.world_size > 1
        self._kind = kind
        kind.know(SharedDL)
        self._tensors_only = tensors_only
        connection, assembly = self._connected("", None)
        finite = connection.joined.finite
        try:
            check_batches(batches, finite=finite)
        except ConfigError:
            connection.close(0, 0)
            raise
        super().__init__(finite=finite, batches=batches, tensors_only=tensors_only)
        self._connection: Connection | None = None
        self._moves = Moves()
        self._joined_at(connection, assembly)
        self._stands_at(self._stand(self._after, 0), 0)

    def _connected(
        self, rows_hash: str, position: Position | None
    ) -> tuple[Connection, SharedAssembly]:
        assembly = SharedAssembly(self._kind, tensors_only=self._tensors_only)
        connection = Connection(self._wish, rows_hash, position, 0, assembly.allocate)
        try:
            assembly.learn(connection)
        except BaseException:
            connection.close(0, 0)
            raise
        return connection, assembly

    def _joined_at(self, connection: Connection, assembly: SharedAssembly) -> None:
        joined = connection.joined
        self._connection, self._assembly = connection, assembly
        self._paused = False
        """Whether the service was last told to send nothing. Of the section."""
        self._step, self._after = joined.step, joined.after
        self._given: _Given | None = None
        self._rows_hash, self._rules = joined.rows_hash, joined.rules
        # What a pass of this consumer has is known from one that it saw whole.
        self._whole = joined.step == 0 and joined.after.left == Remainder(joined.after.left.epoch)

    # ------------------------------------------------------------------- batches

    def _take(self, timeout: float | None, *, copy: bool | None) -> Batch:
        left = deadline_of(timeout)
        while True:
            self._check_open()
            with self._section.lock:
                self._settle()
                connection = None if self._moves.under_way else self._running()
                if connection is not None:
                    self._check_credit(connection)
                    if self._paused:
                        # In this order: an interrupt in between says it once more.
                        connection.send(Resume())
                        self._paused = False
            if connection is None:
                self._moves.wait(left)
                continue
            # In pieces: a pause meanwhile is over, since a batch is asked for.
            piece_s = left(PIECE_S)
            try:
                arrived = connection.first(piece_s)
            except GetTimeout:
                if not piece_s:
                    raise
                continue
            except Closed:
                # Perhaps only this connection: a state was loaded.
                continue
            with self._section.lock:
                batch = self._arrived(connection, arrived, copy=copy)
            if batch is not None:
                return batch

    def _check_credit(self, connection: Connection) -> None:
        if connection.held >= connection.joined.credit_batches:
            raise ProtocolError(
                f"all {connection.held} batches of the credit are in use, taken with "
                "copy=False; drop them before asking for more, or raise credit_batches"
            )

    def _arrived(
        self, connection: Connection, arrived: Arrived | PassEnded, *, copy: bool | None
    ) -> Batch | None:
        """The batch that has come; None: it is of a pass that was broken off, or has no rows."""
        of = arrived if isinstance(arrived, PassEnded) else arrived.message
        if connection is not self._connection or of.epoch < self._pass:
            if isinstance(arrived, Arrived):
                connection.releaser(arrived)()
            connection.took(arrived, unread=True)
            return None
        if isinstance(arrived, PassEnded):
            self._steps = arrived.steps if self._whole else self._steps
            raise EndOfStream(f"the pass has delivered all its {arrived.steps} batches")
        hold = Hold(connection.releaser(arrived))
        columns, patients, shows, lent = self._assembly.assemble(
            connection, arrived, hold, copy=copy
        )
        number, taken = self._number_of(connection, arrived), self._taken + 1
        stand = self._stand(arrived.message.after, taken)
        self._given = _Given(connection, arrived, hold, lent, stand, taken)
        self._settle()
        # Every rank must get as many batches; alone there is no use for one without rows.
        if not patients and not self._in_step:
            return None
        batch = Batch(columns, patients, number, stand, columns.row_columns, (shows,))
        self._means.see(batch.footprints)
        return batch

    @property
    def _last_stand(self) -> Stand:
        # Where an interrupt came while a batch was given out, it is noted now.
        with self._section.lock:
            self._settle()
            return super()._last_stand

    def _settle(self) -> None:
        """Note that a batch was given out; what an interrupt breaks off the next call ends."""
        if (given := self._given) is not None:
            message = given.arrived.message
            self._step, self._after = message.step + 1, message.after
            if self._stands[-1] is not given.stand:
                self._stands_at(given.stand, given.taken)
            given.connection.took(given.arrived)
            given.hold.give_out(lent=given.lent)
            self._given = None

    def _number_of(self, connection: Connection, arrived: Arrived) -> int:
        """By the rows before it, since steps are counted anew wherever the service begins anew."""
        left, step_rows = self._after.left, connection.joined.batch_rows * self._wish.world_size
        if left.epoch != arrived.message.epoch:
            return 0
        return (left.tail - left.before_tail) // step_rows

    @property
    def tables(self) -> dict[str, Any]:
        """See `Loader.tables`."""
        return self._assembly.tables.by_name()

    def _stand(self, after: Position, taken: int) -> Stand:
        """The state at that position, after so many batches of the epoch."""
        of_epoch = None if self._batches is None else taken
        return SharedState(self._rows_hash, after, of_epoch, rules=self._rules)

    @property
    def _pass(self) -> int:
        return self._after.left.epoch

    def _next_pass(self, number: int) -> None:
        forever = deadline_of(None)
        while self._moves.under_way and not self._closed:
            self._moves.wait(forever)
        with self._section.lock:
            self._settle()
            connection = self._running()
            if not self._pass < number <= self._pass + MOST_PASSES:
                raise ConfigError(
                    f"pass {number} was asked for, and the shared stream is in pass {self._pass}; "
                    "go there with load_state_dict, in all ranks"
                )
            for one in range(self._pass + 1, number + 1):
                connection.send(NextPass(one))
            left = Remainder(number)
            self._after, self._step = msgspec.structs.replace(self._after, left=left), 0
            self._whole = True
            self._stands_at(self._stand(self._after, 0), 0)

    def _check_caller(self, caller: Caller) -> None:
        if caller.shares > 1 and self._wish.world_size > 1:
            raise ConfigError(
                "accelerate would read this rank's share in one process and deal that out; the "
                "ranks share the stream already, so give the loader to no accelerator.prepare: "
                "iterate over it, and move batches with batch.to(accelerator.device)"
            )
        super()._check_caller(caller)

    # --------------------------------------------------------------------- state

    def _load_state(self, state: Mapping[str, Any]) -> None:
        position, taken = self._position_of(state)
        if not self._is_for_later(lambda: self._load_state(state)):
            self._moves.make(lambda: self._move_to(position, taken))

    def _move_to(self, position: Position, taken: int) -> None:
        """Leave, and join again there; others may close the loader meanwhile."""
        self._check_open()
        self._leave()
        connection, assembly = self._connected(self._rows_hash, position)
        with self._section.lock:
            if not self._closed:
                self._arrive(connection, assembly, position, taken)
        if self._connection is not connection:
            connection.close(position.left.epoch, 0)
            self._check_open()

    def _arrive(
        self, connection: Connection, assembly: SharedAssembly, position: Position, taken: int
    ) -> None:
        self._joined_at(connection, assembly)
        if self._batches is None:
            # Some number that is 0 at the beginning of a pass.
            taken = int(position.left != Remainder(position.left.epoch))
        self._goes_on_at(self._stand(self._after, taken), taken)

    def _check_state(self, state: Mapping[str, Any]) -> None:
        """See that a state is one of this stream.

        Raises:
            StateError: it is not.
        """
        self._position_of(state)

    def _position_of(self, state: Mapping[str, Any]) -> tuple[Position, int]:
        """Where a state stands, and after how many batches of its epoch."""
        found = state_of(state)
        self._rules.check(found.rules)
        if found.rows_hash != self._rows_hash:
            raise StateError(
                "the state belongs to another stream: dataset, seed, sizes, resolution, tissue "
                "settings, reuse or num_bigchunks of the service differ"
            )
        return found.position, found.epoch_batches or 0

    def _counters(self, timeout: float) -> Told:
        if (connection := self._connection) is None:
            # It is on its way to a state.
            return Told()
        return connection.statistics(timeout)

    def _ask_counters(self) -> None:
        if (connection := self._connection) is not None:
            connection.ask_statistics()

    # ------------------------------------------------------------------ lifetime

    def _start(self) -> None:
        """It was joined when the loader was made."""
        if self._paused:
            self._resume()

    def _pause(self) -> None:
        """Have the service send nothing more for now; what was sent is still there."""
        if not self._is_for_later(self._pause):
            with self._section.lock:
                # In this order: an interrupt in between has the next batch say `Resume` too often.
                self._paused = True
                self._running().send(Pause())

    def _resume(self) -> None:
        """Have the service send again."""
        if not self._is_for_later(self._resume):
            with self._section.lock:
                self._running().send(Resume())
                self._paused = False

    def _running(self) -> Connection:
        self._check_open()
        if self._connection is None:
            raise Closed("the loader has left its place for a state that it could not go to")
        return self._connection

    def _leave(self) -> None:
        with self._section.lock:
            self._settle()
            connection, self._connection = self._connection, None
            epoch, step = self._after.left.epoch, self._step
        if connection is not None:
            # It waits for the service to take note, and so does nobody but who leaves.
            connection.close(epoch, step)

    def _close(self) -> None:
        """Leave the service."""
        if self._is_for_later(self._close):
            return
        self._leave()
        self._section.whole(self._taken_when_closed)()

    def _taken_when_closed(self) -> Callable[[], None]:
        after, self._when_closed = self._when_closed, lambda: None
        return after
