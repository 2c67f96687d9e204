"""How rows are made one at a time: by the user's collector class, by the user's transform, or both.

Rows of one BigChunk come in the order of their calls, and all to one collector. After the death of
a collector its successor begins at the start of the BigChunk and makes again, without delivering
it, what was delivered before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from chunkdl.dataset.patients import Patient
from chunkdl.engine.config import EngineConfig
from chunkdl.engine.work.collector_tools import CollectorTools
from chunkdl.engine.work.crop_rows import told_of
from chunkdl.engine.work.extracted import Extracted
from chunkdl.engine.work.row_writer import RowWriter
from chunkdl.errors import ChunkdlError, Failure, HookError, PackingError
from chunkdl.patches.chunks import SmallChunk
from chunkdl.patches.hooks import EXHAUSTED
from chunkdl.patches.patient_copies import PatientCopies, PatientsOfLoad
from chunkdl.patches.seeded_code import SeededCode, seed_globals
from chunkdl.patches.tissue_hooks import TissueSmallChunkCollector
from chunkdl.patches.transforms import Transform
from chunkdl.patches.user_code import UserCode, hook_errors
from chunkdl.sampling.seeding import Purpose
from chunkdl.transport.flight_recorder import EXTRACT_SMALLCHUNK, TRANSFORM, Recorder
from chunkdl.transport.memory.arena import Arena
from chunkdl.transport.memory.layouts import RECORD, Array
from chunkdl.transport.memory.notes import value_of
from chunkdl.transport.memory.packing import unpack
from chunkdl.transport.protocol.engine_messages import (
    CheckpointSet,
    FillRows,
    Message,
    RowGroup,
    RowsEnded,
    StatusSet,
)

MOST_NONES = 500
"""Times in a row that `extract_smallchunk` may return None."""
NONES_WITHOUT_PAUSE = 50
"""A hook that looks for good places is left to try; one that waits must not spin."""
LONGEST_PAUSE_S = 0.02


class RowMaker(Protocol):
    """Makes the rows of a batch that one BigChunk serves."""

    def fill(self, ticket: FillRows, group: RowGroup) -> RowsEnded | None:
        """Write the rows; what ended the BigChunk before the last of them, if anything did."""


class TransformedRows:
    """Crops of the built-in classes, through the user's transform.

    Args:
        config: of the service.
        user: the user's part of the stream.
        bigchunks: arena of the BigChunks.
        writer: of the rows.
        recorder: told before each call of the user's code.
        warn: takes warnings for the log of the training process.
    """

    def __init__(
        self,
        config: EngineConfig,
        user: UserCode,
        bigchunks: Arena,
        writer: RowWriter,
        recorder: Recorder,
        warn: Callable[[str], None],
    ) -> None:
        self._config = config
        self._user = user
        self._arena = bigchunks
        self._writer = writer
        self._recorder = recorder
        if user.transform is None:
            raise TypeError("rows are to be transformed, and there is no transform")
        self._transform = Transform(user.transform, config.stream.seed, warn)
        self._ended: dict[int, tuple[int, int]] = {}

    def fill(self, ticket: FillRows, group: RowGroup) -> RowsEnded | None:
        """Write the rows of the group."""
        stream = self._config.stream
        if self._ended.get(group.slot) == (group.ordinal, group.attempt):
            # It was reported; its slot may be another's by now.
            return ended(ticket, group, 0, None)
        view = stream.bigchunk_layout.view(self._arena.slot(group.slot))
        strips = view.strips()
        for done, (row, call) in enumerate(rows_and_calls(group)):
            record = view.records[call]
            patient = int(record["patient"])
            # A copy: a transform may write into it, and the BigChunk serves others.
            crop = np.empty((stream.smallchunk_px, stream.smallchunk_px, 3), dtype=np.uint8)
            strips.crop_into(crop, int(record["left"]), int(record["top"]))
            name, key = self._config.patients[patient], (group.ordinal, group.attempt, call)
            enter = partial(self._recorder.enter, TRANSFORM, patient, group.ordinal)
            seed_globals(stream.seed, Purpose.SMALLCHUNK, *key)
            try:
                data = self._transform.apply(crop, *key, name, enter)
                more = told_of(view, call, stream.smallchunk_px)
                self._writer.write(ticket.slot, row, record, data, more=more)
            except (HookError, PackingError) as error:
                self._ended[group.slot] = group.ordinal, group.attempt
                return ended(ticket, group, done, error, self._transform.name, name)
            finally:
                self._recorder.leave()
        return None


@dataclass(slots=True)
class _Open:
    """A BigChunk that this collector serves."""

    ordinal: int
    attempt: int
    patient: int
    own: Patient
    bigchunk: Any
    message: Any
    hook: Any
    code: SeededCode
    tools: CollectorTools
    delivered: int


class HookRows:
    """SmallChunks of the user's collector class, through the user's transform where there is one.

    Args:
        config: of the service.
        user: the user's part of the stream.
        bigchunks: arena of the BigChunks.
        writer: of the rows.
        recorder: told before each call of the user's code.
        send: to the coordinator.
        log: takes lines for the log of the training process.
        warn: takes warnings for it.
    """

    def __init__(
        self,
        config: EngineConfig,
        user: UserCode,
        bigchunks: Arena,
        writer: RowWriter,
        recorder: Recorder,
        send: Callable[[Message], None],
        log: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._config = config
        self._user = user
        self._arena = bigchunks
        self._writer = writer
        self._recorder = recorder
        self._send = send
        self._log = log
        self._transform = (
            None if user.transform is None else Transform(user.transform, config.stream.seed, warn)
        )
        self._kind = user.smallchunkcollector or TissueSmallChunkCollector
        self._code = SeededCode.of_class(config.stream.seed, self._kind, user.settings, warn)
        self._hook = f"{self._kind.__name__}.extract_smallchunk"
        self._copies = PatientCopies(user.patients, all_arrays=self._kind.copies_all_arrays)
        self._slides = {entry.path: index for index, entry in enumerate(config.slides)}
        self._open: dict[int, _Open] = {}
        self._ended: dict[int, tuple[int, int]] = {}

    def fill(self, ticket: FillRows, group: RowGroup) -> RowsEnded | None:
        """Write the rows of the group."""
        key, done, patient = (group.ordinal, group.attempt), 0, ""
        if self._ended.get(group.slot) == key:
            # It was reported; its slot may be another's by now.
            return ended(ticket, group, 0, None)
        try:
            serving = self._open.get(group.slot)
            if serving is None or (serving.ordinal, serving.attempt) != key:
                serving = self._begin(group)
            patient = self._config.patients[serving.patient]
            for row, call in rows_and_calls(group):
                smallchunk = self._up_to(serving, call)
                if smallchunk is None:
                    self._ended[group.slot] = key
                    return ended(ticket, group, done, None)
                self._write(ticket.slot, row, call, serving, smallchunk)
                done += 1
        except ChunkdlError as error:
            self._ended[group.slot] = key
            return ended(ticket, group, done, error, self._hook, patient)
        finally:
            self._recorder.leave()
        return None

    def _begin(self, group: RowGroup) -> _Open:
        self._open.pop(group.slot, None)
        patients = PatientsOfLoad(self._copies)
        extracted: Extracted = unpack(self._arena.slot(group.slot), shared=patients)
        patient = patients[extracted.patient]
        message = value_of(extracted.message)

        def checkpoint(note: bytes) -> None:
            self._send(CheckpointSet(group.ordinal, group.attempt, note))

        def status(note: bytes) -> None:
            self._send(StatusSet(group.ordinal, group.attempt, note))

        tools = CollectorTools(
            self._config.stream,
            group.ordinal,
            group.attempt,
            group.first,
            extracted.records,
            extracted.by_place,
            partial(self._copies.changes, extracted.patient),
            checkpoint,
            status,
            self._log,
        )
        self._recorder.enter(EXTRACT_SMALLCHUNK, extracted.patient, group.ordinal)
        name = Purpose.SMALLCHUNK, group.ordinal, group.attempt, group.first
        seed_globals(self._config.stream.seed, *name)
        self._code.seed_own(*name)
        with hook_errors(
            f"{self._kind.__name__}.__init__", self._config.patients[extracted.patient]
        ):
            hook: Any = object.__new__(self._kind)
            # Before __init__, so that the helpers work there too.
            hook._tools = tools
            hook.__init__(
                patient=patient,
                queue_smallchunks=None,
                const_global_info=self._user.settings,
                type_bigchunkloader=self._user.bigchunkloader,
                queue_logs=None,
                old_checkpoint=value_of(extracted.checkpoint),
                queue_checkpoint=None,
                last_message_from_root=message,
            )
        serving = _Open(
            group.ordinal,
            group.attempt,
            extracted.patient,
            patient,
            extracted.bigchunk,
            message,
            hook,
            self._code.of_object(hook),
            tools,
            delivered=group.first,
        )
        self._open[group.slot] = serving
        return serving

    def _up_to(self, serving: _Open, call: int) -> SmallChunk | None:
        """The SmallChunk that the plan calls `call`, made after all before it; None: exhausted."""
        while True:
            smallchunk = self._next(serving)
            if smallchunk is None:
                return None
            serving.delivered += 1
            if serving.delivered > call:
                return smallchunk

    def _next(self, serving: _Open) -> SmallChunk | None:
        tools, patient = serving.tools, self._config.patients[serving.patient]
        may_end = self._kind.nones_mean_no_more and _has_given(serving)
        for nones in range(MOST_NONES):
            if nones > NONES_WITHOUT_PAUSE and not may_end:
                time.sleep(min(LONGEST_PAUSE_S, 0.001 * (nones - NONES_WITHOUT_PAUSE)))
            self._recorder.enter(EXTRACT_SMALLCHUNK, serving.patient, serving.ordinal)
            made = tools.first + tools.call
            name = Purpose.SMALLCHUNK, serving.ordinal, serving.attempt, made
            seed_globals(self._config.stream.seed, *name)
            for code in (self._code, serving.code):
                code.seed_own(*name)
            with hook_errors(self._hook, patient):
                result = serving.hook._asked_by_engine(
                    tools.call, serving.bigchunk, serving.message
                )
                if isinstance(result, SmallChunk):
                    tools.check_place()
            tools.call += 1
            if result is EXHAUSTED:
                return None
            if isinstance(result, SmallChunk):
                return result
            if result is not None:
                raise HookError(
                    f"it returned a {type(result).__name__}; return a SmallChunk, None or "
                    "EXHAUSTED",
                    hook=self._hook,
                    patient=patient,
                    kind="TypeError",
                )
        if may_end:
            return None
        raise HookError(
            f"it returned None {MOST_NONES} times in a row; return EXHAUSTED where a BigChunk "
            "gives no more SmallChunks",
            hook=self._hook,
            patient=patient,
            kind="ValueError",
        )

    def _write(
        self, slot: int, row: int, call: int, serving: _Open, smallchunk: SmallChunk
    ) -> None:
        small, big = smallchunk.dict_info_of_smallchunk, smallchunk.dict_info_of_bigchunk
        data = smallchunk.data
        if self._transform is not None:
            patient = self._config.patients[serving.patient]
            if isinstance(data, np.ndarray) and not data.flags.owndata:
                # A transform may write into it, and the BigChunk serves others.
                data = data.copy()
            made = serving.tools.first + serving.tools.call - 1
            key = serving.ordinal, serving.attempt, made
            enter = partial(self._recorder.enter, TRANSFORM, serving.patient, serving.ordinal)
            data = self._transform.apply(data, *key, patient, enter)
        record = _record_of(small, big, self._slides)
        record["bigchunk"], record["patient"] = serving.ordinal, serving.patient
        record["call"] = call
        of_load = None
        if self._config.stream.objects and self._copies.is_unchanged(serving.patient, serving.own):
            of_load = serving.own, serving.patient
        self._writer.write(slot, row, record, data, (small, big), of_load)


def _has_given(serving: _Open) -> bool:
    """Whether the patient is known to have given something: now, or in a load that said so."""
    given = serving.delivered > serving.tools.first
    return given or serving.hook.get_checkpoint() is not None


def rows_and_calls(group: RowGroup) -> zip[tuple[int, int]]:
    """Row of the batch and call of the BigChunk, in the order of the calls."""
    rows = np.frombuffer(group.rows, dtype=np.int32).tolist()
    return zip(rows, np.frombuffer(group.calls, dtype=np.int32).tolist(), strict=True)


def ended(
    ticket: FillRows,
    group: RowGroup,
    done: int,
    error: ChunkdlError | None,
    hook: str = "",
    patient: str = "",
) -> RowsEnded:
    """The report that a BigChunk gave only the first `done` rows of its group."""
    if isinstance(error, PackingError):
        cause = error
        error = HookError(str(error), hook=hook, patient=patient, kind=type(error).__name__)
        error.__cause__ = cause
    failure = None if error is None else Failure.of(error)
    return RowsEnded(ticket.batch, ticket.generation, group.ordinal, group.attempt, done, failure)


_BLANK: npt.NDArray[Any] = np.zeros((), dtype=RECORD)
_BLANK["x"] = _BLANK["y"] = _BLANK["level"] = _BLANK["slide"] = -1
_BLANK["mpp"] = _BLANK["tissue_fraction"] = np.nan


def _record_of(small: Any, big: Any, slides: dict[str, int]) -> Array:
    """What the info dicts of a SmallChunk say about the columns of a batch; the rest is blank."""
    record = _BLANK.copy()
    if isinstance(small, dict):
        for name in ("x", "y", "level", "mpp", "tissue_fraction"):
            value = small.get(name)
            if isinstance(value, int | float | np.integer | np.floating):
                # What is not a number of that column, such as x=NaN, is as good as not said.
                with contextlib.suppress(ValueError, OverflowError):
                    record[name] = value
    if isinstance(big, dict) and isinstance(big.get("slide"), str):
        record["slide"] = slides.get(big["slide"], -1)
    return record
