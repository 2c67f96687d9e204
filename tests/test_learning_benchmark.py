"""The study of learning: halves share no pixel, it can be broken off, and its table is right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks import learning
from benchmarks.learning import DEFAULT, PATCH, Run, Setting
from chunkdl.slides.synthetic.writing import write_tissue_slide

SIDE = 2048
RUN = Run("default", 0, 2, 0.5, 32.0, 2.0, 0.02, 40, 1.0, 1.0)


@pytest.fixture
def slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two small slides, and a study of them that is soon over."""
    names = ("one.tif", "two.tif")
    for seed, name in enumerate(names):
        write_tissue_slide(tmp_path / name, SIDE, SIDE, seed=seed)
    small = Setting("default", "default", {**DEFAULT, "num_bigchunks": 4, "bigchunk_size": 256})
    other = Setting("2 open", "open", {**small.arguments, "num_bigchunks": 2})
    monkeypatch.setattr(learning, "SLIDES", names)
    monkeypatch.setattr(learning, "SETTINGS", (small, other))
    monkeypatch.setattr(learning, "TEST_BATCHES", 1)
    return tmp_path


def lines(mask: npt.NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """The first and the last line with tissue."""
    found = np.flatnonzero(mask.any(axis=1 - axis))
    return int(found[0]), int(found[-1])


def test_no_pixel_is_in_both_halves(slides: Path) -> None:
    """A patch may stick out of its half by less than itself; they are further apart than two."""
    for training, test in zip(*learning.halves(slides), strict=True):
        one: Any = training.slides[0].dict_infos["tissue_mask"]
        other: Any = test.slides[0].dict_infos["tissue_mask"]
        assert one.shape == other.shape
        assert one.sum() == pytest.approx(other.sum(), rel=0.2)
        axis = int(np.argmax(one.shape))
        apart = lines(other, axis)[0] - lines(one, axis)[1] - 1
        assert apart * SIDE / one.shape[axis] >= 2 * PATCH


def test_a_study_that_was_broken_off_goes_on(
    slides: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is in the file is not run again; what is missing is."""
    results = slides / "results.jsonl"
    given = ["--slides", str(slides), "--seeds", "1", "--steps", "2", "--results", str(results)]
    learning.main(given)
    whole = results.read_text().splitlines()
    assert [run.setting for run in learning.finished(results, 2)] == ["default", "2 open"]
    assert learning.finished(results, 3) == []

    results.write_text(whole[0] + "\n")
    learning.main(given)
    again = results.read_text().splitlines()
    assert again[0] == whole[0]
    assert learning.finished(results, 2)[1].accuracy == json.loads(whole[1])["accuracy"]
    assert capsys.readouterr().out.count("|2 open|1|") == 2


def test_differences_are_between_runs_of_the_same_seed() -> None:
    """Runs that differ by 0.1 each have a difference without a spread, however far they spread."""
    settings = (Setting("default", "default", DEFAULT), Setting("other", "open", DEFAULT))
    runs = [
        replace(RUN, setting=name, seed=seed, accuracy=0.3 + 0.2 * seed + 0.1 * number)
        for number, name in enumerate(("default", "other"))
        for seed in range(3)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "SETTINGS", settings)
        made = learning.table(runs, settings)
    assert "|default|3|50.0 ± 49.7||" in made
    assert "|other|3|60.0 ± 49.7|+10.0 ± 0.0|" in made


def test_an_interval_is_that_of_the_t_distribution() -> None:
    """Of 1, 2 and 3 hundredths: 2 ± 4.303 / √3, by the table of any book."""
    assert learning.interval([0.01, 0.02, 0.03]) == "+2.0 ± 2.5"
