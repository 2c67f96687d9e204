"""How what lies in a batch slot becomes a `Batch` of the training process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chunkdl.consumers.batches.arrays import ArrayKind, Buffers
from chunkdl.consumers.batches.batch import Stand
from chunkdl.consumers.batches.batch_rows import Hold, leased, rows_of
from chunkdl.consumers.batches.columns import Columns, Tables
from chunkdl.dataset.label_tables import label_tables, slide_labels
from chunkdl.dataset.patients import Patient
from chunkdl.engine.config import EngineConfig
from chunkdl.engine.embedded import EmbeddedEngine, Received
from chunkdl.engine.resume_state import ResumeState
from chunkdl.errors import ProtocolError, StateError
from chunkdl.sampling.cursor import Cursor
from chunkdl.transport.memory.layouts import RECORD, Array, BatchLayout


class LateStand:
    """A place in the stream that is known once the batch before it was given out."""

    def __init__(self) -> None:
        self.stand: Stand | None = None

    def to_dict(self) -> dict[str, Any]:
        """The state there."""
        if self.stand is None:
            raise StateError("the batch has not been given out yet; ask for its state after that")
        return self.stand.to_dict()


@dataclass(slots=True)
class Assembled:
    """A batch that was put together.

    Attributes:
        received: what it was made of.
        columns: None: all rows were left out.
        patients: of its rows.
        records: of its rows.
        hold: of its slot.
        lent: it lies in the slot.
        begun: the user's code has been at work on it, and may have written into its rows.
        taken: batches of the epoch or the pass behind it, once that was settled.
        cursor: where the stream stands behind it, once that was settled.
        late: the same with all that a state has, once it was given out.
    """

    received: Received
    columns: Columns | None
    patients: list[Patient]
    records: Array
    hold: Hold
    lent: bool
    begun: bool = False
    taken: int = 0
    cursor: Cursor | None = None
    late: LateStand = field(default_factory=LateStand)


class Assembly:
    """Makes batches.

    Args:
        config: of the service.
        patients: of the dataset.
        kind: of the arrays.
        images: images come in the order of axes that the library has for them.
        tensors_only: batches have no columns but tensors.
    """

    def __init__(
        self,
        config: EngineConfig,
        patients: list[Patient],
        kind: ArrayKind,
        *,
        images: bool,
        tensors_only: bool,
    ) -> None:
        self._config = config
        self._patients = patients
        self._images = images
        self._kind = kind
        self._tensors_only = tensors_only
        rows_may_lack_slides = config.stream.rows.by_hooks
        self.tables = Tables(
            patients,
            [entry.path for entry in config.slides],
            label_tables(
                [patient.labels for patient in patients],
                slide_labels(patients, config.slides),
                [entry.patient for entry in config.slides] if rows_may_lack_slides else None,
            ),
            kind,
            () if config.stream.annotations is None else config.stream.annotations.names,
        )
        self._layout: BatchLayout | None = None
        self._pool: Buffers | None = None
        self.copies = 0
        """Batches that were copied out of shared memory."""

    def assemble(
        self,
        consumer: EmbeddedEngine,
        received: Received,
        journal: ResumeState,
        *,
        copy: bool | None,
    ) -> Assembled:
        """What a received batch is; it has not been given out, and may be assembled again.

        Args:
            consumer: that has received it.
            received: its slot.
            journal: knows how rows lie.
            copy: see `LightDL.get`.
        """
        message = received.message
        hold = Hold(consumer.releaser(message))
        dropped = np.frombuffer(message.dropped, dtype=np.int32)
        if len(dropped) == message.rows:
            return Assembled(received, None, [], np.zeros(0, dtype=RECORD), hold, lent=False)
        layout = self._known_layout(journal)
        if copy is None:
            copy = self._kind.pins or consumer.held + 1 > self._config.run.batch_slots // 2
        slot = received.slot[: layout.slot_bytes]
        lent = not copy or layout.format.packed
        if lent:
            buffer = leased(slot, hold)
        else:
            self._pool = self._pool or self._kind.buffers(layout.slot_bytes)
            buffer = self._pool.take()
            np.copyto(buffer, slot)
        columns, records = rows_of(
            buffer,
            layout,
            message.rows,
            dropped,
            self._patients,
            self._kind,
            images=self._images,
            copy=copy,
        )
        self.copies += copy
        patients = [self._patients[index] for index in records["patient"].tolist()]
        whole = Columns(columns, records, self.tables, tensors_only=self._tensors_only)
        return Assembled(received, whole, patients, records, hold, lent=lent)

    def _known_layout(self, journal: ResumeState) -> BatchLayout:
        if self._layout is None:
            row_format = self._config.stream.row_format or journal.row_format
            if row_format is None:
                raise ProtocolError("a batch came before anybody said what columns its rows have")
            self.tables.check_apart(row_format)
            self._layout = self._config.stream.layout_of(row_format)
        return self._layout
