"""The command writes a table and a page, and its exit status says whether all is well."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from chunkdl.commands.main import main
from chunkdl.commands.survey import dataset_at
from chunkdl.slides.synthetic.writing import write_tissue_slide


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests leave the user's cache alone, and write into their own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small slide."""
    path = tmp_path_factory.mktemp("slides") / "one.tif"
    write_tissue_slide(path, 768, 768, seed=1)
    return path


def test_the_command_writes_a_table_and_a_page(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a manifest, whose files it finds; the next survey knows the slide under any name."""
    (tmp_path / "empty.tif").touch()
    (tmp_path / "slides.csv").write_text(f"patient,slide\nA,{slide}\nA,empty.tif\n")
    command = ["survey", "slides.csv", "--smallchunk-size", "64", "--processes", "1"]
    assert main([*command, "--out", "all"]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "2 slides (2 looked at now), 1 with problems",
        "  not opened: 1",
        "all/survey.csv",
        "all/survey.html",
    ]
    assert told.err == ""
    with (tmp_path / "all" / "survey.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["patient"] for row in rows] == ["A", "A"]
    assert float(rows[0]["tissue_mm2"]) > 0
    assert "one.tif" in (tmp_path / "all" / "survey.html").read_text()

    assert main(["survey", str(slide), "--smallchunk-size", "64"]) == 0
    assert "1 slides (0 looked at now), 0 with problems" in capsys.readouterr().out
    assert (tmp_path / "survey-out" / "survey.html").exists()


def test_a_wrong_setting_is_one_line(slide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is started or written."""
    assert main(["survey", str(slide), "--mpp", "-1"]) == 2
    assert capsys.readouterr().err.startswith("chunkdl: error: mpp")
    assert main(["survey", "nowhere"]) == 2
    assert not Path("survey-out").exists()


def test_one_file_that_is_no_slide_is_a_manifest(slide: Path, tmp_path: Path) -> None:
    """A folder, a slide, several slides and a manifest are told apart by what they are."""
    table = tmp_path / "table.tsv"
    table.write_text(f"patient\tslide\nA\t{slide.name}\n")
    assert dataset_at([table], slide.parent).list_patients[0].name == "A"
    for paths in ([slide], [slide.parent], [Path(f"{slide}#image=0")]):
        assert len(dataset_at(paths, None)) == 1
