"""Several services as one stream: each owns slides of its own, every batch has rows of all.

A node gives as many rows of a batch as it has patients, in proportion, so what is mixed is a
function of the nodes alone, and every batch holds patients of all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from chunkdl.chunks import Batch, SmallChunks
from chunkdl.errors import (
    ChunkdlError,
    ConfigError,
    EndOfStream,
    ServiceDied,
    ServiceRefused,
    StateError,
)
from chunkdl.shared import SharedDL
from chunkdl.statistics import LoaderStatistics
from chunkdl.steady_log import steady_logger
from chunkdl.tensors import DatasetView, concatenated, numbered

STATE_VERSION = 1
OnNodeLost = Literal["raise", "continue"]
Answer = TypeVar("Answer")

log = steady_logger("chunkdl")


def portions(patients: Sequence[int], rows: int) -> tuple[int, ...]:
    """How many of so many rows each node gives: in proportion to its patients, at least one.

    What is left after rounding down goes to the largest remainders, the first of equals.

    Raises:
        ConfigError: there are fewer rows than nodes.
    """
    if rows < len(patients):
        raise ConfigError(
            f"batch_size={rows} is too small for {len(patients)} nodes; each gives at least a row"
        )
    free, total = rows - len(patients), sum(patients)
    shares = [free * count / total for count in patients]
    given = [1 + int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda n: int(shares[n]) - shares[n])
    for node in by_remainder[: rows - sum(given)]:
        given[node] += 1
    return tuple(given)


class _Node:
    """One of the services.

    Attributes:
        address: where it is.
        loader: that reads from it.
        ended: its pass is over.
        lost: why it is gone, if it is.
        part: its rows of the next batch, where they are here.
        state: of its loader after the last batch that was returned.
    """

    def __init__(self, address: str, loader: SharedDL) -> None:
        self.address = address
        self.loader = loader
        self.ended = False
        self.lost = ""
        self.part: Batch | None = None
        self.state = loader.state_dict()

    def take(self) -> None:
        """Its rows are returned."""
        if self.part is not None:
            self.part, self.state = None, self.loader.state_dict()


class MergedDL:
    """Streams batches whose rows come from several services; made by `chunkdl.connect`.

    Args:
        loaders: of each address, in their order.
        on_node_lost: "raise", or "continue" with the others: batches have fewer rows from then on,
            and the state says so.
    """

    def __init__(self, loaders: Mapping[str, SharedDL], on_node_lost: OnNodeLost) -> None:
        self._nodes = [_Node(address, loader) for address, loader in loaders.items()]
        self._on_node_lost = on_node_lost
        self._lock = threading.RLock()
        self._number = 0

    # ------------------------------------------------------------------- batches

    def get(self, timeout: float | None = None, *, copy: bool | None = None) -> Any:
        """The next batch in PyDmed's shape; see `SharedDL.get`."""
        batch = self.next_batch(timeout, copy=copy)
        return batch["image"], batch.patients, SmallChunks(batch)

    def next_batch(self, timeout: float | None = None, *, copy: bool | None = None) -> Batch:
        """The next batch: the rows of the first node, then of the next; its column "node" tells.

        Args:
            timeout: longest wait for each node, seconds. After a `GetTimeout` what the others have
                given already is still to come.
            copy: see `SharedDL.get`; the rows of several nodes are copied together in any case.

        Raises:
            EndOfStream: the pass has delivered everything.
            ServiceDied, ServiceRefused: a node is gone, and it was not asked to go on without it.
        """
        with self._lock:
            for node in self._nodes:
                self._fetch(node, timeout, copy=copy)
            parts = [(number, n.part) for number, n in enumerate(self._nodes) if n.part is not None]
            if not parts:
                raise EndOfStream("the pass has delivered all its batches")
            for node in self._nodes:
                node.take()
            self._number += 1
            whole = _Together([batch for _, batch in parts], [number for number, _ in parts])
            return Batch(whole, [p for _, batch in parts for p in batch.patients], self._number - 1)

    def _fetch(self, node: _Node, timeout: float | None, *, copy: bool | None) -> None:
        """Have the next rows of a node, unless they have come before another node was too slow."""
        if node.lost or node.ended or node.part is not None:
            return
        try:
            node.part = node.loader.next_batch(timeout, copy=copy)
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

    def __iter__(self) -> Iterator[Batch]:
        """Iterate; after the end of a finite stream, its next pass."""
        with self._lock:
            if all(node.ended or node.lost for node in self._nodes):
                for node in self._nodes:
                    if not node.lost:
                        node.ended = False
                        iter(node.loader)
        return self

    def __next__(self) -> Batch:
        return self.next_batch()

    def dataset_view(self) -> DatasetView:
        """This loader as a torch dataset: ``DataLoader(view, batch_size=None)``, and Lightning."""
        return DatasetView(self)

    # --------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands on every node, and which are gone."""
        with self._lock:
            nodes = [
                {
                    "address": node.address,
                    "lost": node.lost,
                    "state": node.state,
                }
                for node in self._nodes
            ]
            return {"version": STATE_VERSION, "number": self._number, "nodes": nodes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly after the batch that `state` was saved behind.

        A node that was gone then and is here now takes part again.

        Raises:
            StateError: it is no state, or of other nodes.
        """
        try:
            version, number, nodes = state["version"], state["number"], list(state["nodes"])
            states = [node["state"] for node in nodes]
        except (KeyError, TypeError) as error:
            raise StateError(f"this is no state of several nodes: {error}") from error
        if version != STATE_VERSION or len(states) != len(self._nodes):
            raise StateError(
                f"the state is of {len(states)} nodes in version {version}; here are "
                f"{len(self._nodes)}, and this chunkdl reads version {STATE_VERSION}"
            )
        with self._lock:
            for node, saved in zip(self._nodes, states, strict=True):
                if not node.lost:
                    node.loader.load_state_dict(saved)
                    node.ended, node.part, node.state = False, None, saved
            self._number = number

    def stats(self) -> LoaderStatistics:
        """What the nodes have done, together."""
        return LoaderStatistics.together(self._of_each(SharedDL.stats))

    def _of_each(self, ask: Callable[[SharedDL], Answer]) -> list[Answer]:
        with self._lock:
            return [ask(node.loader) for node in self._nodes if not node.lost]

    # ------------------------------------------------------------------ lifetime

    def pause(self) -> None:
        """Have the services send nothing more until `resume`."""
        self._of_each(SharedDL.pause)

    def resume(self) -> None:
        """Have the services send batches again."""
        self._of_each(SharedDL.resume)

    def drain(self) -> None:
        """Have the services end the sessions once everything that was sent is given back."""
        self._of_each(SharedDL.drain)

    def close(self) -> None:
        """Leave the services; closing twice is no error."""
        with self._lock:
            for node in self._nodes:
                node.loader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Together(Mapping[str, Any]):
    """The columns of several batches, one behind the other; made when they are asked for."""

    def __init__(self, batches: Sequence[Batch], nodes: Sequence[int]) -> None:
        self._batches = batches
        self._nodes = nodes
        self._made: dict[str, Any] = {}
        self._names = [
            *(name for name in batches[0] if all(name in other for other in batches)),
            "node",
        ]

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if name not in self._names:
                raise KeyError(name)
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Any:
        if name == "node":
            return numbered(self._nodes, [len(batch.patients) for batch in self._batches])
        return concatenated([batch[name] for batch in self._batches])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
