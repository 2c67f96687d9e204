"""Labels from tables that know patients or slides by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pytest

from chunkdl import Dataset, Panda, Patient, Record
from chunkdl.errors import DatasetError

A = Record("/d", "a-1.svs", labels={"stain": "HE"})
B = Record("/d", "a-2.ome.tif")
C = Record("/d", "b.scn#image=1", {"slide": True})
DATASET = Dataset(
    "d",
    [
        Patient(4, {"one": A, "two": B, "xml": Record("/d", "a.xml"), "site": "h1"}, name="anna"),
        Patient(9, {"slide": C}, name="7"),
    ],
)


def test_patients_have_the_labels_of_their_rows() -> None:
    """New patients: ids, records and names are those of the old, which stay as they are."""
    rows = [
        {"case": "7", "grade": 2, "age": 61.5},
        {"case": "anna", "grade": 1, "age": None},
        {"case": "nobody", "grade": 3, "age": 1.0},
        {"case": "anna", "grade": 1, "age": None},
    ]
    got = DATASET.with_labels(rows, patient="case")
    assert [(p.int_uniqueid, p.name) for p in got] == [(4, "anna"), (9, "7")]
    assert [p.labels for p in got] == [
        {"site": "h1", "grade": 1, "age": None},
        {"grade": 2, "age": 61.5},
    ]
    assert got[0].slides == DATASET[0].slides
    assert DATASET[0].labels == {"site": "h1"}


def test_a_text_file_is_typed_and_numbers_name_patients(tmp_path: Path) -> None:
    """As manifests are; pandas makes a float of the number of a patient where one is missing."""
    (tmp_path / "t.csv").write_text("PATIENT;os_months;alive\nanna;3.5;true\n7;NA;false\n")
    got = DATASET.with_labels(tmp_path / "t.csv", patient="PATIENT")
    assert [p.labels["os_months"] for p in got] == [3.5, None]
    assert [p.labels["alive"] for p in got] == [True, False]
    numbers = pandas.DataFrame({"patient": [7.0], "grade": [2]})
    one = Dataset("d", [DATASET[1]]).with_labels(numbers, patient="patient")
    assert one[0].labels == {"grade": 2}


def test_slides_have_the_labels_of_their_rows() -> None:
    """By the file name, with its suffix or without; other records stay what they are."""
    rows = [
        {"image_id": "a-1", "score": 0},
        {"image_id": "a-2", "score": 1},
        {"image_id": "b", "score": 2},
    ]
    got = DATASET.with_labels(rows, slide="image_id")
    assert [r.labels for p in got for r in p.slides] == [
        {"stain": "HE", "score": 0},
        {"score": 1},
        {"score": 2},
    ]
    assert got[0].dict_records["xml"] is DATASET[0].dict_records["xml"]
    assert A.labels == {"stain": "HE"}


def test_what_has_no_row_is_an_error_or_has_none() -> None:
    """Unless nothing has one, which is the wrong column or table."""
    rows: list[dict[str, Any]] = [{"p": "anna", "grade": 1}]
    with pytest.raises(
        DatasetError, match="1 of 2 have no row by column 'p': 7; the table has anna"
    ):
        DATASET.with_labels(rows, patient="p")
    got = DATASET.with_labels(rows, patient="p", missing="none")
    assert [p.labels.get("grade", "-") for p in got] == [1, None]
    with pytest.raises(DatasetError, match="2 of 2 have no row by column 'p': anna, 7"):
        DATASET.with_labels([{"p": "x", "grade": 1}], patient="p", missing="none")
    with pytest.raises(DatasetError, match="missing='skip' must be 'error' or 'none'"):
        DATASET.with_labels(rows, patient="p", missing="skip")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"p": "anna", "grade": 1}, {"p": "anna", "grade": 2}],
            "row 1: anna has other values in an earlier",
        ),
        ([{"p": "", "grade": 1}], "row 0: column 'p' is empty"),
        ([{"q": "anna", "grade": 1}], "there must be one column 'p'; columns found: q, grade"),
        ([{"p": "anna", "level": 1}], "a label cannot be named 'level'"),
        ([{"p": "anna", "site": 1}], "column 'site': there is a label of this name already"),
        ([{"p": "anna", "stain": 1}], "column 'stain': there is a label of this name already"),
        ([{"p": "anna", "grade": {1}}], "row 0: column 'grade' is a set; a label must be a number"),
        ([], "it has no rows"),
    ],
)
def test_a_table_that_cannot_be_joined_is_refused(rows: list[Any], message: str) -> None:
    """With rows and columns."""
    with pytest.raises(DatasetError, match=message):
        DATASET.with_labels(rows, patient="p", missing="none")


def test_two_rows_of_a_slide_and_both_columns_are_refused() -> None:
    """Nobody could say which is meant."""
    rows = [{"s": "a-1", "grade": 0}, {"s": "a-1.svs", "grade": 0}]
    with pytest.raises(DatasetError, match=r"has the rows a-1\.svs and a-1; keep one of them"):
        DATASET.with_labels(rows, slide="s", missing="none")
    for both in ({}, {"patient": "p", "slide": "s"}):
        with pytest.raises(DatasetError, match="give patient= or slide="):
            DATASET.with_labels(rows, **both)  # type: ignore[arg-type]


def test_the_table_of_panda_fits_its_images(tmp_path: Path) -> None:
    """As the challenge has them."""
    names = "0005f7aaab2800f6170c399693a96917", "000920ad0b612851f8e01bcc880d9b3d"
    for name in names:
        (tmp_path / f"{name}.tiff").touch()
    (tmp_path / "train.csv").write_text(
        "image_id,data_provider,isup_grade,gleason_score\n"
        f"{names[0]},karolinska,0,0+0\n{names[1]},karolinska,0,0+0\n"
        "0018ae58b01bdadc8e347995b69f99aa,radboud,4,4+4\n"
    )
    dataset = Dataset.from_slides(tmp_path, naming=Panda())
    graded = dataset.with_labels(tmp_path / "train.csv", patient="image_id")
    assert graded[0].labels == {
        "data_provider": "karolinska",
        "isup_grade": 0,
        "gleason_score": "0+0",
    }


def test_only_the_wanted_columns_become_labels() -> None:
    """Clinical tables have many, of which some cannot be labels, and rows that differ in them."""
    rows = [
        {"p": "anna", "grade": 1, "weight": 60, "": 0},
        {"p": "anna", "grade": 1, "weight": 61, "": 1},
        {"p": "7", "grade": 2, "weight": 70, "": 2},
    ]
    got = DATASET.with_labels(rows, patient="p", columns=["grade"])
    assert [p.labels for p in got] == [{"site": "h1", "grade": 1}, {"grade": 2}]
    with pytest.raises(DatasetError, match="there must be one column 'stage'"):
        DATASET.with_labels(rows, patient="p", columns=["stage"])
