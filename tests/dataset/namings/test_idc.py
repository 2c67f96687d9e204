"""Slides of the Imaging Data Commons are found in the listing that they were downloaded by."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas
import pytest

from chunkdl import Dataset, Idc, NamedSlide
from chunkdl.errors import DatasetError

SERIES = "1.3.6.1.4.1.5962.99.1.1069745200.1645485340.1637452317744.2.0"
UUID = "3a7c1f1e-5d5c-4a52-8f2a-0d6e8f8a7c11"
LISTING: list[dict[str, str | None]] = [
    {
        "collection_id": "cptac_luad",
        "PatientID": "C3L-00001",
        "SeriesInstanceUID": SERIES,
        "crdc_series_uuid": UUID,
        "primaryAnatomicStructure": "Lung",
    },
    {
        "collection_id": "cptac_luad",
        "PatientID": "C3L-00009",
        "SeriesInstanceUID": "1.2.3",
        "crdc_series_uuid": "other",
        "primaryAnatomicStructure": None,
    },
]


@pytest.mark.parametrize(
    "folder",
    [
        f"cptac_luad/C3L-00001/2.25.7/SM_{SERIES}",
        f"flat/{SERIES}",
        f"buckets/{UUID}",
    ],
)
def test_a_series_is_found_by_its_folder(folder: str) -> None:
    """As idc-index names it, and as the buckets do; the file need not be looked at."""
    said = Idc(LISTING).read(f"/d/{folder}/0a1b2c3d.dcm")
    assert said == NamedSlide("C3L-00001", {"collection": "cptac_luad"}, {})


def test_a_file_is_found_in_a_listing_of_files() -> None:
    """By its name, which is the identifier of the instance."""
    rows = [{**LISTING[0], "crdc_instance_uuid": f"file{n}"} for n in range(3)]
    said = Idc(rows).read("/d/file2.dcm")
    assert said == NamedSlide("C3L-00001", {"collection": "cptac_luad"}, {})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_with_the_listing_gives_labels(tmp_path: Path, suffix: str) -> None:
    """Columns that are asked for; a missing cell is None."""
    frame, path = pandas.DataFrame(LISTING), tmp_path / f"idc.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    idc = Idc(path, labels=("primaryAnatomicStructure",))
    for folder, patient, organ in ((SERIES, "C3L-00001", "Lung"), ("1.2.3", "C3L-00009", None)):
        said = idc.read(f"/d/{folder}/x.dcm")
        assert said == NamedSlide(
            patient, {"collection": "cptac_luad"}, {"primaryAnatomicStructure": organ}
        )


def test_real_series_are_found_by_their_headers(tmp_path: Path, slides_folder: Path) -> None:
    """Two series of one patient, in folders and under names that say nothing."""
    from chunkdl.slides.readers.dicom_series import series_in

    rows = []
    for name in ("endometrium-dicom", "fistula-dicom-sparse"):
        shutil.copytree(slides_folder / name, tmp_path / name)
        rows += [{"PatientID": "X", "SeriesInstanceUID": uid} for uid in series_in(tmp_path / name)]
    (patient,) = Dataset.from_slides(tmp_path, naming=Idc(rows))
    assert (patient.name, len(patient.slides)) == ("X", 2)
    with pytest.raises(
        DatasetError, match=r"Idc does not fit 1 of 2 slides: .*listing does not have"
    ):
        Dataset.from_slides(tmp_path, naming=Idc(rows[:1]))


def test_a_file_that_is_nowhere_does_not_fit(tmp_path: Path) -> None:
    """Nor one that is no DICOM file."""
    (tmp_path / "x.dcm").write_bytes(b"nothing")
    for name in ("x.dcm", "y.dcm"):
        with pytest.raises(DatasetError, match="neither folder nor file is in the listing"):
            Idc(LISTING).read(str(tmp_path / name))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"PatientID": "C3L-2"}, f"row 1: {SERIES} has other values in an earlier row"),
        ({"PatientID": ""}, "row 1: PatientID or SeriesInstanceUID is empty"),
        (
            {"collection_id": "x"},
            "C3L-00001 is in the collections cptac_luad and x, which may be two",
        ),
    ],
)
def test_a_listing_that_contradicts_itself_is_refused(
    changed: dict[str, str], message: str
) -> None:
    """A patient would be merged with another, or split in two."""
    with pytest.raises(DatasetError, match=message):
        Idc([LISTING[0], {**LISTING[0], **changed}])


def test_a_table_without_the_columns_is_refused() -> None:
    """With the columns that it has."""
    with pytest.raises(
        DatasetError, match="column 'PatientID' is missing; column 'organ' is missing"
    ):
        Idc([{"SeriesInstanceUID": "1", "patient": "x"}], labels=("organ",))
    with pytest.raises(DatasetError, match="a label cannot be named 'level'"):
        Idc([{**LISTING[0], "level": 1}], labels=("level",))
