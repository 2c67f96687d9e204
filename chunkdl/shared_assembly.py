"""How what a service has sent becomes a `Batch` of the training process."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from chunkdl.arrivals import Arrived
from chunkdl.buffers import BufferPool
from chunkdl.chunks import Batch
from chunkdl.columns import Columns, Table, label_tables
from chunkdl.connection import Connection
from chunkdl.errors import ProtocolError
from chunkdl.layouts import Array, BatchLayout, Bytes
from chunkdl.patients import Patient
from chunkdl.pinned import PinnedMemory
from chunkdl.protocol.service_messages import Piece
from chunkdl.tensors import leased, rows_of

_NONE = np.empty(0, dtype=np.int32)


class SharedAssembly:
    """Makes batches.

    Args:
        pin: into page-locked memory.
    """

    def __init__(self, *, pin: bool) -> None:
        self._pin = pin
        self._pool: BufferPool | PinnedMemory | None = None
        self._patients: list[Patient] = []
        self._paths: list[str] = []
        self._labels: dict[str, Table] = {}

    def learn(self, connection: Connection) -> None:
        """Ask for the patients and slides of the dataset."""
        joined = connection.joined
        patients: list[Patient] = []
        while len(patients) < joined.patients or len(self._paths) < joined.slides:
            page = connection.catalogue(len(patients), len(self._paths))
            if not page.patients and not page.slides:
                raise ProtocolError("the service has fewer patients or slides than it said")
            patients += [
                Patient(number, dict(labels), name=os.fsdecode(name))
                for number, name, labels in page.patients
            ]
            self._paths += map(os.fsdecode, page.slides)
        self._patients = patients
        self._labels = label_tables(patients)

    def allocate(self, size: int) -> Bytes:
        """Memory for a batch that comes from another machine."""
        if self._pool is None:
            self._pool = (PinnedMemory if self._pin else BufferPool)(size)
        return self._pool.take()

    def assemble(self, connection: Connection, arrived: Arrived, *, copy: bool | None) -> Batch:
        """The batch, without rows that could not be made."""
        joined, layout = connection.joined, connection.layout
        if layout is None:
            raise ProtocolError("a batch came before anybody said how its rows lie")
        message, release = arrived.message, connection.releaser(arrived)
        rows = sum(piece.rows for piece in message.pieces)
        first, dropped = 0, _dropped(message.pieces)
        if joined.local and not self._must_copy(connection, arrived, copy=copy):
            lies, first = layout, message.pieces[0].first
            buffer = leased(arrived.memory[0][: layout.slot_bytes], release)
        else:
            lies = BatchLayout(joined.batch_rows, layout.shape, layout.dtype)
            buffer = arrived.memory[0]
            if joined.local:
                buffer = self.allocate(lies.slot_bytes)
                _gather(arrived, layout, lies, buffer)
            release()
        columns, records = rows_of(
            buffer,
            lies,
            rows,
            dropped,
            self._patients,
            images=joined.plain,
            copy=False,
            first=first,
        )
        self._check(records)
        patients = [self._patients[index] for index in records["patient"].tolist()]
        whole = Columns(columns, records, patients, self._paths, self._labels)
        return Batch(whole, patients, message.step)

    def _check(self, records: Array) -> None:
        """See that rows are of patients and slides that there are."""
        for name, known in (("patient", self._patients), ("slide", self._paths)):
            # Of a negative number this makes a large one.
            column = records[name].astype(np.uint32)
            if len(column) and column.max() >= len(known):
                raise ProtocolError(f"a batch has rows of a {name} that is not in the dataset")

    def _must_copy(self, connection: Connection, arrived: Arrived, *, copy: bool | None) -> bool:
        if len(arrived.message.pieces) > 1:
            return True
        if copy is not None:
            return copy
        shared = connection.joined.mode == "broadcast"
        return shared or self._pin or connection.held > connection.joined.credit_batches // 2


def _dropped(pieces: tuple[Piece, ...]) -> npt.NDArray[np.int32]:
    """Rows of a batch that hold nothing, counted from its first."""
    if not any(piece.dropped for piece in pieces):
        return _NONE
    found, first = [], 0
    for piece in pieces:
        found.append(np.frombuffer(piece.dropped, dtype=np.int32) + np.int32(first))
        first += piece.rows
    return np.concatenate(found)


def _gather(arrived: Arrived, layout: BatchLayout, own: BatchLayout, buffer: Bytes) -> None:
    """Copy the pieces of a batch into one buffer."""
    into, first = own.view(buffer), 0
    for piece, slot in zip(arrived.message.pieces, arrived.memory, strict=True):
        view = layout.view(slot)
        part, rows = slice(piece.first, piece.first + piece.rows), slice(first, first + piece.rows)
        np.copyto(into.records[rows], view.records[part])
        np.copyto(into.data[rows], view.data[part])
        first += piece.rows
