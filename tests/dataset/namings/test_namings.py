"""Names of slides as public data sets have them, and what becomes of names that do not fit."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from chunkdl import (
    Camelyon16,
    Camelyon17,
    Cptac,
    Dataset,
    Gtex,
    NamedSlide,
    NamePattern,
    Panda,
    Tcga,
)
from chunkdl.dataset.namings.by_name import naming_of
from chunkdl.dataset.namings.naming import Naming
from chunkdl.dataset.namings.tcga import SAMPLE_TYPES
from chunkdl.errors import DatasetError

TUMOR = "Primary Solid Tumor"
DX, FROZEN = "diagnostic", "frozen"

TCGA = {
    "TCGA-05-4395-01Z-00-DX1.20205276-ca16-46b2-914a-fe5e576a5cf9.svs": ("TCGA-05-4395", TUMOR, DX),
    "TCGA-AZ-6600-01Z-00-DX1.9afe2f8f-bcfe-43df-a83b-6c183f226757.svs": ("TCGA-AZ-6600", TUMOR, DX),
    "TCGA-DX-AB2L-01Z-00-DX9.B00068FB-ABE2-417F-86E6-C777438CEBDB.svs": ("TCGA-DX-AB2L", TUMOR, DX),
    "TCGA-SB-A76C-01Z-00-DXA.DE1A7777-25B0-4F7C-BC65-A2EB9BD4A1AC.svs": ("TCGA-SB-A76C", TUMOR, DX),
    "TCGA-A1-A0SM-01Z-00-DX1.svs": ("TCGA-A1-A0SM", TUMOR, DX),
    "TCGA-18-5592-01Z-00-DX1.tif": ("TCGA-18-5592", TUMOR, DX),
    "TCGA-CR-7395-01A-01-TS1.svs": ("TCGA-CR-7395", TUMOR, FROZEN),
    "TCGA-06-0137-01A-01-BS1.svs": ("TCGA-06-0137", TUMOR, FROZEN),
    "TCGA-63-5128-01A-01-BS1.2635b7d6-bf3d-40b0-89c0-419f0e4d9fb2.svs": (
        *("TCGA-63-5128", TUMOR, FROZEN),
    ),
    "TCGA-3A-A9IL-01A-01-TS1.F811C83B-1C85-4F69-9E14-E5104E385D84.svs": (
        *("TCGA-3A-A9IL", TUMOR, FROZEN),
    ),
    "TCGA-HZ-8002-01A-01-BS1.00c0266c-8d6b-4f1b-9632-05f4e7bd9095.svs": (
        *("TCGA-HZ-8002", TUMOR, FROZEN),
    ),
    "TCGA-02-0001-11A-01-MS1.svs": ("TCGA-02-0001", "Solid Tissue Normal", FROZEN),
    "TCGA-D3-A1Q5-06A-01-TSA.svs": ("TCGA-D3-A1Q5", "Metastatic", FROZEN),
}


@pytest.mark.parametrize(("name", "expected"), TCGA.items())
def test_a_barcode_says_patient_sample_and_preparation(
    name: str, expected: tuple[str, str, str]
) -> None:
    """With an identifier of the file behind it or without."""
    patient, sample, preparation = expected
    said = Tcga().read(f"/data/{name}")
    assert said == NamedSlide(
        patient,
        {"site": patient[5:7], "project": None},
        {"sample_type": sample, "preparation": preparation},
    )


def test_there_are_nineteen_types_of_samples() -> None:
    """Of the codes 01 to 99; those that the GDC lists without a meaning do not fit."""
    assert len(SAMPLE_TYPES) == 19
    for code in (f"{n:02}" for n in range(100)):
        path = f"/d/TCGA-02-0001-{code}A-01-TS1.svs"
        if code in SAMPLE_TYPES:
            said = Tcga().read(path)
            assert said is not None
            assert said.of_slide["sample_type"] == SAMPLE_TYPES[code]
        else:
            with pytest.raises(DatasetError, match=f"code '{code}' is no sample type"):
                Tcga().read(path)


def test_the_project_is_the_nearest_folder_of_that_name_or_is_given() -> None:
    """Folders of the GDC's client, which are named by the file, lie between."""
    name = "TCGA-05-4395-01Z-00-DX1.svs"
    paths = {
        f"/data/TCGA-LUAD/{name}": "TCGA-LUAD",
        f"/TCGA-LUSC/TCGA-LUAD/2aa283f3-732c-4879-8d37-1fec3ccf5bdc/{name}": "TCGA-LUAD",
        f"/data/TCGA-LUAD-old/{name}": None,
        f"/data/TCGA/{name}": None,
    }
    for path, project in paths.items():
        said = Tcga().read(path)
        assert said is not None
        assert said.of_patient["project"] == project
    said = Tcga(project="TCGA-KIRC").read(f"/data/TCGA-LUAD/{name}")
    assert said is not None
    assert said.of_patient["project"] == "TCGA-KIRC"


def test_only_the_wanted_preparation_is_read() -> None:
    """The others are not named in any warning: they were not asked for."""
    diagnostic, frozen = (f"/d/TCGA-05-4395-01A-01-{kind}.svs" for kind in ("DX1", "TS1"))
    assert Tcga(slides="diagnostic").read(frozen) is None
    assert Tcga(slides="frozen").read(diagnostic) is None
    assert Tcga(slides="frozen").read(frozen) == Tcga().read(frozen)
    with pytest.raises(DatasetError, match="must be 'all', 'diagnostic' or 'frozen'"):
        Tcga(slides="DX")  # type: ignore[arg-type]


OTHERS: list[tuple[Naming, str, NamedSlide]] = [
    *(
        (Cptac(), name, NamedSlide(name[:9], of_slide={"slide_number": int(name[10:12])}))
        for name in ("C3L-00001-21.svs", "C3L-00004-26.svs", "C3N-01200-22.svs", "C3L-03717-21.svs")
    ),
    (Camelyon16(), "normal/normal_001.tif", NamedSlide("normal_001", {}, {"tissue": "normal"})),
    (Camelyon16(), "tumor/tumor_085.tif", NamedSlide("tumor_085", {}, {"tissue": "tumor"})),
    (Camelyon16(), "Tumor_009.tif", NamedSlide("tumor_009", {}, {"tissue": "tumor"})),
    (Camelyon16(), "test_001.tif", NamedSlide("test_001", {}, {"tissue": None})),
    (
        *(Camelyon17(), "patient_000_node_3.tif"),
        NamedSlide("patient_000", {"center": 0}, {"lymph_node": 3}),
    ),
    (
        *(Camelyon17(), "centre_1/patient_020/patient_020_node_4.tif"),
        NamedSlide("patient_020", {"center": 1}, {"lymph_node": 4}),
    ),
    (
        *(Camelyon17(), "training/center_4/patient_099_node_4.tif"),
        NamedSlide("patient_099", {"center": 4}, {"lymph_node": 4}),
    ),
    (
        *(Camelyon17(), "patient_100_node_0.tif"),
        NamedSlide("patient_100", {"center": None}, {"lymph_node": 0}),
    ),
    (
        *(Camelyon17(), "center_2/patient_140_node_0.tif"),
        NamedSlide("patient_140", {"center": 2}, {"lymph_node": 0}),
    ),
    *(
        (Panda(), f"train_images/{name}.tiff", NamedSlide(name))
        for name in ("0005f7aaab2800f6170c399693a96917", "000920ad0b612851f8e01bcc880d9b3d")
    ),
    *(
        (Gtex(), f"{name}.svs", NamedSlide(name[:-5], of_slide={"sample": name}))
        for name in ("GTEX-1117F-0126", "GTEX-111VG-0626", "GTEX-N7MS-2526", "GTEX-15RJE-0626")
    ),
]


@pytest.mark.parametrize(("naming", "path", "expected"), OTHERS)
def test_a_name_says_patient_and_labels(naming: Naming, path: str, expected: NamedSlide) -> None:
    """Of the other data sets."""
    assert naming.read(f"/data/{path}") == expected


@pytest.mark.parametrize(
    ("naming", "path", "message"),
    [
        (Tcga(), "TCGA-05-4395.svs", "no barcode of a slide"),
        (Tcga(), "TCGA-05-4395-01Z-00-DX1-copy.svs", "no barcode of a slide"),
        (Tcga(), "TCGA-05-4395-01A-11D-A24D-01.svs", "no barcode of a slide"),
        (Tcga(), "C3L-00001-21.svs", "no barcode of a slide"),
        (Cptac(), "TCGA-05-4395-01Z-00-DX1.svs", "no slide of CPTAC"),
        (Cptac(), "2f2e5477-42a4-4906-a943-bf7f80_D1_D1.svs", "no slide of CPTAC"),
        (Cptac(), "C3L-00001.svs", "no slide of CPTAC"),
        (Camelyon16(), "tumor_001_mask.tif", "no slide of CAMELYON16"),
        (Camelyon16(), "patient_000_node_3.tif", "no slide of CAMELYON16"),
        (Camelyon17(), "patient_000.tif", "no slide of CAMELYON17"),
        (Camelyon17(), "patient_004_node_4_mask.tif", "no slide of CAMELYON17"),
        (
            Camelyon17(),
            "center_2/patient_020_node_4.tif",
            "patient_020 is of center 1, and lies in",
        ),
        (Panda(), "0005f7aaab2800f6170c399693a96917_mask.tiff", "this is a mask, and no slide"),
        (Panda(), "0005f7aaab2800f6170c399693a96917_0.tiff", "no image of PANDA"),
        (Gtex(), "GTEX-1117F-0126_2.svs", "no slide of GTEx"),
        (Gtex(), "GTEX-1117F.svs", "no slide of GTEx"),
    ],
)
def test_a_name_that_is_another_is_refused(naming: Naming, path: str, message: str) -> None:
    """None is cut down until it fits: that would merge patients."""
    with pytest.raises(DatasetError, match=message):
        naming.read(f"/data/{path}")


def test_a_pattern_of_the_users_names_patients_and_labels() -> None:
    """By the file name, or by the whole path."""
    names = NamePattern(r"(?P<patient>S\d+)_(?P<stain>HE|IHC)(_(?P<block>\w))?")
    assert names.read("/d/S12_HE.ome.tif") == NamedSlide("S12", {}, {"stain": "HE", "block": None})
    assert names.read("/d/S12_IHC_b.svs") == NamedSlide("S12", {}, {"stain": "IHC", "block": "b"})
    with pytest.raises(DatasetError, match="the name does not fit"):
        names.read("/d/S12_HE_.svs")
    paths = NamePattern(r".*/(?P<center>\w+)/(?P<patient>\d+)/[^/]*", of="path")
    assert paths.read("/d/Bern/7/a.svs") == NamedSlide("7", {}, {"center": "Bern"})


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "is no regular expression"),
        (r"(\d+)", "has no group 'patient'"),
        (r"(?P<patient>\d+)(?P<slide>.)", "a label cannot be named 'slide'"),
        (r"(?P<patient>\d*)x", "the group 'patient' .* is empty"),
        (3, "is no regular expression"),
    ],
)
def test_a_pattern_that_names_nobody_is_refused(pattern: str, message: str) -> None:
    """With what it needs."""
    with pytest.raises(DatasetError, match=message):
        NamePattern(pattern).read("/d/x.svs")


# ---- Datasets by their names.


def touch(folder: Path, *names: str) -> Path:
    """Files without content, of which only the names matter."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_slides_of_a_patient_come_together(tmp_path: Path) -> None:
    """In the order of the paths; labels of patients and of slides are where they belong."""
    touch(
        tmp_path,
        "TCGA-LUAD/TCGA-05-4395-01Z-00-DX1.20205276-ca16-46b2-914a-fe5e576a5cf9.svs",
        "TCGA-LUAD/frozen/TCGA-05-4395-11A-01-TS1.svs",
        "TCGA-LUSC/TCGA-18-5592-01Z-00-DX1.svs",
    )
    dataset = Dataset.from_slides(tmp_path, naming=Tcga())
    assert [(p.int_uniqueid, p.name, len(p.slides)) for p in dataset] == [
        (0, "TCGA-05-4395", 2),
        (1, "TCGA-18-5592", 1),
    ]
    assert dataset[0].labels == {"site": "05", "project": "TCGA-LUAD"}
    assert [record.labels["preparation"] for record in dataset[0].slides] == [DX, FROZEN]
    assert all(Path(record.path).exists() for patient in dataset for record in patient.slides)
    assert list(dataset[0].dict_records) == ["slide", "slide:2", "site", "project"]
    wanted = Dataset.from_slides(tmp_path, naming={"name": "tcga", "slides": "diagnostic"})
    assert [len(patient.slides) for patient in wanted] == [1, 1]


def test_a_real_slide_of_tcga_is_named(slides_folder: Path) -> None:
    """Among slides of other origins, which are left out."""
    (patient,) = Dataset.from_slides(slides_folder, naming="tcga", misfits="leave_out")
    assert (patient.name, patient.labels["site"]) == ("TCGA-CR-7395", "CR")
    assert patient.slides[0].labels == {"sample_type": TUMOR, "preparation": FROZEN}


def test_a_name_that_does_not_fit_is_an_error_or_is_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Which counts them and names some."""
    touch(tmp_path, "C3L-00001-21.svs", *(f"other{n}.svs" for n in range(7)))
    with pytest.raises(DatasetError, match=r"Cptac does not fit 7 of 8 slides: other0.svs: the na"):
        Dataset.from_slides(tmp_path, naming="cptac")
    with caplog.at_level(logging.WARNING):
        dataset = Dataset.from_slides(tmp_path, naming="cptac", misfits="leave_out")
    assert [patient.name for patient in dataset] == ["C3L-00001"]
    (record,) = caplog.records
    assert "7 of 8 slides are left out, because Cptac does not fit their names" in record.message
    assert "other4.svs" in record.message
    assert "and 2 more" in record.message
    with pytest.raises(DatasetError, match="misfits='warn' must be 'error' or 'leave_out'"):
        Dataset.from_slides(tmp_path, naming="cptac", misfits="warn")  # type: ignore[arg-type]


def test_a_naming_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    """An empty dataset would be found out much later."""
    touch(tmp_path, "TCGA-05-4395-01Z-00-DX1.svs")
    with pytest.raises(DatasetError, match="Tcga leaves out all 1 slides; check its parameters"):
        Dataset.from_slides(tmp_path, naming=Tcga(slides="frozen"))
    with pytest.raises(DatasetError, match="Gtex does not fit 1 of 1 slides"):
        Dataset.from_slides(tmp_path, naming=Gtex(), misfits="leave_out")


def test_slides_of_a_patient_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """One is in the wrong folder; a label that is unknown contradicts nothing."""
    names = "TCGA-05-4395-01Z-00-DX1.svs", "TCGA-05-4395-01Z-00-DX2.svs"
    touch(tmp_path, names[0], f"TCGA-LUSC/{names[1]}")
    assert Dataset.from_slides(tmp_path, naming=Tcga())[0].labels["project"] == "TCGA-LUSC"
    touch(tmp_path, f"TCGA-LUAD/{names[0]}")
    with pytest.raises(DatasetError, match="has project='TCGA-LUAD' by one slide and 'TCGA-LUSC'"):
        Dataset.from_slides(tmp_path, naming=Tcga())


def test_an_object_of_the_users_is_a_naming(tmp_path: Path) -> None:
    """With one method; what it says is checked."""

    class Mine:
        def __init__(self, **labels: object) -> None:
            self.labels = labels

        def read(self, path: str) -> NamedSlide:
            return NamedSlide(Path(path).stem[0], of_slide=self.labels)

    touch(tmp_path, "a1.svs", "a2.svs", "b1.svs")
    dataset = Dataset.from_slides(tmp_path, naming=Mine(stain="HE"))
    assert [(p.name, len(p.slides)) for p in dataset] == [("a", 2), ("b", 1)]
    with pytest.raises(DatasetError, match="a label cannot be named 'level'"):
        Dataset.from_slides(tmp_path, naming=Mine(level=3))
    with pytest.raises(DatasetError, match=r"naming=3 is no naming; give one such as chunkdl.Tcga"):
        Dataset.from_slides(tmp_path, naming=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("tcga", Tcga()),
        ({"name": "tcga", "slides": "frozen", "project": "TCGA-UVM"}, Tcga("frozen", "TCGA-UVM")),
        ("camelyon16", Camelyon16()),
        ("camelyon17", Camelyon17()),
        ("panda", Panda()),
        ("gtex", Gtex()),
        ("cptac", Cptac()),
        ({"name": "pattern", "pattern": "(?P<patient>.)"}, NamePattern("(?P<patient>.)")),
    ],
)
def test_a_file_says_a_naming_by_name(given: str, expected: Naming) -> None:
    """With parameters as a table."""
    assert naming_of(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("TCGA", "there is no naming 'TCGA'; choose one of tcga, cptac"),
        ({"slides": "all"}, "there is no naming None"),
        ({"name": "tcga", "kind": "DX"}, "has no parameter 'kind'; it has slides, project"),
        ({"name": "gtex", "kind": "DX"}, "has no parameter 'kind'; it has none"),
        ("pattern", "needs the parameter 'pattern'"),
        ("idc", "needs the parameter 'table'"),
    ],
)
def test_a_naming_that_is_none_is_refused(given: str, message: str) -> None:
    """With those that there are."""
    with pytest.raises(DatasetError, match=message):
        naming_of(given)
