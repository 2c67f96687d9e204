"""What a BigChunk and a SmallChunk of a user may be, through real processes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl import Dataset, LightDL, Patient, Record, open_slide
from chunkdl.errors import ConfigError, HookError
from tests.processes.hook_classes import (
    KINDS,
    BareCollector,
    BareLoader,
    GivenCollector,
    GivenLoader,
    KindCollector,
    KindLoader,
    PatientCollector,
    PatientLoader,
    RegionCollector,
    RegionLoader,
    ScaleCollector,
    ScaleLoader,
    described,
)

SIX = Dataset("numbers", [Patient(10 + n, {"label": n % 2}) for n in range(6)])
SMALL: dict[str, Any] = {
    "batch_size": 4,
    "num_bigchunks": 2,
    "smallchunks_per_bigchunk": 8,
    "num_loaders": 1,
    "num_collectors": 1,
    "memory_limit": "64MiB",
    "seed": 4,
}


# ------------------------------------------------------------------ BigChunks


def test_a_bigchunk_is_any_object_and_its_arrays_are_not_copied(tmp_path: Path) -> None:
    """Each kind arrives as it was returned, its arrays in the shared memory itself."""
    image = np.arange(3000, dtype=np.float32).reshape(30, 100)
    np.save(tmp_path / "map.npy", image)
    kinds = [(kind, wrapped) for kind in KINDS for wrapped in (0, 1)]
    dataset = Dataset(
        "kinds",
        [Patient(2 * n + wrapped, {"kind": kind}) for n, (kind, wrapped) in enumerate(kinds)],
    )
    arguments = {**SMALL, "num_bigchunks": 4, "smallchunks_per_bigchunk": 2, "batch_size": 8}
    got: dict[int, dict[str, Any]] = {}
    settings = {"file": str(tmp_path / "map.npy")}
    with LightDL(dataset, KindLoader, KindCollector, settings, **arguments) as loader:
        while len(got) < len(dataset):
            batch = loader.next_batch(60)
            for patient, info in zip(batch.patients, batch["info_smallchunk"], strict=True):
                got[patient.int_uniqueid] = info

    for patient in dataset:
        kind = str(patient.dict_records["kind"])
        info = got[patient.int_uniqueid]
        plain = described(image if kind == "memory map" else KINDS[kind])
        if patient.int_uniqueid % 2:
            assert info["is"] == f"BigChunk {plain} {{'kind': {kind!r}}}"
        else:
            assert info["is"] == plain
        assert info["shared"], kind


def large() -> Any:
    """Forty MB."""
    return {"x": np.ones((40, 2**20), np.uint8)}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (large, r"class dict, .* too large: it takes 40\.\d+ MiB.*raise memory_limit"),
        (threading.Lock, r"class lock, .*cannot be pickled.*locks, sockets and open files"),
    ],
)
def test_a_bigchunk_that_cannot_travel_is_an_error(make: Any, told: str) -> None:
    """It names the class, the hook and the patient, how large it is, and what helps."""
    loader = LightDL(SIX, GivenLoader, GivenCollector, {"make": make}, **SMALL)
    with loader, pytest.raises(HookError, match=told) as caught:
        loader.next_batch(60)

    assert caught.value.hook == "GivenLoader.extract_bigchunk"
    assert caught.value.patient in {patient.name for patient in SIX}
    assert caught.value.kind == "PackingError"


def test_regions_are_those_of_the_slide(coordinate_slides: dict[str, Any]) -> None:
    """Level, mpp, downsample and record; helpers work in the constructor; nothing is copied."""
    first, *others = coordinate_slides
    records = [Record("/", path[1:]) for path in coordinate_slides]
    dataset = Dataset("d", [Patient(1, {"a": records[0], "b": records[1], "c": records[2]})])
    arguments = {**SMALL, "num_bigchunks": 1, "bigchunk_size": 256, "smallchunk_size": 64}
    with LightDL(dataset, RegionLoader, RegionCollector, tissue="none", **arguments) as loader:
        batches = [loader.next_batch(60) for _ in range(12)]

    def pixels(path: str, level: int, x: int, y: int) -> Any:
        out = np.empty((48, 64, 3), np.uint8)
        slide = open_slide(path)
        slide.read_into(out, level, x, y)
        slide.close()
        return out

    chosen = set()
    for batch in batches:
        for row, image in enumerate(batch["image"]):
            big, small = batch["info_bigchunk"][row], batch["info_smallchunk"][row]
            chosen.add(big["slide"])
            expected = [
                pixels(big["slide"], 0, 256, 128),
                pixels(big["slide"], 1, 128, 64),
                pixels(big["slide"], 2, 64, 32),
                pixels(big["slide"], 1, 128, 64),
                pixels(records[2].path, 0, 256, 128),
            ]
            assert (image.permute(1, 2, 0).numpy() == np.concatenate(expected)).all()
            assert small["shared"]
            assert small["empty"][0] == small["empty"][1]
            x, y, side, width = big["facts"]
            left, top, place_x, place_side = small["place"]
            assert (side, width, place_side, big["draws"]) == (256, 1500, 64, 8)
            assert 0 <= left <= 256 - 64
            assert 0 <= top <= 256 - 64
            assert place_x == x + left
            assert y >= -256
    # The plan chooses among all slides of the patient.
    assert chosen == {first, *others}


def test_a_file_of_two_patients_has_the_microns_of_the_one_that_is_loaded(
    coordinate_slides: dict[str, Any],
) -> None:
    """Each gives the file another mpp, so one micron per pixel is another level for each."""
    path, slide = next(iter(coordinate_slides.items()))
    dataset = Dataset(
        "shared",
        [
            Patient(n, {"a": Record("/", path[1:], {"mpp": mpp})})
            for n, mpp in ((1, 0.25), (2, 0.5))
        ],
    )
    expected = {1: slide.pixels(2, 64, 32, 64, 48), 2: slide.pixels(1, 128, 64, 64, 48)}
    seen = set()
    with LightDL(dataset, ScaleLoader, ScaleCollector, tissue="none", **SMALL) as loader:
        for _ in range(8):
            batch = loader.next_batch(60)
            for patient, image in zip(batch.patients, batch["image"], strict=True):
                seen.add(patient.int_uniqueid)
                got = image.permute(1, 2, 0).numpy()
                np.testing.assert_array_equal(got, expected[patient.int_uniqueid])
    assert seen == {1, 2}


def test_what_a_patient_does_not_have_is_told(tmp_path: Path) -> None:
    """No slide, no such slide, no place in the plan: a ConfigError that says what to do."""
    (tmp_path / "notes.txt").write_text("no slide")
    dataset = Dataset("bare", [Patient(1, {"notes": Record(tmp_path, "notes.txt")})])
    with LightDL(dataset, BareLoader, BareCollector, **SMALL) as loader:
        slide, region, record, window, place = loader.next_batch(60)["info_smallchunk"][0]["told"]

    for message in (slide, region, window):
        assert "has no record that is a slide" in message
    assert "notes.txt is not a slide of patient" in record
    assert "read_window nor positions" in place


def test_a_patient_never_travels_and_objects_go_to_the_collate_function() -> None:
    """Patients of 40 MB in slots of a few MB; the objects hold the training program's own."""
    mask = np.ones((40, 1024, 1024), dtype=bool)
    dataset = Dataset("heavy", [Patient(n, {"mask": mask}) for n in (1, 2)])

    def collate(chunks: list[Any], tfms: Any) -> Any:
        return [(chunk.data, chunk.patient, tfms) for chunk in chunks]

    with LightDL(
        dataset, PatientLoader, PatientCollector, collate_func=collate, tfms=str, **SMALL
    ) as loader:
        got = [row for _ in range(5) for row in loader.get(60)]

    for data, patient, tfms in got:
        assert data["patient"] is patient
        assert any(patient is one for one in dataset)
        assert (data["array"] == np.arange(len(data["array"]))).all()
        assert tfms is str
    assert {patient.int_uniqueid for _, patient, _ in got} == {1, 2}


def test_objects_that_are_kept_stay_what_they_are() -> None:
    """Copies and those in shared memory; a copy holds the training program's patients too."""
    dataset = Dataset("objects", [Patient(n, {}) for n in (1, 2)])

    def collate(chunks: list[Any], tfms: object) -> list[Any]:
        return [chunk.data for chunk in chunks]

    with LightDL(
        dataset, PatientLoader, PatientCollector, collate_func=collate, batch_slots=4, **SMALL
    ) as loader:
        kept = [loader.next_batch(60, copy=copy) for copy in [True, None] * 6]
        before = [[data["array"].copy() for data in batch] for batch in kept]
        for _ in range(12):
            loader.next_batch(60)

    for batch, arrays in zip(kept, before, strict=True):
        for data, array in zip(batch, arrays, strict=True):
            assert any(data["patient"] is patient for patient in dataset)
            assert np.array_equal(data["array"], array)
            assert np.array_equal(array, np.arange(len(array)))


def test_a_transform_here_gets_the_objects_of_a_class() -> None:
    """With `tfms_in="consumer"` they may be anything; the results are stacked."""
    arguments: dict[str, Any] = {**SMALL, "tfms_in": "consumer"}
    with LightDL(
        SIX, PatientLoader, PatientCollector, tfms=lambda data: data["array"][:1], **arguments
    ) as loader:
        x, patients, _ = loader.get(60)

    assert x.tolist() == [[0]] * 4
    assert len(patients) == 4


# ------------------------------------------------------------------ SmallChunks


def given(*data: Any, **settings: Any) -> LightDL:
    """A loader whose SmallChunks hold these, one after the other."""
    more = {name: settings.pop(name) for name in ("collate_func",) if name in settings}
    arguments = {**SMALL, "num_bigchunks": 1, **more}
    return LightDL(SIX, GivenLoader, GivenCollector, {"given": data, **settings}, **arguments)


@pytest.mark.parametrize(
    ("data", "shape", "dtype"),
    [
        (np.ones((5, 6, 3), np.uint8), (4, 3, 5, 6), "uint8"),
        (np.ones((5, 6, 7), np.uint8), (4, 5, 6, 7), "uint8"),
        (np.ones((3, 5, 6), np.float32), (4, 3, 5, 6), "float32"),
        (np.arange(12.0)[::2], (4, 6), "float64"),
        (2.5, (4,), "float64"),
        (True, (4,), "bool"),
    ],
)
def test_rows_of_any_shape_and_type_are_stacked(data: Any, shape: Any, dtype: str) -> None:
    """Only images of bytes have their channels first."""
    with given(data) as loader:
        x, _, _ = loader.get(60)

    assert tuple(x.shape) == shape
    assert str(x.dtype) == f"torch.{dtype}"
    assert (x == (x[0])).all()


def test_a_row_that_is_a_dict_of_arrays_is_a_column_each() -> None:
    """Images of bytes have their channels first; the SmallChunk has them as a dict again."""
    row = {"image": np.ones((5, 6, 3), np.uint8), "wide": np.full((2, 9), 7.5), "share": 0.25}
    with given(row) as loader:
        x, _, smallchunks = loader.get(60)
        batch = loader.next_batch(60)

    assert tuple(x.shape) == (4, 3, 5, 6)
    assert batch.row_columns == ("image", "share", "wide")
    assert (batch["wide"] == 7.5).all()
    assert tuple(batch["wide"].shape) == (4, 2, 9)
    assert batch["share"].tolist() == [0.25] * 4
    assert {name: tuple(data.shape) for name, data in smallchunks[2].data.items()} == {
        "image": (3, 5, 6),
        "wide": (2, 9),
        "share": (),
    }


WRONG_ROWS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "another shape": ((np.zeros((2, 3)), np.zeros((3, 2))), {}, r"\(3, 2\).*were float64 \(2, 3\)"),
    "another type": ((np.zeros(3), np.zeros(3, int)), {}, r"int64 \(3,\).*were float64 \(3,\)"),
    "no array": ((np.zeros(3), "text"), {}, r"is str, those before it were float64 \(3,\)"),
    "large infos": ((np.zeros(3),), {"info": {"x": "x" * 5000}}, "info dicts .* have to be small"),
    "no SmallChunk": ((np.zeros(3),), {"raw": True}, "it returned a ndarray; return a SmallChunk"),
}


@pytest.mark.parametrize("wrong", WRONG_ROWS)
def test_a_row_that_does_not_fit_is_an_error(wrong: str) -> None:
    """It says what it is, what it should be, of which hook and patient."""
    data, settings, told = WRONG_ROWS[wrong]
    with given(*data, **settings) as loader, pytest.raises(HookError, match=told) as caught:
        loader.next_batch(60)

    assert caught.value.hook == "GivenCollector.extract_smallchunk"
    assert caught.value.patient


def test_rows_larger_than_their_share_are_an_error() -> None:
    """As arrays and as objects; what to change is said."""
    with given(np.zeros((2**20,))) as loader, pytest.raises(HookError, match="raise memory_limit"):
        loader.next_batch(60)
    objects = given({"a": np.zeros(2**20)}, collate_func=list)
    with objects, pytest.raises(HookError, match="raise it, or lower batch_size"):
        objects.get(60)


def test_objects_without_a_collate_function_are_told_so() -> None:
    """Once get() has to make a tensor of them; the columns have them all the same."""
    with given({"a": "text"}) as loader:
        assert loader.next_batch(60)["data"] == [{"a": "text"}] * 4
        with pytest.raises(ConfigError, match="objects of class dict, which make no tensor"):
            loader.get(60)
