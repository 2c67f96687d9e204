"""Slides that cannot give what is wished: found before anything starts, wherever they stand."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.dataset.slide_table import slide_table
from chunkdl.engine.config import EngineConfig
from chunkdl.engine.settings import usable_slides
from chunkdl.engine.settings.configure import configure, stream_config
from chunkdl.engine.settings.setting import checked
from chunkdl.engine.settings.users_code import row_source
from chunkdl.errors import ResolutionError, SlideError
from chunkdl.slides.header_facts import HeaderFacts, header_facts
from chunkdl.slides.slide import PixelRule, SlideInfo
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.engine.settings.test_configure import GOOD
from tests.slides.tiff_pages import aperio, page, write_tiff


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good slide of 512x384 at 0.5 microns per pixel, one without mpp, one of 16x16, no slide."""
    folder = tmp_path_factory.mktemp("usable")
    write_coordinate_slide(folder / "good.tif", 512, 384, tile=128)
    write_coordinate_slide(folder / "tiny.tif", 16, 16, tile=16, levels=(1,))
    pixels = np.zeros((384, 512, 3), np.uint8)
    tifffile.imwrite(folder / "no-mpp.tif", pixels, photometric="rgb", tile=(128, 128))
    (folder / "broken.tif").write_bytes(b"no slide")
    return folder


def dataset_of(files: Path, names: Sequence[str], folder: Path | None = None) -> Dataset:
    """One patient per name; each slide is a link of its own where a folder is given."""
    patients = []
    for index, name in enumerate(names):
        path = files / f"{name}.tif"
        if folder is not None:
            path = folder / f"{index:03d}-{name}.tif"
            path.symlink_to(files / f"{name}.tif")
        patients.append(Patient(index, {"s": Record("/", str(path)[1:])}, name=f"p{index}"))
    return Dataset("d", patients)


def configured(dataset: Dataset, **changes: Any) -> EngineConfig:
    """The configuration of a wish of 0.5 microns per pixel."""
    return configure(dataset, dataclasses.replace(GOOD, **{"mpp": 0.5, **changes}))


@pytest.mark.parametrize("place", [0, 1, 63, 64, 65, 149])
@pytest.mark.parametrize("on_error", [None, "raise"])
def test_a_slide_without_mpp_is_an_error_wherever_it_stands(
    files: Path, tmp_path: Path, place: int, on_error: str | None
) -> None:
    """With what to do about it, in a dataset of 150."""
    names = ["good"] * 150
    names[place] = "no-mpp"
    dataset = dataset_of(files, names, tmp_path)
    with pytest.raises(ResolutionError) as caught:
        configured(dataset, on_error=on_error)
    text = str(caught.value)
    assert f"for 1 of 150 slides: {tmp_path}/{place:03d}-no-mpp.tif;" in text
    for remedy in ("Record(..., {'mpp': 0.25})", "column mpp", "on_error='substitute'"):
        assert remedy in text
    assert len(configured(dataset, on_error="substitute").slides) == 149
    assert len(configured(dataset, on_error=on_error, mpp=None).slides) == 150


def test_all_slides_that_cannot_give_the_resolution_are_named_in_one_error(
    files: Path, tmp_path: Path
) -> None:
    """Up to twenty of a kind; the others are counted."""
    dataset = dataset_of(files, ["good", *["no-mpp"] * 25], tmp_path)
    with pytest.raises(ResolutionError) as caught:
        configured(dataset, on_error=None)
    assert str(caught.value).count("-no-mpp.tif") == 20
    assert ", and 5 more; give mpp" in str(caught.value)
    with pytest.raises(ResolutionError) as caught:
        configured(dataset_of(files, ["good", "no-mpp", "tiny"]), on_error=None, mpp=0.1)
    for part in (
        "for 1 of 3 slides",
        "possible for 2 of 3 slides",
        "good.tif",
        "tiny.tif",
        "no-mpp.tif",
    ):
        assert part in str(caught.value)


def test_an_mpp_in_the_dataset_is_as_good_as_one_in_the_file(files: Path) -> None:
    """It is the first remedy that the error names."""
    record = Record("/", f"{files}/no-mpp.tif"[1:], {"mpp": 0.5})
    assert len(configured(Dataset("d", [Patient(0, {"s": record})]), on_error=None).slides) == 1


def test_substitute_leaves_all_such_slides_out_and_tells_it_once(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Patients keep their numbers; those without a slide left have none."""
    dataset = dataset_of(files, ["no-mpp", "good", "no-mpp", "good"])
    caplog.set_level(logging.WARNING, "chunkdl")
    config = configured(dataset, on_error="substitute")
    assert [entry.patient for entry in config.slides] == [1, 3]
    assert config.slides_of_patient == ((), (0,), (), (1,))
    assert config.patients == ("p0", "p1", "p2", "p3")
    (told,) = caplog.messages
    assert told.startswith("these slides are left out of the stream: mpp=0.5 was asked for")
    assert "for 2 of 4 slides" in told
    with pytest.raises(ResolutionError, match="for 2 of 2 slides") as caught:
        configured(dataset_of(files, ["no-mpp"] * 2), on_error="substitute")
    assert "on_error" not in str(caught.value)


def test_slides_too_small_for_a_patch_are_left_out_unless_all_are(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever `on_error` says: nothing about them can be mended."""
    caplog.set_level(logging.WARNING, "chunkdl")
    config = configured(dataset_of(files, ["tiny", "good", "tiny"]), on_error="raise")
    assert config.slides_of_patient == ((), (0,), ())
    (told,) = caplog.messages
    assert "smallchunk_size=32 is larger than 2 of 3 slides" in told
    assert "tiny.tif (16x16)" in told
    with pytest.raises(ResolutionError, match=r"larger than 2 of 2 slides.*lower smallchunk_size"):
        configured(dataset_of(files, ["tiny", "tiny"]))


def test_slides_that_cannot_be_opened_stay_unless_nothing_else_is_left(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are told now and tried at their turn."""
    caplog.set_level(logging.WARNING, "chunkdl")
    assert len(configured(dataset_of(files, ["broken", "good"])).slides) == 2
    (told,) = caplog.messages
    assert told.startswith("1 of 2 slides cannot be read")
    assert "broken.tif" in told
    with pytest.raises(SlideError, match=r"broken\.tif"):
        configured(dataset_of(files, ["broken", "broken"]))
    with pytest.raises(ResolutionError, match="larger than 1 of 2 slides"):
        configured(dataset_of(files, ["broken", "tiny"]))


def test_what_is_left_out_is_part_of_the_plan(files: Path) -> None:
    """It is another plan than with the slide, and than with another one left out."""
    datasets = [["good", "no-mpp", "good"], ["no-mpp", "good", "good"], ["good", "good", "good"]]
    hashes = {configured(dataset_of(files, names)).plan_hash for names in datasets}
    assert len(hashes) == 3


def test_notes_on_slides_are_told_once_each_up_to_twenty(
    files: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What contradicts itself in a file is for its user to know."""

    def noted(
        names: Sequence[str], reader: str, folder: Path | None, rule: PixelRule
    ) -> list[HeaderFacts]:
        facts = header_facts(names, reader, folder, rule)
        known = [fact for fact in facts if isinstance(fact, SlideInfo)]
        return [dataclasses.replace(fact, notes=("Its pixels are no squares.",)) for fact in known]

    monkeypatch.setattr(usable_slides, "header_facts", noted)
    caplog.set_level(logging.WARNING, "chunkdl")
    configured(dataset_of(files, ["good"] * 2))
    assert caplog.messages == [f"slide {files}/good.tif: Its pixels are no squares."] * 2
    caplog.clear()
    configured(dataset_of(files, ["good"] * 23))
    assert len(caplog.messages) == 21
    assert caplog.messages[-1] == "and 3 more notes about slides"


def test_slides_that_state_only_their_objective_serve_a_magnification(
    files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says what is taken for them; asked for in microns they are an error as before."""
    one = page(np.zeros((384, 512, 3), np.uint8), description=aperio((512, 384)))
    path = write_tiff(tmp_path / "power.tif", one)
    both = Dataset.from_slides([files / "good.tif", path])
    with caplog.at_level(logging.WARNING):
        config = configured(both, mpp=None, magnification="10x")
    assert len(config.slides) == 2
    (line,) = [text for text in caplog.messages if "objective" in text]
    assert "1 of 2 slides" in line
    assert f"{path} (20x)" in line
    with pytest.raises(ResolutionError, match="for 1 of 2 slides"):
        configured(both, mpp=1.0, on_error=None)
    silent = Dataset.from_slides([files / "good.tif", files / "no-mpp.tif"])
    with pytest.raises(ResolutionError, match=r"or an objective for 1 of 2 slides.*no-mpp"):
        configured(silent, mpp=None, magnification="10x", on_error=None)


@pytest.mark.parametrize(
    ("name", "wish", "says"),
    [
        ("good", {}, ""),
        ("tiny", {}, r"^smallchunk_size=\d+ is larger .*lower smallchunk_size"),
        ("no-mpp", {}, "do not state microns per pixel .*column mpp"),
        ("no-mpp", {"mpp": None, "level": 0}, ""),
        ("good", {"mpp": 0.1}, "ask for another resolution"),
    ],
)
def test_of_one_slide_it_is_said_what_a_stream_would_say(
    files: Path, name: str, wish: dict[str, Any], says: str
) -> None:
    """A survey asks for each slide by itself."""
    arguments = checked(dataclasses.replace(GOOD, **{"mpp": 0.5, **wish}))
    stream = stream_config(arguments, row_source(arguments))
    (entry,) = slide_table(dataset_of(files, [name]))
    (info,) = header_facts([entry.path], "auto", None)
    assert isinstance(info, SlideInfo)
    refusal, warning = usable_slides.refusal_of(entry, info, stream)
    assert bool(re.search(says, refusal)) if says else not refusal, refusal
    assert warning == ""
