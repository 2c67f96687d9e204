"""Records, patients, datasets, and the manifests and folders they come from."""

from __future__ import annotations

import copy
import logging
import math
import os
import pickle
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.errors import DatasetError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_dicom(path: Path, series: str = "1.2.3", kind: str = "VOLUME") -> None:
    """A DICOM file without pixels: what says which series it is of, and what it shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    file = FileDataset(os.fspath(path), {}, file_meta=meta, preamble=bytes(128))
    file.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    if series:
        file.SeriesInstanceUID = series
    file.InstanceNumber = "1"
    file.save_as(path)


@pytest.mark.parametrize("root", ["/data/set/", "/data/set", Path("/data/set")])
def test_a_record_has_one_path_however_its_root_ends(root: str | Path) -> None:
    """As os.path.join; PyDmed's users end the root with a slash and add the strings."""
    assert Record(root, "a/b.svs", {}).path == "/data/set/a/b.svs"


@pytest.mark.parametrize(
    ("name", "infos", "expected"),
    [
        ("a.svs", {}, True),
        ("A.SVS", {}, True),
        ("a.ome.tif", {}, True),
        ("a.xml", {}, False),
        ("a.xml", {"slide": True}, True),
        ("a.svs", {"slide": False}, False),
        ("a.svs", {"slide": "second cut"}, True),
        ("a.ome.tif#image=1", {}, True),
        ("a.ome.tif#image=01", {}, False),
        ("a.xml#image=1", {}, False),
    ],
)
def test_a_record_is_a_slide_by_its_name_or_as_it_says(
    name: str, infos: dict[str, object], expected: bool
) -> None:
    """Only a bool decides; a user's own text under the same key does not."""
    assert Record("/data", name, infos).is_slide == expected


def test_a_patient_shares_its_records_out_into_slides_and_labels() -> None:
    """In the order of the dict; records that are no slides are neither."""
    first, second = Record("/d/", "a.svs", {}), Record("/d/", "b.ndpi", {})
    patient = Patient(
        7, {"H&E": first, "grade": 3, "xml": Record("/d/", "a.xml", {}), "HER2": second}
    )
    assert patient.slides == (first, second)
    assert patient.labels == {"grade": 3}
    assert (patient.name, Patient(7, {}, name="Anna").name) == ("7", "Anna")
    patient.dict_records["mask"] = "later"
    assert patient.labels == {"grade": 3, "mask": "later"}


@given(first=st.integers(), second=st.integers())
def test_patients_are_compared_by_their_ids_alone(first: int, second: int) -> None:
    """Hash, equality and order."""
    a, b = Patient(first, {"x": 1}), Patient(second, {})
    assert (a == b, a < b, a <= b, a > b, a >= b) == (
        *(first == second, first < second, first <= second),
        *(first > second, first >= second),
    )
    assert len({a, b}) == len({first, second})


def test_a_patient_is_unequal_to_anything_else_and_has_no_order_with_it() -> None:
    """Comparing with None does not raise, as it did in PyDmed."""
    patient = Patient(1, {})
    assert patient != None  # noqa: E711
    assert patient != 1
    assert patient not in [None, "1"]
    with pytest.raises(TypeError):
        assert patient < 1


def test_the_id_of_a_patient_is_a_whole_number() -> None:
    """A numpy integer will do; text or a float is refused with its value."""
    assert Patient(np.int64(3), {}).int_uniqueid == 3  # type: ignore[arg-type]
    for wrong in ("3", 3.0, None):
        with pytest.raises(DatasetError, match="must be an int"):
            Patient(wrong, {})  # type: ignore[arg-type]


def test_a_dataset_is_a_sequence_of_its_patients() -> None:
    """Length, order, index, slice, membership; a change of the given list does not reach it."""
    patients = [Patient(number, {}) for number in (5, 3, 9)]
    dataset = Dataset("mine", patients)
    patients.append(Patient(1, {}))
    assert (len(dataset), dataset.str_dsname) == (3, "mine")
    assert [patient.int_uniqueid for patient in dataset] == [5, 3, 9]
    assert dataset[-1] is patients[2]
    assert dataset[:2] == patients[:2]
    assert patients[1] in dataset
    assert dataset.index(patients[1]) == 1
    assert list(reversed(dataset)) == patients[2::-1]
    assert len(Dataset("empty", [])) == 0


def test_a_dataset_refuses_what_is_no_patient_and_an_id_that_comes_twice() -> None:
    """The error shows both patients."""
    with pytest.raises(DatasetError, match="7 is not a Patient"):
        Dataset("mine", [7])  # type: ignore[list-item]
    with pytest.raises(DatasetError, match=r"name='a'.*name='b'.*same id"):
        Dataset("mine", [Patient(1, {}, name="a"), Patient(1, {}, name="b")])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_a_dataset_can_be_pickled_and_copied(duplicate: Callable[[Dataset], Dataset]) -> None:
    """Users keep their splits on disk."""
    infos: dict[str, object] = {"mpp": 0.5, "tissue_mask": np.ones((2, 2), np.bool_)}
    patient = Patient(4, {"s": Record("/d/", "a.svs", infos), "y": 1}, name="x")
    got = duplicate(Dataset("mine", [patient]))
    assert (got.str_dsname, list(got), got[0].name, got[0].labels) == (
        *("mine", [patient], "x", {"y": 1}),
    )
    assert got[0].slides[0].path == "/d/a.svs"
    assert got[0].slides[0].dict_infos["mpp"] == 0.5


# ---- From slides.


def test_a_folder_is_searched_for_slides_with_its_subfolders(tmp_path: Path) -> None:
    """Sorted, one patient each; hidden files and other files are left out."""
    touch(
        *(tmp_path / name for name in ("z.svs", "a/b.TIFF", "a/notes.txt", "a/c/d.ndpi")),
        *(tmp_path / name for name in ("._z.svs", ".trash/x.svs", "mirax.mrxs", "mirax/Data.dat")),
    )
    dataset = Dataset.from_slides(tmp_path)
    assert dataset.str_dsname == tmp_path.name
    assert [p.name for p in dataset] == ["a/b.TIFF", "a/c/d.ndpi", "mirax.mrxs", "z.svs"]
    assert [p.int_uniqueid for p in dataset] == [0, 1, 2, 3]
    assert [[r.path for r in p.slides] for p in dataset] == [
        [str(tmp_path / p.name)] for p in dataset
    ]
    record = dataset[0].slides[0]
    assert str(record.rootdir) + str(record.relativedir) == record.path


def test_a_folder_of_dicom_files_is_one_slide(tmp_path: Path) -> None:
    """Stood for by its first image and named by the folder, also when it is given itself."""
    for number in (2, 0, 1):
        write_dicom(tmp_path / f"case/level-{number}.dcm")
    write_dicom(tmp_path / "case/a-label.dcm", kind="LABEL")
    touch(tmp_path / "b.svs")
    dataset = Dataset.from_slides(tmp_path)
    assert [p.name for p in dataset] == ["b.svs", "case"]
    assert dataset[1].slides[0].path == str(tmp_path / "case/level-0.dcm")
    (alone,) = Dataset.from_slides(tmp_path / "case")
    assert (alone.name, alone.slides[0].path) == ("case", str(tmp_path / "case/level-0.dcm"))


def test_each_dicom_series_of_a_folder_is_a_slide(tmp_path: Path) -> None:
    """Downloads put the files of several slides side by side; each is named by folder and file."""
    for series in ("A", "B"):
        for number in (1, 0):
            write_dicom(tmp_path / f"case/{series}_{number}.dcm", f"1.2.{ord(series)}")
    dataset = Dataset.from_slides(tmp_path)
    assert [p.name for p in dataset] == ["case/A_0.dcm", "case/B_0.dcm"]
    assert [p.slides[0].path for p in dataset] == [str(tmp_path / p.name) for p in dataset]
    alone = Dataset.from_slides(tmp_path / "case")
    assert [p.name for p in alone] == ["case/A_0.dcm", "case/B_0.dcm"]


def test_dicom_files_that_are_no_slide_are_left_out_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No DICOM at all, no series, a series of labels, a dead link."""
    write_dicom(tmp_path / "good.dcm")
    write_dicom(tmp_path / "label.dcm", "9.9", "LABEL")
    write_dicom(tmp_path / "no-series.dcm", "")
    (tmp_path / "text.dcm").write_text("not a DICOM file " * 20)
    os.symlink(tmp_path / "gone.dcm", tmp_path / "dead.dcm")
    with caplog.at_level(logging.WARNING, "chunkdl"):
        (patient,) = Dataset.from_slides(tmp_path)
    assert patient.slides[0].path == str(tmp_path / "good.dcm")
    for name in ("label.dcm", "no-series.dcm", "text.dcm", "dead.dcm"):
        assert sum(str(tmp_path / name) in text for text in caplog.messages) == 1, name
    assert len(caplog.messages) == 4


def test_two_files_of_one_dicom_series_are_one_slide_named_twice(tmp_path: Path) -> None:
    """As a pattern with a star in it gives them."""
    for number in range(3):
        write_dicom(tmp_path / f"case/{number}.dcm", "1.2" if number < 2 else "1.3")
    with pytest.raises(DatasetError, match=r"1\.dcm belongs to the same DICOM series as .*0\.dcm"):
        Dataset.from_slides(sorted((tmp_path / "case").glob("*.dcm")))
    chosen = Dataset.from_slides([tmp_path / "case/1.dcm", tmp_path / "case/2.dcm"])
    assert [p.name for p in chosen] == ["case/1.dcm", "case/2.dcm"]


def test_links_to_files_and_folders_are_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each real folder once and under its own name where it has one here; a circle ends."""
    touch(tmp_path / "all/z/one.svs", tmp_path / "elsewhere/two.svs", tmp_path / "three.svs")
    os.symlink(tmp_path / "all/z", tmp_path / "all/a-link-to-z")
    os.symlink(tmp_path / "all", tmp_path / "all/z/round")
    os.symlink(tmp_path / "elsewhere", tmp_path / "all/far")
    os.symlink(tmp_path / "three.svs", tmp_path / "all/m.svs")
    os.symlink(tmp_path / "three.svs", tmp_path / "all/n.svs")
    os.symlink(tmp_path / "gone.svs", tmp_path / "all/dead.svs")
    os.symlink("self", tmp_path / "all/self")
    with caplog.at_level(logging.WARNING, "chunkdl"):
        names = [patient.name for patient in Dataset.from_slides(tmp_path / "all")]
    # Links to one file stay slides of their own: nobody can tell what they were made for.
    assert names == ["far/two.svs", "m.svs", "n.svs", "z/one.svs"]
    dead = [
        f"{tmp_path}/all/{name} is a link to a missing file and is left out"
        for name in ("dead.svs", "self")
    ]
    assert sorted(caplog.messages) == dead


def test_a_dead_link_that_is_given_is_an_error(tmp_path: Path) -> None:
    """It was asked for by name."""
    os.symlink(tmp_path / "gone.svs", tmp_path / "dead.svs")
    with pytest.raises(
        DatasetError, match=r"dead\.svs cannot be used: .* \(it is a link to a missing file\)"
    ):
        Dataset.from_slides(tmp_path / "dead.svs")


def test_a_slide_in_a_file_is_named_by_its_number(tmp_path: Path) -> None:
    """Two of one file are two slides; one named twice, or in a file that is not there, is not."""
    touch(tmp_path / "many.tif", tmp_path / "odd.tif#image=7")
    both = [f"{tmp_path}/many.tif#image={number}" for number in (0, 1)]
    dataset = Dataset.from_slides(both)
    assert [p.slides[0].path for p in dataset] == both
    assert [p.name for p in dataset] == ["many.tif#image=0", "many.tif#image=1"]
    (odd,) = Dataset.from_slides(tmp_path / "odd.tif#image=7")
    assert odd.slides[0].path == str(tmp_path / "odd.tif#image=7")
    with pytest.raises(DatasetError, match=r"many\.tif#image=1 comes twice"):
        Dataset.from_slides([both[1], both[1]])
    with pytest.raises(DatasetError, match=r"gone\.tif cannot be used"):
        Dataset.from_slides(tmp_path / "gone.tif#image=1")


def test_a_file_name_that_is_no_utf8_is_a_slide_as_any_other(tmp_path: Path) -> None:
    """The strings are Python's own for such names, and any error about them can be printed."""
    raw = os.fsencode(tmp_path) + b"/M\xfcller.svs"
    with open(raw, "wb"):
        (patient,) = Dataset.from_slides(tmp_path)
    assert os.fsencode(patient.slides[0].path) == raw
    assert os.fsencode(patient.name) == b"M\xfcller.svs"
    os.unlink(raw)
    with pytest.raises(DatasetError) as caught:
        Dataset.from_slides(os.fsdecode(raw))
    assert r"M\udcfcller.svs cannot be used" in str(caught.value)
    str(caught.value).encode()


def test_a_list_may_hold_files_of_any_name_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is named is a slide whatever its suffix; relative paths are made absolute."""
    touch(tmp_path / "one.jpg", tmp_path / "two/b.svs", tmp_path / "two/a.svs")
    monkeypatch.chdir(tmp_path)
    dataset = Dataset.from_slides(["one.jpg", Path("two")], name="mixed")
    assert dataset.str_dsname == "mixed"
    assert [p.slides[0].path for p in dataset] == [
        str(tmp_path / name) for name in ("one.jpg", "two/a.svs", "two/b.svs")
    ]


@pytest.mark.parametrize(
    ("given_names", "message"),
    [
        ([], "no slides found in an empty list"),
        (["empty"], r"no slides found in .*/empty; slides are files that end with \.svs"),
        (["gone.svs", "also-gone"], r"gone\.svs cannot be used.*also-gone cannot be used"),
        (["a.svs", "../{folder}/a.svs"], r"a\.svs comes twice"),
        (["a.svs", "."], r"a\.svs comes twice"),
    ],
)
def test_paths_without_slides_missing_or_given_twice_are_refused(
    tmp_path: Path, given_names: list[str], message: str
) -> None:
    """The error names each of them."""
    touch(tmp_path / "a.svs")
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / name.format(folder=tmp_path.name) for name in given_names]
    with pytest.raises(DatasetError, match=message):
        Dataset.from_slides(paths)


@pytest.mark.slides
def test_the_folder_of_real_slides_gives_one_patient_per_slide(slides_folder: Path) -> None:
    """Eighteen slides, four of them folders of DICOM files with labels and overviews among them."""
    names = [patient.name for patient in Dataset.from_slides(slides_folder)]
    assert len(names) == 18
    assert len([name for name in names if "dicom" in name and "/" not in name]) == 4


# ---- From a manifest.


def manifest(folder: Path, content: str | bytes) -> Path:
    """A manifest in a folder with the files a.svs, b.svs, c.svs, d/0.dcm, d/1.dcm and m.png.

    The folder "two" has the DICOM files of two slides.
    """
    touch(*(folder / name for name in ("a.svs", "b.svs", "c.svs", "m.png")))
    for name, series in (("d/1", "1.1"), ("d/0", "1.1"), ("two/0", "1.2"), ("two/1", "1.3")):
        write_dicom(folder / f"{name}.dcm", series)
    (folder / "empty").mkdir(exist_ok=True)
    path = folder / "train.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_manifest_gives_patients_slides_and_labels(tmp_path: Path) -> None:
    """Rows of one patient are its slides; ids count in order of appearance."""
    path = manifest(
        tmp_path,
        "slide,grade,patient,site,mpp,tissue_mask\n"
        "b.svs,2,anna,lung,0.25,m.png\n"
        "\n"
        " a.svs ,1, bert ,liver,,\n"
        ",,,,,\n"
        "d,2,anna,lung,0.25 0.26,\n",
    )
    dataset = Dataset.from_csv(path)
    assert dataset.str_dsname == "train"
    assert [(p.int_uniqueid, p.name) for p in dataset] == [(0, "anna"), (1, "bert")]
    assert [p.labels for p in dataset] == [
        {"grade": 2, "site": "lung"},
        {"grade": 1, "site": "liver"},
    ]
    assert [[r.path for r in p.slides] for p in dataset] == [
        [str(tmp_path / "b.svs"), str(tmp_path / "d/0.dcm")],
        [str(tmp_path / "a.svs")],
    ]
    first, second = dataset[0].slides
    assert (first.dict_infos["mpp"], second.dict_infos["mpp"]) == (0.25, (0.25, 0.26))
    assert first.dict_infos["tissue_mask"] == str(tmp_path / "m.png")
    assert dataset[1].slides[0].dict_infos == {"slide": True}


def test_the_column_image_chooses_among_the_slides_of_a_file(tmp_path: Path) -> None:
    """It is not a label, may be empty, and says the same as a number behind the path."""
    path = manifest(
        tmp_path,
        "patient,slide,image,grade\n"
        f"anna,a.svs,0,1\nanna,a.svs,1,1\nbert,b.svs,,2\nbert,{tmp_path}/c.svs#image=2,,2\n"
        "bert,c.svs#image=3,3,2\n",
    )
    anna, bert = Dataset.from_csv(path)
    assert [r.path for r in anna.slides] == [f"{tmp_path}/a.svs#image={n}" for n in (0, 1)]
    assert [r.path for r in bert.slides] == [
        f"{tmp_path}/{name}" for name in ("b.svs", "c.svs#image=2", "c.svs#image=3")
    ]
    assert anna.labels == {"grade": 1}


def test_paths_of_a_manifest_are_relative_to_the_root_or_absolute(tmp_path: Path) -> None:
    """To the manifest's own folder when no root is given."""
    manifest(tmp_path / "data", "")
    path = tmp_path / "m.csv"
    path.write_text(f"patient,slide\n1,a.svs\n2,{tmp_path}/data/b.svs\n")
    dataset = Dataset.from_csv(path, root=tmp_path / "data")
    records = [patient.slides[0] for patient in dataset]
    assert [r.path for r in records] == [str(tmp_path / "data" / n) for n in ("a.svs", "b.svs")]
    assert [f"{r.rootdir}{r.relativedir}" for r in records] == [r.path for r in records]
    with pytest.raises(DatasetError, match=r"row 2: .*a\.svs"):
        Dataset.from_csv(path)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-20"], [1, -20]),
        (["1", "2.5"], [1.0, 2.5]),
        (["1e3", ".5"], [1000.0, 0.5]),
        (["+5", "5."], [5.0, 5.0]),
        (["+5", "-.5"], [5.0, -0.5]),
        (["1e-300", "1.5E+300"], [1e-300, 1.5e300]),
        (["2E+003", "0e999"], [2000.0, 0.0]),
        (["inf", "1"], [math.inf, 1.0]),
        (["-Inf", "+Infinity"], [-math.inf, math.inf]),
        (["[inf 0.5]", "[1e-100 2]"], [[math.inf, 0.5], [1e-100, 2.0]]),
        (["inferior", "1"], ["inferior", "1"]),
        (["inf", "high"], ["inf", "high"]),
        (["1e999", "1"], ["1e999", "1"]),
        (["1e-999", "1"], ["1e-999", "1"]),
        (["1e3_0", "1"], ["1e3_0", "1"]),
        (["1", ""], [1, None]),
        (["", ""], [None, None]),
        (["1", "NA"], [1, None]),
        (["0.5", "nan"], [0.5, None]),
        (["<NA>", "null"], [None, None]),
        (["0.0", "1.0"], [0.0, 1.0]),
        (["1", "None"], [1, None]),
        (["mild", "None"], ["mild", "None"]),
        (["None", "None"], ["None", "None"]),
        (["lung", "NA"], ["lung", None]),
        (["True", "false"], [True, False]),
        (["TRUE", ""], [True, None]),
        (["True", "1"], ["True", "1"]),
        (['"[0, 1, 1]"', '"[1,0,0]"'], [[0, 1, 1], [1, 0, 0]]),
        (["[0 1 1]", "[1 0]"], [[0, 1, 1], [1, 0]]),
        (["[0. 1.5]", "NA"], [[0.0, 1.5], None]),
        (['"(True, False)"', '"(False, True)"'], [[True, False], [False, True]]),
        (['"[1, NA]"', '"[1, 2]"'], [[1, None], [1, 2]]),
        (["[]", "[1]"], [[], [1]]),
        (['"[0, 1]"', "1"], ["[0, 1]", "1"]),
        (["[0 1 ... 1]", "[1 0]"], ["[0 1 ... 1]", "[1 0]"]),
        (["[007]", "[1]"], ["[007]", "[1]"]),
        (["1", "high"], ["1", "high"]),
        (["007", "1"], ["007", "1"]),
        (["1_000", "1"], ["1_000", "1"]),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
    ],
)
def test_a_label_column_becomes_values_only_if_nothing_is_lost(
    tmp_path: Path, cells: list[str], expected: list[object]
) -> None:
    """All cells or none; codes such as 007 and long ids stay text, a missing cell is None."""
    path = manifest(tmp_path, f"patient,slide,label\np,a.svs,{cells[0]}\nq,b.svs,{cells[1]}\n")
    got = [patient.labels["label"] for patient in Dataset.from_csv(path)]
    assert (got, [type(value) for value in got]) == (expected, [type(value) for value in expected])


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffpatient,slide\nÄnne,a.svs\n".encode(),
        b'"patient","slide"\r\n"\xc3\x84nne","a.svs"\r\n',
        b"patient,slide\r\xc3\x84nne,a.svs",
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, content: bytes) -> None:
    """Byte order mark, quotes, all line ends, no line end at the end."""
    (patient,) = Dataset.from_csv(manifest(tmp_path, content))
    assert (patient.name, patient.slides[0].path) == ("Änne", str(tmp_path / "a.svs"))


@pytest.mark.parametrize(
    "content",
    [
        "Patient,SLIDE,Grade\nAnna,a.svs,1\n",
        "patient;slide;Grade\nAnna;a.svs;1\n",
        "patient\tslide\tGrade\nAnna\ta.svs\t1\n",
        "\ufeffpatient , slide, Grade\n Anna,a.svs, 1\n",
        ",patient,slide,Grade\n0,Anna,a.svs,1\n",
        "Unnamed: 0.1,Unnamed: 0,patient,slide,Grade\n0,0,Anna,a.svs,1\n",
        "patient,slide,Grade,,\nAnna,a.svs,1,,\n",
        "\n;;\nslide;Grade;patient\na.svs;1;Anna\n",
    ],
)
def test_headers_as_people_have_them_mean_the_same(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Capitals, spaces, other separators, an index of pandas; what is left out is told."""
    with caplog.at_level(logging.INFO, "chunkdl"):
        (patient,) = Dataset.from_csv(manifest(tmp_path, content))
    assert (patient.name, patient.slides[0].path) == ("Anna", str(tmp_path / "a.svs"))
    assert (patient.labels, patient.slides[0].labels) == ({"Grade": 1}, {})
    header = content.strip("\n;").split("\n")[0].split(",")
    unnamed = sum(not name or "Unnamed" in name for name in header)
    assert sum("has no name and is ignored" in text for text in caplog.messages) == unnamed


def test_names_of_the_manifest_are_known_however_they_are_spelled(tmp_path: Path) -> None:
    """A "Tissue Mask" or "MPP" that counted as a label would be read by nobody."""
    content = "Patient,Slide,MPP,Tissue Mask,Image\nx,a.svs,0.5,m.png,0\n"
    (patient,) = Dataset.from_csv(manifest(tmp_path, content))
    (record,) = patient.slides
    assert record.dict_infos == {"slide": True, "mpp": 0.5, "tissue_mask": str(tmp_path / "m.png")}
    assert (record.path, patient.labels) == (f"{tmp_path}/a.svs#image=0", {})


def test_what_differs_between_slides_of_a_patient_is_a_label_of_slides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of all slides then, and the log says which rows made it so."""
    content = (
        "patient,slide,grade,site\nanna,a.svs,1,lung\nbert,b.svs,1,liver\nanna,c.svs,NA,lung\n"
    )
    with caplog.at_level(logging.INFO, "chunkdl"):
        anna, bert = Dataset.from_csv(manifest(tmp_path, content))
    assert (anna.labels, bert.labels) == ({"site": "lung"}, {"site": "liver"})
    assert [record.labels for record in anna.slides] == [{"grade": 1}, {"grade": None}]
    assert [record.labels for record in bert.slides] == [{"grade": 1}]
    (told,) = caplog.messages
    assert (
        "column 'grade' is 1 in row 2 and None in row 4 of patient anna: so it is a label of slides"
        in told
    )


def test_cells_that_mean_the_same_are_equal_between_slides(tmp_path: Path) -> None:
    """They are compared as values: 1 and 1.0, NA and nothing."""
    content = "patient,slide,a,b\nx,a.svs,1,NA\nx,b.svs,1.0,\n"
    (patient,) = Dataset.from_csv(manifest(tmp_path, content))
    assert patient.labels == {"a": 1.0, "b": None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("patient,slide\n", "no rows"),
        ("name,file\nx,a.svs\n", "row 1: .*'patient' is missing.*'slide' is missing.*name, file"),
        ("slide,grade\na.svs,1\n", "row 1: .*'patient' is missing; it says which .* copy the col"),
        ("slide\na.svs\n", "row 1: .*'patient' is missing"),
        ("Patient ID,slide\nx,a.svs\n", "'patient' is missing; did you mean 'Patient ID'"),
        ("patient,slide path\nx,a.svs\n", "'slide' is missing; did you mean 'slide path'"),
        ("patient,slide,Slide\nx,a.svs,b.svs\n", "row 1: column 'slide' comes twice"),
        (
            "patient,slide,x,epoch\nx,a.svs,1,2\n",
            "row 1: a label cannot be named 'x', .*e.g. to 'x_label'; .*'epoch'.*'epoch_label'",
        ),
        ("patient,slide,y,y\nx,a.svs,1,1\n", "row 1: column 'y' comes twice"),
        ("patient,slide,\nx,a.svs,1\n", "row 1: a column has no name"),
        (
            "patient,slide,slide:2\nx,a.svs,1\n",
            "row 1: column 'slide:2' begins with 'slide:', which is reserved",
        ),
        ("patient,slide\nx,a.svs\n,b.svs\n", "row 3: column 'patient' is empty"),
        ("patient,slide\nx, \n", "row 2: column 'slide' is empty"),
        ("patient,slide\nx,gone.svs\n", r"row 2: .*gone\.svs"),
        ("patient,slide\nx,empty\n", "row 2: column 'slide': .*no DICOM files"),
        (
            "patient,slide\nx,d/0.dcm\ny,d/1.dcm\n",
            r"row 3: .*d/1\.dcm belongs to the same .* in row 2",
        ),
        (
            "patient,slide\nx,two\n",
            r"row 2: .*two has 2 DICOM series; name a file of the one .*, such as .*0\.dcm, 1\.dcm",
        ),
        ("patient,slide,image\nx,a.svs,first\n", "row 2: column 'image' is 'first'; give the num"),
        ("patient,slide,image\nx,a.svs,-1\n", "row 2: column 'image' is '-1'"),
        (
            "patient,slide,image\nx,a.svs#image=1,2\n",
            "row 2: .*'2', but column 'slide' names another image: 'a.svs#image=1",
        ),
        (
            "patient,slide,image\nx,a.svs,1\ny,a.svs,1\n",
            r"row 3: slide 'a\.svs' is already in row 2",
        ),
        ("patient,slide\nx,gone.svs#image=1\n", r"row 2: .*gone\.svs"),
        ("patient,slide\nx,a.svs\ny,./a.svs\n", r"row 3: slide './a\.svs' is already in row 2"),
        ("patient,slide\nx,d\ny,d/0.dcm\n", "row 3: .*already in row 2"),
        ("patient,slide\nx,a.svs,1\n", "row 2: 3 cells for 2 columns"),
        ("patient,slide,y\nx,a.svs\n", "row 2: 2 cells for 3 columns"),
        ("patient,slide,image\nx,a.svs,77x\n", "rename it, e.g. to 'image_label'"),
        ("patient,slide,mpp\nx,a.svs,0.5um\n", "row 2: column 'mpp' is '0.5um'"),
        ("patient,slide,mpp\nx,a.svs,0\n", "row 2: column 'mpp' is '0'"),
        ("patient,slide,mpp\nx,a.svs,1 2 3\n", "row 2: column 'mpp' is '1 2 3'"),
        ("patient,slide,tissue_mask\nx,a.svs,n.png\n", r"row 2: .*n\.png"),
        ('patient,slide\nx,"a.svs\n', "row 2: unexpected end of data"),
        (b"patient,slide\nx,a.svs\n\xc4nne,b.svs\n", "row 3: this is not UTF-8 text"),
        ("patient,slide\nx,a.svs\n".encode("utf-16"), "row 1: this is not UTF-8 text"),
        (b"II*\0\x08\0\0\0", "row 1: this is not UTF-8 text"),
    ],
)
def test_a_wrong_manifest_is_one_error_that_names_file_and_row(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    """The header is row 1, as in a spreadsheet."""
    path = manifest(tmp_path, content)
    with pytest.raises(DatasetError, match=message) as caught:
        Dataset.from_csv(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_up_to_ten_bad_rows_are_shown_in_one_error(tmp_path: Path) -> None:
    """Of all kinds, so that one look mends many; the rest is counted."""
    rows = ["x,a.svs", ",b.svs", *(f"x,gone-{number}.svs" for number in range(20)), "y,a.svs"]
    path = manifest(tmp_path, "\n".join(["patient,slide", *rows]))
    with pytest.raises(DatasetError) as caught:
        Dataset.from_csv(path)
    text = str(caught.value)
    assert len(re.findall(r"row \d+:", text)) == 10
    assert "row 3: column 'patient' is empty" in text
    assert text.endswith("and 12 more")


def test_a_manifest_that_is_missing_or_no_manifest_at_all_is_named(tmp_path: Path) -> None:
    """A slide given by mistake is refused by its size, before it is read."""
    with open(tmp_path / "huge.svs", "wb") as file:
        file.truncate(2**40)
    for name, message in (
        ("gone.csv", "cannot be read"),
        (".", "cannot be read"),
        ("huge.svs", "a manifest has at most"),
    ):
        with pytest.raises(DatasetError, match=message):
            Dataset.from_csv(tmp_path / name)


def test_ten_thousand_rows_cost_one_look_at_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network folders answer slowly: one stat a slide, nothing is opened or listed."""
    touch(*(tmp_path / f"{number}.svs" for number in range(10_000)))
    rows = "\n".join(f"p{number // 2},{number}.svs,{number // 2 % 3}" for number in range(10_000))
    path = tmp_path / "m.csv"
    path.write_text("patient,slide,grade\n" + rows)
    looked_at: list[object] = []
    stat = os.stat

    def counting(target: str) -> os.stat_result:
        looked_at.append(target)
        return stat(target)

    monkeypatch.setattr(os, "stat", counting)
    dataset = Dataset.from_csv(path)
    assert len(dataset) == 5_000
    assert len(looked_at) == 10_001


def test_a_slide_of_a_folder_of_dicom_series_is_named_by_its_image(tmp_path: Path) -> None:
    """As the message says that tells that there are several."""
    for series in ("0", "1"):
        write_dicom(tmp_path / f"case/{series}.dcm", f"1.{series}")
    (dataset,) = Dataset.from_slides(f"{tmp_path}/case#image=1")
    assert dataset.slides[0].path == f"{tmp_path}/case#image=1"
    manifest = tmp_path / "m.csv"
    manifest.write_text("patient,slide,image\na,case,0\na,case#image=1,\n")
    (patient,) = Dataset.from_csv(manifest)
    assert [record.path for record in patient.slides] == [
        f"{tmp_path}/case#image={number}" for number in (0, 1)
    ]


# ---- From other tables.


ROWS: list[dict[str, Any]] = [
    {"patient": 7, "slide": "a.svs", "mpp": 0.5, "grade": 1, "score": 0.5, "her2": True},
    {"patient": 7, "slide": "b.svs", "mpp": None, "grade": 1, "score": 1.5, "her2": True},
    {"patient": 8, "slide": "c.svs", "mpp": None, "grade": 2, "score": None, "her2": False},
]
TEXTS = ("lung", None, "007")
LISTS = ([0, 1], [1, 0], [1, 1])


def full_rows() -> list[dict[str, Any]]:
    """Rows with labels of every kind."""
    parts = zip(ROWS, TEXTS, LISTS, strict=True)
    return [{**row, "site": text, "hot": numbers} for row, text, numbers in parts]


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The same as a dict of columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def as_pandas(folder: Path) -> Any:
    """As a DataFrame whose index says nothing."""
    frame = pandas.DataFrame(full_rows())
    return frame.assign(site=frame["site"].astype("category"))


def as_named_index(folder: Path) -> Any:
    """With patients and slides in the index, as after grouping."""
    return pandas.DataFrame(full_rows()).set_index(["patient", "slide"])


def as_parquet(folder: Path) -> Any:
    """A file that pandas has written, with an index that it keeps."""
    frame = pandas.DataFrame(full_rows(), index=pandas.Index([5, 3, 9]))
    frame.to_parquet(folder / "cohort.parquet")
    return folder / "cohort.parquet"


TABLES: dict[str, Callable[[Path], Any]] = {
    "rows": lambda folder: full_rows(),
    "a generator": lambda folder: iter(full_rows()),
    "columns": lambda folder: columns_of(full_rows()),
    "pandas": as_pandas,
    "named index": as_named_index,
    "arrow": lambda folder: pyarrow.Table.from_pylist(full_rows()),
    "parquet": as_parquet,
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_any_kind_is_the_same_dataset(tmp_path: Path, kind: str) -> None:
    """Types of cells stay: 1 is int, None, NaN and NA are missing, "007" is text."""
    manifest(tmp_path, "")
    dataset = Dataset.from_table(TABLES[kind](tmp_path), root=tmp_path, name="cohort")
    assert (dataset.str_dsname, [p.name for p in dataset]) == ("cohort", ["7", "8"])
    first, second, third = [record for patient in dataset for record in patient.slides]
    assert [r.path for r in (first, second, third)] == [f"{tmp_path}/{n}.svs" for n in "abc"]
    assert (first.dict_infos["mpp"], "mpp" in second.dict_infos) == (0.5, False)
    assert [p.labels for p in dataset] == [
        *({"grade": 1, "her2": True}, {"grade": 2, "her2": False}),
    ]
    assert type(dataset[0].labels["grade"]) is int
    assert [r.labels for r in (first, second, third)] == [
        {"score": 0.5, "site": "lung", "hot": [0, 1]},
        {"score": 1.5, "site": None, "hot": [1, 0]},
        {"score": None, "site": "007", "hot": [1, 1]},
    ]


def test_a_file_is_named_and_rooted_by_itself(tmp_path: Path) -> None:
    """Parquet and text alike; what a table in memory says is relative to the working folder."""
    manifest(tmp_path, "patient,slide\nx,a.svs\n")
    path = as_parquet(tmp_path)
    for file in (path, tmp_path / "train.csv"):
        dataset = Dataset.from_table(file)
        assert (dataset.str_dsname, dataset[0].slides[0].path) == (file.stem, f"{tmp_path}/a.svs")
    with pytest.raises(
        DatasetError, match=r"^the list: row 0: a file of this row cannot be used: .*a\.svs"
    ):
        Dataset.from_table(ROWS)


def test_whole_numbers_that_pandas_made_floats_stay_floats(tmp_path: Path) -> None:
    """As patients they are the names that they were."""
    manifest(tmp_path, "")
    frame = pandas.DataFrame({"patient": [1.0, 2.0], "slide": ["a.svs", "b.svs"], "z": [1, None]})
    dataset = Dataset.from_table(frame, root=tmp_path)
    assert [p.name for p in dataset] == ["1", "2"]
    assert [p.labels["z"] for p in dataset] == [1.0, None]
    assert type(dataset[0].labels["z"]) is float


def test_cells_of_other_types_become_labels_or_paths(tmp_path: Path) -> None:
    """Dates as text, numbers of numpy, paths, and pandas' own missing values."""
    manifest(tmp_path, "")
    rows = [
        {
            "patient": np.str_("x"),
            "slide": tmp_path / "a.svs",
            "image": np.float64(0),
            "mpp": (0.25, 0.5),
            "day": pandas.Timestamp("2024-02-01"),
            "n": np.int8(3),
            "d": Decimal("1.5"),
            "v": np.array([1.0, np.nan]),
            "gone": pandas.NaT,
            "na": pandas.NA,
        }
    ]
    (patient,) = Dataset.from_table(rows)
    assert patient.slides[0].path == f"{tmp_path}/a.svs#image=0"
    assert patient.slides[0].dict_infos["mpp"] == (0.25, 0.5)
    assert patient.labels == {
        "day": "2024-02-01T00:00:00",
        "n": 3,
        "d": 1.5,
        "v": [1.0, None],
        "gone": None,
        "na": None,
    }


def odd(**cells: Any) -> list[dict[str, Any]]:
    """A row with these cells."""
    return [{"patient": "x", "slide": "a.svs", **cells}]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            7,
            "the int is not a table; give the path of a CSV or Parquet file, a pandas or polars",
        ),
        (b"patient,slide", "the bytes is not a table"),
        (["a.svs"], "the list, whose row 0 is a str, is not a table"),
        ([], "the list: it has no rows"),
        ({}, "the dict: it has no rows"),
        (
            {"patient": ["x"], "slide": []},
            "different numbers of rows: 'patient' has 1, 's",
        ),
        ({"patient": "x", "slide": ["a.svs"]}, "column 'patient' is 'x'; give a list of all its"),
        ([{"slide": "a.svs"}], "the list: column 'patient' is missing; .*columns found: slide$"),
        (odd(slide=None), "the list: row 0: column 'slide' is empty"),
        (odd(slide=3), "row 0: column 'slide' is 3; give the path of a file"),
        (odd(slide=["a"]), r"row 0: column 'slide' is \['a'\]; give a text"),
        (odd(patient=float("nan")), "row 0: column 'patient' is empty"),
        (odd(image=0.5), "row 0: column 'image' is '0.5'"),
        (odd(mpp=-1), "row 0: column 'mpp' is -1"),
        (odd(mpp="inf"), "row 0: column 'mpp' is 'inf'"),
        (odd(mpp=(0.5, float("inf"))), r"row 0: column 'mpp' is \[0.5, inf\]"),
        (odd(mpp=True), "row 0: column 'mpp' is True"),
        (odd(tissue_mask=np.zeros((2, 2))), "'tissue_mask' is a list; give the path of an image"),
        (odd(z={}), "row 0: column 'z' is a dict; a label must be a number, a text, a boolean or"),
        (odd(z=1j), "row 0: column 'z' is a complex"),
        (odd(level=1), "the list: a label cannot be named 'level'.*e.g. to 'level_label'"),
    ],
)
def test_a_wrong_table_is_one_error_that_says_what_to_do(
    tmp_path: Path, source: Any, message: str
) -> None:
    """Rows of what is not text count from 0."""
    manifest(tmp_path, "")
    with pytest.raises(DatasetError, match=message):
        Dataset.from_table(source, root=tmp_path)


def test_a_file_that_is_no_parquet_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where pyarrow is not installed, what to install."""
    (tmp_path / "m.parquet").write_text("patient,slide\nx,a.svs\n")
    with pytest.raises(DatasetError, match=r"m\.parquet is not a Parquet file"):
        Dataset.from_table(tmp_path / "m.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DatasetError, match=r"needs pyarrow: pip install 'chunkdl\[tables\]'"):
        Dataset.from_table(tmp_path / "m.parquet")


def test_two_columns_of_one_name_are_refused_in_a_dataframe(tmp_path: Path) -> None:
    """A dict of columns would have lost one."""
    frame = pandas.DataFrame([["x", "a.svs", 1, 2]], columns=["patient", "slide", "y", "y"])
    with pytest.raises(DatasetError, match="column 'y' comes twice"):
        Dataset.from_table(frame, root=tmp_path)


def test_an_index_that_is_a_column_already_is_that_column(tmp_path: Path) -> None:
    """As set_index(drop=False) leaves it; values that are missing in both are equal."""
    manifest(tmp_path, "")
    frame = pandas.DataFrame(full_rows())
    expected = Dataset.from_table(frame, root=tmp_path)
    for names in ("patient", ["patient", "site"], ["score"]):
        dataset = Dataset.from_table(frame.set_index(names, drop=False), root=tmp_path)
        assert [p.labels for p in dataset] == [p.labels for p in expected]
        assert [p.name for p in dataset] == [p.name for p in expected]


def test_an_index_that_differs_from_the_column_of_its_name_is_refused(tmp_path: Path) -> None:
    """Nobody can say which of the two is meant."""
    frame = pandas.DataFrame(full_rows())
    for name in ("patient", "grade"):
        index = pandas.Index(["x", "y", "z"], name=name)
        with pytest.raises(DatasetError, match=f"index and a column are both named '{name}' and"):
            Dataset.from_table(frame.set_index(index), root=tmp_path)
    frame.index = pandas.MultiIndex.from_tuples([(1, 2)] * 3, names=["a", "a"])
    with pytest.raises(DatasetError, match="column 'a' comes twice"):
        Dataset.from_table(frame, root=tmp_path)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (
            pandas.cut(pandas.Series([0.5, 1.5, None]), [0, 1, 2]),
            ["(0.0, 1.0]", "(1.0, 2.0]", None],
        ),
        (
            pandas.Series(pandas.PeriodIndex(["2024-01", "2024-02", None], freq="M")),
            ["2024-01", "2024-02", None],
        ),
        (pandas.Series([pandas.Timestamp("2024-01-01"), None, None]), ["2024-01-01T00:00:00"]),
        (pandas.Series([3, 1, None], dtype=object), [3, 1, None]),
        (pandas.Series([True, False, None], dtype=object), [True, False, None]),
        (pandas.Series(["b", "a", None]), ["b", "a", None]),
    ],
)
def test_categories_are_what_they_are_of_or_their_text(
    tmp_path: Path, column: Any, expected: list[object]
) -> None:
    """In a column and in the index."""
    manifest(tmp_path, "")
    frame = pandas.DataFrame({"patient": [1, 2, 3], "slide": ["a.svs", "b.svs", "c.svs"]})
    frame["z"] = column.astype("category")
    expected = expected + [None] * (3 - len(expected))
    for table in (frame, frame.set_index("z")):
        got = [patient.labels["z"] for patient in Dataset.from_table(table, root=tmp_path)]
        assert (got, [type(v) for v in got]) == (expected, [type(v) for v in expected])


def test_objects_that_are_no_labels_are_refused_with_what_makes_them_text(tmp_path: Path) -> None:
    """And what the message names is accepted, with the missing ones still missing."""
    manifest(tmp_path, "")
    frame = pandas.DataFrame({"patient": [1, 2], "slide": ["a.svs", "b.svs"]})
    frame["z"] = pandas.Series(pandas.PeriodIndex(["2024-01", None], freq="M"))
    with pytest.raises(DatasetError, match=r"'z' is a Period.*df\['z'\]\.astype\('string'\)"):
        Dataset.from_table(frame, root=tmp_path)
    frame["z"] = frame["z"].astype("string")
    dataset = Dataset.from_table(frame, root=tmp_path)
    assert [patient.labels["z"] for patient in dataset] == ["2024-01", None]


def test_texts_are_numbered_as_classes() -> None:
    """In alphabetical order, over patients and slides, without the missing ones."""
    slides = [Record("", f"{n}.svs", {}, {"site": site}) for n, site in enumerate(("b", "a"))]
    patients = [
        Patient(0, {"s": slides[0], "t": slides[1], "label": "tumor"}),
        Patient(1, {"label": "normal"}),
        Patient(2, {"label": None, "grade": 1}),
    ]
    dataset = Dataset("d", patients)
    assert dataset.classes("label") == {"normal": 0, "tumor": 1}
    assert dataset.classes("site") == {"a": 0, "b": 1}
    with pytest.raises(DatasetError, match="'grade' has no classes: 1 is not text"):
        dataset.classes("grade")
    with pytest.raises(
        DatasetError, match="'gone' has no classes: no patient and no slide has this label"
    ):
        dataset.classes("gone")
