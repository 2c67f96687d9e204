"""How what lies in a batch slot becomes a `Batch` of the training process."""

from __future__ import annotations

import numpy as np

from chunkdl.buffers import BufferPool
from chunkdl.chunks import Batch
from chunkdl.columns import Columns, label_tables
from chunkdl.config import ServiceConfig
from chunkdl.consumer import Consumer, Received
from chunkdl.errors import ProtocolError
from chunkdl.journal import Journal
from chunkdl.layouts import RECORD, Array, BatchLayout
from chunkdl.patients import Patient
from chunkdl.pinned import PinnedMemory
from chunkdl.tensors import leased, rows_of


class Assembly:
    """Makes batches.

    Args:
        config: of the service.
        patients: of the dataset.
        images: rows of bytes are untransformed images.
        pin: copy into page-locked memory.
    """

    def __init__(
        self, config: ServiceConfig, patients: list[Patient], *, images: bool, pin: bool
    ) -> None:
        self._config = config
        self._patients = patients
        self._images = images
        self._pin = pin
        self._paths = [entry.path for entry in config.slides]
        self._labels = label_tables(patients)
        plain = config.stream.rows == "plain"
        self._layout = config.stream.batch_layout if plain else None
        self._pool: BufferPool | PinnedMemory | None = None
        self.copies = 0
        """Batches that were copied out of shared memory."""

    def assemble(
        self, consumer: Consumer, received: Received, journal: Journal, *, copy: bool | None
    ) -> tuple[Batch | None, Array]:
        """The batch, None where all its rows were left out; and the records of its rows.

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
            return None, np.zeros(0, dtype=RECORD)
        layout = self._known_layout(journal)
        if copy is None:
            copy = self._pin or consumer.held > self._config.run.batch_slots // 2
        slot = received.slot[: layout.slot_bytes]
        if copy and not layout.packed:
            if self._pool is None:
                self._pool = (PinnedMemory if self._pin else BufferPool)(layout.slot_bytes)
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
            images=self._images,
            copy=copy,
        )
        self.copies += copy
        patients = [self._patients[index] for index in records["patient"].tolist()]
        whole = Columns(columns, records, patients, self._paths, self._labels)
        return Batch(whole, patients, message.batch), records

    def _known_layout(self, journal: Journal) -> BatchLayout:
        if self._layout is None:
            shape = journal.shape
            if shape is None:
                raise ProtocolError("a batch came before anybody said how its rows lie")
            self._layout = self._config.stream.layout_of(
                shape.shape, shape.dtype, packed=shape.packed
            )
        return self._layout
