"""Text per patient, appended to CSV files: what a trained model says about each SmallChunk."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from chunkdl.dataset.patients import Patient, StrPath
from chunkdl.errors import ChunkdlError, Closed, ConfigError, DatasetError
from chunkdl.pydmed import star

__all__ = ["StreamWriter", *star.OUTPUT]

__getattr__ = star.importer(__name__, star.OUTPUT)

_MOST_PENDING_BYTES = 2**20
"""More than this is written at once, however recent the last time was."""


class StreamWriter:
    """Appends text to one file, or to one file per patient in an empty folder.

    Text is gathered in memory and appended by the calls of `write` and `flush_and_close`, which
    therefore raise what goes wrong; no file stays open in between. What was not written when the
    writer is forgotten, or when the program ends, is written then. Any thread may write.

    Args:
        list_patients: whose files to make; needed with `rootpath` only.
        rootpath: an empty folder for the files ``patient_<int_uniqueid>.csv``.
        fname_tosave: instead of it, one file for all patients; its name ends with ".csv".
        waiting_time_before_flush: seconds that text may wait in memory for the next call.

    Raises:
        ConfigError: not exactly one of `rootpath` and `fname_tosave` was given, or it cannot be
            used.
    """

    def __init__(
        self,
        list_patients: Sequence[Patient] | None = None,
        rootpath: StrPath | None = None,
        fname_tosave: StrPath | None = None,
        waiting_time_before_flush: float = 3,
    ) -> None:
        if waiting_time_before_flush < 0:
            raise ConfigError(
                f"waiting_time_before_flush={waiting_time_before_flush} must be 0 or more seconds"
            )
        if (rootpath is None) == (fname_tosave is None):
            raise ConfigError(
                "give a StreamWriter either rootpath, for one file per patient, or fname_tosave"
            )
        self._file: str | None = None
        self._file_of: dict[Patient, str] = {}
        try:
            if fname_tosave is not None:
                self._file = _checked_name(fname_tosave)
            elif rootpath is not None:
                self._file_of = _names_in(rootpath, list_patients)
            for path in [self._file] if self._file is not None else self._file_of.values():
                open(path, "ab").close()
        except OSError as error:
            raise ConfigError(
                f"a StreamWriter cannot write to {error.filename}: {error.strerror}"
            ) from error
        self._waiting_s = waiting_time_before_flush
        self._pending: dict[str, bytearray] = {}
        self._pending_bytes = 0
        self._flushed_s = time.monotonic()
        self._closed = False
        self._lock = threading.Lock()
        weakref.finalize(self, _append, self._pending)

    def start(self) -> None:
        """Nothing to start: there is no process, as PyDmed had; its programs call this.

        Raises:
            Closed: the writer was closed.
        """
        self._check_open()

    def write(self, patient: Patient | None, str_towrite: str) -> None:
        """Appends text as it is; end it with a newline to make it a row.

        Args:
            patient: whose file; ignored where one file serves all.
            str_towrite: the text, UTF-8 in the file.

        Raises:
            Closed: the writer was closed.
            ConfigError: `str_towrite` is not text.
            DatasetError: the patient has no file.
            ChunkdlError: a file cannot be written, such as on a full disk. The text is not lost:
                the next call tries again, so do not write it a second time.
        """
        if not isinstance(str_towrite, str):
            raise ConfigError(f"a StreamWriter writes text, not {type(str_towrite).__name__}")
        path = self._path_for(patient)
        text = str_towrite.encode()
        with self._lock:
            self._check_open()
            self._pending.setdefault(path, bytearray()).extend(text)
            self._pending_bytes += len(text)
            waited_s = time.monotonic() - self._flushed_s
            if waited_s >= self._waiting_s or self._pending_bytes >= _MOST_PENDING_BYTES:
                self._flush()

    def flush_and_close(self) -> None:
        """Writes what is left; nothing can be written afterwards. A second call does nothing.

        Raises:
            ChunkdlError: a file cannot be written. The writer stays open: make room and call again.
        """
        with self._lock:
            self._flush()
            self._closed = True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush_and_close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the StreamWriter was closed; make another one to write more")

    def _path_for(self, patient: Patient | None) -> str:
        if self._file is not None:
            return self._file
        if patient not in self._file_of:
            raise DatasetError(
                f"{patient!r} has no file; give all patients to StreamWriter as list_patients"
            )
        return self._file_of[patient]

    def _flush(self) -> None:
        try:
            _append(self._pending)
        except OSError as error:
            raise ChunkdlError(
                f"{next(iter(self._pending))} cannot be written: {error.strerror}; the text is "
                "kept, and the next write() or flush_and_close() tries again"
            ) from error
        self._pending_bytes = 0
        self._flushed_s = time.monotonic()


def _append(pending: dict[str, bytearray]) -> None:
    """Appends each text to its file and forgets it; what was not written stays, to the byte."""
    for path in list(pending):
        with open(path, "ab", buffering=0) as file:
            while pending[path]:
                del pending[path][: file.write(pending[path])]
        del pending[path]


def _checked_name(fname_tosave: StrPath) -> str:
    name = os.fspath(fname_tosave)
    if not name.endswith(".csv"):
        raise ConfigError(f"fname_tosave={name!r} must end with .csv")
    return name


def _names_in(rootpath: StrPath, list_patients: Sequence[Patient] | None) -> dict[Patient, str]:
    """A file for each patient in an empty folder."""
    if list_patients is None:
        raise ConfigError("one file per patient needs list_patients")
    if there := os.listdir(rootpath):
        raise ConfigError(
            f"rootpath={os.fspath(rootpath)!r} is not empty (it contains {there[0]}); empty it, "
            "or give another folder"
        )
    return {
        patient: os.path.join(rootpath, f"patient_{patient.int_uniqueid}.csv")
        for patient in list_patients
    }
