"""The slides of a dataset in one row, and what makes each the same slide."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.dataset.slide_table import grouped, slide_identity, slide_table
from chunkdl.errors import DatasetError


def dataset_of(*paths: str) -> Dataset:
    """One patient per path."""
    return Dataset("d", [Patient(n, {"s": Record("/", path[1:])}) for n, path in enumerate(paths)])


def test_two_images_of_one_file_are_two_slides(tmp_path: Path) -> None:
    """Of one size, as the file; told apart by their numbers, also from the file without one."""
    path = tmp_path / "many.tif"
    path.write_bytes(bytes(7))
    names = [str(path), f"{path}#image=0", f"{path}#image=1"]
    slides = slide_table(dataset_of(*names))
    assert [entry.path for entry in slides] == names
    identities = [slide_identity(entry) for entry in slides]
    assert len({json.dumps(one[:1]) for one in identities}) == 3
    assert [one[1] for one in identities] == [7, 7, 7]
    with pytest.raises(DatasetError, match=r"there is no file .*gone\.tif$"):
        slide_table(dataset_of(f"{tmp_path}/gone.tif#image=1"))


def test_a_name_that_is_no_utf8_has_an_identity_that_can_be_hashed(tmp_path: Path) -> None:
    """And names that differ in such a byte have different ones."""
    found = []
    for letter in (b"\xfc", b"\xe4"):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/M" + letter + b"ller.tif")
        Path(path).touch()
        (entry,) = slide_table(dataset_of(path))
        found.append(msgspec.msgpack.encode(slide_identity(entry)))
    assert found[0] != found[1]


def test_a_patient_whose_slides_are_left_out_keeps_its_place(tmp_path: Path) -> None:
    """Indices of patients are those of the dataset."""
    paths = [str(tmp_path / f"{name}.tif") for name in "abc"]
    for path in paths:
        Path(path).touch()
    first, _, third = slide_table(dataset_of(*paths))
    assert grouped([first, third], 3) == ((0,), (), (1,))


def test_a_given_mask_that_is_gone_is_named(tmp_path: Path) -> None:
    """Masks are looked at by sample only, but each is part of the identity."""
    (tmp_path / "a.tif").touch()
    record = Record(f"{tmp_path}/", "a.tif", {"tissue_mask": str(tmp_path / "gone.png")})
    (entry,) = slide_table(Dataset("d", [Patient(0, {"s": record})]))
    with pytest.raises(DatasetError, match=r"tissue mask .*gone\.png cannot be read: No such file"):
        slide_identity(entry)


def test_a_folder_is_as_large_as_its_files(tmp_path: Path) -> None:
    """File systems give folders sizes of their own, and machines share saved states."""
    sizes = []
    for name in ("a", "b"):
        (tmp_path / name / "case").mkdir(parents=True)
        (tmp_path / name / "case" / "0.dcm").write_bytes(bytes(7))
    (tmp_path / "b" / "case" / "more").mkdir()
    for name in ("a", "b"):
        record = Record(f"{tmp_path}/{name}/", "case#image=1", {"slide": True})
        (entry,) = slide_table(Dataset("d", [Patient(0, {"s": record})]))
        sizes.append(slide_identity(entry)[1])
    assert sizes == [7, 7]
