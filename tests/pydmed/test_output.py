"""Text per patient in files: what is written, when, and what happens when it cannot be."""

from __future__ import annotations

import errno
import gc
import os
import resource
import threading
from pathlib import Path
from typing import Any

import pytest

from chunkdl.dataset.patients import Patient
from chunkdl.errors import ChunkdlError, Closed, ConfigError, DatasetError
from chunkdl.pydmed.utils.output import StreamWriter

PATIENTS = [Patient(number, {}) for number in (3, 14, 159)]
LONG_S = 3600
"""Nothing that waits this long comes through."""


def test_one_file_has_the_texts_of_all_patients_in_order(tmp_path: Path) -> None:
    """As they are, behind what was in the file before; the patient does not matter."""
    file = tmp_path / "all.csv"
    file.write_text("before\n")
    writer = StreamWriter(fname_tosave=str(file), waiting_time_before_flush=LONG_S)
    writer.start()
    texts = ["1,2\n", 'no newline "', "é,ß\n", ""]
    for text, patient in zip(texts, [*PATIENTS, None], strict=True):
        writer.write(patient, text)
    writer.flush_and_close()
    assert file.read_text(encoding="utf-8") == "before\n" + "".join(texts)


def test_each_patient_has_a_file_with_its_own_texts(tmp_path: Path) -> None:
    """Named by its id, there from the beginning, and empty where nothing was written."""
    writer = StreamWriter(PATIENTS, str(tmp_path), waiting_time_before_flush=LONG_S)
    assert sorted(os.listdir(tmp_path)) == [
        "patient_14.csv",
        "patient_159.csv",
        "patient_3.csv",
    ]
    for row in range(3):
        for patient in PATIENTS[:2]:
            writer.write(patient, f"{patient.int_uniqueid},{row}\n")
    writer.flush_and_close()
    assert (tmp_path / "patient_3.csv").read_text() == "3,0\n3,1\n3,2\n"
    assert (tmp_path / "patient_14.csv").read_text() == "14,0\n14,1\n14,2\n"
    assert (tmp_path / "patient_159.csv").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either rootpath"),
        ({"rootpath": "empty", "fname_tosave": "a.csv"}, "either rootpath"),
        ({"fname_tosave": "a.txt"}, "must end with .csv"),
        ({"fname_tosave": "nowhere/a.csv"}, "cannot write to .*nowhere/a.csv: No such file"),
        ({"rootpath": "nowhere", "list_patients": PATIENTS}, "cannot write to .*nowhere"),
        ({"rootpath": "full", "list_patients": PATIENTS}, r"not empty \(it contains old.csv\)"),
        ({"rootpath": "empty"}, "needs list_patients"),
        ({"fname_tosave": "a.csv", "waiting_time_before_flush": -1}, "0 or more seconds"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_made(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do instead."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/old.csv").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        StreamWriter(**arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_text_waits_in_memory_no_longer_than_it_may(tmp_path: Path) -> None:
    """With no time to wait, every write is in the file at once; closing never waits."""
    hasty, slow = tmp_path / "hasty.csv", tmp_path / "slow.csv"
    with StreamWriter(fname_tosave=hasty, waiting_time_before_flush=0) as writer:
        for rows in range(1, 4):
            writer.write(None, "row\n")
            assert hasty.read_text() == "row\n" * rows
    with StreamWriter(fname_tosave=slow, waiting_time_before_flush=LONG_S) as writer:
        writer.write(None, "row\n")
        assert slow.read_text() == ""
    assert slow.read_text() == "row\n"


def test_memory_does_not_grow_with_what_is_written(tmp_path: Path) -> None:
    """At most a mebibyte and one text wait for their file."""
    file = tmp_path / "all.csv"
    text = "x" * 300_000
    with StreamWriter(fname_tosave=file, waiting_time_before_flush=LONG_S) as writer:
        for number in range(1, 20):
            writer.write(None, text)
            assert number * len(text) - file.stat().st_size <= 2**20 + len(text)


def test_open_files_do_not_grow_with_the_patients(tmp_path: Path) -> None:
    """PyDmed held one open for each; systems allow some thousand."""
    patients = [Patient(number, {}) for number in range(300)]
    before = len(os.listdir("/proc/self/fd"))
    with StreamWriter(patients, tmp_path, waiting_time_before_flush=0) as writer:
        for patient in patients:
            writer.write(patient, "row\n")
            assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert all((tmp_path / f"patient_{n}.csv").read_text() == "row\n" for n in range(300))


def test_a_closed_writer_takes_nothing(tmp_path: Path) -> None:
    """PyDmed printed a line and dropped the text; closing twice does no harm."""
    writer = StreamWriter(fname_tosave=tmp_path / "all.csv")
    writer.write(None, "row\n")
    writer.flush_and_close()
    writer.flush_and_close()
    with pytest.raises(Closed):
        writer.write(None, "late\n")
    with pytest.raises(Closed):
        writer.start()
    assert (tmp_path / "all.csv").read_text() == "row\n"


def test_what_is_no_text_or_has_no_file_is_refused(tmp_path: Path) -> None:
    """PyDmed swallowed both; what was written before stays."""
    with StreamWriter(PATIENTS, tmp_path) as writer:
        writer.write(PATIENTS[0], "row\n")
        with pytest.raises(ConfigError, match="text, not int"):
            writer.write(PATIENTS[0], 7)  # type: ignore[arg-type]
        for stranger in (Patient(5, {}), None):
            with pytest.raises(DatasetError, match="has no file"):
                writer.write(stranger, "row\n")
    assert (tmp_path / "patient_3.csv").read_text() == "row\n"


def test_a_full_disk_is_an_error_of_the_call_that_meets_it(tmp_path: Path) -> None:
    """In PyDmed the rows were lost without a word; here they wait for room."""
    real, link = tmp_path / "real.csv", tmp_path / "all.csv"
    link.symlink_to("/dev/full")
    writer = StreamWriter(fname_tosave=link, waiting_time_before_flush=LONG_S)
    writer.write(None, "first\n")
    with pytest.raises(ChunkdlError, match=r"all.csv cannot be written: No space left") as caught:
        writer.flush_and_close()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    link.unlink()
    link.symlink_to(real)
    writer.write(None, "second\n")
    writer.flush_and_close()
    assert real.read_text() == "first\nsecond\n"


def test_a_text_that_went_half_way_is_completed_and_not_repeated(tmp_path: Path) -> None:
    """The error of `write` means "not yet": nothing is lost, nothing doubled."""
    file = tmp_path / "all.csv"
    text = "".join(f"{row}\n" for row in range(3000))
    writer = StreamWriter(fname_tosave=file, waiting_time_before_flush=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(ChunkdlError, match="File too large"):
            writer.write(None, text)
        assert file.stat().st_size == 5000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.write(None, "end\n")
    writer.flush_and_close()
    assert file.read_text() == text + "end\n"


def test_leaving_the_block_completes_the_file(tmp_path: Path) -> None:
    """Also by an error, which goes on."""
    with (
        pytest.raises(ZeroDivisionError),
        StreamWriter(fname_tosave=tmp_path / "all.csv", waiting_time_before_flush=LONG_S) as writer,
    ):
        writer.write(None, "row\n")
        raise ZeroDivisionError
    assert (tmp_path / "all.csv").read_text() == "row\n"
    with pytest.raises(Closed):
        writer.write(None, "late\n")


def test_a_forgotten_writer_writes_what_it_has(tmp_path: Path) -> None:
    """As a file of Python does."""
    writer = StreamWriter(fname_tosave=tmp_path / "all.csv", waiting_time_before_flush=LONG_S)
    writer.write(None, "row\n")
    del writer
    gc.collect()
    assert (tmp_path / "all.csv").read_text() == "row\n"


def test_several_threads_do_not_mix_their_rows(tmp_path: Path) -> None:
    """Each row is there once and whole, and those of one thread are in order."""
    with StreamWriter(fname_tosave=tmp_path / "all.csv", waiting_time_before_flush=0) as writer:

        def write(name: str) -> None:
            for row in range(200):
                writer.write(None, f"{name},{row}\n")

        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = (tmp_path / "all.csv").read_text().splitlines()
    for name in "abcd":
        own = [row for row in rows if row.startswith(name)]
        assert own == [f"{name},{row}" for row in range(200)]
    assert len(rows) == 800
