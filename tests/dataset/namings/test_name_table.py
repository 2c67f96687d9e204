"""Slides whose patients a table says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chunkdl import Dataset, NamedSlide, NameTable
from chunkdl.errors import DatasetError

ROWS: list[dict[str, Any]] = [
    {"Case_ID": "11CO005", "Slide_ID": "2f2e5477-42a4-4906-a943-bf7f80_D1_D1", "tumor": True},
    {"Case_ID": "11CO005", "Slide_ID": "a1b2.svs", "tumor": False},
    {"Case_ID": "007", "Slide_ID": "x", "tumor": None},
]


def test_a_slide_is_found_by_its_file_name(tmp_path: Path) -> None:
    """With its suffix or without, in whatever folder."""
    for name in ("deep/2f2e5477-42a4-4906-a943-bf7f80_D1_D1.svs", "a1b2.svs", "x.ome.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    naming = NameTable(ROWS, slide="Slide_ID", patient="Case_ID", labels=("tumor",))
    dataset = Dataset.from_slides(tmp_path, naming=naming)
    found = {p.name: [record.labels["tumor"] for record in p.slides] for p in dataset}
    assert found == {"11CO005": [False, True], "007": [None]}


def test_codes_stay_what_they_are(tmp_path: Path) -> None:
    """Equal numbers are not equal codes: as numbers, two patients would be one."""
    path = tmp_path / "slides.csv"
    path.write_text("slide,patient\na,1.5\nb,1.50\nc,7\nd,07\n")
    naming = NameTable(path, slide="slide", patient="patient")
    names = [naming.read(f"/d/{name}.svs") for name in "abcd"]
    assert names == [NamedSlide("1.5"), NamedSlide("1.50"), NamedSlide("7"), NamedSlide("07")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"slide": "a", "p": "x"}], "there must be one column 'patient'; columns found: slide, p"),
        ([{"s": "a", "patient": "x"}], "there must be one column 'slide'"),
        ([{"slide": "a", "patient": ""}], "row 0: column 'patient' is empty"),
        ([{"slide": "", "patient": "x"}], "row 0: column 'slide' is empty"),
        (
            [{"slide": "a", "patient": "x"}, {"slide": "a", "patient": "z"}],
            "row 1: a has another patient in an earlier row",
        ),
    ],
)
def test_a_table_that_does_not_say_whose_slide_it_is_is_refused(
    rows: list[dict[str, str]], message: str
) -> None:
    """With the row."""
    with pytest.raises(DatasetError, match=message):
        NameTable(rows, slide="slide", patient="patient")


def test_a_slide_that_the_table_does_not_have_or_has_twice_does_not_fit() -> None:
    """Two rows that say the same are one."""
    rows = [
        *({"s": name, "p": "x"} for name in ("a", "a.svs", "b")),
        {"s": "b.svs", "p": "z"},
    ]
    naming = NameTable(rows, slide="s", patient="p")
    assert naming.read("/d/a.svs") == NamedSlide("x")
    with pytest.raises(DatasetError, match="the table has it twice, with the suffix and without"):
        naming.read("/d/b.svs")
    with pytest.raises(DatasetError, match="column 's' of the table does not have it"):
        naming.read("/d/c.svs")
