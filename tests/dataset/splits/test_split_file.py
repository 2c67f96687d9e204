"""Files of splits: what is written is read again, and what is no split of it is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl import Dataset, Patient, Split
from chunkdl.errors import DatasetError


def cohort(*names: str) -> Dataset:
    """Patients without slides."""
    return Dataset("cohort", [Patient(n, {"y": n % 2}, name=name) for n, name in enumerate(names)])


ABC = cohort("a", "b", "c")
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1)
names = names.map(str.strip).filter(bool)


@given(st.lists(names, min_size=2, max_size=6, unique=True), names, st.data())
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, found: list[str], part: str, data: st.DataObject
) -> None:
    """Whatever the names: separators, quotes, marks of comments."""
    path = tmp_path_factory.mktemp("splits") / "split.csv"
    dataset = cohort(*found)
    parts = [part, "2" if part == "1" else "1"]
    drawn = {name: data.draw(st.sampled_from(parts)) for name in found}
    drawn[found[0]], drawn[found[1]] = parts
    split = Split(dataset, drawn, tuple(parts))
    split.write(path)
    assert Split.read(path, dataset) == split


def test_a_drawn_split_says_how_it_was_drawn(tmp_path: Path) -> None:
    """For people, in the first line; it comes back with the split."""
    split = Split.draw(cohort(*"abcdefgh"), {"train": 0.5, "test": None}, stratify="y", seed=3)
    split.write(tmp_path / "split.csv")
    first, header, *rows = (tmp_path / "split.csv").read_text().splitlines()
    assert first.startswith("# chunkdl split 1 {")
    assert (header, len(rows), rows) == ("patient,part", 8, sorted(rows))
    again = Split.read(tmp_path / "split.csv", split.dataset)
    assert (again, again.parts) == (split, ("train", "test"))
    assert json.loads(again.made_from) == {
        "dataset": "cohort",
        "patients": 8,
        "parts": {"train": 0.5, "test": None},
        "stratify": "y",
        "seed": 3,
    }


def test_others_read_the_file_as_a_csv(tmp_path: Path) -> None:
    """With a mark of comments, as pandas and R have it."""
    Split(ABC, {"a": "x", "b": "y", "c": "x"}).write(tmp_path / "split.csv")
    frame = pandas.read_csv(tmp_path / "split.csv", comment="#")
    assert frame.to_dict("list") == {"patient": ["a", "b", "c"], "part": ["x", "y", "x"]}
    with (tmp_path / "split.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 5


@pytest.mark.parametrize(
    "text",
    [
        "patient,part\na,x\nb,y\nc,x\n",
        "part;patient\nx;a\ny;b\nx;c\n",
        "# by hand\n\n# twice\nPatient\tPart\na\tx\nb\ty\nc\tx",
        "\ufeffpatient,part,note\r\na,x,\r\nb,y,seen\r\nc,x,\r\n",
    ],
)
def test_a_table_that_somebody_else_wrote_is_a_split_too(tmp_path: Path, text: str) -> None:
    """Any CSV with these two columns; parts are in the order of the rows."""
    (tmp_path / "split.csv").write_bytes(text.encode())
    split = Split.read(tmp_path / "split.csv", ABC)
    assert (dict(split.part_of), split.parts) == ({"a": "x", "b": "y", "c": "x"}, ("x", "y"))
    assert split.made_from == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient,part\na,x\nb,y\n", "1 patients of dataset 'cohort' are not in the file: c;"),
        (
            "patient,part\na,x\nb,y\nc,x\nd,x\n",
            "1 patients of the file are not in dataset 'cohort': d;",
        ),
        ("# note\npatient,part\na,x\na,x\n", "row 4: patient a comes twice"),
        ("patient,part\na,\n", "row 2: patient or part is empty"),
        ("patient,part\na,x,y\n", "row 2: 3 cells for 2 columns"),
        ("patient,fold\na,x\n", "needs one column 'part'; columns found: patient, fold"),
        ("patient,part,Part\na,x,y\n", "needs one column 'part'"),
        ("patient,part\n", "it has no rows"),
        ("", "it has no rows"),
        ('# chunkdl split 2 {"parts": []}\npatient,part\na,x\n', "version 2 .* reads version 1"),
        ("# chunkdl split 1 {]\npatient,part\na,x\n", "comment in its first line is damaged"),
        ("# chunkdl split one\npatient,part\na,x\n", "comment in its first line is damaged"),
        ("# chunkdl split 1 [1]\npatient,part\na,x\n", "comment in its first line is damaged"),
    ],
)
def test_a_file_that_is_no_split_of_the_dataset_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    """With rows or patients."""
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        Split.read(tmp_path / "split.csv", ABC)


@pytest.mark.parametrize("name", [" a", "a\n", "a\rb", "a\0b", "\udcff", ""])
def test_a_name_that_a_file_would_not_give_back_is_not_written(tmp_path: Path, name: str) -> None:
    """Read again it would be another patient."""
    split = Split(cohort(name, "b"), {name: "x", "b": "y"})
    with pytest.raises(DatasetError, match="cannot be written into a file of text; rename it"):
        split.write(tmp_path / "split.csv")
    assert list(tmp_path.iterdir()) == []


def test_what_a_split_was_made_from_is_json(tmp_path: Path) -> None:
    """Or the comment could not be read again."""
    split = Split(ABC, {"a": "x", "b": "y", "c": "x"}, made_from="by hand")
    with pytest.raises(DatasetError, match="made_from='by hand' is not JSON"):
        split.write(tmp_path / "split.csv")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """As what cannot be read is."""
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot be written"):
        Split(ABC, {"a": "x", "b": "y", "c": "x"}).write(tmp_path / "file" / "split.csv")
    with pytest.raises(DatasetError, match="cannot be read"):
        Split.read(tmp_path / "none.csv", ABC)
