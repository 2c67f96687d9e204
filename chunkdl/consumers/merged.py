"""Several services as one stream: each owns slides of its own, every batch has rows of all.

A node gives as many rows of a batch as it has patients, in proportion, so what is mixed is a
function of the nodes alone, and every batch holds patients of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chunkdl.consumers.batches.arrays import ArrayKind
from chunkdl.consumers.batches.batch import Batch, Stand
from chunkdl.consumers.batches.together import Together
from chunkdl.consumers.callers import Caller
from chunkdl.consumers.loader import Loader, check_batches
from chunkdl.consumers.several_services import check_classes
from chunkdl.consumers.shared import SharedDL
from chunkdl.engine.loader_statistics import Told
from chunkdl.errors import (
    ChunkdlError,
    EndOfStream,
    GetTimeout,
    ServiceDied,
    ServiceRefused,
    StateError,
)
from chunkdl.sampling.state_envelope import not_a_state, unwrapped, wrapped
from chunkdl.system.awake_clock import PIECE_S, deadline_of
from chunkdl.system.steady_log import steady_logger

OnNodeLost = Literal["raise", "continue"]
Left = Callable[[float], float]
"""How long the next piece of a wait may be, of `deadline_of`."""

log = steady_logger("chunkdl")


class _Node:
    """One of the services.

    Attributes:
        address: where it is.
        loader: that reads from it.
        ended: its pass is over.
        lost: why it is gone, if it is.
        part: its rows of the next batch, where they are here.
        stand: of its loader after the last batch that was returned.
    """

    def __init__(self, address: str, loader: SharedDL) -> None:
        self.address = address
        self.loader = loader
        self.ended = False
        self.lost = ""
        self.part: Batch | None = None
        self.stand = loader._last_stand


@dataclass(frozen=True, slots=True)
class MergedState:
    """Where the stream stands on every node, and which are gone.

    Attributes:
        next_batch: number of the next batch, in the pass where there are passes.
        epoch: number of the pass.
        epoch_batches: batches of the present epoch that were returned, where epochs have a length
            of their own.
        nodes: address, why it is gone, and where it stands.
    """

    next_batch: int
    epoch: int
    epoch_batches: int | None
    nodes: tuple[tuple[str, str, Stand], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for json, torch.save or msgpack; see `state_envelope`."""
        nodes = [
            {"address": address, "lost": lost, "state": stand.to_dict()}
            for address, lost, stand in self.nodes
        ]
        content = {"next_batch": self.next_batch, "nodes": nodes}
        return wrapped("services", content, epoch=self.epoch, epoch_batches=self.epoch_batches)


@dataclass(frozen=True, slots=True)
class _Given:
    """A batch that is being given out.

    Attributes:
        stand: where the stream stands behind it.
        stands: of each node behind it.
        taken: batches of the pass behind it.
    """

    stand: MergedState
    stands: Sequence[Stand]
    taken: int


class MergedDL(Loader):
    """Streams batches whose rows come from several services; made by `chunkdl.connect`.

    After a `GetTimeout` what other nodes have given already is still to come.

    Args:
        loaders: of each address, in their order.
        kind: of the arrays.
        on_node_lost: "raise", or "continue" with the others: batches have fewer rows from then on,
            and the state says so.
        batches: batches of an epoch of an endless stream.
        when_closed: called once it is closed.
    """

    def __init__(
        self,
        loaders: Mapping[str, SharedDL],
        kind: ArrayKind,
        on_node_lost: OnNodeLost,
        *,
        batches: int | None = None,
        when_closed: Callable[[], None] = lambda: None,
    ) -> None:
        finite = all(one.is_finite for one in loaders.values())
        check_batches(batches, finite=finite)
        check_classes({address: one.tables.get("region", ()) for address, one in loaders.items()})
        super().__init__(finite=finite, batches=batches)
        self._nodes = [_Node(address, loader) for address, loader in loaders.items()]
        self._kind = kind
        kind.know(MergedDL)
        self._on_node_lost = on_node_lost
        self._when_closed = when_closed
        self._next_batch = 0
        self._given: _Given | None = None
        self._stands_at(self._stand(0), 0)

    # ------------------------------------------------------------------- batches

    def _take(self, timeout: float | None, *, copy: bool | None) -> Batch:
        """The rows of the first node, then of the next; the column "node" tells."""
        self._settle()
        left = None if timeout is None else deadline_of(timeout)
        for node in self._nodes:
            self._fetch(node, left, copy=copy)
        parts = [(number, n.part) for number, n in enumerate(self._nodes) if n.part is not None]
        if not parts:
            lengths = [node.loader.length for node in self._nodes if not node.lost]
            known = [length for length in lengths if length is not None]
            self._steps = max(known) if len(known) == len(lengths) else self._steps
            raise EndOfStream("the pass has delivered all its batches")
        batches = [batch for _, batch in parts]
        columns = Together(batches, [number for number, _ in parts], self._kind)
        patients = [patient for batch in batches for patient in batch.patients]
        stands = [
            node.stand if node.part is None else node.loader._last_stand for node in self._nodes
        ]
        number, taken = self._next_batch, self._taken + 1
        stand = self._state(number + 1, stands, taken)
        self._given = _Given(stand, stands, taken)
        self._settle()
        footprints = tuple(one for batch in batches for one in batch.footprints)
        self._means.see(footprints)
        return Batch(columns, patients, number, stand, batches[0].row_columns, footprints)

    def _settle(self) -> None:
        """Note that a batch was given out; what an interrupt breaks off the next call ends."""
        with self._section.lock:
            if (given := self._given) is not None:
                for node, stand in zip(self._nodes, given.stands, strict=True):
                    node.part, node.stand = None, stand
                self._next_batch = given.stand.next_batch
                if self._stands[-1] is not given.stand:
                    self._stands_at(given.stand, given.taken)
                self._given = None

    @property
    def tables(self) -> dict[str, Any]:
        """Of each node in turn what `Loader.tables` says: ``tables["slide"][node][index]``."""
        of_nodes = [node.loader.tables for node in self._nodes]
        names = dict.fromkeys(name for tables in of_nodes for name in tables)
        return {name: [tables.get(name) for tables in of_nodes] for name in names}

    def _stand(self, taken: int) -> MergedState:
        return self._state(self._next_batch, [node.stand for node in self._nodes], taken)

    def _state(self, next_batch: int, stands: Sequence[Stand], taken: int) -> MergedState:
        together = zip(self._nodes, stands, strict=True)
        return MergedState(
            next_batch,
            self._pass,
            None if self._batches is None else taken,
            tuple((node.address, node.lost, stand) for node, stand in together),
        )

    def _fetch(self, node: _Node, left: Left | None, *, copy: bool | None) -> None:
        """Have the next rows of a node, unless they have come before another node was too slow."""
        if node.lost or node.ended or node.part is not None:
            return
        try:
            if node.loader._last_stand is not node.stand:
                log.warning("an interrupt has lost rows of node %s; it sends again", node.address)
                node.loader.load_state_dict(node.stand.to_dict())
                node.stand = node.loader._last_stand
            node.part = _next_of(node.loader, left, copy=copy)
        except EndOfStream:
            node.ended = True
        except (ServiceDied, ServiceRefused) as error:
            self._lose(node, error)

    def _lose(self, node: _Node, error: ChunkdlError) -> None:
        left = [other for other in self._nodes if other is not node and not other.lost]
        if self._on_node_lost == "raise" or not left:
            raise type(error)(f"node {node.address} is gone: {error}") from error
        node.lost = str(error)
        # Its connection keeps the error, which would keep the batches that were taken meanwhile.
        error.__traceback__ = None
        log.warning("going on without node %s: %s", node.address, node.lost)
        node.loader.close()

    @property
    def _pass(self) -> int:
        return max(node.loader.pass_number for node in self._nodes if not node.lost)

    def _next_pass(self, number: int) -> None:
        for node in self._nodes:
            if not node.lost:
                node.ended, node.part = False, None
                node.loader._begin_pass(number)
                node.stand = node.loader._last_stand
        self._next_batch = 0
        self._stands_at(self._stand(0), 0)

    def _check_caller(self, caller: Caller) -> None:
        for node in self._nodes:
            node.loader._check_caller(caller)

    # --------------------------------------------------------------------- state

    def _load_state(self, state: Mapping[str, Any]) -> None:
        """A node that was gone then and is here now takes part again.

        While a thread takes a batch, the state is loaded after that.
        """
        content = unwrapped(state, "services")
        try:
            number, states = content["next_batch"], [node["state"] for node in content["nodes"]]
        except (KeyError, TypeError) as error:
            raise not_a_state("it has no next_batch, or nodes without a state") from error
        if type(number) is not int or number < 0:
            raise not_a_state(f"next_batch={number!r}")
        if len(states) != len(self._nodes):
            raise StateError(
                f"the state is of {len(states)} services, and this loader reads "
                f"{len(self._nodes)}; connect to as many as it was saved with, in the same order"
            )
        for node, saved in zip(self._nodes, states, strict=True):
            if not node.lost:
                # Before any is moved: a wrong state moves none of them.
                node.loader._check_state(saved)
        taken = number if self._batches is None else content["epoch_batches"] or 0
        if self._is_my_turn:
            # A signal handler has interrupted `get`, which has rows of some of the nodes.
            self._section.for_later(lambda: self._move_to(number, states, taken))
            return
        with self._my_turn(None):
            self._move_to(number, states, taken)

    def _move_to(self, number: int, states: Sequence[Any], taken: int) -> None:
        for node, saved in zip(self._nodes, states, strict=True):
            if not node.lost:
                node.loader.load_state_dict(saved)
                node.ended, node.part, node.stand = False, None, node.loader._last_stand
        self._next_batch, self._given = number, None
        self._goes_on_at(self._stand(taken), taken)

    def _counters(self, timeout: float) -> Told:
        left = deadline_of(timeout)
        return Told.together([self._told_by(one, left(timeout)) for one in self._loaders()])

    def _told_by(self, loader: SharedDL, timeout: float) -> Told:
        try:
            return loader._counters(timeout)
        except (ServiceDied, ServiceRefused):
            # `get` finds out too, and goes on without it.
            if self._on_node_lost == "raise":
                raise
            return Told()

    def _ask_counters(self) -> None:
        """Each node is asked when its rows are taken."""

    def _loaders(self) -> list[SharedDL]:
        return [node.loader for node in self._nodes if not node.lost]

    # ------------------------------------------------------------------ lifetime

    def _start(self) -> None:
        for loader in self._loaders():
            loader.start()

    def _pause(self) -> None:
        for loader in self._loaders():
            loader.pause()

    def _resume(self) -> None:
        for loader in self._loaders():
            loader.resume()

    def _close(self) -> None:
        """Leave the services."""
        if self._is_for_later(self._close):
            return
        for node in self._nodes:
            node.loader.close()
        self._section.whole(self._taken_when_closed)()

    def _taken_when_closed(self) -> Callable[[], None]:
        after, self._when_closed = self._when_closed, lambda: None
        return after


def _next_of(loader: SharedDL, left: Left | None, *, copy: bool | None) -> Batch:
    """The next batch of a node, in what is left of a time that is counted in pieces."""
    if left is None:
        batch: Batch = loader.next_batch(copy=copy)
        return batch
    while True:
        piece_s = left(PIECE_S)
        try:
            batch = loader.next_batch(piece_s, copy=copy)
        except GetTimeout:
            if not piece_s:
                raise
        else:
            return batch
