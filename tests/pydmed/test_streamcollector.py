"""Consuming a stream: what is kept of it, when it ends, and that the loader is always ended."""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import abstractmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.errors import ChunkdlError, Closed, ConfigError, DatasetError
from chunkdl.patches.chunks import SmallChunk
from chunkdl.pydmed import stat, streamcollector
from chunkdl.pydmed.reserved import PYDMEDRESERVED_DLRETURNEDLASTINSTANCE
from chunkdl.pydmed.streamcollector import (
    ProcessedPiece,
    StatCollector,
    Statistic,
    StreamCollector,
)

Returned = tuple[npt.NDArray[np.uint16], list[Patient], list[SmallChunk]]
BATCH = 4


class ShortStream:
    """A stream of batches that follows the rules of `LightDL`, in this process.

    Chunk i is of patient i modulo their number and holds the number i in every pixel.
    """

    def __init__(self, batches: int, patients: int = 3) -> None:
        self.dataset = Dataset("set", [Patient(number, {}) for number in range(patients)])
        self.batches = batches
        self.delivered = 0
        self.calls: list[str] = []

    def start(self) -> None:
        assert not self.calls, "a loader starts once"
        self.calls.append("start")

    def pause_loading(self) -> None:
        self.calls.append("pause")

    def is_dl_running(self) -> bool:
        return self.calls == ["start"] and self.delivered < self.batches

    def get(self) -> Returned | str:
        assert self.calls == ["start"], "only a loader that runs gives batches"
        assert self.delivered <= self.batches, "asked again after the end"
        self.delivered += 1
        if self.delivered > self.batches:
            return "PYDMEDRESERVED_DL_RETURNED_LAST_INSTANCE"
        numbers = range((self.delivered - 1) * BATCH, self.delivered * BATCH)
        people = [self.dataset[number % len(self.dataset)] for number in numbers]
        pixels = [np.full((2, 2, 3), number, np.uint16) for number in numbers]
        chunks = [
            SmallChunk(data, {"number": number}, {}, patient)
            for data, number, patient in zip(pixels, numbers, people, strict=True)
        ]
        return np.stack(pixels), people, chunks


class Numbers(StreamCollector):
    """Finds the number of each chunk in its pixels."""

    def process_pieceofstream(self, retval: Returned) -> list[ProcessedPiece]:
        pixels, _, chunks = retval
        return [
            ProcessedPiece(data=int(pixels[row].max()), source_smallchunk=chunk)
            for row, chunk in enumerate(chunks)
        ]

    def accum_statistics(
        self, prev_accum: int | None, new_statistics: ProcessedPiece, patient: Patient
    ) -> int:
        assert new_statistics.source_smallchunk.patient == patient
        return int(new_statistics.stat) + (prev_accum or 0)

    def collate_stats_onfinishcollecting(
        self, patient: Patient, list_collectedstats: list[ProcessedPiece]
    ) -> list[int]:
        return [piece.stat for piece in list_collectedstats]


class Rows(Numbers):
    """The same as text."""

    def process_pieceofstream(self, retval: Returned) -> list[ProcessedPiece]:
        pieces = super().process_pieceofstream(retval)
        return [ProcessedPiece(piece.source_smallchunk, f"{piece.stat}\n") for piece in pieces]


def to_one_file(path: Path) -> dict[str, Any]:
    """Arguments that make a collector write to it, and no earlier than at its end."""
    return {
        "str_collectortype": "stream_to_file",
        "kwargs_streamwriter": {"fname_tosave": str(path), "waiting_time_before_flush": 3600},
    }


def test_the_reserved_word_of_the_end_is_that_of_pydmed() -> None:
    """Programs compare with its text; the stream of these tests spells it out."""
    assert PYDMEDRESERVED_DLRETURNEDLASTINSTANCE == "PYDMEDRESERVED_DL_RETURNED_LAST_INSTANCE"


def test_saveall_keeps_every_piece_of_every_patient() -> None:
    """In the order of the stream, collated per patient at the end; one without pieces too."""
    stream = ShortStream(5, patients=30)
    collector = Numbers(stream, "saveall")
    collector.start_collecting()
    assert collector.get_finalstats() == {
        patient: [patient.int_uniqueid] if patient.int_uniqueid < 20 else []
        for patient in stream.dataset
    }
    stream = ShortStream(5)
    collector = Numbers(stream, "saveall")
    collector.start_collecting()
    assert collector.get_finalstats() == {
        patient: list(range(20))[patient.int_uniqueid :: 3] for patient in stream.dataset
    }


def test_overrides_may_be_decorated_as_abstract() -> None:
    """As PyDmed's tutorial does it, which an abstract base class would not allow."""

    class Tutorial(StreamCollector):
        @abstractmethod
        def process_pieceofstream(self, retval: Returned) -> list[ProcessedPiece]:
            return [ProcessedPiece(data=1, source_smallchunk=chunk) for chunk in retval[2]]

        seconds_between_finishchecks = 0

        @abstractmethod
        def get_flag_finishcollecting(self) -> bool:
            return len(self.dict_patient_to_liststats[self.lightdl.dataset[0]]) > 3

    stream = ShortStream(100)
    Tutorial(stream, "saveall").start_collecting()  # type: ignore[abstract]
    assert stream.delivered == 3


def test_saveall_gives_the_pieces_where_nothing_collates_them() -> None:
    """PyDmed gave None."""

    class Plain(StreamCollector):
        process_pieceofstream = Numbers.process_pieceofstream

    collector = Plain(ShortStream(3), "saveall")
    collector.start_collecting()
    pieces = collector.dict_patient_to_liststats
    assert collector.get_finalstats() == pieces
    assert sum(piece.stat for kept in pieces.values() for piece in kept) == sum(range(12))


def test_accum_keeps_one_value_per_patient() -> None:
    """None before the first piece, and for a patient that never had one."""
    stream = ShortStream(5, patients=21)
    collector = Numbers(stream, "accum")
    collector.start_collecting()
    final = collector.get_finalstats()
    assert final == {**dict(zip(stream.dataset, range(20), strict=False)), stream.dataset[20]: None}
    collector = Numbers(ShortStream(5), "accum")
    collector.start_collecting()
    final = collector.get_finalstats()
    assert final is not None
    assert sum(final.values()) == sum(range(20))


def test_stream_to_file_writes_each_piece_to_its_patient(tmp_path: Path) -> None:
    """The files are complete when `start_collecting` returns; PyDmed's were some seconds later."""
    collector = Rows(
        ShortStream(5),
        str_collectortype="stream_to_file",
        flag_visualizestats=False,
        kwargs_streamwriter={
            "rootpath": str(tmp_path),
            "fname_tosave": None,
            "waiting_time_before_flush": 3600,
        },
    )
    collector.start_collecting()
    for number in range(3):
        rows = (tmp_path / f"patient_{number}.csv").read_text().split()
        assert list(map(int, rows)) == list(range(20))[number::3]
    assert collector.get_finalstats() is None


def test_everything_happens_in_the_thread_that_calls() -> None:
    """Which has come back when the stream has ended and the loader is ended, once."""
    seen = []

    class Here(Numbers):
        def process_pieceofstream(self, retval: Returned) -> list[ProcessedPiece]:
            seen.append((os.getpid(), threading.get_ident()))
            return super().process_pieceofstream(retval)

    stream = ShortStream(3)
    Here(stream, "accum").start_collecting()
    assert seen == [(os.getpid(), threading.get_ident())] * 3
    assert stream.calls == ["start", "pause"]
    assert stream.delivered == 4


def test_a_loader_that_runs_is_not_started_again() -> None:
    """But ended like the others."""
    stream = ShortStream(2)
    stream.start()
    Numbers(stream, "accum").start_collecting()
    assert stream.calls == ["start", "pause"]


def test_collecting_ends_as_soon_as_there_is_enough() -> None:
    """After the very batch that made it so, where a subclass wants to be asked each time."""

    class Enough(Numbers):
        seconds_between_finishchecks = 0

        def get_flag_finishcollecting(self) -> bool:
            return all(len(pieces) >= 10 for pieces in self.dict_patient_to_liststats.values())

    stream = ShortStream(10**9)
    collector = Enough(stream, "saveall")
    collector.start_collecting()
    assert stream.delivered == 8
    final = collector.get_finalstats()
    assert final is not None
    assert sorted(map(len, final.values())) == [10, 11, 11]
    assert stream.calls == ["start", "pause"]


def test_collecting_neither_sleeps_nor_moves_to_other_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PyDmed slept 25 seconds and pinned the program to cores 5 to 7 of whatever machine."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"called with {arguments}")

    for module, name in [(time, "sleep"), (os, "system"), (os, "sched_setaffinity")]:
        monkeypatch.setattr(module, name, refuse)
    cores = os.sched_getaffinity(0)
    Rows(ShortStream(3), **to_one_file(tmp_path / "all.csv")).start_collecting()
    assert os.sched_getaffinity(0) == cores


class Mistaken(Rows):
    """Fails on the third batch."""

    def process_pieceofstream(self, retval: Returned) -> list[ProcessedPiece]:
        if retval[2][0].dict_info_of_smallchunk["number"] == 2 * BATCH:
            raise ZeroDivisionError("a mistake of the user")
        return super().process_pieceofstream(retval)


def test_an_error_of_the_user_ends_the_loader_and_completes_the_files(tmp_path: Path) -> None:
    """It comes through as it is; PyDmed left all processes running."""
    stream = ShortStream(5)
    collector = Mistaken(stream, **to_one_file(tmp_path / "all.csv"))
    with pytest.raises(ZeroDivisionError, match="a mistake of the user"):
        collector.start_collecting()
    assert stream.calls == ["start", "pause"]
    assert (tmp_path / "all.csv").read_text().split() == list(map(str, range(8)))
    assert collector.streamwriter is not None
    with pytest.raises(Closed):
        collector.streamwriter.write(None, "late\n")
    with pytest.raises(ChunkdlError, match="before start_collecting"):
        collector.get_finalstats()


def test_an_error_while_collating_ends_the_loader() -> None:
    """That is user code too."""

    class Wrong(Numbers):
        def collate_stats_onfinishcollecting(self, *arguments: Any) -> Any:
            raise ZeroDivisionError

    stream = ShortStream(2)
    with pytest.raises(ZeroDivisionError):
        Wrong(stream, "saveall").start_collecting()
    assert stream.calls == ["start", "pause"]


def test_an_error_of_the_file_is_raised_and_ends_the_loader(tmp_path: Path) -> None:
    """PyDmed's writer swallowed it."""
    link = tmp_path / "all.csv"
    link.symlink_to("/dev/full")
    stream = ShortStream(2)
    collector = Rows(stream, **to_one_file(link))
    with pytest.raises(ChunkdlError, match="No space left"):
        collector.start_collecting()
    assert stream.calls == ["start", "pause"]
    with pytest.raises(ChunkdlError, match="before start_collecting"):
        collector.get_finalstats()
    link.unlink()
    assert collector.streamwriter is not None
    collector.streamwriter.flush_and_close()
    assert link.read_text().split() == list(map(str, range(8)))


@pytest.mark.parametrize("kind", ["saveall", "accum"])
def test_a_piece_of_a_stranger_is_an_error_that_names_him(kind: str) -> None:
    """He has no place in the result."""

    class Elsewhere(StreamCollector):
        def process_pieceofstream(self, retval: Returned) -> list[ProcessedPiece]:
            return [ProcessedPiece(SmallChunk(None, {}, {}, Patient(77, {})), 1)]

    with pytest.raises(DatasetError, match=r"Patient\(77, .*which is not in Dataset\('set'"):
        Elsewhere(ShortStream(1), kind).start_collecting()


def test_what_must_be_overridden_says_so() -> None:
    """Where it is missing, by the name of the class; PyDmed collected None."""

    class Forgetful(StreamCollector):
        pass

    with pytest.raises(ConfigError, match="Forgetful must override process_pieceofstream"):
        Forgetful(ShortStream(1), "saveall").start_collecting()

    class Plain(StreamCollector):
        process_pieceofstream = Numbers.process_pieceofstream

    with pytest.raises(ConfigError, match="Plain must override accum_statistics"):
        Plain(ShortStream(1), "accum").start_collecting()


@pytest.mark.parametrize(
    ("kind", "message"), [("save", "must be saveall"), ("stream_to_file", "kwargs_streamwriter")]
)
def test_wrong_arguments_are_refused(kind: str, message: str) -> None:
    """Before the loader is touched."""
    stream = ShortStream(1)
    with pytest.raises(ConfigError, match=message):
        Numbers(stream, kind)
    assert stream.calls == []


def test_a_piece_holds_no_pixels() -> None:
    """So memory does not grow with them; the chunk it came from still has its own."""
    pixels = np.zeros((2, 2, 3), np.uint8)
    chunk = SmallChunk(pixels, {"x": 5}, {"slide": "a.svs"}, Patient(0, {}))
    piece = ProcessedPiece(chunk, "result")
    kept = piece.source_smallchunk
    assert kept.data is None
    assert (kept.dict_info_of_smallchunk, kept.patient) == ({"x": 5}, chunk.patient)
    assert chunk.data is pixels


def test_a_piece_has_one_result_under_two_names() -> None:
    """`data` and, in older programs, `stat`; false values count as given."""
    chunk = SmallChunk(None, {}, {}, Patient(0, {}))
    assert ProcessedPiece(chunk, 0).stat == 0
    assert ProcessedPiece(source_smallchunk=chunk, stat=0).stat == 0
    array = np.zeros(3)
    assert ProcessedPiece(data=array, source_smallchunk=chunk).stat is array
    assert ProcessedPiece(chunk).stat is None
    with pytest.raises(ConfigError, match="give one"):
        ProcessedPiece(chunk, 1, 2)


def test_whether_there_is_enough_is_asked_at_the_pace_of_pydmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every five seconds of a stream, behind a batch, and once at its end."""
    now = 0.0
    asked: list[float] = []

    class Slow(ShortStream):
        def get(self) -> Any:
            nonlocal now
            now += 1.0
            return super().get()

    class Asked(Numbers):
        def get_flag_finishcollecting(self) -> bool:
            asked.append(now)
            return now >= 20

    monkeypatch.setattr(streamcollector, "time", SimpleNamespace(monotonic=lambda: now))
    stream = Slow(10**9)
    Asked(stream, "saveall").start_collecting()
    assert asked == [5, 10, 15, 20]
    assert stream.delivered == 20
    now, asked[:] = 0.0, []
    short = Slow(8)
    Asked(short, "saveall").start_collecting()
    assert asked == [5, 9]


def test_programs_with_the_older_names_run() -> None:
    """Of both modules, with the arguments by name as old programs give them, or in order."""

    class Older(StatCollector):
        def get_statistics(self, retval: Returned) -> list[Statistic]:
            return [Statistic(stat=1, source_smallchunk=chunk) for chunk in retval[2]]

        def accum_statistics(self, prev_accum: int | None, new: Statistic, patient: Patient) -> int:
            return (prev_accum or 0) + int(new.stat)

    class Oldest(stat.StatCollector):
        def get_statistics(self, retval: Returned) -> list[Statistic]:
            return [stat.Statistic(chunk, 1) for chunk in retval[2]]

        accum_statistics = Older.accum_statistics

    for kind in (Older, Oldest):
        collector = kind(ShortStream(5), "accum")
        collector.start_collecting()
        final = collector.get_finalstats()
        assert final is not None
        assert sorted(final.values()) == [6, 7, 7]


def test_a_result_in_the_place_of_its_smallchunk_is_told() -> None:
    """Old versions of PyDmed named the result first; which is which is not guessed."""
    chunk = SmallChunk(np.ones(3), {}, {}, Patient(0, {}))
    for kind in (stat.Statistic, ProcessedPiece):
        assert kind(chunk, data=2).stat == kind(stat=2, source_smallchunk=chunk).stat == 2
        assert kind(chunk, 2).source_smallchunk.data is None
        with pytest.raises(
            ConfigError, match=r"and not of class int; write .*source_smallchunk=..., data"
        ):
            kind(2, chunk)  # type: ignore[arg-type]
    assert chunk.data is not None


def test_progress_is_logged_on_request_and_seldom(caplog: pytest.LogCaptureFixture) -> None:
    """The last line has the whole number; a fast stream does not flood the log."""
    caplog.set_level(logging.INFO, logger="chunkdl")
    Numbers(ShortStream(200), "accum").start_collecting()
    assert caplog.messages == []
    Numbers(ShortStream(200, patients=900), "accum", True).start_collecting()
    assert caplog.messages[-1] == "finished with 800 pieces of 800 of 900 patients"
    assert len(caplog.messages) < 50
