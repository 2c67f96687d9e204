"""How what lies in a batch slot becomes a `Batch` of the training process."""

from __future__ import annotations

import numpy as np

from chunkdl.arrays import ArrayKind, Buffers
from chunkdl.batch_rows import leased, rows_of
from chunkdl.columns import Columns, Tables
from chunkdl.config import ServiceConfig
from chunkdl.consumer import Consumer, Received
from chunkdl.errors import ProtocolError
from chunkdl.journal import Journal
from chunkdl.label_tables import label_tables, slide_labels
from chunkdl.layouts import RECORD, Array, BatchLayout
from chunkdl.patients import Patient


class Assembly:
    """Makes batches.

    Args:
        config: of the service.
        patients: of the dataset.
        kind: of the arrays.
        images: rows of bytes are untransformed images.
        tensors_only: batches have no columns but tensors.
    """

    def __init__(
        self,
        config: ServiceConfig,
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
        rows_may_lack_slides = config.stream.rows == "hooks"
        self.tables = Tables(
            patients,
            [entry.path for entry in config.slides],
            label_tables(
                [patient.labels for patient in patients],
                slide_labels(patients, config.slides),
                [entry.patient for entry in config.slides] if rows_may_lack_slides else None,
            ),
            kind,
        )
        plain = config.stream.rows == "plain"
        self._layout = config.stream.batch_layout if plain else None
        self._pool: Buffers | None = None
        self.copies = 0
        """Batches that were copied out of shared memory."""

    def assemble(
        self, consumer: Consumer, received: Received, journal: Journal, *, copy: bool | None
    ) -> tuple[Columns | None, list[Patient], Array]:
        """Columns (None: all rows were left out), patients and records of the rows of a batch.

        Args:
            consumer: that has received it.
            received: its slot.
            journal: knows how rows lie.
            copy: see `LightDL.get`.
        """
        message = received.message
        dropped = np.frombuffer(message.dropped, dtype=np.int32)
        if len(dropped) == message.rows:
            consumer.release(message)
            return None, [], np.zeros(0, dtype=RECORD)
        layout = self._known_layout(journal)
        if copy is None:
            copy = self._kind.pins or consumer.held > self._config.run.batch_slots // 2
        slot = received.slot[: layout.slot_bytes]
        if copy and not layout.packed:
            self._pool = self._pool or self._kind.buffers(layout.slot_bytes)
            buffer = self._pool.take()
            np.copyto(buffer, slot)
            consumer.release(message)
            consumer.flush()
        else:
            buffer = leased(slot, consumer.releaser(message))
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
        return whole, patients, records

    def _known_layout(self, journal: Journal) -> BatchLayout:
        if self._layout is None:
            shape = journal.shape
            if shape is None:
                raise ProtocolError("a batch came before anybody said how its rows lie")
            self._layout = self._config.stream.layout_of(
                shape.shape, shape.dtype, packed=shape.packed
            )
        return self._layout
