"""Consumes a stream to its end: a result per SmallChunk, kept, accumulated or written to files."""

from __future__ import annotations

import contextlib
import copy
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.errors import ChunkdlError, ConfigError, DatasetError
from chunkdl.patches.chunks import SmallChunk
from chunkdl.pydmed import star
from chunkdl.pydmed.reserved import PYDMEDRESERVED_DLRETURNEDLASTINSTANCE
from chunkdl.pydmed.utils.output import StreamWriter
from chunkdl.system.steady_log import steady_logger

__all__ = [
    "ProcessedPiece",
    "StatCollector",
    "Statistic",
    "StreamCollector",
    "StreamWriter",
    *star.STREAMCOLLECTOR,
]

__getattr__ = star.importer(__name__, star.STREAMCOLLECTOR)

log = steady_logger("chunkdl")

_REPORT_EVERY_S = 5.0


class StreamSource(Protocol):
    """What a `StreamCollector` asks of a `LightDL`."""

    @property
    def dataset(self) -> Dataset:
        """The patients in the stream."""

    def start(self) -> object:
        """Begin loading."""

    def get(self) -> Any:
        """What the collate function made of a batch, or the reserved string at the end."""

    def is_dl_running(self) -> bool:
        """Whether loading has begun and not ended."""

    def pause_loading(self) -> object:
        """End loading."""


class ProcessedPiece:
    """What was found out about one SmallChunk.

    Args:
        source_smallchunk: which one; kept without its pixels, or a long run would hold all of
            them. The given object is left as it is.
        data: the result; text where the pieces go to files.
        stat: older name of `data`.

    Raises:
        ConfigError: both `data` and `stat` were given, or the first argument is not a SmallChunk,
            as in old programs that name the result first.
    """

    def __init__(self, source_smallchunk: SmallChunk, data: Any = None, stat: Any = None) -> None:
        if not hasattr(source_smallchunk, "patient"):
            raise ConfigError(
                "the first argument must be the SmallChunk that the piece comes from, and not "
                f"of class {type(source_smallchunk).__name__}; write "
                f"{type(self).__name__}(source_smallchunk=..., data=...)"
            )
        if data is not None and stat is not None:
            raise ConfigError("data and stat of a ProcessedPiece are the same; give one of them")
        self.source_smallchunk = copy.copy(source_smallchunk)
        self.source_smallchunk.data = None
        self.stat = stat if data is None else data


class StreamCollector:
    """Processes a stream until its end, or until it has enough.

    Derive from it and override `process_pieceofstream`; the other methods as the type needs them.
    Everything happens in the process and the thread that calls `start_collecting`.

    Args:
        lightdl: where the stream comes from.
        str_collectortype: "saveall" keeps all pieces; "accum" keeps one value per patient, see
            `accum_statistics`; "stream_to_file" writes the pieces' text with a `StreamWriter`.
        flag_visualizestats: report the number of pieces and patients to the logger "chunkdl" at
            level INFO, every five seconds at most and once at the end. PyDmed had meant to draw.
        kwargs_streamwriter: arguments of the `StreamWriter` other than `list_patients`.

    Attributes:
        seconds_between_finishchecks: `get_flag_finishcollecting` is asked so often at most, behind
            a `get()`, as in PyDmed; a subclass may set another number, 0 for "every time".
        lightdl: as given.
        dict_patient_to_liststats: with "saveall", all pieces of each patient so far.
        dict_patient_to_accumstat: with "accum", the value of each patient so far, first None.
        streamwriter: with "stream_to_file", the writer, else None.

    Raises:
        ConfigError: the type is unknown, or the arguments of the writer are wrong.
    """

    seconds_between_finishchecks: float = 5.0

    def __init__(
        self,
        lightdl: StreamSource,
        str_collectortype: str,
        flag_visualizestats: bool = False,
        kwargs_streamwriter: Mapping[str, Any] | None = None,
    ) -> None:
        to_file = str_collectortype.startswith("stream_to_file")
        if not to_file and str_collectortype not in ("saveall", "accum"):
            raise ConfigError(
                f"str_collectortype={str_collectortype!r} must be saveall, accum or stream_to_file"
            )
        if to_file and kwargs_streamwriter is None:
            raise ConfigError("stream_to_file needs kwargs_streamwriter, such as a rootpath")
        self.lightdl = lightdl
        self.str_collectortype = str_collectortype
        self.flag_visualizestats = flag_visualizestats
        self.kwargs_streamwriter = kwargs_streamwriter
        patients = lightdl.dataset.list_patients
        self.dict_patient_to_liststats: dict[Patient, list[ProcessedPiece]] = {
            patient: [] for patient in patients
        }
        self.dict_patient_to_accumstat: dict[Patient, Any] = dict.fromkeys(patients)
        self.streamwriter = StreamWriter(patients, **kwargs_streamwriter or {}) if to_file else None
        self._pieces_of: Counter[Patient] = Counter()
        self._reported_s = 0.0
        self._finished = False
        self._finalstats: dict[Patient, Any] | None = None

    def process_pieceofstream(self, returnvalue_of_collatefunction: Any, /) -> list[ProcessedPiece]:
        """Override this: the results for one return value of `lightdl.get()`.

        Args:
            returnvalue_of_collatefunction: with the default collate function, (tensor, patients,
                SmallChunks).

        Returns:
            Any number of pieces, of patients of the dataset.
        """
        return self.get_statistics(returnvalue_of_collatefunction)

    def get_statistics(self, returnvalue_of_collatefunction: Any, /) -> list[ProcessedPiece]:
        """Older name of `process_pieceofstream`, for programs that override it."""
        raise ConfigError(f"{type(self).__name__} must override process_pieceofstream")

    def get_flag_finishcollecting(self) -> bool | None:
        """Override this to stop before the end of the stream; asked behind a `get()`, every five
        seconds at most (`seconds_between_finishchecks`), and once when the stream has ended."""
        return False

    def accum_statistics(
        self, prev_accum: Any, new_statistics: ProcessedPiece, patient: Patient, /
    ) -> Any:
        """Override this for "accum": the value of a patient with one piece more.

        Args:
            prev_accum: what this returned for the patient's last piece; None for the first one.
            new_statistics: the piece.
            patient: whose it is.
        """
        raise ConfigError(f"{type(self).__name__} must override accum_statistics for accum")

    def collate_stats_onfinishcollecting(
        self, patient: Patient, list_collectedstats: list[ProcessedPiece], /
    ) -> Any:
        """Override this for "saveall": the final value of a patient; its pieces by default."""
        return list_collectedstats

    def start_collecting(self) -> None:
        """Starts the loader if it does not run, processes the stream, and ends the loader.

        Blocks until the stream has ended or `get_flag_finishcollecting` says so. The loader is
        ended and the files are complete when this returns, and also when it raises.

        Raises:
            ChunkdlError: of the loader or the files.
            DatasetError: a piece belongs to no patient of the dataset.
        """
        with contextlib.ExitStack() as at_end:
            if not self.lightdl.is_dl_running():
                self.lightdl.start()
            at_end.callback(self.lightdl.pause_loading)
            if self.streamwriter is not None:
                at_end.enter_context(self.streamwriter)
            self._reported_s = time.monotonic()
            self._consume()
            if self.str_collectortype == "saveall":
                self._finalstats = {
                    patient: self.collate_stats_onfinishcollecting(patient, pieces)
                    for patient, pieces in self.dict_patient_to_liststats.items()
                }
            elif self.str_collectortype == "accum":
                self._finalstats = dict(self.dict_patient_to_accumstat)
        self._finished = True

    def get_finalstats(self) -> dict[Patient, Any] | None:
        """The value of every patient of the dataset; None for "stream_to_file".

        Raises:
            ChunkdlError: collecting has not finished.
        """
        if not self._finished:
            raise ChunkdlError(
                "the final statistics do not exist before start_collecting() has returned"
            )
        return self._finalstats

    def _consume(self) -> None:
        asked_s = time.monotonic()
        while True:
            piece_of_stream = self.lightdl.get()
            if (
                isinstance(piece_of_stream, str)
                and piece_of_stream == PYDMEDRESERVED_DLRETURNEDLASTINSTANCE
            ):
                self.get_flag_finishcollecting()
                break
            self._keep(self.process_pieceofstream(piece_of_stream))
            if time.monotonic() - self._reported_s >= _REPORT_EVERY_S:
                self._report("collected")
            if time.monotonic() - asked_s >= self.seconds_between_finishchecks:
                asked_s = time.monotonic()
                if self.get_flag_finishcollecting():
                    break
        self._report("finished with")

    def _keep(self, pieces: Iterable[ProcessedPiece]) -> None:
        for piece in pieces:
            patient = piece.source_smallchunk.patient
            if patient not in self.dict_patient_to_liststats:
                raise DatasetError(
                    f"a piece belongs to {patient!r}, which is not in {self.lightdl.dataset!r}"
                )
            self._pieces_of[patient] += 1
            if self.streamwriter is not None:
                self.streamwriter.write(patient, piece.stat)
            elif self.str_collectortype == "saveall":
                self.dict_patient_to_liststats[patient].append(piece)
            else:
                before = self.dict_patient_to_accumstat[patient]
                self.dict_patient_to_accumstat[patient] = self.accum_statistics(
                    before, piece, patient
                )

    def _report(self, state: str) -> None:
        self._reported_s = time.monotonic()
        if self.flag_visualizestats:
            patients, everybody = len(self._pieces_of), len(self.lightdl.dataset)
            pieces = self._pieces_of.total()
            log.info("%s %d pieces of %d of %d patients", state, pieces, patients, everybody)


Statistic = ProcessedPiece
StatCollector = StreamCollector
