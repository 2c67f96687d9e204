"""How what a service has sent becomes a `Batch` of the training process."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from chunkdl.consumers.batches.arrays import ArrayKind, Buffers
from chunkdl.consumers.batches.batch_rows import Hold, leased, rows_of
from chunkdl.consumers.batches.columns import Columns, Tables
from chunkdl.consumers.batches.diversity import Footprints
from chunkdl.dataset.label_tables import label_tables
from chunkdl.dataset.labels import Label
from chunkdl.dataset.patients import Patient
from chunkdl.errors import ProtocolError
from chunkdl.service.client.arrivals import Arrived
from chunkdl.service.client.connection import Connection
from chunkdl.transport.memory.layouts import Array, BatchLayout, Bytes
from chunkdl.transport.protocol.service_messages import Piece

_NONE = np.empty(0, dtype=np.int32)


class SharedAssembly:
    """Makes batches.

    Args:
        kind: of the arrays.
        tensors_only: batches have no columns but tensors.
    """

    def __init__(self, kind: ArrayKind, *, tensors_only: bool) -> None:
        self._kind = kind
        self._tensors_only = tensors_only
        self._pool: Buffers | None = None
        self._patients: list[Patient] = []
        self.tables = Tables([], [], {}, kind)

    def learn(self, connection: Connection) -> None:
        """Ask for the patients and slides of the dataset."""
        joined = connection.joined
        patients: list[Patient] = []
        paths: list[str] = []
        of_slides: list[dict[str, Label]] = []
        while len(patients) < joined.patients or len(paths) < joined.slides:
            page = connection.catalogue(len(patients), len(paths))
            if not page.patients and not page.slides:
                raise ProtocolError("the service has fewer patients or slides than it said")
            patients += [
                Patient(number, _with_lists(labels), name=os.fsdecode(name))
                for number, name, labels in page.patients
            ]
            paths += [os.fsdecode(path) for path, _ in page.slides]
            of_slides += [labels for _, labels in page.slides]
        self._patients = patients
        tables = label_tables([patient.labels for patient in patients], of_slides)
        self.tables = Tables(patients, paths, tables, self._kind, joined.regions)

    def allocate(self, size: int) -> Bytes:
        """Memory for a batch that comes from another machine."""
        if self._pool is None:
            self._pool = self._kind.buffers(size)
        return self._pool.take()

    def assemble(
        self, connection: Connection, arrived: Arrived, hold: Hold, *, copy: bool | None
    ) -> tuple[Columns, list[Patient], Footprints, bool]:
        """Columns, patients and footprints of a batch, without rows that could not be made; and
        whether it lies in the memory that is held. It may be assembled again until it was given
        out.
        """
        joined, layout = connection.joined, connection.layout
        if layout is None:
            raise ProtocolError("a batch came before anybody said what columns its rows have")
        self.tables.check_apart(layout.format)
        message = arrived.message
        rows = sum(piece.rows for piece in message.pieces)
        first, dropped = 0, _dropped(message.pieces)
        lent = joined.local and not self._must_copy(connection, arrived, copy=copy)
        if lent:
            lies, first = layout, message.pieces[0].first
            buffer = leased(arrived.memory[0][: layout.slot_bytes], hold)
        else:
            lies = BatchLayout(joined.batch_rows, layout.format)
            buffer = arrived.memory[0]
            if joined.local:
                buffer = self.allocate(lies.slot_bytes)
                _gather(arrived, layout, lies, buffer)
        columns, records = rows_of(
            buffer,
            lies,
            rows,
            dropped,
            self._patients,
            self._kind,
            images=True,
            copy=False,
            first=first,
        )
        self._check(records)
        patients = [self._patients[index] for index in records["patient"].tolist()]
        whole = Columns(columns, records, self.tables, tensors_only=self._tensors_only)
        return whole, patients, Footprints.of(records, joined.footprint_px), lent

    def _check(self, records: Array) -> None:
        """See that rows are of patients and slides that there are."""
        for name, known in (("patient", self._patients), ("slide", self.tables.paths)):
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
        half = connection.joined.credit_batches // 2
        return shared or self._kind.pins or connection.held + 1 > half


def _with_lists(labels: Mapping[str, Label]) -> dict[str, object]:
    return {n: list(value) if isinstance(value, tuple) else value for n, value in labels.items()}


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
    first = 0
    for piece, slot in zip(arrived.message.pieces, arrived.memory, strict=True):
        into = own.parts(buffer, first, piece.rows)
        for part, source in zip(into, layout.parts(slot, piece.first, piece.rows), strict=True):
            np.copyto(part, source)
        first += piece.rows
