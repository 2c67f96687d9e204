"""`chunkdl.connect`: batches of a service, in a training loop; the interface of `LightDL`.

Several consumers share one stream: the ranks of a training get its batches in turn, or several
trainings get all of them each. See `docs/service.md`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from chunkdl.consumers.batches.arrays import ArrayKind
from chunkdl.consumers.batches.batch import Batch, Stand
from chunkdl.consumers.batches.batch_rows import Hold
from chunkdl.consumers.batches.service_batches import SharedAssembly
from chunkdl.consumers.callers import Caller
from chunkdl.consumers.loader import Loader
from chunkdl.consumers.shared_state import SharedState, state_of
from chunkdl.engine.loader_statistics import LoaderStatistics
from chunkdl.errors import Closed, ConfigError, EndOfStream, ProtocolError, StateError
from chunkdl.sampling.shares import Remainder
from chunkdl.service.client.arrivals import Arrived
from chunkdl.service.client.connection import Connection
from chunkdl.service.client.moves import Moves
from chunkdl.service.client.session_thread import JoinRequest
from chunkdl.system.awake_clock import deadline_of
from chunkdl.transport.protocol.engine_messages import Message
from chunkdl.transport.protocol.service_messages import (
    Drain,
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
        self._since: float | None = None
        self._waited_s = 0.0
        self._tensors_only = tensors_only
        connection, assembly = self._connected("", None)
        super().__init__(
            finite=connection.joined.finite, batches=batches, tensors_only=tensors_only
        )
        if batches is not None and connection.joined.finite:
            connection.close(0, 0)
            raise ConfigError(f"batches={batches!r}: a grid pass has its own end")
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
        """Whether the service was last told to send nothing. Of whoever uses the loader."""
        self._step, self._after = joined.step, joined.after
        self._given: _Given | None = None
        self._rows_hash, self._rules = joined.rows_hash, joined.rules
        # What a pass of this consumer has is known from one that it saw whole.
        self._whole = joined.step == 0 and joined.after.left == Remainder(joined.after.left.epoch)

    # ------------------------------------------------------------------- batches

    def _take(self, timeout: float | None, *, copy: bool | None) -> Batch:
        left, asked = deadline_of(timeout), time.monotonic()
        self._since = asked if self._since is None else self._since
        try:
            while True:
                with self._section.lock:
                    self._settle()
                    self._check_open()
                    connection = None if self._moves.under_way else self._running()
                    if connection is not None:
                        self._check_credit(connection)
                if connection is None:
                    self._moves.wait(left)
                    continue
                try:
                    if self._paused:
                        # In this order: an interrupt in between says it once more.
                        connection.send(Resume())
                        self._paused = False
                    arrived = connection.first(None if timeout is None else left(timeout))
                except Closed:
                    # Perhaps only this connection: a state was loaded.
                    continue
                with self._section.lock:
                    batch = self._arrived(connection, arrived, copy=copy)
                if batch is not None:
                    return batch
        finally:
            self._waited_s += time.monotonic() - asked

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
        columns, patients, lent = self._assembly.assemble(connection, arrived, hold, copy=copy)
        number, taken = self._number_of(connection, arrived), self._taken + 1
        stand = self._stand(arrived.message.after, taken)
        self._given = _Given(connection, arrived, hold, lent, stand, taken)
        self._settle()
        # Every rank must get as many batches; alone there is no use for one without rows.
        if not patients and not self._in_step:
            return None
        return Batch(columns, patients, number, stand, columns.row_columns)

    def settle(self) -> None:
        """Have `stand` say what was given out, also where an interrupt came while it was noted."""
        with self._section.lock:
            self._settle()

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

    def check_caller(self, caller: Caller) -> None:
        if caller.shares > 1 and self._wish.world_size > 1:
            raise ConfigError(
                "accelerate would read this rank's share in one process and deal that out; the "
                "ranks share the stream already, so give the loader to no accelerator.prepare: "
                "iterate over it, and move batches with batch.to(accelerator.device)"
            )
        super().check_caller(caller)

    # --------------------------------------------------------------------- state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly after the batch that `state` was saved behind; all ranks from the same.

        All ranks have the same state after the same number of batches, and any number of ranks can
        go on from it.

        Raises:
            StateError: it belongs to another stream.
            ServiceRefused: others of the group stand elsewhere.
        """
        self._check_process()
        position, taken = self._position_of(state)
        if not self._is_for_later(lambda: self.load_state_dict(state)):
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

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the loader was closed")

    def _position_of(self, state: Mapping[str, Any]) -> tuple[Position, int]:
        """Where a state stands, and after how many batches of its epoch."""
        found = state_of(state)
        self._rules.check(found.rules)
        if found.plan_hash != self._rows_hash:
            raise StateError(
                "the state belongs to another stream: dataset, seed, sizes, resolution, tissue "
                "settings, reuse or num_bigchunks of the service differ"
            )
        return found.position, found.epoch_batches or 0

    def stats(self) -> LoaderStatistics:
        """What the engines of the group have done since the service started.

        What an engine made again, because one before it was lost, counts again; of one that was
        lost the last seconds of what it read may be missing.
        """
        self._check_process()
        connection = self._connection
        if self._closed or connection is None:
            raise Closed("the loader was closed")
        counted = connection.statistics()
        elapsed = 0.0 if self._since is None else time.monotonic() - self._since
        return LoaderStatistics.of(counted, elapsed, self._waited_s)

    # ------------------------------------------------------------------ lifetime

    def pause(self) -> None:
        """Have the service send nothing more for now; what was sent is still there."""
        self._say(Pause())
        self._paused = True

    def resume(self) -> None:
        """Have the service send again."""
        self._say(Resume())
        self._paused = False

    def drain(self) -> None:
        """Have the service end the session once everything that was sent is given back."""
        self._say(Drain())

    def _say(self, message: Message) -> None:
        self._check_process()
        connection = self._connection
        if self._closed or connection is None:
            raise Closed("the loader was closed")
        connection.send(message)

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

    def close(self) -> None:
        """Leave the service; closing twice is not an error."""
        if os.getpid() != self._pid:
            return  # a forked child; nothing here is its own
        self._closed = True
        if self._is_for_later(self.close):
            return
        self._leave()
        after, self._when_closed = self._when_closed, lambda: None
        after()
