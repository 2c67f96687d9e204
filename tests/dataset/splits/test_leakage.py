"""Two datasets that were made by hand have nothing in common, or it is said what."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chunkdl import Dataset, Patient, Record, check_disjoint
from chunkdl.errors import DatasetError


def patient(name: str, file: Path, **labels: object) -> Patient:
    """One with a slide."""
    return Patient(0, {"slide": Record(file.parent, file.name), **labels}, name=name)


def pair(one: Patient, other: Patient) -> tuple[Dataset, Dataset]:
    """Training and validation of one patient each."""
    return Dataset("training", [one]), Dataset("validation", [other])


def test_different_patients_and_files_pass(tmp_path: Path) -> None:
    """Ids may be equal: each manifest counts them from 0."""
    check_disjoint(*pair(patient("a", tmp_path / "a.svs"), patient("b", tmp_path / "b.svs")))


def test_a_patient_in_two_datasets_is_named(tmp_path: Path) -> None:
    """By its name, whatever its files."""
    sets = pair(patient("a", tmp_path / "a.svs"), patient("a", tmp_path / "b.svs"))
    with pytest.raises(DatasetError, match="patient a is in 'training' and in 'validation'"):
        check_disjoint(*sets)


def test_a_file_in_two_datasets_is_found_through_links_and_images(tmp_path: Path) -> None:
    """Whatever the patients are called."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.scn").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    sets = pair(
        patient("a", tmp_path / "real" / "a.scn#image=0"),
        patient("b", tmp_path / "link" / "a.scn#image=1"),
    )
    with pytest.raises(
        DatasetError, match=r"real/a.scn is in 'training' \(patient a\) and in 'validation' \(pat"
    ):
        check_disjoint(*sets)


def test_a_hospital_in_two_datasets_is_found_where_it_is_asked(tmp_path: Path) -> None:
    """And only there; a patient without one is refused then."""
    sets = pair(
        patient("a", tmp_path / "a.svs", site="h1"), patient("b", tmp_path / "b.svs", site="h1")
    )
    check_disjoint(*sets)
    with pytest.raises(DatasetError, match="site='h1' is in 'training' and in 'validation'"):
        check_disjoint(*sets, together="site")
    with pytest.raises(DatasetError, match="have no 'centre'"):
        check_disjoint(*sets, together="centre")


def test_datasets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """By their place."""
    same = Dataset("d", [patient("a", tmp_path / "a.svs")])
    with pytest.raises(DatasetError, match=r"patient a is in dataset 1 \('d'\) and in dataset 2"):
        check_disjoint(same, Dataset("d", list(same)))
    with pytest.raises(DatasetError, match="give it two or more"):
        check_disjoint(same)


def test_two_files_of_a_dicom_series_are_one_slide(tmp_path: Path, slides_folder: Path) -> None:
    """Two manifests may name different files of it."""
    folder = slides_folder / "endometrium-dicom"
    files = sorted(shutil.copy(file, tmp_path) for file in folder.glob("*.dcm"))
    sets = pair(patient("a", Path(files[0])), patient("b", Path(files[1])))
    with pytest.raises(DatasetError, match=r"is in 'training' \(patient a\)"):
        check_disjoint(*sets)
