"""File names that are no UTF-8 go everywhere that other names go."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chunkdl import Dataset, LightDL
from chunkdl.commands.main import main
from chunkdl.consumers.connect import connect
from chunkdl.errors import SlideError
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import ServiceSettings
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.service.conftest import arguments

ODD = os.fsdecode(b"M\xfcller.tif")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one slide of an odd name."""
    write_coordinate_slide(tmp_path / "odd.tif", 1500, 1248, tile=128)
    os.rename(tmp_path / "odd.tif", tmp_path / ODD)
    return tmp_path


@pytest.fixture
def stream(small_stream: dict[str, Any]) -> dict[str, Any]:
    """A stream over whole slides."""
    return {**small_stream, "tissue": "none"}


@pytest.fixture
def address(folder: Path, stream: dict[str, Any], socket_folder: Path) -> Iterator[str]:
    """A service over that folder."""
    bind = f"ipc://{socket_folder}/odd"
    settings = ServiceSettings(binds=(bind,), max_consumers=1)
    given = arguments(**{**stream, "batch_slots": 0})
    service = ServiceProcess(configure_service(Dataset.from_slides(folder), given, settings))
    yield bind
    service.close()


@pytest.mark.parametrize("grid", [False, True])
def test_a_loader_says_the_name_as_python_holds_it(
    folder: Path, stream: dict[str, Any], grid: bool
) -> None:
    """In the columns and as the name of the patient."""
    with LightDL(Dataset.from_slides(folder), grid=grid, **stream) as loader:
        batch = loader.next_batch(60)
    assert set(batch["slide"]) == {str(folder / ODD)}
    assert set(batch["patient"]) == {ODD}
    assert {patient.name for patient in batch.patients} == {ODD}


def test_a_consumer_of_a_service_gets_the_same_name(folder: Path, address: str) -> None:
    """It travels as the bytes of the file system."""
    with connect(address) as loader:
        batch = loader.next_batch(60)
    assert set(batch["slide"]) == {str(folder / ODD)}
    assert set(batch["patient"]) == {ODD}


def test_a_slide_of_an_odd_name_that_cannot_be_read_is_told(
    folder: Path, stream: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As a warning of the coordinator, or as the error of `get`; both can be printed."""
    data = bytearray((folder / ODD).read_bytes())
    data[len(data) // 5 : len(data) * 4 // 5] = bytes(len(data) * 4 // 5 - len(data) // 5)
    (folder / ODD).write_bytes(data)
    write_coordinate_slide(folder / "good.tif", 1500, 1248, tile=128, slide_id=1)
    dataset = Dataset.from_slides(folder)
    caplog.set_level(logging.WARNING, "chunkdl")
    with LightDL(dataset, **stream) as loader:
        for _ in range(40):
            loader.next_batch(60)
    (told, *_) = [text for text in caplog.messages if r"M\udcfcller.tif" in text]
    told.encode()
    with LightDL(dataset, on_error="raise", **stream) as loader:
        with pytest.raises(SlideError, match=r"M\\udcfcller\.tif") as caught:
            for _ in range(500):
                loader.next_batch(60)
        str(caught.value).encode()


def test_inspect_draws_and_prints_the_slide(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The picture is named as the slide is; the line that says so can be printed."""
    out = folder / "out"
    assert main(["inspect", str(folder), "--out", str(out), "--tissue", "none"]) == 0
    assert capfd.readouterr().out == f"{out}/M\\udcfcller.tif.png\n"
    assert os.listdir(os.fsencode(out)) == [b"M\xfcller.tif.png"]
