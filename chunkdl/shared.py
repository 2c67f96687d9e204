"""`chunkdl.connect`: batches of a service, in a training loop; the interface of `LightDL`.

Several consumers share one stream: the ranks of a training get its batches in turn, or several
trainings get all of them each. See `docs/service.md`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from chunkdl.arguments import whole
from chunkdl.arrivals import Arrived
from chunkdl.chunks import Batch, SmallChunks
from chunkdl.connection import Connection
from chunkdl.errors import Closed, EndOfStream, ProtocolError, StateError
from chunkdl.plan.shares import Remainder
from chunkdl.protocol.messages import Message
from chunkdl.protocol.service_messages import Drain, NextPass, PassEnded, Pause, Position, Resume
from chunkdl.session_thread import Wish
from chunkdl.shared_assembly import SharedAssembly
from chunkdl.statistics import LoaderStatistics
from chunkdl.tensors import DatasetView, cuda_is_there

STATE_VERSION = 1


class SharedState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a consumer of a shared stream stands: the same for all ranks after the same step."""

    plan_hash: str
    position: Position
    version: int = STATE_VERSION


class SharedDL:
    """Streams batches from a service; made by `chunkdl.connect` and `LightDL.for_ddp`.

    Args:
        wish: what is asked of the service.
        pin_memory: copy batches into page-locked memory; None: where CUDA is there.
        batches: end the iteration after so many batches; the next goes on behind them.
        when_closed: called once it is closed.

    Raises:
        ServiceRefused: the service does not take this consumer.
        ServiceDied: nobody answers at the address.
    """

    def __init__(
        self,
        wish: Wish,
        *,
        pin_memory: bool | None = None,
        batches: int | None = None,
        when_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._batches = None if batches is None else whole("batches", batches, 1)
        self._left = self._batches
        self._when_closed = when_closed
        self._wish = wish
        self._in_step = wish.world_size > 1
        self._pin = cuda_is_there() if pin_memory is None else pin_memory
        self._lock = threading.RLock()
        self._closed = False
        self._ended = False
        self._since: float | None = None
        self._waited_s = 0.0
        self._assembly: SharedAssembly | None = None
        self._step = 0
        self._connection: Connection | None = None
        self._connection = self._connect("", None)

    def _connect(self, plan_hash: str, position: Position | None) -> Connection:
        assembly = SharedAssembly(pin=self._pin)
        connection = Connection(self._wish, plan_hash, position, 0, assembly.allocate)
        try:
            assembly.learn(connection)
        except BaseException:
            connection.close(0, 0)
            raise
        joined = connection.joined
        self._assembly = assembly
        self._step, self._after = joined.step, joined.after
        self._plan_hash = joined.plan_hash
        return connection

    # ------------------------------------------------------------------- batches

    def get(self, timeout: float | None = None, *, copy: bool | None = None) -> Any:
        """The next batch in PyDmed's shape; see `LightDL.get`.

        Args:
            timeout: longest wait, seconds; None: as long as the service is there.
            copy: False gives tensors on the shared memory of a service on this machine, which goes
                back when the last of them is dropped; of a broadcast they must not be written to.
                True gives a copy. None: no copy where the memory is this consumer's alone and it
                holds at most half of its credit.

        Returns:
            (x, patients, smallchunks): x is a uint8 tensor (B, 3, H, W) in channels_last order, or
            the stacked results of the service's transform.

        Raises:
            GetTimeout: nothing came in time.
            EndOfStream: the pass has delivered everything.
            ServiceDied, ServiceRefused: the service is gone, or has ended the session.
            WorkerError, SlideError: the stream cannot go on.
            Closed: the loader was closed.
        """
        batch = self.next_batch(timeout, copy=copy)
        return batch["image"], batch.patients, SmallChunks(batch)

    def next_batch(self, timeout: float | None = None, *, copy: bool | None = None) -> Batch:
        """The next batch with all its columns; arguments and errors as for `get`."""
        with self._lock:
            connection, assembly = self._running()
            if self._ended or self._left == 0:
                raise EndOfStream("the pass has delivered all its batches")
            if connection.held >= connection.joined.credit_batches:
                raise ProtocolError(
                    f"all {connection.held} batches of the credit are in use, taken with "
                    "copy=False; drop them before asking for more, or raise credit_batches"
                )
            while True:
                asked = time.monotonic()
                self._since = asked if self._since is None else self._since
                arrived = connection.next(timeout)
                self._waited_s += time.monotonic() - asked
                if isinstance(arrived, PassEnded):
                    self._ended = True
                    raise EndOfStream(f"the pass has delivered all its {arrived.steps} batches")
                batch = assembly.assemble(connection, arrived, copy=copy)
                self._passed(arrived)
                self._left = None if self._left is None else self._left - 1
                # Every rank must get as many batches; alone there is no use for one without rows.
                if batch.patients or self._in_step:
                    return batch

    def _passed(self, arrived: Arrived) -> None:
        self._step = arrived.message.step + 1
        self._after = arrived.message.after

    def __iter__(self) -> Iterator[Batch]:
        """Iterate; after the end of a finite stream, its next pass or its next `batches`."""
        with self._lock:
            if self._left == 0:
                self._left = self._batches
            if self._ended:
                self._left = self._batches
                connection, _ = self._running()
                epoch = self._after.left.epoch + 1
                self._ended = False
                left = Remainder(epoch)
                self._after, self._step = msgspec.structs.replace(self._after, left=left), 0
                connection.send(NextPass(epoch))
        return self

    def __next__(self) -> Batch:
        return self.next_batch()

    def dataset_view(self) -> DatasetView:
        """This loader as a torch dataset: ``DataLoader(view, batch_size=None)``, and Lightning."""
        return DatasetView(self)

    # --------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands after the last batch that was returned; small, plain data.

        All ranks have the same state after the same number of batches, and any number of ranks can
        go on from it.
        """
        with self._lock:
            self._running()
            return self._state_at(self._after)

    def _state_at(self, position: Position) -> dict[str, Any]:
        state: dict[str, Any] = msgspec.to_builtins(SharedState(self._plan_hash, position))
        pairs = state["position"]["substitutions"].items()
        # JSON has no integer keys; pairs survive every format.
        state["position"]["substitutions"] = [list(pair) for pair in sorted(pairs)]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly after the batch that `state` was saved behind; all ranks from the same.

        Raises:
            StateError: it belongs to another stream.
            ServiceRefused: others of the group stand elsewhere.
        """
        with self._lock:
            position = self._position_of(state)
            if self._closed:
                raise Closed("the loader was closed")
            self._leave()
            self._ended = False
            self._connection = self._connect(self._plan_hash, position)

    def _position_of(self, state: Mapping[str, Any]) -> Position:
        found = _state_of(state)
        if found.plan_hash != self._plan_hash:
            raise StateError(
                "the state belongs to another stream: dataset, seed, sizes, resolution, tissue "
                "settings, reuse or num_bigchunks of the service differ"
            )
        return found.position

    def stats(self) -> LoaderStatistics:
        """What the engine of the group has done since it started."""
        with self._lock:
            connection, _ = self._running()
            counted = connection.statistics()
            elapsed = 0.0 if self._since is None else time.monotonic() - self._since
            return LoaderStatistics.of(counted, elapsed, self._waited_s)

    # ------------------------------------------------------------------ lifetime

    def pause(self) -> None:
        """Have the service send nothing more until `resume`; what was sent is still there."""
        self._say(Pause())

    def resume(self) -> None:
        """Have the service send batches again."""
        self._say(Resume())

    def drain(self) -> None:
        """Have the service end the session once everything that was sent is given back."""
        self._say(Drain())

    def _say(self, message: Message) -> None:
        with self._lock:
            self._running()[0].send(message)

    def _running(self) -> tuple[Connection, SharedAssembly]:
        if self._closed or self._connection is None or self._assembly is None:
            raise Closed("the loader was closed")
        return self._connection, self._assembly

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(self._after.left.epoch, self._step)

    def close(self) -> None:
        """Leave the service; closing twice is no error."""
        with self._lock:
            self._closed = True
            self._leave()
            after, self._when_closed = self._when_closed, lambda: None
            after()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _state_of(state: Mapping[str, Any]) -> SharedState:
    if isinstance(state, Mapping) and "plan_hashes" in state:
        raise StateError(
            f"the state is of {len(state['plan_hashes'])} machines, each with patients of its own, "
            "and here is one service; go on with LightDL.for_ddp on as many machines"
        )
    try:
        fields = {**state, "position": dict(state["position"])}
        pairs = fields["position"]["substitutions"]
        fields["position"]["substitutions"] = dict(pairs)
        found = msgspec.convert(fields, SharedState)
    except (msgspec.ValidationError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise StateError(f"this is no state of a shared stream: {error}") from error
    if found.version != STATE_VERSION:
        raise StateError(
            f"the state has version {found.version}, this chunkdl reads {STATE_VERSION}"
        )
    if not found.position.left.is_sound():
        raise StateError("this is no state of a shared stream: a number in it is out of range")
    return found
