"""A function of the user as a detector: its name and version, its journey, its mistakes."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from chunkdl import Dataset, LightDL
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.configure import configure
from chunkdl.errors import ConfigError, Failure, HookError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.combined import TissueAny
from chunkdl.slides.tissue.detectors.detector import Cells, Scale
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.detectors.own_tissue import OwnTissue
from chunkdl.slides.tissue.mask import compute_mask
from tests.slides.tissue.memory_slide import MemorySlide


def dark(rgb: Pixels) -> Cells:
    return np.asarray(rgb.mean(axis=2) < 200)


def mistaken(rgb: Any) -> Cells:
    raise KeyError("a mistake of the user")


def noise(side: int) -> Pixels:
    return np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)


def test_it_gets_a_copy_and_gives_its_answer() -> None:
    """It may write into what it gets, and keep what it gives."""
    kept: list[Any] = []

    def greedy(rgb: Pixels) -> Cells:
        kept.append(dark(rgb))
        rgb[:] = 0
        return kept[0]  # type: ignore[no-any-return]

    rgb = noise(20)
    before = rgb.copy()
    found = OwnTissue(greedy, "1", "greedy")(rgb)
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(found, dark(rgb))
    kept[0][:] = False
    assert found.any()


class Model:
    """Says when it is unpacked."""

    unpacked = 0

    def __call__(self, rgb: Pixels) -> Cells:
        return dark(rgb)

    def __setstate__(self, state: object) -> None:
        Model.unpacked += 1

    def __getstate__(self) -> dict[str, int]:
        return {"weights": 1}


@pytest.mark.parametrize("of", [lambda own: own, TissueAny])
def test_it_is_unpacked_only_where_it_is_called(of: Any) -> None:
    """A model is not loaded by the processes that pass it on."""
    Model.unpacked = 0
    detector = of(OwnTissue(Model(), "1", "model"))
    for _ in range(2):
        detector = pickle.loads(pickle.dumps(detector))
    assert Model.unpacked == 0
    assert detector.key == of(OwnTissue(Model(), "1", "model")).key
    np.testing.assert_array_equal(detector(noise(9)), dark(noise(9)))
    detector(noise(9))
    assert Model.unpacked == 1


def test_name_and_version_make_its_key_and_not_its_code() -> None:
    """A notebook that is run again keeps its masks."""
    assert OwnTissue(dark, "1").key != OwnTissue(dark, "2").key
    assert "test_own_tissue.dark" in OwnTissue(dark, "1").key
    assert OwnTissue(lambda rgb: 1, "3", "a").key == OwnTissue(lambda rgb: 2, "3", "a").key


@pytest.mark.parametrize(
    "function",
    [lambda rgb: True, partial(max, 1), Model()],
    ids=["a lambda", "a partial", "an object"],
)
def test_what_has_no_name_of_its_own_needs_a_title(function: Any) -> None:
    """Two of its kind would have the same masks."""
    with pytest.raises(ConfigError, match="give title"):
        OwnTissue(function, "1")
    assert OwnTissue(function, "1", "a").key != OwnTissue(function, "1", "b").key


@pytest.mark.parametrize("wrong", [(7, "1"), (dark, 1), (dark, ""), (dark, "1", 3)])
def test_a_wrong_argument_is_an_error_where_it_is_given(wrong: tuple[Any, ...]) -> None:
    """And not in a loader."""
    with pytest.raises(ConfigError, match="OwnTissue: "):
        OwnTissue(*wrong)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda rgb: rgb[..., 0], r"an array of uint8 of shape \(64, 64\)"),
        (lambda rgb: rgb > 0, r"an array of bool of shape \(64, 64, 3\)"),
        (lambda rgb: None, "a NoneType"),
        (lambda rgb: rgb.lost, "AttributeError: .*'lost'"),
    ],
)
def test_its_mistakes_are_told_with_the_slide(answer: Any, told: str) -> None:
    """Also of one inside of others; the error survives its way to the user."""
    slide = MemorySlide([noise(1024)])
    for detector in (OwnTissue(answer, "1", "mine"), TissueAny(OwnTissue(answer, "1", "mine"))):
        with pytest.raises(HookError, match=told) as caught:
            compute_mask(slide, detector)
        assert "memory.svs" in str(caught.value)
        assert "mine" in caught.value.hook
        assert "memory.svs" in str(Failure.of(caught.value).to_error())
    with pytest.raises(HookError, match="slide unknown"):
        OwnTissue(answer, "1", "mine").find(noise(64), Scale())


def test_what_cannot_be_sent_is_refused_before_anything_starts(slide: Path) -> None:
    """Also inside of others."""
    file = slide.open("rb")
    with file:

        def holds_a_file(rgb: Pixels) -> Cells:
            return np.asarray(rgb[..., 0] > file.tell())

        detector = TissueAny(Otsu(), OwnTissue(holds_a_file, "1", "f"))
        with pytest.raises(ConfigError, match=r"tissue=.*cannot be sent to the loaders"):
            configure(Dataset.from_slides(slide), Arguments(tissue=detector, num_bigchunks=1))
    assert cloudpickle.dumps(OwnTissue(dark, "1"))


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from chunkdl.slides.synthetic.writing import write_tissue_slide

    path = tmp_path_factory.mktemp("own") / "tissue.tif"
    write_tissue_slide(path, 1024, 1024, seed=3)
    return path


SMALL = {
    "batch_size": 4,
    "smallchunk_size": 64,
    "bigchunk_size": 256,
    "num_bigchunks": 2,
    "num_collectors": 1,
    "arrays": "numpy",
}


def test_it_runs_once_for_a_slide_whatever_the_loaders(slide: Path, tmp_path: Path) -> None:
    """A class of this program, by value; each call leaves a mark."""
    marks = tmp_path / "marks"
    marks.mkdir()

    class Counting:
        def __call__(self, rgb: Pixels) -> Cells:
            import tempfile

            tempfile.mkstemp(dir=marks)
            return np.ones(rgb.shape[:2], np.bool_)

    own = OwnTissue(Counting(), "1", "counting")
    arguments: Any = {**SMALL, "tissue": own, "mask_cache": tmp_path / "masks"}
    with LightDL(Dataset.from_slides(slide), num_loaders=2, **arguments) as loader:
        for _ in range(6):
            assert (loader.next_batch(timeout=60)["tissue_fraction"] == 1).all()
    assert len(list(marks.iterdir())) == 1


def test_its_mistake_reaches_get_with_the_slide(slide: Path, tmp_path: Path) -> None:
    """As that of every function of the user."""
    own = OwnTissue(mistaken, "1", "mistaken")
    arguments: Any = {**SMALL, "tissue": own, "mask_cache": tmp_path / "masks"}
    with (
        LightDL(Dataset.from_slides(slide), num_loaders=1, **arguments) as loader,
        pytest.raises(
            HookError, match=r"KeyError.*of the user.*slide .*tissue\.tif.*OwnTissue\(mistaken"
        ),
    ):
        loader.next_batch(timeout=60)
