"""A survey finds out what is in every slide, whatever the others do, and only once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl import Dataset, Patient, Record, Survey, SurveyedSlide, open_slide
from chunkdl.errors import ConfigError, DatasetError, WorkerDied
from chunkdl.slides.synthetic.writing import write_coordinate_slide, write_tissue_slide
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.mask import compute_mask
from tests.annotations.boxes import box, geojson_of
from tests.processes.bad_slides import with_bad_slides, with_killing_slide
from tests.processes.slow_classes import Marked

SIDE = 768
ODD = (b"q\"uote's & <b>new\nline.tif", b"M\xfcller.tif")
"""Names of files that mean something in HTML or CSV, and one that is no UTF-8."""


def kinds_of(survey: Survey) -> dict[str, list[str]]:
    """The kinds of problems of each slide that has any, by the name of its file."""
    return {
        os.path.basename(slide.path): [problem.kind for problem in slide.problems]
        for slide in survey.with_problems
    }


def named(survey: Survey, name: str) -> SurveyedSlide:
    """The slide of that name."""
    (slide,) = (slide for slide in survey.slides if os.path.basename(slide.path) == name)
    return slide


@pytest.fixture(scope="module")
def tissue_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small slide with tissue."""
    path = tmp_path_factory.mktemp("tissue") / "tissue.tif"
    write_tissue_slide(path, SIDE, SIDE, seed=1, mpp=0.5)
    return path


@pytest.fixture(scope="module")
def bad_folder(tissue_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of slides with names of every kind, of which some are bad."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ODD:
        shutil.copy(tissue_slide, folder / os.fsdecode(name))
    with_bad_slides(Dataset("none", []), folder)
    write_coordinate_slide(folder / "tiny.tif", 32, 32, tile=16, levels=(1,))
    return folder


@pytest.fixture(scope="module")
def bad_dataset(bad_folder: Path) -> Dataset:
    """Of that folder, with a mask where detectors see noise, and a file that is not there."""
    everything = np.ones((5, 6), np.bool_)
    masks = {
        "damaged.tif": everything,
        "glass.tif": ~everything,
        "text.svs": everything,
        "tiny.tif": np.ones((4, 4), np.bool_),
    }
    names = [*map(os.fsdecode, sorted(os.listdir(os.fsencode(bad_folder)))), "gone.tif"]
    shutil.copy(bad_folder / "tiny.tif", bad_folder / "other.tif")
    names, masks["other.tif"] = [*names, "other.tif"], everything
    records = [Record(bad_folder, name, {"tissue_mask": masks.get(name)}) for name in names]
    return Dataset(
        "bad <dataset>",
        [Patient(number, {"s": record}) for number, record in enumerate(records)],
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where looks are kept, for the tests that may share them."""
    return tmp_path_factory.mktemp("looks") / "masks"


@pytest.fixture(scope="module")
def bad_survey(bad_dataset: Dataset, cache: Path) -> Survey:
    """The first survey of that dataset."""
    return bad_dataset.survey(mask_cache=cache, smallchunk_size=64, processes=2)


def test_a_survey_says_what_is_wrong_with_each_slide(bad_survey: Survey) -> None:
    """In words that a stream would use, and for all slides at once."""
    assert kinds_of(bad_survey) == {
        "damaged.tif": ["not read"],
        "empty.tif": ["not opened"],
        "glass.tif": ["no tissue"],
        "gone.tif": ["not opened"],
        "other.tif": ["resolution", "given mask"],
        "text.svs": ["not opened"],
        "tiny.tif": ["resolution"],
    }
    texts = {os.path.basename(s.path): s.problems[0].text for s in bad_survey.with_problems}
    assert "regions that were tried cannot be read" in texts["damaged.tif"]
    assert "level 0" in texts["damaged.tif"]
    assert "empty" in texts["empty.tif"]
    assert "No such file" in texts["gone.tif"]
    assert "tissue" in texts["glass.tif"]
    assert "aspect" in named(bad_survey, "other.tif").problems[1].text
    assert "smallchunk_size=64 is larger" in texts["tiny.tif"]
    damaged = named(bad_survey, "damaged.tif").look
    assert 0 < damaged.regions_unreadable < damaged.regions_read


def test_facts_and_tissue_are_those_that_streams_find(
    bad_survey: Survey, tissue_slide: Path
) -> None:
    """The area is that of the mask, in mm² by the microns of the file."""
    slide = named(bad_survey, os.fsdecode(ODD[1]))
    opened = open_slide(tissue_slide)
    try:
        mask = compute_mask(opened, Otsu())
        info = slide.info
        assert info is not None
        assert (info.levels, info.mpp) == (opened.info.levels, opened.info.mpp)
    finally:
        opened.close()
    assert slide.look.tissue_px == pytest.approx(mask.cells.mean() * SIDE**2)
    assert slide.look.tissue_px is not None
    assert slide.tissue_mm2 == pytest.approx(slide.look.tissue_px * 0.25e-6)
    assert slide.look.format == "TIFF"
    assert slide.look.stored_as.startswith("JPEG, 3 x 8 bit")
    assert slide.look.regions_read >= 3
    assert slide.look.picture.startswith(b"\xff\xd8")
    assert not slide.problems


def test_a_second_survey_looks_only_at_what_has_failed(
    bad_survey: Survey, bad_dataset: Dataset, cache: Path
) -> None:
    """What was found is the same; a failed look is never kept, and its file may be good now."""
    again = bad_dataset.survey(mask_cache=cache, smallchunk_size=64)
    failed = sum(slide.look.failed for slide in bad_survey.slides)
    assert failed == 5
    assert again.looked_at == failed - 1  # of what is not there nothing can be looked at
    assert again.slides == bad_survey.slides
    other = bad_dataset.survey(mask_cache=cache, smallchunk_size=16)
    assert other.looked_at == len(bad_dataset) - 1
    assert "tiny.tif" not in kinds_of(other)


def test_a_changed_file_is_looked_at_again(tissue_slide: Path, tmp_path: Path) -> None:
    """And only that."""
    names = [tmp_path / f"{number}.tif" for number in range(2)]
    for name in names:
        shutil.copy(tissue_slide, name)
    dataset = Dataset.from_slides(tmp_path)
    settings: dict[str, Any] = {"mask_cache": tmp_path / "cache", "smallchunk_size": 64}
    first = dataset.survey(processes=1, **settings)
    assert first.looked_at == 2
    write_tissue_slide(names[1], SIDE, SIDE, seed=2, mpp=0.25)
    second = dataset.survey(processes=1, **settings)
    assert second.looked_at == 1
    assert second.slides[0] == first.slides[0]
    assert second.slides[1].mpp == pytest.approx((0.25, 0.25))


@pytest.mark.parametrize(
    ("what", "kind", "says"),
    [("SIGSEGV", "crash", "was ended by SIGSEGV"), ("hang", "no answer", "within 10 s")],
)
def test_a_slide_that_crashes_or_hangs_its_process_ends_no_survey(
    what: str, kind: str, says: str, tissue_slide: Path, tmp_path: Path
) -> None:
    """It is reported and tried again in the next survey; the others are there."""
    good = [tmp_path / f"good-{number}.tif" for number in range(2)]
    for path in good:
        shutil.copy(tissue_slide, path)
    dataset = with_killing_slide(map(str, good), tmp_path)
    settings: dict[str, Any] = {
        "tissue": Marked(tmp_path / "marks", what),
        "mask_cache": tmp_path / "cache",
        "smallchunk_size": 64,
        "processes": 1,
        "slide_timeout": 10,
    }
    survey = dataset.survey(**settings)
    assert kinds_of(survey) == {"bad.tif": [kind]}
    assert says in named(survey, "bad.tif").problems[0].text
    assert [slide.tissue_share for slide in survey.slides] == [1.0, 1.0, None]
    if what != "hang":
        assert dataset.survey(**settings).looked_at == 1


KILLED = """
import signal
import sys
from pathlib import Path
from typing import Any
from chunkdl import Dataset
from tests.survey.detectors import StandsStill

signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
detector = StandsStill(folder / "marks", folder / "gate", 3)
Dataset.from_slides(folder / "slides").survey(
    tissue=detector, mask_cache=folder / "cache", smallchunk_size=64, processes=1
)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_survey_that_was_ended_goes_on_where_it_was(
    number: signal.Signals, tissue_slide: Path, tmp_path: Path, eventually: Callable[..., bool]
) -> None:
    """What was looked at is kept at once, nothing of it is looked at again, no process is left."""
    from tests.survey.detectors import StandsStill

    (tmp_path / "slides").mkdir()
    for name in "abcdef":
        shutil.copy(tissue_slide, tmp_path / "slides" / f"{name}.tif")
    (tmp_path / "gate").touch()
    marks, kept = tmp_path / "marks", tmp_path / "cache"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)]) as killed:
        try:
            assert eventually(lambda: len(list(kept.glob("*.look"))) == 3)
            killed.send_signal(number)
            assert killed.wait(60) == -number
        finally:
            killed.kill()
    (tmp_path / "gate").unlink()
    marks.write_text("")
    for mask in kept.glob("*.mask"):
        mask.unlink()  # so that a look that is done again would ask the detector again
    survey = Dataset.from_slides(tmp_path / "slides").survey(
        tissue=StandsStill(marks, tmp_path / "gate", 3),
        mask_cache=kept,
        smallchunk_size=64,
        processes=1,
    )
    assert survey.looked_at == 3
    assert len(marks.read_text().splitlines()) == 3
    assert [slide.tissue_share for slide in survey.slides] == [1.0] * 6


def test_annotated_areas_are_told_by_class(tissue_slide: Path, tmp_path: Path) -> None:
    """Of the slides that have any; one whose file cannot be read says so."""
    (tmp_path / "drawn").mkdir()
    for name in ("a", "b", "c"):
        shutil.copy(tissue_slide, tmp_path / f"{name}.tif")
    shapes = geojson_of(box(0, 0, 100, 200, "tumor"), box(300, 300, 10, 10, "tumor"))
    (tmp_path / "drawn" / "a.geojson").write_bytes(shapes)
    (tmp_path / "drawn" / "b.geojson").write_text('{"type": "FeatureCollection"')
    dataset = Dataset.from_slides([tmp_path / f"{name}.tif" for name in ("a", "b", "c")])
    survey = dataset.survey(
        annotations=tmp_path / "drawn", mask_cache=tmp_path / "cache", smallchunk_size=64
    )
    assert kinds_of(survey) == {"b.tif": ["annotations"]}
    first, second, third = survey.slides
    assert first.look.annotated_px == pytest.approx({"tumor": 20_100})
    assert first.annotated_mm2 == pytest.approx({"tumor": 20_100 * 0.25e-6})
    assert second.look.annotated_px is None
    assert third.look.annotated_px is None


OPENED = """
import sys
from chunkdl import Dataset
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.configure import configure

opened = []

def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".tif"):
        opened.append(arguments[0])

dataset = Dataset.from_slides(sys.argv[1])
sys.addaudithook(watch)
configure(dataset, Arguments(smallchunk_size=64, bigchunk_size=256, mask_cache=sys.argv[2]))
print(len(opened))
"""


def test_a_stream_after_a_survey_opens_no_slide_before_it_reads(
    tissue_slide: Path, tmp_path: Path
) -> None:
    """Until its loaders read, it looks at what the survey has kept; without one it opens all."""
    (tmp_path / "slides").mkdir()
    for number in range(3):
        shutil.copy(tissue_slide, tmp_path / "slides" / f"{number}.tif")

    def opened(cache: str) -> int:
        command = [sys.executable, "-c", OPENED, str(tmp_path / "slides"), str(tmp_path / cache)]
        return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    assert opened("other") >= 3
    Dataset.from_slides(tmp_path / "slides").survey(
        mask_cache=tmp_path / "cache", smallchunk_size=64
    )
    assert opened("cache") == 0


class Unloadable:
    """A detector that ends every process that it comes to."""

    name = key = "unloadable"

    def __call__(self, rgb: object) -> object:
        """Never called."""
        return rgb

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (3,)


def test_processes_that_cannot_begin_are_an_error(tissue_slide: Path, tmp_path: Path) -> None:
    """And are not started again and again."""
    with pytest.raises(WorkerDied, match="cannot begin: one ended with 3"):
        Dataset.from_slides(tissue_slide).survey(tissue=Unloadable(), mask_cache=tmp_path)


def test_a_setting_that_is_wrong_is_told_before_anything_starts(tissue_slide: Path) -> None:
    """And an empty dataset."""
    dataset = Dataset.from_slides(tissue_slide)
    with pytest.raises(ConfigError, match="has no setting 'batch_size'"):
        dataset.survey(batch_size=4)
    with pytest.raises(ConfigError, match="processes"):
        dataset.survey(processes=0)
    with pytest.raises(ConfigError, match="slide_timeout"):
        dataset.survey(slide_timeout=0)
    with pytest.raises(ConfigError, match="tissue"):
        dataset.survey(tissue="nothing")
    with pytest.raises(DatasetError):
        Dataset("none", []).survey()
