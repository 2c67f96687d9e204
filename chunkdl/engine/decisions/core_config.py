"""What the coordinator's core is told once."""

from __future__ import annotations

from dataclasses import dataclass

from chunkdl.engine.config import OnError, Order, StreamConfig
from chunkdl.sampling.strata import Group
from chunkdl.transport.row_format import RowFormat


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """The fixed facts of a service.

    Attributes:
        stream: the plan's configuration.
        slides_of_patient: slide indices of each patient; none where its slides were left out.
        slides: names of the slides, for messages.
        groups: what has weights, where slides or classes have them over the stream; else empty.
        bigchunk_slots, batch_slots: slots of the two arenas.
        loaders, collectors: workers; loaders have the numbers from 0, collectors follow, then the
            scheduler, where there is one.
        has_scheduler: the user's own policy chooses the patients.
        patients: names of the patients, for messages.
        order: of delivery.
        on_error: what an unreadable region does.
        on_hook_error: what an exception in the user's code does.
        plan_hash, token: what a consumer must show.
        max_restarts: workers that may end between two batches before the stream fails.
        withheld_slots: of the batches that are out from the beginning, the first ones.
        row_format: the columns of the rows that the user's code makes, as an engine before this one
            has settled them; None: nobody has.
    """

    stream: StreamConfig
    slides_of_patient: tuple[tuple[int, ...], ...]
    slides: tuple[str, ...]
    bigchunk_slots: int
    batch_slots: int
    loaders: int
    collectors: int
    order: Order
    on_error: OnError
    plan_hash: str
    token: bytes
    on_hook_error: OnError = "raise"
    has_scheduler: bool = False
    patients: tuple[str, ...] = ()
    max_restarts: int = 20
    withheld_slots: int = 0
    row_format: RowFormat | None = None
    groups: tuple[Group, ...] = ()

    @property
    def scheduler(self) -> int:
        """Number of the scheduler."""
        return self.loaders + self.collectors

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return self.loaders + self.collectors + self.has_scheduler

    @property
    def has_places(self) -> bool:
        """A policy chooses the patients, one after the other."""
        return self.has_scheduler or self.stream.policy is not None
