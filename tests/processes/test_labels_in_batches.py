"""Labels of patients and slides in the batches of a real stream."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from chunkdl import Dataset, LightDL, Patient, Record
from chunkdl.errors import DatasetError
from chunkdl.slides.synthetic.writing import CoordinateSlide
from tests.processes.hook_classes import SameCollector, SameLoader

COLUMNS = "patient", "slide", "grade", "her2", "site", "hot", "score", "code"
FACTS = (
    ("anna", 0, True, "lung", "[0, 1]", 0.5, "007"),
    ("anna", 2, True, "liver", "[1, 1]", "", "007"),
    ("bert", 1, False, "", "[1, 0]", 2.0, "012"),
)


@pytest.fixture
def labelled(coordinate_slides: dict[str, CoordinateSlide], tmp_path: Path) -> Dataset:
    """Three slides of two patients in a manifest, with labels of both."""
    with open(tmp_path / "m.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for path, (patient, *labels) in zip(coordinate_slides, FACTS, strict=True):
            writer.writerow([patient, path, *labels])
    return Dataset.from_csv(tmp_path / "m.csv")


@pytest.mark.parametrize("own_classes", [False, True])
def test_rows_have_the_labels_of_their_slide_and_their_patient(
    labelled: Dataset, small_stream: dict[str, Any], own_classes: bool
) -> None:
    """Numbers as tensors, text as lists.

    With classes of the user's own a row need not be of a slide: then a label of slides that differ
    can be missing, so it is always a column of floats.
    """
    classes = (SameLoader, SameCollector) if own_classes else ()
    of_slides = torch.float64 if own_classes else torch.int64
    expected = {"grade": of_slides, "her2": torch.bool, "hot": of_slides, "score": torch.float64}
    seen = set()
    with LightDL(labelled, *classes, tissue="none", **small_stream) as loader:
        for _ in range(30):
            batch = loader.next_batch(60)
            assert {name: batch[name].dtype for name in expected} == expected
            assert batch["hot"].shape == (16, 2)
            for row in range(16):
                slide = batch["slide_index"][row].item()
                patient, grade, her2, site, hot, score, code = FACTS[slide]
                assert batch["patient"][row] == patient
                assert batch["slide"][row].endswith(f"slide-{slide}.tif")
                assert batch["patient_index"][row] == (patient == "bert")
                assert (batch["grade"][row], batch["her2"][row]) == (grade, her2)
                assert (batch["site"][row], batch["code"][row]) == (site or None, code)
                assert str(batch["hot"][row].long().tolist()) == hot
                assert batch["score"][row].isnan() if score == "" else batch["score"][row] == score
                seen.add(slide)
    assert seen == {0, 1, 2}


def test_labels_that_would_hide_columns_stop_a_loader_before_anything_starts(
    coordinate_slides: dict[str, CoordinateSlide], small_stream: dict[str, Any]
) -> None:
    """With the name that would do."""
    path = next(iter(coordinate_slides))
    dataset = Dataset("d", [Patient(0, {"s": Record("", path), "level": 77, "label": 1})])
    with pytest.raises(DatasetError, match=r"cannot be named 'level'.*e\.g\. to 'level_label'"):
        LightDL(dataset, **small_stream)
