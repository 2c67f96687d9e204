"""Datasets that were pickled with PyDmed load, as chunkdl's."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chunkdl.dataset.patients import Patient, Record

OLD = """
import pickle, sys, types

class Patient:
    def __init__(self, int_uniqueid, dict_records):
        self.int_uniqueid, self.dict_records = int_uniqueid, dict_records
    def __hash__(self):
        return self.int_uniqueid

class Record:
    def __init__(self, rootdir, relativedir, dict_infos):
        self.rootdir, self.relativedir, self.dict_infos = rootdir, relativedir, dict_infos

class Dataset:
    def __init__(self, str_dsname, list_patients):
        self.str_dsname, self.list_patients = str_dsname, list_patients

for name in ("pydmed", "pydmed.utils", "pydmed.utils.data"):
    sys.modules[name] = types.ModuleType(name)
for kind in (Patient, Record, Dataset):
    kind.__module__ = "pydmed.utils.data"
    setattr(sys.modules["pydmed.utils.data"], kind.__name__, kind)
patients = [Patient(7, {"H&E": Record("/old/", "a.svs", {"x": "40x"}), "label": 1}), Patient(9, {})]
whole = {"train": Dataset("old", patients), "labels": {patients[0]: "seen"}}
with open(sys.argv[1], "wb") as file:
    pickle.dump(whole, file, protocol=int(sys.argv[2]))
"""

NEW = """
import json, pickle, sys
import chunkdl.pydmed
if sys.argv[2] == "alias":
    chunkdl.pydmed.install_alias()
    chunkdl.pydmed.install_alias()
with open(sys.argv[1], "rb") as file:
    whole = pickle.load(file)
import pydmed.utils.data
from pydmed.lightdl import LightDL
assert LightDL is chunkdl.pydmed.lightdl.LightDL
dataset = whole["train"]
for patient in dataset.list_patients:
    for key, record in patient.dict_records.items():
        if isinstance(record, pydmed.utils.data.Record):
            record.rootdir = "/new/"
first, second = pydmed.utils.data.Dataset.splits_from(dataset, [50, 50], seed=0)
record = dataset[0].dict_records["H&E"]
print(json.dumps([
    dataset.str_dsname, [p.name for p in dataset], record.path, record.dict_infos,
    dataset[0].dict_records["label"], whole["labels"][dataset[0]], len(first) + len(second),
    "torch" in sys.modules]))
"""


def python(program: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("protocol", range(6))
def test_a_dataset_of_pydmed_loads(tmp_path: Path, protocol: int) -> None:
    """Of every protocol of pickle: its patients, records and labels, as a program uses them; and
    PyDmed's own import lines work behind the alias."""
    assert python(OLD, tmp_path / "old.pkl", protocol).returncode == 0
    done = python(NEW, tmp_path / "old.pkl", "alias")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        *("old", ["7", "9"], "/new/a.svs", {"x": "40x"}, 1, "seen", 2, False)
    ]


def test_nothing_has_the_name_of_pydmed_without_being_asked(tmp_path: Path) -> None:
    """And PyDmed itself, where it was imported before, is not replaced in silence."""
    python(OLD, tmp_path / "old.pkl", 4)
    assert "No module named 'pydmed'" in python(NEW, tmp_path / "old.pkl", "no").stderr
    done = python(
        "import sys, types; sys.modules['pydmed'] = types.ModuleType('pydmed')\n"
        "import chunkdl.pydmed; chunkdl.pydmed.install_alias()"
    )
    assert "ConfigError: this program has already imported PyDmed itself" in done.stderr


def test_patients_of_chunkdl_survive_a_pickle() -> None:
    """With their names, and what a program has added."""
    patient = Patient(3, {"H&E": Record("/a/", "b.svs", {"mpp": 0.5})}, name="Ada")
    patient.more = 5  # type: ignore[attr-defined]
    for protocol in range(2, 6):
        again = pickle.loads(pickle.dumps(patient, protocol))
        assert vars(again).keys() == {"int_uniqueid", "dict_records", "name", "more"}
        assert (again.name, again.more) == ("Ada", 5)
        assert again.dict_records["H&E"].path == "/a/b.svs"
