"""The patient of one load: what is copied, what is a change, and what is made of it again."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from chunkdl.consumers.lightdl import LightDL
from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.errors import PackingError
from chunkdl.patches.chunks import BigChunk, SmallChunk
from chunkdl.patches.hooks import BigChunkLoader, SmallChunkCollector
from chunkdl.patches.patient_copies import LARGE_ARRAY_BYTES, PatientCopies, PatientsOfLoad

SIDE = 1 + int(LARGE_ARRAY_BYTES**0.5)


def heavy() -> Patient:
    """With a record, arrays of both sizes, and facts of some depth."""
    records: dict[str, object] = {
        "H&E": Record("/slides/", "a.svs", {"mpp": 0.5}),
        "small": np.arange(6).reshape(2, 3),
        "large": np.ones((SIDE, SIDE), np.uint8),
        "facts": {"list": [1, 2, (3, None)], "nan": float("nan")},
    }
    return Patient(7, records, name="Ada")


@pytest.fixture(params=[False, True], ids=["shared", "all copied"])
def copies(request: pytest.FixtureRequest) -> PatientCopies:
    return PatientCopies([Patient(5, {}), heavy()], all_arrays=request.param)


def test_copies_share_nothing_that_can_be_changed(copies: PatientCopies) -> None:
    """Neither with the worker's patient nor with each other; a large array is read-only where it
    is not copied."""
    whole: Any = copies.patients[1].dict_records
    one, other = copies.fresh(1), copies.fresh(1)
    records: Any = one.dict_records
    records["small"][:] = 0
    records["facts"]["list"].append(5)
    records["H&E"].dict_infos["mpp"] = 1
    if records["large"].flags.writeable:
        records["large"][:] = 0
    else:
        assert np.shares_memory(records["large"], whole["large"])
        with pytest.raises(ValueError, match="read-only"):
            records["large"][:] = 0
    for left in (other.dict_records, copies.fresh(1).dict_records, whole):
        kept: Any = left
        assert kept["small"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert kept["facts"]["list"] == [1, 2, (3, None)]
        assert kept["H&E"].dict_infos == {"mpp": 0.5}
        assert kept["large"].all()
    assert (one, one.name, type(one)) == (copies.patients[1], "Ada", Patient)


def test_the_patients_of_a_load_are_made_once(copies: PatientCopies) -> None:
    """And only those that it looks at."""
    patients = PatientsOfLoad(copies)
    assert patients[1] is patients[1]
    assert patients[1] is not PatientsOfLoad(copies)[1]
    assert len(patients) == 2
    assert list(patients) == patients[:] == list(copies.patients)


def test_what_was_left_alone_is_no_change(copies: PatientCopies) -> None:
    """Also of a copy of the copy that came through a pickle, with arrays at other places."""
    patient = copies.fresh(1)
    again = pickle.loads(pickle.dumps(copy.deepcopy(patient)))
    for one in (patient, copy.deepcopy(patient), again, copies.patients[1]):
        assert copies.changes(1, one) is None
        assert copies.is_unchanged(1, one)


def test_a_change_is_only_what_was_changed(copies: PatientCopies) -> None:
    """It makes the hook's patient again out of another process's, which stays as it was."""
    patient = copies.fresh(1)
    records: Any = patient.dict_records
    records["large"] = None
    records["facts"]["list"][1] = "x"
    records["new"] = np.zeros(3)
    del records["small"]
    patient.score = 0.5  # type: ignore[attr-defined]
    changes = copies.changes(1, patient)
    assert changes is not None
    assert changes.removed == ("small",)
    assert set(changes.records) == {"large", "facts", "new"}
    assert changes.attributes == {"score": 0.5}
    there = heavy()
    made = pickle.loads(pickle.dumps(changes)).applied_to(there)
    assert list(made.dict_records) == ["H&E", "large", "facts", "new"]
    assert made.dict_records["facts"]["list"] == [1, "x", (3, None)]
    assert made.dict_records["H&E"] is there.dict_records["H&E"]
    assert (made.score, made.name, made.int_uniqueid) == (0.5, "Ada", 7)
    assert not hasattr(there, "score")
    assert list(there.dict_records) == ["H&E", "small", "large", "facts"]


def test_a_change_inside_a_small_array_or_a_record_is_seen(copies: PatientCopies) -> None:
    """And inside a large one, where it is seen for the first time."""
    patient = copies.fresh(1)
    assert copies.is_unchanged(1, patient)
    records: Any = patient.dict_records
    records["small"][0, 0] = 9
    records["H&E"].dict_infos["seen"] = True
    changes = copies.changes(1, patient)
    assert changes is not None
    assert list(changes.records) == ["H&E", "small"]
    patient = copies.fresh(1)
    patient.dict_records["large"] = np.ones((SIDE, SIDE), np.uint8)
    assert copies.is_unchanged(1, patient)
    other = np.ones((SIDE, SIDE), np.uint8)
    other[-1, -1] = 0
    patient.dict_records["large"] = other
    assert not copies.is_unchanged(1, patient)


def test_another_patient_is_no_change_of_this_one(copies: PatientCopies) -> None:
    """It travels whole, whatever it is; what no process can send is an error of the sender."""
    for other in (Patient(8, {}), None, "nobody"):
        changes = copies.changes(1, other)
        assert changes is not None
        assert changes.applied_to(heavy()) is other
    patient = copies.fresh(1)
    patient.dict_records["lock"] = threading.Lock()
    assert not copies.is_unchanged(1, patient)
    with pytest.raises(PackingError, match="cannot be pickled"):
        copies.changes(1, patient)


class Popping(BigChunkLoader):
    """Takes its mask."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        mask: Any = self.patient.dict_records.pop("small")
        return BigChunk(mask, {"load": int(self.rng.integers(2**62))}, self.patient)


class PoppingToo(SmallChunkCollector):
    """Finds its own, though the BigChunk's is without."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> Any:
        if call_count == 0:
            self.patient.dict_records.pop("small")
        assert "small" not in bigchunk.patient.dict_records
        return SmallChunk(bigchunk.data, {}, bigchunk.dict_info_of_bigchunk, self.patient)


def test_each_load_has_a_patient_of_its_own() -> None:
    """Also with the native classes; what comes back is the dataset's."""
    dataset = Dataset("heavy", [heavy()])
    with LightDL(
        dataset,
        Popping,
        PoppingToo,
        batch_size=4,
        smallchunks_per_bigchunk=4,
        memory_limit="64MiB",
        num_loaders=1,
        num_collectors=1,
    ) as loader:
        loads = set()
        for _ in range(20):
            rows, patients, chunks = loader.get(60)
            loads |= {chunk.dict_info_of_bigchunk["load"] for chunk in chunks}
            assert rows.shape == (4, 2, 3)
            assert all(patient is dataset[0] for patient in patients)
    assert len(loads) > 15
    assert "small" in dataset[0].dict_records
