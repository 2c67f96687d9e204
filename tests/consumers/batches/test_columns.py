"""The columns of a batch beside its rows, and the tables that their indices are into."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from chunkdl.consumers.batches.array_kinds import array_kind
from chunkdl.consumers.batches.columns import Columns, Tables
from chunkdl.dataset.label_tables import check_labels, label_tables, slide_labels
from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.errors import DatasetError
from chunkdl.service.labels import facts_that_travel
from chunkdl.transport.memory.layouts import COLUMNS, RECORD


def cohort() -> list[Patient]:
    """Anna with two slides, Bert with one; labels of patients, of slides and of both."""
    first = Record("/d", "a.svs", {}, {"score": 1, "stain": "H&E"})
    second = Record("/d", "b.svs", {}, {"score": 2, "stain": "HER2", "grade": 9})
    third = Record("/d", "c.svs")
    xml = Record("/d", "a.xml", {}, {"ignored": 1})
    return [
        Patient(5, {"s": first, "xml": xml, "t": second, "grade": 3, "site": "lung"}, name="Anna"),
        Patient(6, {"s": third, "grade": 4, "site": "liver", "stain": "PAS"}, name="Bert"),
    ]


SLIDES = [
    SlideEntry("/d/a.svs", 0, None, None, 0),
    SlideEntry("/d/b.svs", 0, None, None, 1),
    SlideEntry("/d/c.svs", 1, None, None, 0),
]


def tables_of(
    patients: Sequence[Patient], slides: Sequence[SlideEntry], *, own_classes: bool = False
) -> Tables:
    """As a loader makes them."""
    labels = label_tables(
        [patient.labels for patient in patients],
        slide_labels(patients, slides),
        [entry.patient for entry in slides] if own_classes else None,
    )
    kind = array_kind("torch", pin=False)
    return Tables(patients, [entry.path for entry in slides], labels, kind)


def records_of(*rows: tuple[int, int]) -> Any:
    """Records of rows with these slides and patients."""
    records = np.zeros(len(rows), dtype=RECORD)
    records["slide"], records["patient"] = np.array(rows).T
    return records


ROWS = records_of((1, 0), (2, 1), (0, 0))


def values(columns: Mapping[str, Any], name: str) -> Any:
    """A column, tensors as what they hold; NaN as None."""
    column = columns[name]
    if isinstance(column, list):
        return column
    return [None if value != value else value for value in column.tolist()]


def test_a_row_has_the_labels_of_its_slide_and_of_its_patient() -> None:
    """Where both have one the slide's holds; a slide without one has its patient's, or none."""
    columns = Columns({}, ROWS, tables_of(cohort(), SLIDES))
    assert values(columns, "score") == [2.0, None, 1.0]
    assert values(columns, "stain") == ["HER2", "PAS", "H&E"]
    assert values(columns, "grade") == [9, 4, 3]
    assert values(columns, "site") == ["lung", "liver", "lung"]
    assert columns["grade"].dtype == torch.int64
    assert "ignored" not in columns


@pytest.mark.parametrize("missing", [None, math.nan, np.float32("nan"), np.datetime64("NaT")])
def test_a_missing_value_of_a_slide_leaves_its_patients(missing: object) -> None:
    """In a batch, and for consumers of a service; where the patient has none it is missing."""
    one = Record("/d", "a.svs", {}, {"score": missing, "grade": missing})
    two = Record("/d", "b.svs", {}, {"score": 0})
    patients = [Patient(5, {"s": one, "t": two, "score": 5})]
    columns = Columns({}, records_of((0, 0), (1, 0)), tables_of(patients, SLIDES[:2]))
    assert values(columns, "score") == [5, 0]
    assert values(columns, "grade") == [None, None]
    _, of_slides = facts_that_travel(Dataset("d", patients), SLIDES[:2])
    assert of_slides == ({"score": 5, "grade": None}, {"score": 0, "grade": None})


def test_a_row_of_no_slide_has_what_all_slides_of_its_patient_have() -> None:
    """Rows of the user's own classes need not say which slide they are of."""
    patients = cohort()
    patients[0].slides[1].labels["stain"] = "H&E"
    columns = Columns(
        {}, records_of((-1, 0), (-1, 1), (1, 0)), tables_of(patients, SLIDES, own_classes=True)
    )
    assert values(columns, "score") == [None, None, 2.0]
    assert values(columns, "stain") == ["H&E", "PAS", "H&E"]
    assert values(columns, "slide") == ["", "", "/d/b.svs"]
    assert values(columns, "slide_index") == [-1, -1, 1]


def test_labels_belong_to_slides_by_their_place_whatever_was_left_out() -> None:
    """The second slide of a patient keeps its labels where the first is not in the stream."""
    columns = Columns({}, records_of((0, 0), (1, 1)), tables_of(cohort(), SLIDES[1:]))
    assert values(columns, "score") == [2.0, None]
    assert values(columns, "slide") == ["/d/b.svs", "/d/c.svs"]


def test_indices_say_where_the_texts_are_in_the_tables() -> None:
    """Tables are copies, and a label is by the index of what has it."""
    columns = Columns({}, ROWS, tables_of(cohort(), SLIDES))
    tables = columns.tables()
    slides, patients = columns["slide_index"], columns["patient_index"]
    assert (slides.dtype, patients.dtype) == (torch.int64, torch.int64)
    assert [tables["slide"][i] for i in slides.tolist()] == columns["slide"]
    assert [tables["patient"][i] for i in patients.tolist()] == columns["patient"]
    assert [tables["site"][i] for i in patients.tolist()] == columns["site"]
    assert [tables["stain"][i] for i in slides.tolist()] == columns["stain"]
    assert tables["grade"][slides].tolist() == columns["grade"].tolist()
    assert [len(tables[name]) for name in ("slide", "patient", "site", "grade")] == [3, 2, 2, 3]
    tables["grade"].zero_()
    tables["site"].clear()
    assert columns.tables()["grade"].tolist() == [3, 9, 4]
    assert columns.tables()["site"] == ["lung", "liver"]


def test_tables_end_where_slides_end_for_rows_that_need_no_slide() -> None:
    """What follows inside is nobody's to see."""
    columns = Columns({}, ROWS, tables_of(cohort(), SLIDES, own_classes=True))
    assert columns.tables()["stain"] == ["H&E", "HER2", "PAS"]
    assert len(columns.tables()["score"]) == 3


def test_the_columns_are_those_of_the_records_the_indices_and_the_labels() -> None:
    """Rows first; every name once."""
    columns = Columns({"image": torch.zeros(3)}, ROWS, tables_of(cohort(), SLIDES))
    names = list(columns)
    assert names[0] == "image"
    assert {"slide_index", "patient_index", "slide", "patient", "grade"} <= set(names)
    assert {name for name, _ in COLUMNS} <= set(names)
    assert len(columns) == len(names) == len(set(names))
    assert dict(columns).keys() == set(names)


def test_with_tensors_only_every_column_is_a_tensor() -> None:
    """And a text says by which index of which table it is to be had."""
    made = {"data": [1, 2, 3], "info_smallchunk": [{}] * 3}
    for given in ({"image": torch.zeros(3)}, made):
        columns = Columns(given, ROWS, tables_of(cohort(), SLIDES), tensors_only=True)
        assert all(isinstance(column, torch.Tensor) for column in columns.values())
        assert {"slide_index", "patient_index", "grade", "score", "x"} <= set(columns)
        assert not {"slide", "patient", "site", "stain", *made} & set(columns)
        assert len(columns) == len(list(columns))
        for name, index in (("slide", "slide"), ("stain", "slide"), ("site", "patient")):
            assert name not in columns
            with pytest.raises(KeyError, match=rf"loader\.tables\['{name}'\].*'{index}_index'"):
                columns[name]
        with pytest.raises(KeyError, match="'gone'"):
            columns["gone"]
    with pytest.raises(KeyError, match="'data' is not a tensor and is left out with tensors_only"):
        columns["data"]


def test_the_only_label_is_there_as_label_too() -> None:
    """Of patients or of slides; not where there are two."""
    of_slide = [Patient(0, {"s": Record("", "a.svs", {}, {"er": 1})})]
    columns = Columns({}, records_of((0, 0)), tables_of(of_slide, SLIDES[:1]))
    assert (columns["label"].tolist(), "label" in set(columns)) == ([1], True)
    both = [Patient(0, {"s": Record("", "a.svs", {}, {"er": 1}), "pr": 2})]
    assert "label" not in Columns({}, records_of((0, 0)), tables_of(both, SLIDES[:1]))


def test_facts_of_patients_never_hide_what_a_batch_has() -> None:
    """With classes of the user's own, patients may carry facts under any name; see below."""
    patients = [Patient(0, {"s": Record("", "a.svs"), "image": 7, "x": 8, "slide": 9, "label": 1})]
    columns = Columns({"data": [1]}, records_of((0, 0)), tables_of(patients, SLIDES[:1]))
    assert "image" not in columns
    assert (columns["x"].tolist(), columns["slide"], columns["label"].tolist()) == (
        *([0], ["/d/a.svs"], [1]),
    )


def patient_with(labels: dict[str, Any], of_slide: dict[str, Any] | None = None) -> Patient:
    """One with one slide."""
    return Patient(0, {"s": Record("", "a.svs", {}, of_slide or {}), **labels})


@pytest.mark.parametrize(
    ("patient", "message"),
    [
        (patient_with({"level": 1}), "cannot be named 'level', .*e.g. to 'level_label'"),
        (patient_with({}, {"epoch": 1}), "cannot be named 'epoch'"),
        (patient_with({"x": 1, "y": 2}), "'x'.*; .*'y'"),
        (patient_with({"id": 2**63}), "label 'id': 9223372036854775808 needs more than 64 bits"),
        (patient_with({}, {"id": [2**64]}), "label 'id': 18446744073709551616 needs"),
        (patient_with({3: 1}), "the name of the label 3 is not text"),  # type: ignore[dict-item]
    ],
)
def test_labels_that_cannot_be_columns_are_refused(patient: Patient, message: str) -> None:
    """All in one error."""
    with pytest.raises(DatasetError, match=message):
        check_labels([patient], SLIDES[:1], own_classes=False)


def test_facts_for_the_users_own_classes_are_told_and_not_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Programs of PyDmed keep whatever they like beside the records."""
    check_labels([patient_with({"x": 1, "id": 2**64})], SLIDES[:1], own_classes=True)
    (told,) = caplog.messages
    assert "their own columns named 'x'" in told


def test_columns_that_look_like_tensors_and_are_none_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Text that is text is no news."""
    patients = [patient_with({"age": "old", "hot": [1], "site": "x"}), patient_with({"age": 1})]
    patients[1].dict_records |= {"hot": [1, 2], "site": "y"}
    with caplog.at_level(logging.INFO, "chunkdl"):
        check_labels(patients, [*SLIDES[:1], SLIDES[2]], own_classes=False)
    assert caplog.messages == [
        "label 'age' is text for some rows and something else for others: batches have it as a "
        "list",
        "label 'hot' has values of different shapes: batches have it as a list",
    ]
