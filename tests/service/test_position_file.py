"""A disk that does not answer holds up nobody but the thread that writes to it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from chunkdl.consumers.connect import connect
from chunkdl_workers import position_file
from chunkdl_workers.position_file import _Writer
from tests.service.conftest import Start, row_digests


def hanging(path: Path) -> Path:
    """Make every write to a file wait until somebody reads here."""
    pipe = path.with_name(path.name + ".new")
    os.mkfifo(pipe)
    return pipe


def test_a_disk_that_hangs_freezes_nobody(
    start: Start, tmp_path: Path, row_reference: tuple[str, ...]
) -> None:
    """Consumers get every row, and the service ends when it is to."""
    hanging(tmp_path / "positions")
    service, address = start(journal=tmp_path / "positions")
    rows: list[str] = []
    with connect(address) as loader:
        while len(rows) < len(row_reference):
            rows += row_digests(loader.next_batch(60))
    assert rows == list(row_reference)
    service.close()
    assert service.process.poll() == 0
    assert not (tmp_path / "positions").exists()


def test_what_was_kept_last_is_on_disk_after_the_end(start: Start, tmp_path: Path) -> None:
    """However soon that comes: the next service begins where the last consumer left."""
    service, address = start(journal=tmp_path / "positions")
    with connect(address) as loader:
        for _ in range(7):
            loader.next_batch(60)
    service.close()
    kept = json.loads((tmp_path / "positions").read_text())
    assert kept["groups"]["train"]["left"]["tail"] == 7 * 16
    assert [path.name for path in tmp_path.iterdir()] == ["positions"]


def test_what_waits_to_be_written_is_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is piled up for a disk that is slow; that it is slow is told once, the end waits."""
    monkeypatch.setattr(position_file, "END_S", 0.2)
    pipe = hanging(tmp_path / "positions")
    writer = _Writer(tmp_path / "positions")
    writer.write(b"0")
    while not writer._under_way:
        time.sleep(0.001)
    for now_s in range(100):
        writer.write(str(now_s).encode())
        writer.watch(now_s)
    assert caplog.text.count("does its disk answer") == 1
    assert not writer.end()
    assert pipe.read_bytes() == b"0"
    writer._thread.join(60)
    assert not writer._thread.is_alive()
    assert (tmp_path / "positions").read_bytes() == b"99"


def test_positions_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    """A file that a group may write to is refused when the service begins again."""
    before = os.umask(0o002)
    try:
        writer = _Writer(tmp_path / "positions")
        writer.write(b"{}")
        assert writer.end()
    finally:
        os.umask(before)
    assert (tmp_path / "positions").stat().st_mode & 0o777 == 0o600
