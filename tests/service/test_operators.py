"""What an operator finds out: why a group waits, and what went wrong; and what a loader counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl.consumers.connect import connect
from chunkdl.dataset.patients import Dataset
from chunkdl.errors import GetTimeout
from chunkdl.service.client.control import operate
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import ServiceSettings
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.service.conftest import GROUPS, Start, arguments

PATIENCE_S = 90.0


def group(address: str) -> dict[str, Any]:
    """The status of the group of the ranks."""
    return dict(operate(address, "status")["groups"]["train"])


def test_who_waits_for_a_rank_that_never_came_is_told_and_so_is_an_operator(
    start: Start, eventually: Callable[..., bool], caplog: pytest.LogCaptureFixture
) -> None:
    """In the error of `get`, in the log of the training, and in the status."""
    _, address = start()
    with connect(address, rank=0, world_size=2, batch_size=8) as loader:

        def says() -> str:
            try:
                loader.next_batch(0.5)
            except GetTimeout as error:
                return str(error)
            return ""

        words = "rank 1 of 2 never came"
        assert eventually(lambda: words in says(), PATIENCE_S)
        assert "start what is missing" in says()
        assert words in group(address)["waits"]
        assert sum(words in text for text in caplog.messages) == 1
        with connect(address, rank=1, world_size=2, batch_size=8) as other:
            other.next_batch(60)
            loader.next_batch(60)
            assert eventually(lambda: group(address)["waits"] is None)


def test_an_operator_sees_what_went_wrong(
    small_stream: dict[str, Any],
    socket_folder: Path,
    tmp_path: Path,
    processes_of_this_run: Callable[..., list[psutil.Process]],
    eventually: Callable[..., bool],
) -> None:
    """A slide that was left out and an engine that died, each with its cause; and the counters of
    `stats` go on where those of the dead engine ended."""
    for number in range(2):
        path = str(tmp_path / f"slide-{number}.tif")
        write_coordinate_slide(
            path, 700, 640, slide_id=number, tile=128, levels=(1, 2, 4), mpp=0.25
        )
    address = f"ipc://{socket_folder}/s"
    settings = ServiceSettings(binds=(address,), groups=GROUPS[:1], max_consumers=2)
    given = arguments(**{**small_stream, "tissue": "none", "batch_slots": 0})
    spec = configure_service(Dataset.from_slides(str(tmp_path)), given, settings)
    (tmp_path / "slide-1.tif").write_bytes(b"no slide any more")
    service = ServiceProcess(spec)
    try:
        with connect(address) as loader:
            for _ in range(20):
                loader.next_batch(60)
            left_out = [text for text in group(address)["troubles"] if "slide-1.tif" in text]
            assert len(left_out) == 1, group(address)["troubles"]
            assert left_out[0].startswith("slide left out: ")
            before = loader.stats(60)
            assert before.batches >= 20
            (engine,) = processes_of_this_run("coordinator")
            engine.kill()
            for _ in range(20):
                loader.next_batch(60)
            after = loader.stats(60)
            assert after.batches >= max(40, before.batches)
            assert after.patches >= 40 * 16
            assert after.delivered_mpx == pytest.approx(after.patches * 64 * 64 / 1e6)
            assert after.decoded_mpx > before.decoded_mpx
            assert after.unusable_slides == 1
            dead = f"the engine: the coordinator (pid {engine.pid}) was ended by SIGKILL"
            assert eventually(lambda: any(dead in text for text in group(address)["troubles"]))
    finally:
        service.close()
